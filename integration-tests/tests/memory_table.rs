//! The bounded table of the memory store: it holds what it may hold and never forgets a counter to
//! make room (limitador#466).
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::collections::BTreeMap;
use std::time::Duration;

use integration_tests::policy;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::limit::{
    Action, Charge, Decision, Group, LimitStore, Limiter, Observed, Outage, Outcome, Period,
    Policy, Quota, Source, Step,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use limiter_memory::{MemoryConfig, MemoryStore, Overflow};

const LIMIT: u64 = 5;

/// Few keys, and many in comparison with a flood of one policy.
const ROOM: usize = 1_024;

/// More keys than have room, so that every shard is full.
const FLOOD: usize = 20_000;

struct Table {
    store: MemoryStore,
    limiter: Limiter,
    clock: ManualClock,
}

impl Table {
    fn new(keys: usize, overflow: Overflow) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        let config = MemoryConfig::default()
            .with_keys(keys)
            .unwrap()
            .with_overflow(overflow)
            .with_clock(clock.clone());
        let store = MemoryStore::with_config(&config);
        let limiter = Limiter::new(store.clone());
        Self {
            store,
            limiter,
            clock,
        }
    }

    async fn check(&self, policy: &Policy, key: usize) -> Result<Decision, Error> {
        self.limiter.try_check(policy, &key_of(key)).await
    }

    /// Charges every key of a flood once; what each admitted one answered.
    async fn flood(&self, policy: &Policy) -> BTreeMap<usize, Decision> {
        let mut answered = BTreeMap::new();
        for key in 0..FLOOD {
            match self.check(policy, key).await {
                Ok(decision) => {
                    answered.insert(key, decision);
                }
                Err(error) => {
                    let kind = (error.kind(), error.effect());
                    assert_eq!(kind, (ErrorKind::Capacity, Effect::No), "{error}");
                    assert!(error.message().contains("with_keys"), "{error}");
                }
            }
        }
        answered
    }

    /// How many of some keys that were never seen are let in.
    async fn flood_of_strangers(&self, policy: &Policy) -> usize {
        let mut let_in = 0;
        for key in FLOOD..FLOOD + 2_000 {
            let_in += usize::from(self.check(policy, key).await.is_ok());
        }
        let_in
    }
}

fn key_of(key: usize) -> Key {
    Key::new(["ratelimit", "flood", &key.to_string()])
}

fn policies() -> [Policy; 3] {
    [
        policy(Quota::fixed_window(LIMIT, Period::MINUTE)),
        policy(Quota::sliding_window(LIMIT, Period::MINUTE)),
        policy(Quota::token_bucket(LIMIT, LIMIT, Period::MINUTE)),
    ]
}

#[tokio::test]
async fn a_full_table_refuses_new_keys_and_keeps_the_old() {
    for policy in policies() {
        let table = Table::new(ROOM, Overflow::Refuse);
        let health = table.limiter.health().await;
        assert!(
            health.message.contains(&format!("0 of {ROOM} keys;")),
            "{health:?}"
        );
        let held = table.flood(&policy).await;
        assert_eq!(
            (held.len(), table.store.len()),
            (ROOM, ROOM),
            "{}",
            policy.name()
        );
        assert!(held.values().all(|decision| decision.used == 1));
        // In the middle of a flood every held key counts on, to its limit.
        for used in 2..=LIMIT {
            for key in held.keys() {
                let decision = table.check(&policy, *key).await.unwrap();
                assert_eq!(decision.used, used, "{} {key}", policy.name());
            }
            assert_eq!(table.flood_of_strangers(&policy).await, 0);
        }
        for key in held.keys() {
            assert!(!table.check(&policy, *key).await.unwrap().is_allowed());
        }
        // A look needs no room.
        let stranger = table.limiter.peek(&policy, &key_of(FLOOD)).await.unwrap();
        assert!(stranger.is_allowed() && stranger.used == 0);
        assert_eq!(table.store.len(), ROOM);
        let health = table.limiter.health().await;
        assert!(health.message.contains("nearly full"), "{health:?}");
    }
}

/// What no longer counts makes room, and only that.
#[tokio::test]
async fn fresh_entries_make_room() {
    for policy in policies() {
        let table = Table::new(ROOM, Overflow::Refuse);
        let held = table.flood(&policy).await;
        // One key of each shard at most stays busy; a sliding window counts for two of its lengths.
        let busy: Vec<usize> = held.keys().copied().take(100).collect();
        for _ in 0..3 {
            table.clock.advance(Duration::from_secs(50));
            for key in &busy {
                table.check(&policy, *key).await.unwrap();
            }
        }
        let before = table.check(&policy, busy[0]).await.unwrap().used;
        let let_in = table.flood_of_strangers(&policy).await;
        assert!(let_in > ROOM / 2, "{}: {let_in}", policy.name());
        assert!(table.store.len() <= ROOM, "{}", table.store.len());
        let after = table.check(&policy, busy[0]).await.unwrap().used;
        assert_eq!(
            after,
            before + 1,
            "{}: a busy key was dropped",
            policy.name()
        );
    }
}

/// Without room, the new keys of one policy share one counter: exact, for all of them together.
#[tokio::test]
async fn new_keys_share_a_counter_if_they_may() {
    for policy in policies() {
        let table = Table::new(ROOM, Overflow::Share);
        let answered = table.flood(&policy).await;
        assert_eq!(answered.len(), FLOOD);
        let admitted = answered
            .values()
            .filter(|decision| decision.is_allowed())
            .count();
        // One of the entries is the shared one.
        let own = table.store.len() - 1;
        assert!(own == ROOM || own == ROOM - 1, "{own}");
        assert_eq!(
            admitted,
            own + usize::try_from(LIMIT).unwrap(),
            "{}",
            policy.name()
        );
        // Another policy's new keys share another.
        let other = Policy::new("other", *policy.quota()).unwrap();
        let mut admitted = 0;
        for key in FLOOD..FLOOD + 100 {
            admitted += u64::from(table.check(&other, key).await.unwrap().is_allowed());
        }
        assert_eq!(admitted, LIMIT);
        assert!(table.store.len() <= ROOM + 2, "{}", table.store.len());
        let first = table.check(&policy, 0).await.unwrap();
        assert_eq!(first.used, 2, "{}: held keys count on", policy.name());
    }
}

/// I-H2: a group's new keys that share a counter count together there.
#[tokio::test]
async fn a_group_of_sharing_keys_does_not_pass_the_limit() {
    for policy in policies() {
        let table = Table::new(ROOM, Overflow::Share);
        table.flood(&policy).await;
        let other = Policy::new("other", *policy.quota()).unwrap();
        let (one, two) = (key_of(FLOOD + 1), key_of(FLOOD + 2));
        let group = [
            Charge::new(&other, &one).with_cost(3),
            Charge::new(&other, &two).with_cost(3),
        ];
        let decision = table.limiter.check_all(&group).await;
        assert!(!decision.is_allowed(), "{}: {decision:?}", policy.name());
        let alone = table.limiter.try_check(&other, &one).await.unwrap();
        assert_eq!(alone.used, 1, "{}: the group took nothing", policy.name());
    }
}

/// I-H5 at the edge of the table: also when the first of the group's new keys finds room and a later
/// one does not.
#[tokio::test]
async fn a_group_without_room_charges_nothing() {
    let [policy, ..] = policies();
    let keys: Vec<Key> = (0..40).map(key_of).collect();
    let group: Vec<_> = keys.iter().map(|key| Charge::new(&policy, key)).collect();
    for room in [1, 20, 39] {
        let table = Table::new(room, Overflow::Refuse);
        let error = table.limiter.try_check_all(&group).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Capacity, Effect::No)
        );
        assert_eq!(table.store.len(), 0, "nothing was charged");
    }
    let table = Table::new(40, Overflow::Refuse);
    table.limiter.try_check_all(&group).await.unwrap();
    assert_eq!(table.store.len(), 40);
}

/// The bound is what it says: exactly so many keys, also few, and no more.
#[tokio::test]
async fn the_bound_is_exact() {
    for policy in policies() {
        for room in [1, 5, 100, 1_000] {
            let table = Table::new(room, Overflow::Refuse);
            for key in 0..room {
                let first = table.check(&policy, key).await.unwrap();
                assert_eq!(first.used, 1, "{} of {room}", key + 1);
            }
            for key in room..room + 50 {
                let refused = table.check(&policy, key).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Capacity, "{room} and one more");
            }
            assert_eq!(table.store.len(), room);
            // One goes, and one comes, wherever it lives.
            for key in 0..room.min(20) {
                table.limiter.reset(&policy, &key_of(key)).await.unwrap();
                table.check(&policy, FLOOD + key).await.unwrap();
                table.check(&policy, 2 * FLOOD).await.unwrap_err();
            }
            // All are over, and as many find room again.
            table.clock.advance(Duration::from_secs(600));
            for key in 3 * FLOOD..3 * FLOOD + room {
                table.check(&policy, key).await.unwrap();
            }
            table.check(&policy, 4 * FLOOD).await.unwrap_err();
        }
    }
}

/// Many threads fill it, and together they do not pass the bound.
#[test]
fn the_bound_holds_for_many_threads() {
    const ROOM: usize = 5_000;
    let config = MemoryConfig::default().with_keys(ROOM).unwrap();
    let store = MemoryStore::with_config(&config);
    let policy = policy(Quota::fixed_window(LIMIT, Period::DAY));
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (store, policy) = (store.clone(), policy.clone());
                scope.spawn(move || {
                    let capabilities = store.capabilities();
                    let mut admitted = 0;
                    for key in 0..ROOM / 2 {
                        let key = key_of(thread * ROOM + key);
                        let steps = [Step::new(&policy, &key, Action::Charge { cost: 1 })];
                        let group = Group::new(&steps, &capabilities).unwrap();
                        let answer = store.try_apply_now(&group, &mut [Observed::default()]);
                        admitted += usize::from(answer.unwrap().is_ok());
                    }
                    admitted
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!((admitted, store.len()), (ROOM, ROOM));
}

/// I-C2: a clock that steps back does not stop the sweeps until it is there again.
#[tokio::test]
async fn a_clock_that_steps_back_does_not_stop_the_sweeps() {
    let [policy, ..] = policies();
    let table = Table::new(100, Overflow::Refuse);
    for key in 0..100 {
        table.check(&policy, key).await.unwrap();
    }
    table.check(&policy, 100).await.unwrap_err();
    // The windows are over, an hour before the last sweep.
    let start = table.clock.now();
    table.clock.advance(Duration::from_secs(7_200));
    table.check(&policy, 101).await.unwrap();
    for key in 200..299 {
        table.check(&policy, key).await.unwrap();
    }
    table.check(&policy, 300).await.unwrap_err();
    table
        .clock
        .set(start.saturating_add(Duration::from_secs(3_600)));
    table.check(&policy, 300).await.unwrap_err();
    table.clock.advance(Duration::from_secs(3_661));
    for key in 400..500 {
        table.check(&policy, key).await.unwrap();
    }
}

/// C2: a full table is an outage to a policy: one that allows admits the new key, and says so.
#[tokio::test]
async fn a_full_table_allows_what_allows_in_an_outage() {
    for policy in policies() {
        let table = Table::new(10, Overflow::Refuse);
        for key in 0..10 {
            table.check(&policy, key).await.unwrap();
        }
        let allow = policy.clone().with_outage(Outage::Allow);
        let allowed = table.check(&allow, 10).await.unwrap();
        assert!(allowed.is_allowed() && allowed.degraded && !allowed.seen);
        assert_eq!(allowed.source, Source::Outage);
        let denied = table.limiter.check(&policy, &key_of(10)).await;
        let kind = ErrorKind::Capacity;
        assert_eq!(denied.outcome, Outcome::Unavailable { kind });
        let known = table.check(&allow, 3).await.unwrap();
        assert!(!known.degraded && known.used == 2);
    }
}

/// What new keys charged on their shared counter is given back there: never to a counter that has room by then.
#[tokio::test]
async fn a_shared_charge_is_given_back_where_it_was_made() {
    for policy in policies() {
        let table = Table::new(10, Overflow::Share);
        let new = key_of(10);
        for key in 0..10 {
            table.check(&policy, key).await.unwrap();
        }
        let charge = [Charge::new(&policy, &new).with_cost(3)];
        let (decision, charged) = table.limiter.charge(&charge).await.unwrap();
        assert_eq!(decision.decisions[0].used, 3);
        let next = table.limiter.try_check_n(&policy, &key_of(11), 3).await;
        assert!(!next.unwrap().is_allowed(), "three of five are taken");
        // Now there is room for the key itself, and for what is remembered of the refund, beside the shared counter.
        for key in 0..3 {
            table.limiter.reset(&policy, &key_of(key)).await.unwrap();
        }
        let fresh = table.check(&policy, 10).await.unwrap();
        assert_eq!(fresh.used, 1, "{}", policy.name());
        charged.unwrap().refund().await.unwrap();
        let mine = table.limiter.peek(&policy, &new).await.unwrap();
        assert_eq!(
            mine.used,
            1,
            "{}: nothing of its own came back",
            policy.name()
        );
        // And the shared one has room again.
        let other = table.check(&policy, 12).await.unwrap();
        assert_eq!(other.used, 1, "{}", policy.name());
    }
}

#[tokio::test]
async fn a_held_key_is_not_charged_with_one_that_has_no_room() {
    for policy in policies() {
        let table = Table::new(ROOM, Overflow::Refuse);
        let held = table.flood(&policy).await;
        let old = key_of(*held.keys().next().unwrap());
        let new = key_of(FLOOD);
        for group in [[&old, &new], [&new, &old]] {
            let charges = group.map(|key| Charge::new(&policy, key));
            table.limiter.try_check_all(&charges).await.unwrap_err();
        }
        let used = table.limiter.peek(&policy, &old).await.unwrap().used;
        assert_eq!(used, 1, "{}", policy.name());
    }
}

/// What a sweep frees can be taken at once, and is counted.
#[tokio::test]
async fn what_is_swept_makes_room_in_its_own_shard() {
    let table = Table::new(400, Overflow::Refuse);
    let short = policy(Quota::fixed_window(LIMIT, Period::SECOND));
    let long = policy(Quota::fixed_window(LIMIT, Period::DAY));
    for round in 0..4 {
        // In shards as they come: most hold a few, and the short ones end.
        for key in 0..400 {
            let policy = if key % 2 == 0 { &short } else { &long };
            let key = policy.key([format!("{round}-{key}")]);
            table.limiter.try_check(policy, &key).await.unwrap();
        }
        table.clock.advance(Duration::from_secs(2));
        for key in 0..200 {
            let key = long.key([format!("{round}-new-{key}")]);
            let check = table.limiter.try_check(&long, &key).await;
            assert!(check.is_ok(), "{round}: {check:?}");
        }
        assert_eq!(table.store.len(), 400);
        table.clock.advance(Duration::from_secs(2 * 86_400));
    }
}

/// An entry that has ended is no room for two: a group that revives it and adds another one stays within the bound.
#[tokio::test]
async fn a_group_does_not_pass_the_bound() {
    let table = Table::new(2, Overflow::Refuse);
    let short = policy(Quota::fixed_window(LIMIT, Period::SECOND));
    let long = policy(Quota::fixed_window(LIMIT, Period::DAY));
    table.check(&short, 0).await.unwrap();
    table.check(&long, 1).await.unwrap();
    table.clock.advance(Duration::from_secs(2));
    let (ended, new) = (key_of(0), key_of(2));
    let group = [Charge::new(&short, &ended), Charge::new(&long, &new)];
    let refused = table.limiter.try_check_all(&group).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Capacity);
    assert!(table.store.len() <= 2, "{}", table.store.len());
    // There is room for one of them.
    table.limiter.try_check_all(&group[1..]).await.unwrap();
    assert_eq!(table.store.len(), 2);
}

/// Keys without room share a counter, from which each debit would take all.
#[tokio::test]
async fn debits_of_one_shared_counter_are_refused() {
    let table = Table::new(10, Overflow::Share);
    let day = policy(Quota::fixed_window(LIMIT, Period::DAY));
    for key in 0..10 {
        table.check(&day, key).await.unwrap();
    }
    let debit = Action::Debit {
        at_most: LIMIT,
        life: Duration::from_secs(60),
    };
    let (one, other) = (key_of(20), key_of(21));
    let steps = [&one, &other].map(|key| Step::new(&day, key, debit.clone()));
    let apply = |steps: &[Step<'_>]| {
        let group = Group::new(steps, &table.store.capabilities()).unwrap();
        let mut observed = vec![Observed::default(); steps.len()];
        let result = table.store.try_apply_now(&group, &mut observed).unwrap();
        result.map(|()| observed[0].charged)
    };
    assert_eq!(apply(&steps).unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(apply(&steps[..1]).unwrap(), LIMIT);
    assert_eq!(apply(&steps[1..]).unwrap(), 0);
}

/// Each key has a lease of its own there, though one acquisition names them alike.
#[tokio::test]
async fn leases_of_one_shared_counter_are_held_each() {
    let table = Table::new(10, Overflow::Share);
    let day = policy(Quota::fixed_window(LIMIT, Period::DAY));
    for key in 0..10 {
        table.check(&day, key).await.unwrap();
    }
    let streams = policy(Quota::concurrency(3));
    let (one, other) = (key_of(20), key_of(21));
    let ttl = Duration::from_secs(60);
    let both = [Charge::new(&streams, &one), Charge::new(&streams, &other)];
    let held = table.limiter.acquire(&both, ttl).await.unwrap().held();
    let used = async || table.limiter.peek(&streams, &one).await.unwrap().used;
    assert_eq!(used().await, 2);
    let denied = table.limiter.acquire(&both, ttl).await.unwrap().held();
    assert!(denied.is_none());
    let third = table.limiter.acquire(&both[..1], ttl).await.unwrap().held();
    assert_eq!(used().await, 3);
    held.unwrap().release().await.unwrap();
    assert_eq!(used().await, 1);
    third.unwrap().release().await.unwrap();
    assert_eq!(used().await, 0);
}
