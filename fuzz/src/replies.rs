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
    // The hot script's: admitted, denied, the first charges of all, handed over.
    b"\x06\x60\xbe\x0a\xb7\xa2\x40\x62\x01\x06\x60\xbe\x0a\xb7\xa2\x40\x00\x00\x15\x75\x2a\x00\x00\x15\x75\x2a\x00\x00\x00\x00\x00\x00\x01\x0e\x54\x73\x01\x00\x00\x00\xd6\x93\xa4\x00\x06\x60\xbe\x0a\xb5\xc0\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x01\x00\x01\xa1\xfb\x82\x8f\xbb\x77\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x03\xe9",
    b"\x06\x60\xbe\x0a\xb7\xa2\x40\x21\x2b\x62\x01\x00\x00\x00\x15\x75\x2a\x00\x00\x00\x00\x15\x75\x2a\x00\x06\x60\xbe\x0a\xb7\xa2\x40\x06\x60\xbe\x20\x2c\xcc\x40\x06\x60\xbe\x0a\xb7\xa2\x40\x00\x01\xa1\xfb\x82\x8f\xbb\x7e\x73\x01\x00\x00\x00\xd6\x93\xa4\x00\x06\x60\xbe\x0a\xb5\xc0\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x01\x00\x01\xa1\xfb\x82\x8f\xbb\x77\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x03\xe9",
    b"\x06\x60\xbe\x0a\xb7\xa2\x40\x2d\x2d\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x06\x60\xbe\x0a\xb7\xa2\x40\x3f",
];

/// Reads the bytes as the reply to a group, of either script.
pub fn target(data: &[u8]) {
    whole(data);
    hot(data);
}

/// As what the hot script replies to a group of three.
fn hot(data: &[u8]) {
    let quotas = [
        Quota::token_bucket(10, 10, Period::HOUR),
        Quota::sliding_window(10, Period::HOUR),
        Quota::fixed_window(10, Period::HOUR),
    ];
    let policies =
        quotas.map(|quota| Policy::new("fuzz", quota.expect("a quota")).expect("a valid name"));
    let keys = ["one", "two", "three"].map(|key| Key::new(["ratelimit", key]));
    let shadow = policies[1].clone().with_shadow(true);
    let steps = [
        Step::new(&policies[0], &keys[0], Action::Charge { cost: 1 }),
        Step::new(&shadow, &keys[1], Action::Charge { cost: 2 }),
        Step::new(&policies[2], &keys[2], Action::Peek { cost: 3 }),
    ];
    let group = Group::new(&steps, &Capabilities::ALL).expect("a valid group");
    let mut observed = [Observed::default(); 3];
    match limiter_redis::read_hot_bytes(data, &group, &mut observed) {
        None => {}
        Some(Ok(())) => decisions(&steps, &observed),
        Some(Err(error)) => assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Protocol, Effect::Unknown),
            "{error}"
        ),
    }
}

/// Whatever the numbers are, a decision can be made of them.
fn decisions(steps: &[Step<'_>], observed: &[Observed]) {
    for (step, observed) in steps.iter().zip(observed) {
        let decision = Decision::new(step.policy, observed);
        assert!(decision.remaining <= decision.limit, "{decision:?}");
        // A shadow stands in nobody's way.
        let is_admitted = observed.is_admitted() || step.policy.is_shadow();
        assert_eq!(decision.is_allowed(), is_admitted, "{decision:?}");
    }
}

/// As what the other one replies to a group of two steps.
fn whole(data: &[u8]) {
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
        Some(Ok(())) => decisions(&steps, &observed),
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
