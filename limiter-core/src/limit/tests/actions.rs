//! What each action is called, needs and asks for.

use std::time::Duration;

use crate::limit::{Action, Capabilities, MAX_HOLD, Mark, OperationId, Receipt};

/// An action, its name, its cost, its id, whether it takes something, and what a store needs for it.
type Row<'a> = (
    Action<'a>,
    &'static str,
    u64,
    Option<&'static str>,
    bool,
    Capabilities,
);

fn none() -> Capabilities {
    Capabilities::default()
}

#[test]
fn the_table_of_actions() {
    let ttl = Duration::from_secs(1);
    let (id, lease) = (&OperationId::new("r-1"), &OperationId::new("l-1"));
    let receipt = &Receipt::new(OperationId::new("c-1"), Mark::default(), 9);
    let mut refunds = none();
    refunds.refunds = true;
    let mut reservations = none();
    reservations.reservations = true;
    let mut leases = none();
    leases.leases = true;
    let reserve = Action::Reserve {
        id,
        estimate: 4,
        ttl,
    };
    let acquire = Action::Acquire {
        lease,
        cost: 5,
        ttl,
    };
    let rows: [Row<'_>; 12] = [
        (Action::Charge { cost: 2 }, "charge", 2, None, true, none()),
        (Action::Charge { cost: 1 }, "charge", 1, None, true, none()),
        (Action::Charge { cost: 0 }, "charge", 0, None, false, none()),
        (Action::Peek { cost: 3 }, "peek", 3, None, false, none()),
        (Action::Reset, "reset", 0, None, false, none()),
        (
            Action::Refund { receipt },
            "refund",
            0,
            Some("c-1"),
            false,
            refunds,
        ),
        (reserve, "reserve", 4, Some("r-1"), true, reservations),
        (
            Action::Settle { id, actual: 6 },
            "settle",
            0,
            Some("r-1"),
            false,
            reservations,
        ),
        (
            Action::Cancel {
                id,
                ttl: Duration::from_secs(60),
            },
            "cancel",
            0,
            Some("r-1"),
            false,
            reservations,
        ),
        (acquire, "acquire", 5, Some("l-1"), true, leases),
        (
            Action::Renew { lease, ttl },
            "renew",
            0,
            Some("l-1"),
            false,
            leases,
        ),
        (
            Action::Release {
                lease,
                ttl: Duration::from_secs(60),
            },
            "release",
            0,
            Some("l-1"),
            false,
            leases,
        ),
    ];
    for (action, name, cost, id, takes, needs) in rows {
        assert_eq!(action.as_str(), name);
        assert_eq!(action.cost(), cost, "{name}");
        assert_eq!(action.id().map(OperationId::as_str), id, "{name}");
        assert_eq!(action.takes(), takes, "{name} {cost}");
        for capabilities in [none(), refunds, reservations, leases] {
            let enough = needs == none() || needs == capabilities;
            assert_eq!(
                capabilities.supports(&action),
                enough,
                "{name} by {capabilities:?}"
            );
        }
        assert!(Capabilities::ALL.supports(&action), "{name}");
    }
}

#[test]
fn ids_and_receipts_say_what_they_were_given() {
    // `printf op-1 | sha256sum` begins with this.
    let id = OperationId::new("op-1");
    assert_eq!(
        format!("{:032x}", id.digest()),
        "71a0ef7195df486543f63f0cb1dff83e"
    );
    assert_eq!(format!("{id:?}"), "OperationId(masked)");
    let random = OperationId::random();
    assert_eq!(random.as_str().len(), 32);
    assert_ne!(random, OperationId::random());
    let mark = Mark {
        at: crate::clock::Timestamp::from_micros(5),
        number: 6,
    };
    let receipt = Receipt::new(id.clone(), mark, 7);
    assert_eq!(
        (receipt.id(), receipt.mark(), receipt.cost()),
        (&id, mark, 7)
    );
    // Seven days of 24 hours of 3,600 seconds.
    assert_eq!(MAX_HOLD.as_secs(), 604_800);
}
