//! Logs and leases by the hundred: what Redis finds by halving and writes in part is what memory keeps in a list.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Bench, policy, random};
use limiter_core::Key;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, OperationId, Period, Policy, Quota, Step,
    Verdict,
};
use proptest::collection::vec;
use proptest::strategy::Strategy;

const ACTIONS: usize = 2_500;

/// What is done, to which of those before, for how much, and how long after the one before (ms).
type Turn = (u8, usize, u64, u64);

/// Both stores in one world; what one answers, the other has to.
struct World {
    bench: Bench,
    policy: Policy,
    key: Key,
}

impl World {
    async fn apply(&self, action: Action<'_>) -> Option<Observed> {
        let steps = [Step::new(&self.policy, &self.key, action.clone())];
        let group = Group::new(&steps, &Capabilities::ALL).unwrap();
        let (mut memory, mut redis) = ([Observed::default()], [Observed::default()]);
        let ours = self.bench.memory.apply(&group, &mut memory).await;
        let theirs = self.bench.redis().apply(&group, &mut redis).await;
        let (ours, theirs) = (
            ours.map(|()| memory[0]).map_err(|error| error.kind()),
            theirs.map(|()| redis[0]).map_err(|error| error.kind()),
        );
        let said = |observed: Observed| {
            let Observed {
                verdict,
                used,
                reset_after,
                charged,
                mark,
                ..
            } = observed;
            (verdict, used, reset_after, charged, mark, observed.replayed)
        };
        assert_eq!(
            theirs.map(said),
            ours.map(said),
            "Redis, then memory: {action:?}"
        );
        ours.ok()
    }

    async fn step_back(&self, millis: u64) {
        let earlier = self.bench.now().as_micros() - 1_000 * millis;
        self.bench.set(Timestamp::from_micros(earlier)).await;
    }

    async fn advance(&self, millis: u64) {
        let later = self
            .bench
            .now()
            .saturating_add(Duration::from_millis(millis));
        self.bench.set(later).await;
    }
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    // Mostly single units, so that many fit; a window or a life goes by a few times in all.
    let cost = (0..10_u64).prop_map(|drawn| if drawn < 8 { 1 } else { drawn - 6 });
    vec((0..20_u8, 0..1_000_usize, cost, 0..80_u64), ACTIONS)
}

/// Does random turns in a world of a quota.
fn play(quota: Quota, play: impl AsyncFn(&World, Vec<Turn>)) {
    let config = proptest::test_runner::Config {
        max_shrink_iters: 50,
        ..random::config(3)
    };
    random::check(&config, &turns(), |turns: Vec<Turn>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let world = World {
                bench: Bench::new().await,
                policy: policy(Ok(quota)),
                key: Key::new(["ratelimit", "large"]),
            };
            play(&world, turns).await;
        });
        Ok(())
    });
}

/// Charges, reservations settled to less, more or nothing, peeks of all sizes.
#[test]
fn a_long_log_is_the_same_in_both() {
    let quota = Quota::sliding_log(400, Period::MINUTE).unwrap();
    let ttl = Duration::from_secs(3_600);
    play(quota, async |world, turns| {
        let mut reserved = Vec::new();
        for (index, (action, pick, cost, millis)) in turns.into_iter().enumerate() {
            // So that most entries leave in the end.
            world.advance(3 * millis).await;
            // Of the newest ones mostly.
            let recent = reserved.len().saturating_sub(1 + pick % 400);
            let known: Option<&OperationId> = reserved.get(recent);
            match (action, known) {
                (0..8, _) => drop(world.apply(Action::Charge { cost }).await),
                (8..14, _) => {
                    let id = OperationId::new(format!("{index}"));
                    let reserve = Action::Reserve {
                        id: &id,
                        estimate: cost,
                        ttl,
                    };
                    world.apply(reserve).await;
                    reserved.push(id);
                }
                (14..16, Some(id)) => drop(world.apply(Action::Cancel { id, ttl }).await),
                (16..18, Some(id)) => {
                    let actual = (cost + 1) % 4;
                    world.apply(Action::Settle { id, actual }).await;
                }
                _ => drop(world.apply(Action::Peek { cost: pick as u64 }).await),
            }
        }
    });
}

/// Leases of 1, and of more, taken, renewed and released; peeks of all sizes.
#[test]
fn many_leases_are_the_same_in_both() {
    let quota = Quota::concurrency(1_200).unwrap();
    play(quota, async |world, turns| {
        let mut held = Vec::new();
        for (index, (action, pick, cost, millis)) in turns.into_iter().enumerate() {
            match index {
                // Hundreds have run out at once.
                600 | 1_800 => world.advance(60_000).await,
                _ if index % 100 == 99 => world.step_back(100 * millis).await,
                _ => world.advance(millis).await,
            }
            // All of 1 in the first half.
            let cost = if index < ACTIONS / 2 { 1 } else { cost };
            let ttl = Duration::from_millis(30_000 + 100 * pick as u64);
            let known = held.get(held.len().saturating_sub(1 + pick));
            match (action, known) {
                (0..14, _) => {
                    // Some ids are taken again: what is held, was released, or has run out.
                    let lease = known.filter(|_| action == 0).cloned();
                    let lease = lease.unwrap_or_else(|| OperationId::new(format!("{index}")));
                    let acquire = Action::Acquire {
                        lease: &lease,
                        cost,
                        ttl,
                    };
                    world.apply(acquire).await;
                    held.push(lease);
                }
                (14..16, Some(lease)) => drop(world.apply(Action::Renew { lease, ttl }).await),
                (16..18, Some(lease)) => drop(world.apply(Action::Release { lease, ttl }).await),
                _ => drop(world.apply(Action::Peek { cost: pick as u64 }).await),
            }
        }
    });
}

/// I-H6, but not to the unit: a denial looks at 24 leases where costs differ, and takes each of the others for one of 1. So it
/// never speaks of too early a moment, and of the earliest one if so many had to end, or fewer.
#[test]
fn a_denial_among_many_leases_is_never_too_early() {
    let lease = (1..5_u64, 0..2_u8, 1_000..60_000_u64);
    let leases = (vec(lease, 1..200), vec(1..400_u64, 20));
    random::check(
        &random::config(20),
        &leases,
        |(leases, costs): (Vec<_>, Vec<u64>)| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            // Half of the leases cost 1; and a fifth of the sets has no others.
            let plain = leases.len() % 5 == 0;
            let leases = leases.into_iter().map(|(cost, high, millis)| {
                (
                    Duration::from_millis(millis),
                    if plain || high == 0 { 1 } else { cost },
                )
            });
            let mut leases: Vec<(Duration, u64)> = leases.collect();
            let held = leases.iter().map(|(_, cost)| cost).sum();
            runtime.unwrap().block_on(async {
                let world = World {
                    bench: Bench::new().await,
                    policy: policy(Quota::concurrency(held)),
                    key: Key::new(["ratelimit", "denied"]),
                };
                for (index, (ttl, cost)) in leases.iter().enumerate() {
                    let acquire = Action::Acquire {
                        lease: &OperationId::new(format!("{index}")),
                        cost: *cost,
                        ttl: *ttl,
                    };
                    world.apply(acquire).await.unwrap();
                }
                leases.sort_unstable();
                for cost in costs.into_iter().filter(|cost| *cost <= held) {
                    let peeked = world.apply(Action::Peek { cost }).await.unwrap();
                    let Verdict::Deny { retry_after } = peeked.verdict else {
                        panic!("{peeked:?}");
                    };
                    let ended = leases.iter().filter(|(end, _)| *end <= retry_after);
                    let free: u64 = ended.map(|(_, cost)| cost).sum();
                    assert!(free >= cost, "{cost}: {retry_after:?}");
                    let mut sum = 0;
                    let enough = leases.iter().position(|(_, unit)| {
                        sum += unit;
                        sum >= cost
                    });
                    let enough = enough.unwrap();
                    if plain || enough < 24 {
                        assert_eq!(retry_after, leases[enough].0, "{cost}");
                    }
                }
            });
            Ok(())
        },
    );
}
