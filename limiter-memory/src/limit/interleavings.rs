//! Many interleavings of threads that share the table, by shuttle: `scripts/interleavings.sh`. A failure
//! prints the schedule, which `shuttle::replay` runs again.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use limiter_core::Key;
use limiter_core::clock::ManualClock;
use limiter_core::limit::{Action, OPERATION_TTL, OperationId, Period, Policy, Quota};
use shuttle::thread;

use super::*;

/// Half of them with a few preemptions at the worst places (PCT), half with many anywhere.
fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_pct(test.clone(), 1_500, 3);
    shuttle::check_random(test, 1_500);
}

fn store(keys: usize, overflow: Overflow) -> MemoryStore {
    let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_000_000));
    let config = MemoryConfig::default().with_keys(keys).unwrap();
    MemoryStore::with_config(&config.with_overflow(overflow).with_clock(clock))
}

fn policy(limit: u64) -> Policy {
    Policy::new("p", Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
}

/// Keys in ascending shards, whatever the process's fingerprints are, so that locks are taken in the same order in
/// every run and a schedule can be replayed.
fn keys<const N: usize>() -> [Key; N] {
    let mut names = 0..;
    let mut last = None;
    std::array::from_fn(|index| {
        // Each in a part of its own.
        let part = 256 / N;
        let here = |key: &Key| {
            let shard = shard_of(key.fingerprint());
            shard / part == index && last.is_none_or(|last| shard > last)
        };
        let key = names
            .by_ref()
            .map(|name: u32| Key::new(["ratelimit", &name.to_string()]))
            .find(here)
            .unwrap();
        last = Some(shard_of(key.fingerprint()));
        key
    })
}

fn apply(
    store: &MemoryStore,
    steps: &[Step<'_>],
    operation: Option<&OperationId>,
) -> Result<Vec<Observed>, Error> {
    let capabilities = store.capabilities();
    let mut group = Group::new(steps, &capabilities).unwrap();
    if let Some(id) = operation {
        group = group
            .with_operation(id, OPERATION_TTL, &capabilities)
            .unwrap();
    }
    let mut observed = vec![Observed::default(); steps.len()];
    store.try_apply_now(&group, &mut observed).unwrap()?;
    Ok(observed)
}

/// Whether a charge of 1 to each key was admitted.
fn charge(store: &MemoryStore, policy: &Policy, keys: &[&Key]) -> bool {
    let steps: Vec<Step<'_>> = keys
        .iter()
        .map(|key| Step::new(policy, key, Action::Charge { cost: 1 }))
        .collect();
    let observed = apply(store, &steps, None).unwrap();
    observed.iter().all(Observed::is_admitted)
}

fn used(store: &MemoryStore, policy: &Policy, key: &Key) -> u64 {
    let steps = [Step::new(policy, key, Action::Peek { cost: 0 })];
    apply(store, &steps, None).unwrap()[0].used
}

/// I-H5, I-R1: groups whose keys cross neither wait for each other, nor charge in part, nor pass the limit.
#[test]
fn groups_that_cross_are_whole() {
    let [a, b, c] = keys();
    let shards = [&a, &b, &c].map(|key| shard_of(key.fingerprint()));
    assert!(shards[0] != shards[1] && shards[1] != shards[2] && shards[2] != shards[0]);

    explore(|| {
        let store = store(1_000, Overflow::Refuse);
        let orders: [&[usize]; 4] = [&[0, 1], &[1, 2], &[2, 0], &[2, 1, 0]];
        let threads: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let store = store.clone();
                thread::spawn(move || {
                    let (policy, keys) = (policy(2), keys::<3>());
                    let group: Vec<&Key> = order.iter().map(|index| &keys[*index]).collect();
                    let mut admitted = [0; 3];
                    if charge(&store, &policy, &group) {
                        order.iter().for_each(|index| admitted[*index] += 1);
                    }
                    // One alone takes another way through the code.
                    let alone = order[0];
                    admitted[alone] += u64::from(charge(&store, &policy, &[&keys[alone]]));
                    admitted
                })
            })
            .collect();
        let mut admitted = [0; 3];
        for thread in threads {
            for (sum, part) in admitted.iter_mut().zip(thread.join().unwrap()) {
                *sum += part;
            }
        }
        for (key, admitted) in keys::<3>().iter().zip(admitted) {
            assert!(admitted <= 2, "{key}: {admitted} of 2");
            assert_eq!(used(&store, &policy(2), key), admitted, "{key}");
        }
    });
}

/// I-R4: of a settlement and a cancellation that meet, one wins, and its amount stands.
#[test]
fn a_reservation_ends_once() {
    explore(|| {
        let (store, policy, [key]) = (store(1_000, Overflow::Refuse), policy(10), keys());
        let id = OperationId::new("r");
        let ttl = Duration::from_secs(60);
        let reserve = Action::Reserve {
            id: &id,
            estimate: 5,
            ttl,
        };
        apply(&store, &[Step::new(&policy, &key, reserve)], None).unwrap();
        let end = |settles: bool| {
            let (store, policy, key, id) = (store.clone(), policy.clone(), key.clone(), id.clone());
            thread::spawn(move || {
                let action = if settles {
                    Action::Settle { id: &id, actual: 7 }
                } else {
                    Action::Cancel { id: &id, ttl }
                };
                apply(&store, &[Step::new(&policy, &key, action)], None).is_ok()
            })
        };
        let ends = [end(true), end(false), end(true)].map(|thread| thread.join().unwrap());
        let [settled, cancelled, settled_again] = ends;
        assert_eq!(settled, settled_again);
        assert_ne!(settled, cancelled);
        assert_eq!(used(&store, &policy, &key), if settled { 7 } else { 0 });
    });
}

/// One operation from many threads is one charge, and all of them are told of it.
#[test]
fn an_operation_charges_once() {
    explore(|| {
        let (store, policy) = (store(1_000, Overflow::Refuse), policy(10));
        let threads: Vec<_> = [[0, 1], [1, 0], [0, 1]]
            .into_iter()
            .enumerate()
            .map(|(index, order)| {
                let (store, policy) = (store.clone(), policy.clone());
                thread::spawn(move || {
                    let keys = keys::<2>();
                    let steps = order
                        .map(|index| Step::new(&policy, &keys[index], Action::Charge { cost: 3 }));
                    // The second is another group, and so another operation.
                    let id = OperationId::new(if index == 1 { "other" } else { "same" });
                    let observed = apply(&store, &steps, Some(&id)).unwrap();
                    observed
                        .iter()
                        .map(|observed| observed.charged)
                        .sum::<u64>()
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 6);
        }
        for key in keys::<2>() {
            assert_eq!(used(&store, &policy, &key), 6);
        }
    });
}

/// A full table: who comes late shares a counter, every charge is in one of the two, and neither passes
/// the limit.
#[test]
fn an_overflow_is_counted() {
    let all: [Key; 3] = keys();

    explore(move || {
        let store = store(1, Overflow::Share);
        let threads: Vec<_> = [[0, 1], [1, 2], [2, 0]]
            .into_iter()
            .map(|order| {
                let (store, keys) = (store.clone(), all.clone());
                thread::spawn(move || {
                    let group = order.map(|index| &keys[index]);
                    u64::from(charge(&store, &policy(3), &group))
                })
            })
            .collect();
        let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
        let admitted: u64 = admitted.sum();
        assert_eq!(store.len(), 2);
        let has_its_own = |key: &&Key| {
            let fingerprint = key.fingerprint();
            let shard = store.table.lock(shard_of(fingerprint));
            shard.get(fingerprint).is_some()
        };
        let (own, shared): (Vec<&Key>, Vec<&Key>) = all.iter().partition(has_its_own);
        let [own, shared] = [own[0], shared[0]].map(|key| used(&store, &policy(3), key));
        assert_eq!(own + shared, 2 * admitted);
        assert!(own <= 3 && shared <= 3, "{own} and {shared} of 3");
    });
}
