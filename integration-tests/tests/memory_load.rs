//! The memory store under load: it does not grow with the keys that were ever seen (known fault:
//! governor#171), and groups from many threads neither wait for each other for ever nor lose a charge.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::mpsc;
use std::time::Duration;

use integration_tests::policy;
use limiter_core::Key;
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::limit::{Charge, Limiter, Period, Quota};
use limiter_memory::{MemoryConfig, MemoryStore, Overflow};

fn key_of(key: usize) -> Key {
    Key::new(["ratelimit", "load", &key.to_string()])
}

/// A hundred keys count at a time; two hundred thousand come and go.
#[tokio::test]
async fn memory_follows_the_keys_that_count() {
    for overflow in [Overflow::Refuse, Overflow::Share] {
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        let config = MemoryConfig::default().with_overflow(overflow);
        let store = MemoryStore::with_config(&config.with_clock(clock.clone()));
        let limiter = Limiter::new(store.clone());
        let policy = policy(Quota::fixed_window(5, Period::SECOND));
        let mut most = 0;
        for key in 0..200_000 {
            clock.advance(Duration::from_millis(10));
            let decision = limiter.try_check(&policy, &key_of(key)).await.unwrap();
            assert_eq!(decision.used, 1);
            if key % 1_000 == 0 {
                most = most.max(store.len());
            }
        }
        // Each of 256 shards waits for 64 entries before it sweeps.
        assert!(most <= 256 * 64, "{most}");
    }
}

/// Groups over the same keys in all orders, from many threads: no deadlock, and exact sums.
#[test]
fn groups_from_many_threads_end_and_add_up() {
    const THREADS: usize = 8;
    const KEYS: usize = 12;
    const GROUPS: usize = 3_000;
    for overflow in [Overflow::Refuse, Overflow::Share] {
        let config = MemoryConfig::default().with_overflow(overflow);
        let limiter = Limiter::new(MemoryStore::with_config(&config));
        let policy = policy(Quota::fixed_window(1_000_000, Period::DAY));
        let (sender, receiver) = mpsc::channel();
        for thread in 0..THREADS {
            let (limiter, policy, sender) = (limiter.clone(), policy.clone(), sender.clone());
            std::thread::spawn(move || {
                let keys: Vec<Key> = (0..KEYS).map(key_of).collect();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for group in 0..GROUPS {
                        let mut charges: Vec<_> = (0..4)
                            .map(|step| &keys[(group + step * (1 + thread)) % KEYS])
                            .map(|key| Charge::new(&policy, key))
                            .collect();
                        if thread % 2 == 1 {
                            charges.reverse();
                        }
                        assert!(limiter.try_check_all(&charges).await.unwrap().is_allowed());
                    }
                });
                sender.send(()).unwrap();
            });
        }
        for _ in 0..THREADS {
            receiver
                .recv_timeout(Duration::from_secs(30))
                .expect("a thread hangs or failed");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut sum = 0;
        for key in 0..KEYS {
            sum += runtime
                .block_on(limiter.peek(&policy, &key_of(key)))
                .unwrap()
                .used;
        }
        assert_eq!(sum, (THREADS * GROUPS * 4) as u64);
    }
}
