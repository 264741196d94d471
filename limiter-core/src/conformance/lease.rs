//! Acquire, renew and release.

use std::time::Duration;

use super::{LimitHarness, act, apply, limiter, used};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::limit::{
    Action, Charge, Mark, Observed, OperationId, Outcome, Period, Policy, Quota, Receipt, Replay,
    Step, Verdict,
};

const TTL: Duration = Duration::from_secs(30);
const MICRO: Duration = Duration::from_micros(1);

fn streams(limit: u64) -> Policy {
    Policy::new("streams", Quota::concurrency(limit).unwrap()).unwrap()
}

fn key(test: &str) -> Key {
    Key::new(["ratelimit", "conformance", "lease", test])
}

/// A key, its policy and the store.
struct Slots<'a>(&'a dyn LimitHarness, Policy, Key);

impl Slots<'_> {
    async fn act(&self, action: Action<'_>) -> Observed {
        act(self.0, &self.1, &self.2, action).await.unwrap()
    }

    async fn acquire(&self, id: &str, cost: u64, ttl: Duration) -> Observed {
        let lease = &OperationId::new(id);
        self.act(Action::Acquire { lease, cost, ttl }).await
    }

    async fn release(&self, id: &str) {
        let lease = &OperationId::new(id);
        self.act(Action::Release { lease, ttl: TTL }).await;
    }

    async fn used(&self) -> u64 {
        used(self.0, &self.1, &self.2).await
    }
}

pub(super) async fn holds_at_most_the_limit(harness: &dyn LimitHarness) {
    let slots = Slots(harness, streams(3), key("limit"));
    for (index, id) in ["a", "b", "c"].into_iter().enumerate() {
        let taken = slots.acquire(id, 1, TTL).await;
        assert_eq!((taken.used, taken.charged), (index as u64 + 1, 1));
        assert!(taken.is_admitted());
    }
    let denied = slots.acquire("d", 1, TTL).await;
    assert_eq!(denied.verdict, Verdict::Deny { retry_after: TTL });
    assert_eq!((denied.used, denied.charged), (3, 0));
    assert_eq!(slots.acquire("d", 4, TTL).await.verdict, Verdict::Never);
    for _ in 0..2 {
        slots.release("b").await;
        assert_eq!(slots.used().await, 2, "released once");
    }
    assert!(slots.acquire("d", 1, TTL).await.is_admitted());
    assert_eq!(slots.used().await, 3);
    limiter(harness).reset(&slots.1, &slots.2).await.unwrap();
    assert_eq!(slots.used().await, 0);
}

pub(super) async fn runs_out_unless_renewed(harness: &dyn LimitHarness) {
    let slots = Slots(harness, streams(1), key("renew"));
    let (id, ttl) = (OperationId::new("a"), TTL);
    slots.acquire("a", 1, ttl).await;
    // Three times its length, and it still counts.
    for _ in 0..9 {
        harness.advance(TTL / 3).await;
        let renewed = slots.act(Action::Renew { lease: &id, ttl }).await;
        assert_eq!(
            (renewed.used, renewed.charged, renewed.reset_after),
            (1, 1, TTL)
        );
        assert!(!slots.acquire("b", 1, ttl).await.is_admitted());
    }
    // A renewal for less does not shorten it.
    let short = Action::Renew {
        lease: &id,
        ttl: TTL / 3,
    };
    assert_eq!(slots.act(short).await.reset_after, TTL);
    harness.advance(TTL - MICRO).await;
    assert_eq!(slots.used().await, 1);
    harness.advance(MICRO).await;
    assert_eq!(slots.used().await, 0);
    let gone = act(
        harness,
        &slots.1,
        &slots.2,
        Action::Renew { lease: &id, ttl },
    )
    .await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::Expired);
    assert!(slots.acquire("b", 1, ttl).await.is_admitted());
}

/// I-H6.
pub(super) async fn waits_for_the_earliest_that_are_enough(harness: &dyn LimitHarness) {
    let slots = Slots(harness, streams(6), key("wait"));
    for (id, cost, seconds) in [("long", 3, 50), ("short", 1, 10), ("middle", 2, 20)] {
        slots.acquire(id, cost, Duration::from_secs(seconds)).await;
    }
    for (cost, seconds) in [(1, 10), (2, 20), (3, 20), (4, 50)] {
        let retry_after = Duration::from_secs(seconds);
        let denied = slots.act(Action::Peek { cost }).await;
        assert_eq!(denied.verdict, Verdict::Deny { retry_after }, "cost {cost}");
    }
    let denied = limiter(harness)
        .peek_n(&slots.1, &slots.2, 3)
        .await
        .unwrap();
    let Outcome::Denied { retry_after } = denied.outcome else {
        panic!("expected a denial, got {denied:?}");
    };
    harness.advance(retry_after - MICRO).await;
    assert!(!slots.acquire("new", 3, TTL).await.is_admitted());
    harness.advance(MICRO).await;
    assert!(slots.acquire("new", 3, TTL).await.is_admitted());
}

pub(super) async fn is_recognised_by_its_id(harness: &dyn LimitHarness) {
    let slots = Slots(harness, streams(2), key("id"));
    for _ in 0..3 {
        let again = slots.acquire("a", 2, TTL).await;
        assert!(again.is_admitted());
        assert_eq!((again.used, again.charged), (2, 2), "it is held already");
    }
    let lease = &OperationId::new("a");
    let other = Action::Acquire {
        lease,
        cost: 1,
        ttl: TTL,
    };
    let conflict = act(harness, &slots.1, &slots.2, other).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    // Whatever the id's text, it changes nothing but its own lease.
    let hostile = ["", "a:1:9;", "%", "\r\n", "{x}", "ü", &"x".repeat(10_000)];
    limiter(harness).reset(&slots.1, &slots.2).await.unwrap();
    for id in hostile {
        assert!(slots.acquire(id, 2, TTL).await.is_admitted(), "{id:?}");
        slots.release("another").await;
        assert_eq!(slots.used().await, 2, "{id:?}");
        slots.release(id).await;
        assert_eq!(slots.used().await, 0, "{id:?}");
    }
}

/// A release ends its id: an acquisition that arrives after it takes nothing, and is no lease.
pub(super) async fn a_release_overtakes_its_acquisition(harness: &dyn LimitHarness) {
    let slots = Slots(harness, streams(1), key("overtaken"));
    let lease = &OperationId::new("late");
    let acquire = Action::Acquire {
        lease,
        cost: 1,
        ttl: TTL,
    };
    let refused = async || {
        let late = act(harness, &slots.1, &slots.2, acquire.clone()).await;
        late.unwrap_err()
    };
    // Before it, after it was held, and again.
    for held in [false, true] {
        if held {
            harness.advance(TTL).await;
            assert!(slots.act(acquire.clone()).await.is_admitted());
        }
        for _ in 0..2 {
            slots.release("late").await;
            assert_eq!(slots.used().await, 0);
            assert_eq!(refused().await.kind(), ErrorKind::Conflict);
        }
        // Again and for less, it is not forgotten sooner.
        let sooner = MICRO * 1_000;
        slots.act(Action::Release { lease, ttl: sooner }).await;
        harness.advance(TTL - MICRO).await;
        assert_eq!(refused().await.kind(), ErrorKind::Conflict);
        assert_eq!(slots.used().await, 0, "what is remembered is no lease");
        let other = slots.acquire("other", 1, MICRO * 1_000).await;
        assert!(other.is_admitted(), "and takes no place");
        harness.advance(MICRO * 1_000).await;
    }
    harness.advance(TTL).await;
    let again = slots.act(acquire.clone()).await;
    assert_eq!(
        (again.charged, again.replayed),
        (1, None),
        "forgotten in time"
    );
    let renewed = slots.act(acquire.clone()).await;
    assert_eq!(renewed.replayed, Some(Replay::Held));
}

/// A stream that is also a request: both or neither.
pub(super) async fn stands_in_groups(harness: &dyn LimitHarness) {
    let (streams, stream) = (streams(1), key("stream"));
    let requests = Policy::new("requests", Quota::fixed_window(2, Period::HOUR).unwrap()).unwrap();
    let request = key("request");
    let group = async |id: &str| {
        let lease = &OperationId::new(id);
        let acquire = Action::Acquire {
            lease,
            cost: 1,
            ttl: TTL,
        };
        let steps = [
            Step::new(&streams, &stream, acquire),
            Step::new(&requests, &request, Action::Charge { cost: 1 }),
        ];
        apply(harness, &steps).await.unwrap()
    };
    assert!(group("a").await.iter().all(Observed::is_admitted));
    let denied = group("b").await;
    assert!(!denied[0].is_admitted() && denied[1].is_admitted());
    assert_eq!(
        used(harness, &requests, &request).await,
        1,
        "all or nothing"
    );
    let release = Action::Release {
        lease: &OperationId::new("a"),
        ttl: TTL,
    };
    act(harness, &streams, &stream, release).await.unwrap();
    assert!(group("b").await.iter().all(Observed::is_admitted));
    let denied = group("c").await;
    assert!(
        !denied[0].is_admitted() && !denied[1].is_admitted(),
        "both are named"
    );
}

/// And what else a concurrency limit does not take.
pub(super) async fn takes_no_charges(harness: &dyn LimitHarness) {
    let (policy, key) = (streams(2), key("charges"));
    let id = &OperationId::new("misfit");
    let receipt = Receipt::new(id.clone(), Mark::default(), 1);
    let actions = [
        Action::Charge { cost: 1 },
        Action::Refund { receipt: &receipt },
        Action::Reserve {
            id,
            estimate: 1,
            ttl: TTL,
        },
        Action::Settle { id, actual: 1 },
        Action::Cancel { id, ttl: TTL },
        Action::Acquire {
            lease: id,
            cost: 0,
            ttl: TTL,
        },
        Action::Acquire {
            lease: id,
            cost: 1,
            ttl: Duration::ZERO,
        },
        Action::Renew {
            lease: id,
            ttl: Duration::MAX,
        },
    ];
    for action in actions {
        let supported = harness.store().capabilities().supports(&action);
        let name = action.as_str();
        let refused = act(harness, &policy, &key, action).await.unwrap_err();
        let kind = if supported {
            ErrorKind::InvalidInput
        } else {
            ErrorKind::Unsupported
        };
        assert_eq!(refused.kind(), kind, "{name}: {refused}");
    }
    let refused = limiter(harness)
        .try_check_all(&[Charge::new(&policy, &key)])
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(used(harness, &policy, &key).await, 0);
}
