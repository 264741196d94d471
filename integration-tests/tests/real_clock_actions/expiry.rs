//! I-H8: every key that any action makes has an expiry, and not a longer one than it is of use.

use std::time::Duration;

use integration_tests::{policy, ten_years};
use limiter_core::limit::{Action, Calendar, Period, Quota, Receipt};

use crate::{FLOOR, HOUR, TTL, World, acquire, id};

/// Of each action on each algorithm: every key that it makes has an expiry, and none a longer one
/// than the state or the record counts.
#[tokio::test]
async fn every_key_has_a_bounded_expiry() {
    const SLACK: Duration = Duration::from_secs(1);
    let minute = Duration::from_secs(60);
    let two_hours = 2 * HOUR;
    for (quota, longest) in [
        (Quota::fixed_window(5, Period::HOUR), HOUR),
        (Quota::calendar_window(5, Calendar::Hour), HOUR),
        (Quota::sliding_window(5, Period::HOUR), two_hours),
        (
            Quota::sliding_window(5, ten_years()),
            2 * ten_years().as_duration(),
        ),
        (Quota::sliding_log(5, Period::HOUR), HOUR),
        (Quota::sliding_log(5, Period::SECOND), FLOOR),
        // A settled reservation may owe as much again.
        (Quota::token_bucket(5, 5, Period::HOUR), two_hours),
        (Quota::token_bucket(5, 5, Period::SECOND), FLOOR),
    ] {
        let mut world = World::new();
        let policy = policy(quota);
        let (held, settled, operation) = (id("held"), id("settled"), id("operation"));
        let charge = Action::Charge { cost: 1 };
        let charged = world.apply(&policy, charge.clone()).await.result.unwrap();
        let receipt = Receipt::new(id("charge"), charged.mark, charged.charged);
        let remembered = Some((&operation, minute));
        let reserve = |id| Action::Reserve {
            id,
            estimate: 1,
            ttl: two_hours,
        };
        let actions = [
            (Action::Refund { receipt: &receipt }, None),
            (charge, remembered),
            (reserve(&held), None),
            (reserve(&settled), None),
            (
                Action::Settle {
                    id: &settled,
                    actual: 100,
                },
                None,
            ),
            (
                Action::Cancel {
                    id: &held,
                    ttl: two_hours,
                },
                None,
            ),
            (Action::Peek { cost: 1 }, None),
        ];
        for (action, operation) in actions {
            let what = action.as_str();
            let answer = world.apply_as(&policy, action, operation).await;
            let observed = answer.result.unwrap();
            if what == "refund" && longest >= HOUR {
                // Found again, though Redis tells a window's end a moment later each time.
                assert_eq!((observed.used, observed.charged), (0, 0), "{policy:?}");
            }
            bounded(&world, what, |name| match name {
                name if name.contains("%operation") => minute,
                name if name.contains("%reservation") => two_hours,
                name if name.contains("%refund") => longest.max(minute),
                _ => longest,
            } + SLACK);
        }
    }

    let mut world = World::new();
    let policy = policy(Quota::concurrency(5));
    let (short, long) = (id("short"), id("long"));
    for (action, longest) in [
        (acquire(&short, TTL), FLOOR),
        (acquire(&long, minute), minute),
        (
            Action::Renew {
                lease: &short,
                ttl: HOUR,
            },
            HOUR,
        ),
        (
            Action::Release {
                lease: &short,
                ttl: minute,
            },
            minute,
        ),
    ] {
        let what = action.as_str();
        let answer = world.apply(&policy, action).await;
        if what == "renew" && answer.result.is_err() {
            // The machine stopped for longer than the lease.
            continue;
        }
        answer.result.unwrap();
        bounded(&world, what, |_| longest + SLACK);
    }
    // A shorter lease beside a longer one does not shorten the life of both.
    let (longer, shorter) = (id("longer"), id("shorter"));
    for action in [
        acquire(&longer, 2 * HOUR),
        acquire(&shorter, minute),
        Action::Renew {
            lease: &shorter,
            ttl: 2 * minute,
        },
        Action::Release {
            lease: &shorter,
            ttl: minute,
        },
    ] {
        let what = action.as_str();
        world.apply(&policy, action).await.result.unwrap();
        let ttl: i64 = world.server.command(&["PTTL", world.key.as_str()]);
        assert!(ttl > 3_600_000, "{ttl} ms after {what}");
    }
    let release = Action::Release {
        lease: &longer,
        ttl: minute,
    };
    world.apply(&policy, release).await.result.unwrap();
    let last = world
        .apply(
            &policy,
            Action::Release {
                lease: &long,
                ttl: minute,
            },
        )
        .await;
    assert_eq!(last.result.unwrap().used, 0);
    let left: bool = world.server.command(&["EXISTS", world.key.as_str()]);
    assert!(!left, "nothing is held, and nothing is kept");
}

fn bounded(world: &World, what: &str, longest: impl Fn(&str) -> Duration) {
    let mut keys: Vec<String> = world.server.command(&["KEYS", "*"]);
    keys.retain(|key| !key.contains("%probe"));
    assert!(!keys.is_empty(), "{what} left no key");
    for key in keys {
        let ttl: i64 = world.server.command(&["PTTL", &key]);
        let most = i64::try_from(longest(&key).as_millis()).unwrap();
        assert!(
            ttl != -1 && ttl <= most,
            "{key} lives {ttl} ms after {what}"
        );
    }
}
