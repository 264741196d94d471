//! Whatever stands at the other end of a connection, its reply is read or refused.

use std::time::Duration;

use limiter_core::limit::{
    Action, Capabilities, Decision, Group, Observed, OperationId, Period, Policy, Quota, Step,
};
use limiter_core::{Effect, ErrorKind, Key};

/// What the script says: admitted, denied, unseen, replayed, a stranger, another version, a foreign key, gone, a conflict; and
/// what it never says.
pub const SEEDS: &[&[u8]] = &[
    b"*2\r\n:0\r\n*19\r\n:0\r\n:0\r\n:3\r\n:0\r\n:60000000\r\n:1\r\n:1795219200123456\r\n:7\r\n:0\r\n:0\r\n:0\r\n:1\r\n:0\r\n:9\r\n:1\r\n:2\r\n:3\r\n:1\r\n:0\r\n",
    b"*2\r\n:2\r\n*19\r\n:0\r\n:1\r\n:3\r\n:500\r\n:60000000\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:3\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
    b"*2\r\n:0\r\n*19\r\n:0\r\n:0\r\n:3\r\n:0\r\n:60000000\r\n:1\r\n:5\r\n:7\r\n:2\r\n:4\r\n:0\r\n:1\r\n:0\r\n:9\r\n:1\r\n:2\r\n:3\r\n:3\r\n:0\r\n",
    b"*2\r\n:0\r\n*3\r\n:5\r\n:0\r\n:3\r\n",
    b"*2\r\n:0\r\n*2\r\n:6\r\n:1\r\n",
    b"*2\r\n:0\r\n*2\r\n:1\r\n:1\r\n",
    b"*2\r\n:0\r\n*2\r\n:2\r\n:1\r\n",
    b"*2\r\n:0\r\n*2\r\n:3\r\n:7\r\n",
    b"*2\r\n:0\r\n*1\r\n:4\r\n",
    b"*2\r\n:0\r\n*10\r\n:0\r\n:0\r\n:9223372036854775807\r\n:-1\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
    b"*1\r\n$3\r\nfoo\r\n",
];

/// Reads the bytes as the reply to a group of two steps.
pub fn target(data: &[u8]) {
    let quota = Quota::fixed_window(10, Period::HOUR).expect("a valid quota");
    let policy = Policy::new("fuzz", quota).expect("a valid name");
    let (one, two) = (
        Key::new(["ratelimit", "one"]),
        Key::new(["ratelimit", "two"]),
    );
    let id = OperationId::new("fuzz");
    let steps = [
        Step::new(&policy, &one, Action::Charge { cost: 1 }),
        Step::new(
            &policy,
            &two,
            Action::Cancel {
                id: &id,
                ttl: Duration::from_secs(60),
            },
        ),
    ];
    let group = Group::new(&steps, &Capabilities::ALL).expect("a valid group");
    let mut observed = [Observed::default(); 2];
    match limiter_redis::read_bytes(data, &group, &mut observed) {
        None => {}
        Some(Ok(())) => {
            for observed in observed {
                // Whatever the numbers are, a decision can be made of them.
                let decision = Decision::new(&policy, &observed);
                assert!(decision.remaining <= decision.limit, "{decision:?}");
                assert_eq!(
                    decision.is_allowed(),
                    observed.is_admitted(),
                    "{decision:?}"
                );
            }
        }
        Some(Err(error)) => {
            // A reply that is none says nothing about what the script did; nor does a right that was missing half way.
            let unknown = error.effect() == Effect::Unknown;
            let says_nothing =
                matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Unauthorized);
            assert!(says_nothing || !unknown, "{error}");
            assert!(!error.message().is_empty());
        }
    }
}
