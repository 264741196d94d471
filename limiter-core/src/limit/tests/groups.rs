//! What a group refuses, and what its steps ask for.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::key::Key;
use crate::limit::{
    Action, Capabilities, Group, MAX_HOLD, Mark, OPERATION_TTL, OperationId, Period, Policy, Quota,
    Receipt, Step,
};

const ALL: Capabilities = Capabilities::ALL;

fn policy(name: &str) -> Policy {
    Policy::new(name, Quota::fixed_window(6, Period::HOUR).unwrap()).unwrap()
}

fn streams() -> Policy {
    Policy::new("streams", Quota::concurrency(6).unwrap()).unwrap()
}

fn key(name: &str) -> Key {
    Key::new(["ratelimit", name])
}

/// Whether one step is taken; anything else than misuse fails.
fn takes(policy: &Policy, action: Action<'_>) -> bool {
    let key = key("a");
    let steps = [Step::new(policy, &key, action)];
    let Err(error) = Group::new(&steps, &ALL) else {
        return true;
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    false
}

#[test]
fn numbers_out_of_range_are_refused() {
    let (plain, streams, id) = (policy("p"), streams(), &OperationId::new("id"));
    let ttl = Duration::from_secs(1);
    let reserve = |estimate, ttl| takes(&plain, Action::Reserve { id, estimate, ttl });
    assert!(reserve(1, ttl) && !reserve(0, ttl));
    let acquire = |cost, ttl| {
        let lease = id;
        takes(&streams, Action::Acquire { lease, cost, ttl })
    };
    assert!(acquire(1, ttl) && !acquire(0, ttl));
    let renew = |_, ttl| takes(&streams, Action::Renew { lease: id, ttl });
    let holds: [&dyn Fn(u64, Duration) -> bool; 3] = [&reserve, &acquire, &renew];
    for hold in holds {
        let shortest = Duration::from_millis(1);
        assert!(hold(1, shortest));
        assert!(!hold(1, shortest - Duration::from_nanos(1)));
        assert!(hold(1, MAX_HOLD));
        assert!(!hold(1, MAX_HOLD + Duration::from_nanos(1)));
    }
    let refund = |cost, number| {
        let mark = Mark {
            number,
            ..Mark::default()
        };
        let receipt = &Receipt::new(OperationId::new("c"), mark, cost);
        takes(&plain, Action::Refund { receipt })
    };
    assert!(refund(0, 0) && refund((1 << 51) - 1, (1 << 53) - 1));
    assert!(!refund(1 << 51, 0) && !refund(0, 1 << 53));
    let settle = |actual| takes(&plain, Action::Settle { id, actual });
    assert!(settle(0) && settle((1 << 51) - 1));
    assert!(!settle(1 << 51));
}

#[test]
fn leases_are_for_concurrency_and_concurrency_for_leases() {
    let (plain, streams, id) = (policy("p"), streams(), &OperationId::new("id"));
    let ttl = Duration::from_secs(1);
    let for_all = [
        Action::Peek { cost: 1 },
        Action::Reset,
        Action::Charge { cost: 0 },
    ];
    for action in for_all {
        assert!(takes(&plain, action.clone()) && takes(&streams, action));
    }
    let charges = [
        Action::Charge { cost: 1 },
        Action::Settle { id, actual: 1 },
        Action::Cancel {
            id,
            ttl: Duration::from_secs(60),
        },
    ];
    for action in charges {
        assert!(takes(&plain, action.clone()) && !takes(&streams, action));
    }
    let leases = [
        Action::Acquire {
            lease: id,
            cost: 1,
            ttl,
        },
        Action::Renew { lease: id, ttl },
        Action::Release { lease: id, ttl },
    ];
    for action in leases {
        assert!(!takes(&plain, action.clone()) && takes(&streams, action));
    }
}

/// Two steps of one key under one policy: which pairs there may be.
#[test]
fn one_key_twice_takes_or_looks() {
    let (plain, key) = (policy("p"), key("a"));
    let (one, other) = (&OperationId::new("1"), &OperationId::new("2"));
    let ttl = Duration::from_secs(1);
    let reserve = |id| Action::Reserve {
        id,
        estimate: 1,
        ttl,
    };
    let pair = |first: Action<'_>, second: Action<'_>| {
        let steps = [
            Step::new(&plain, &key, first),
            Step::new(&plain, &key, second),
        ];
        Group::new(&steps, &ALL).is_ok()
    };
    let charge = Action::Charge { cost: 1 };
    let adds_up = [
        charge.clone(),
        Action::Charge { cost: 0 },
        Action::Peek { cost: 1 },
        reserve(one),
    ];
    for action in &adds_up {
        assert!(pair(charge.clone(), action.clone()), "{action:?}");
        assert!(pair(action.clone(), charge.clone()), "{action:?}");
    }
    let gives = [
        Action::Reset,
        Action::Settle { id: one, actual: 1 },
        Action::Cancel {
            id: one,
            ttl: Duration::from_secs(60),
        },
    ];
    for action in gives {
        assert!(!pair(charge.clone(), action.clone()), "{action:?}");
        assert!(!pair(action.clone(), charge.clone()), "{action:?}");
    }
    assert!(pair(reserve(one), reserve(other)));
    assert!(!pair(reserve(one), reserve(one)), "one id twice");

    // Another key is another matter, and so is another policy.
    let elsewhere = Key::new(["ratelimit", "b"]);
    let steps = [
        Step::new(&plain, &key, Action::Reset),
        Step::new(&plain, &elsewhere, Action::Reset),
    ];
    assert!(Group::new(&steps, &ALL).is_ok());
    let renamed = policy("other");
    let steps = [
        Step::new(&plain, &key, charge.clone()),
        Step::new(&renamed, &key, charge),
    ];
    assert!(Group::new(&steps, &ALL).is_err());
}

#[test]
fn a_group_has_1_to_64_steps() {
    let (plain, keys) = (policy("p"), [(); 65].map(|()| key("a")));
    let steps = keys.each_ref().map(|key| {
        let cost = 0;
        Step::new(&plain, key, Action::Peek { cost })
    });
    assert!(Group::new(&[], &ALL).is_err());
    assert_eq!(Group::new(&steps[..64], &ALL).unwrap().steps().len(), 64);
    assert!(Group::new(&steps, &ALL).is_err());
}

/// What a step asks of its key, with what those before it take from it.
#[test]
fn costs_of_one_key_add_up() {
    let (plain, a, b) = (policy("p"), key("a"), key("b"));
    let id = &OperationId::new("r");
    let ttl = Duration::from_secs(1);
    let reserve = Action::Reserve {
        id,
        estimate: 8,
        ttl,
    };
    let steps = [
        Step::new(&plain, &a, Action::Charge { cost: 1 }),
        Step::new(&plain, &b, Action::Charge { cost: 2 }),
        Step::new(&plain, &a, Action::Peek { cost: 4 }),
        Step::new(&plain, &a, reserve),
        Step::new(&plain, &a, Action::Charge { cost: 16 }),
        Step::new(&plain, &b, Action::Charge { cost: u64::MAX }),
    ];
    let group = Group::new(&steps, &ALL).unwrap();
    let totals: Vec<u64> = (0..6).map(|index| group.total_cost(index)).collect();
    // A peek takes nothing from those after it; 2^53 - 1 is above every capacity.
    assert_eq!(totals, [1, 2, 1 + 4, 1 + 8, 1 + 8 + 16, (1 << 53) - 1]);
}

#[test]
fn a_fingerprint_tells_groups_apart() {
    let (plain, other) = (policy("p"), policy("other"));
    let (a, b) = (key("a"), key("b"));
    let (one, two) = (&OperationId::new("1"), &OperationId::new("2"));
    let ttl = Duration::from_secs(1);
    let reserve = |id, estimate| Action::Reserve { id, estimate, ttl };
    let of = |steps: &[Step<'_>]| Group::new(steps, &ALL).unwrap().fingerprint();
    let charge = |cost| Action::Charge { cost };
    let apart = [
        of(&[Step::new(&plain, &a, charge(1))]),
        of(&[Step::new(&plain, &b, charge(1))]),
        of(&[Step::new(&plain, &a, charge(2))]),
        of(&[Step::new(&plain, &a, Action::Peek { cost: 1 })]),
        of(&[Step::new(&plain, &a, reserve(one, 1))]),
        of(&[Step::new(&plain, &a, reserve(two, 1))]),
        of(&[Step::new(&plain, &a, reserve(two, 2))]),
        of(&[Step::new(&plain, &a, Action::Settle { id: one, actual: 1 })]),
        of(&[Step::new(&plain, &a, Action::Settle { id: one, actual: 2 })]),
        of(&[
            Step::new(&plain, &a, charge(1)),
            Step::new(&plain, &b, charge(1)),
        ]),
    ];
    for (index, fingerprint) in apart.iter().enumerate() {
        assert!(!apart[..index].contains(fingerprint), "{index}");
    }
    // The order is none of it.
    let turned = of(&[
        Step::new(&plain, &b, charge(1)),
        Step::new(&plain, &a, charge(1)),
    ]);
    assert_eq!(turned, apart[9]);
    // Policies may change between two tries.
    let changed = of(&[Step::new(&other, &a, charge(1))]);
    assert_eq!(changed, apart[0]);
}

#[test]
fn an_operation_needs_a_store_that_remembers_it() {
    let (plain, key, id) = (policy("p"), key("a"), OperationId::new("op"));
    let steps = [Step::new(&plain, &key, Action::Charge { cost: 1 })];
    let group = Group::new(&steps, &ALL).unwrap();
    assert!(group.operation().is_none());
    let named = group.with_operation(&id, OPERATION_TTL, &ALL).unwrap();
    assert_eq!(named.operation(), Some((&id, Duration::from_secs(60))));
    let none = Capabilities::default();
    let lacks = group.with_operation(&id, OPERATION_TTL, &none).unwrap_err();
    assert_eq!(lacks.kind(), ErrorKind::Unsupported);
    let short = Duration::from_micros(999);
    let refused = group.with_operation(&id, short, &ALL).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// What a person needs to find the place where it went wrong.
#[test]
fn errors_name_the_step() {
    let (plain, streams, key) = (policy("p"), streams(), key("a"));
    let (id, ttl) = (&OperationId::new("r-1"), Duration::from_secs(1));
    let settle = Step::new(&plain, &key, Action::Settle { id, actual: 1 });
    let renew = Step::new(&streams, &key, Action::Renew { lease: id, ttl });
    for (error, kind, parts) in [
        (
            settle.gone(),
            ErrorKind::Expired,
            ["the reservation", "under policy p "],
        ),
        (
            renew.gone(),
            ErrorKind::Expired,
            ["the lease", "under policy streams "],
        ),
        (
            settle.conflict(),
            ErrorKind::Conflict,
            ["the id of this settle", "under policy p "],
        ),
    ] {
        assert_eq!(error.kind(), kind);
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!error.to_string().contains("r-1"), "{error}");
    }
}
