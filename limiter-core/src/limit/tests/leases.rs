//! Leases of a concurrency limit.

use std::time::Duration;

use super::{One, at};
use crate::limit::algorithm::{Change, Lease, counts_until, lease};
use crate::limit::{Mark, Quota};

fn quota() -> Quota {
    Quota::concurrency(6).unwrap()
}

/// Leases of 1, 2 and 3 until 30, 20 and 10 s.
fn three() -> One {
    let mut one = One::default();
    for (id, cost, seconds) in [(1, 1, 30.0), (2, 2, 20.0), (3, 3, 10.0)] {
        let expires = at(seconds);
        let change = Change::Acquire(Lease { id, cost, expires });
        assert_eq!(one.change(&quota(), at(0.0), change), cost);
    }
    one
}

#[test]
fn every_lease_ends_by_itself() {
    let (quota, one) = (quota(), three());
    for (seconds, used) in [
        (9.999_999, 6),
        (10.0, 3),
        (19.999_999, 3),
        (20.0, 1),
        (29.999_999, 1),
        (30.0, 0),
    ] {
        assert_eq!(one.used(&quota, at(seconds)), used, "{seconds}");
    }
    for (cost, wait) in [(1, 10), (3, 10), (4, 20), (5, 20), (6, 30)] {
        assert_eq!(
            one.wait(&quota, at(0.0), cost),
            Duration::from_secs(wait),
            "{cost}"
        );
    }
    assert!(!one.is_fresh(at(29.999_999)) && one.is_fresh(at(30.0)));
}

/// What ended at this very moment is not renewed, though another lease keeps the state alive.
#[test]
fn what_has_ended_is_not_renewed() {
    let (quota, mut one) = (quota(), three());
    assert!(lease(one.0.as_ref(), 3, at(9.999_999)).is_some());
    assert!(lease(one.0.as_ref(), 3, at(10.0)).is_none());
    assert_eq!(one.change(&quota, at(10.0), Change::Renew(3, at(99.0))), 0);
    assert_eq!(one.used(&quota, at(10.0)), 3);
    assert_eq!(one.change(&quota, at(10.0), Change::Renew(2, at(99.0))), 2);
    assert_eq!(one.used(&quota, at(98.0)), 2);
    // A renewal that comes late never shortens.
    assert_eq!(one.change(&quota, at(10.0), Change::Renew(2, at(50.0))), 2);
    assert_eq!(one.used(&quota, at(98.0)), 2);
    one.change(&quota, at(10.0), Change::Release(2));
    assert_eq!(one.used(&quota, at(10.0)), 1);
}

#[test]
fn a_lease_has_an_end_of_its_own() {
    let mark = Mark {
        at: at(5.0),
        number: 0,
    };
    assert_eq!(counts_until(&quota(), mark), at(5.0));
}
