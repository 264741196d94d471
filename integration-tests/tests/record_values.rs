//! Records and leases that something else wrote: of another type, or no records at all.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Logs, RedisServer, policy, state};
use limiter_core::limit::{
    Action, Capabilities, Charge, Counter, Group, LimitStore, Limiter, OPERATION_TTL, Observed,
    OperationId, Period, Policy, Quota, Receipt, RecordKind, Step, Verdict,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use limiter_redis::RedisStore;

const TTL: Duration = Duration::from_secs(60);
const NEVER: u64 = 9_007_199_254_740_991;

struct World {
    server: RedisServer,
    store: RedisStore,
    key: Key,
    id: OperationId,
}

impl World {
    fn new() -> Self {
        let server = RedisServer::start();
        Self {
            store: RedisStore::new(&server.config()).unwrap(),
            key: Key::new(["ratelimit", "records"]),
            id: OperationId::new("id"),
            server,
        }
    }

    fn record(&self, kind: RecordKind) -> String {
        let policy = bucket();
        kind.name("", Counter::new(&policy, &self.key), &self.id)
    }

    async fn apply(&self, policy: &Policy, action: Action<'_>) -> Result<Observed, Error> {
        self.run(policy, action, false).await
    }

    async fn run(
        &self,
        policy: &Policy,
        action: Action<'_>,
        once: bool,
    ) -> Result<Observed, Error> {
        let steps = [Step::new(policy, &self.key, action)];
        let mut group = Group::new(&steps, &Capabilities::ALL).unwrap();
        if once {
            group = group
                .with_operation(&self.id, OPERATION_TTL, &Capabilities::ALL)
                .unwrap();
        }
        let mut observed = [Observed::default()];
        self.store.apply(&group, &mut observed).await?;
        Ok(observed[0])
    }

    fn reserve(&self) -> Action<'_> {
        Action::Reserve {
            id: &self.id,
            estimate: 2,
            ttl: TTL,
        }
    }

    fn settle(&self) -> Action<'_> {
        Action::Settle {
            id: &self.id,
            actual: 1,
        }
    }
}

fn bucket() -> Policy {
    policy(Quota::token_bucket(10, 1, Period::DAY))
}

const CHARGE: Action<'static> = Action::Charge { cost: 1 };

fn foreign(result: Result<Observed, Error>) {
    let error = result.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Foreign, Effect::No)
    );
    assert!(error.message().contains("the key of policy "), "{error}");
}

/// A shadow on a key of another type charges nothing: what it reported could be given back later, from
/// what others have charged by then.
#[tokio::test]
async fn a_shadow_charges_nothing_on_a_key_of_another_type() {
    let world = World::new();
    let policy = bucket().with_shadow(true);
    let key = world.key.as_str();
    world.server.command::<()>(&["RPUSH", key, "x"]);
    for action in [CHARGE, world.reserve()] {
        let seen = world.apply(&policy, action).await.unwrap();
        assert_eq!(seen.verdict, Verdict::Unseen);
        assert_eq!((seen.charged, seen.used), (0, 0));
    }
    world.server.command::<()>(&["DEL", key]);
    let charged = world.apply(&policy, Action::Charge { cost: 5 }).await;
    assert_eq!(charged.unwrap().used, 5);
    let cancel = Action::Cancel {
        id: &world.id,
        ttl: TTL,
    };
    assert_eq!(world.apply(&policy, cancel).await.unwrap().used, 5);
}

/// Nothing is charged without its record.
#[tokio::test]
async fn a_record_of_another_type_is_left_alone() {
    let world = World::new();
    let policy = bucket();
    let names = [
        world.record(RecordKind::Reservation),
        world.record(RecordKind::Refund),
        world.record(RecordKind::Operation),
    ];
    for name in &names {
        world.server.command::<()>(&["RPUSH", name, "x"]);
    }
    foreign(world.apply(&policy, world.reserve()).await);
    foreign(world.apply(&policy, world.settle()).await);
    foreign(
        world
            .apply(
                &policy,
                Action::Cancel {
                    id: &world.id,
                    ttl: TTL,
                },
            )
            .await,
    );
    foreign(world.run(&policy, CHARGE, true).await);
    assert!(
        !world
            .server
            .command::<bool>(&["EXISTS", world.key.as_str()])
    );

    let charged = world.apply(&policy, CHARGE).await.unwrap();
    let receipt = Receipt::new(world.id.clone(), charged.mark, charged.charged);
    let refund = Action::Refund { receipt: &receipt };
    foreign(world.apply(&policy, refund).await);
    assert_eq!(world.apply(&policy, CHARGE).await.unwrap().used, 2);

    // A shadow never blocks: it reserves nothing and says so.
    let shadow = bucket().with_shadow(true);
    let reserved = world.apply(&shadow, world.reserve()).await.unwrap();
    assert_eq!((reserved.verdict, reserved.charged), (Verdict::Unseen, 0));
    for name in &names {
        let left: Vec<String> = world.server.command(&["LRANGE", name, "0", "-1"]);
        assert_eq!(left, ["x"]);
    }
}

#[tokio::test]
async fn an_unreadable_record_is_none() {
    let logs = Logs::capture();
    let world = World::new();
    let policy = bucket();
    let reservation = world.record(RecordKind::Reservation);
    let operation = world.record(RecordKind::Operation);
    let charge = |status: u8, numbers: [u64; 6]| {
        let mut value = vec![b'r', 1, status];
        value.extend_from_slice(&state(0, 0, &numbers)[2..]);
        value
    };
    let operation_of = |numbers: &[u64]| {
        let mut value = vec![b'o', 1];
        value.extend_from_slice(&[0; 16]);
        value.extend_from_slice(&state(0, 0, numbers)[2..]);
        value
    };
    let whole = charge(0, [2, 0, 2, 1, 1, NEVER]);
    let values = [
        Vec::new(),
        b"5".to_vec(),
        b"a record".to_vec(),
        b"r".to_vec(),
        vec![b'r', 1],
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], &[0]].concat(),
        charge(4, [2, 0, 2, 1, 1, NEVER]),
        charge(0, [2, 0, 2, 1, 1, NEVER + 1]),
        operation_of(&[NEVER, 1, 1]),
        operation_of(&[NEVER, 1, 1, NEVER + 1]),
        operation_of(&[NEVER + 1, 1, 1, 1]),
    ];
    for value in values {
        world.server.command::<()>(&["DEL", world.key.as_str()]);
        world.server.set(&reservation, &value);
        let settled = world.apply(&policy, world.settle()).await.unwrap_err();
        assert_eq!(settled.kind(), ErrorKind::Expired, "{value:?}");
        let reserved = world.apply(&policy, world.reserve()).await.unwrap();
        assert_eq!((reserved.used, reserved.charged), (2, 2), "{value:?}");
        let settled = world.apply(&policy, world.settle()).await.unwrap();
        assert_eq!((settled.used, settled.charged), (1, 1), "{value:?}");

        world.server.set(&operation, &value);
        for _ in 0..2 {
            let once = world.run(&policy, CHARGE, true).await.unwrap();
            assert_eq!((once.used, once.charged), (2, 1), "{value:?}");
        }
        assert!(world.server.command::<i64>(&["PTTL", &reservation]) > 0);
        assert!(world.server.command::<i64>(&["PTTL", &operation]) > 0);
    }
    assert!(!logs.with("taken for fresh ones").is_empty());
}

#[tokio::test]
async fn unreadable_leases_are_none() {
    let world = World::new();
    let policy = policy(Quota::concurrency(1));
    let texts = ["", "leases", "c", "c ", "count"].map(|text| vec!["SET", text]);
    // A head that says less than its leases, or no count; one without a lease.
    let heads = [
        ("-1", "9e15"),
        ("-1.5", "9e15"),
        ("-inf", "9e15"),
        ("-1e16", "9e15"),
        ("7", "9e15"),
    ];
    let heads = heads.map(|(head, ends)| vec!["ZADD", head, "c\u{1}", ends, "0123456789abcdef"]);
    let extras = ["-1.5", "-inf", "9", "-1e16"].map(|extra| {
        let head = ["ZADD", "-9e15", "c\u{1}", extra, "c\u{1}x"];
        [&head[..], &["9e15", "0123456789abcdef"]].concat()
    });
    let empty = ["-1", "-5"].map(|head| vec!["ZADD", head, "c\u{1}"]);
    let values = texts.into_iter().chain(heads).chain(extras).chain(empty);
    let acquire = |id| Action::Acquire {
        lease: id,
        cost: 1,
        ttl: TTL,
    };
    let other = OperationId::new("other");
    for value in values {
        let key = world.key.as_str();
        world.server.command::<()>(&["DEL", key]);
        let set = [&[value[0], key], &value[1..]].concat();
        world.server.command::<()>(&set);
        let held = world.apply(&policy, acquire(&world.id)).await.unwrap();
        assert!(held.is_admitted() && held.used == 1, "{value:?}");
        let denied = world.apply(&policy, acquire(&other)).await.unwrap();
        assert!(!denied.is_admitted(), "{value:?}");
        assert!(world.server.command::<i64>(&["PTTL", key]) > 0);
    }
}

/// A sorted set that is no leases is another's; leases of another version are misuse. Both are left alone.
#[tokio::test]
async fn a_sorted_set_of_others_is_left_alone() {
    let world = World::new();
    let streams = policy(Quota::concurrency(1));
    let key = world.key.as_str();
    let acquire = Action::Acquire {
        lease: &world.id,
        cost: 1,
        ttl: TTL,
    };
    for (head, kind) in [
        ("member", ErrorKind::Foreign),
        ("c", ErrorKind::Foreign),
        ("c\u{2}", ErrorKind::Conflict),
        ("c\u{1f}", ErrorKind::Conflict),
    ] {
        world.server.command::<()>(&["DEL", key]);
        world
            .server
            .command::<()>(&["ZADD", key, "-2", head, "9e15", "0123456789abcdef"]);
        for (policy, action) in [(&streams, acquire.clone()), (&bucket(), CHARGE)] {
            let refused = world.apply(policy, action).await.unwrap_err();
            assert_eq!(
                (refused.kind(), refused.effect()),
                (kind, Effect::No),
                "{head:?}"
            );
        }
        assert_eq!(world.server.command::<u64>(&["ZCARD", key]), 2);
    }
}

/// A record, or a lease's release, that another version wrote is never taken for none.
#[tokio::test]
async fn a_record_of_another_version_is_a_conflict() {
    let world = World::new();
    let policy = bucket();
    for version in [2, 31, b':'] {
        for name in [
            world.record(RecordKind::Reservation),
            world.record(RecordKind::Operation),
        ] {
            world.server.set(&name, &[b'r', version, 1, 2, 3]);
        }
        for action in [world.reserve(), world.settle()] {
            let error = world.apply(&policy, action).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.effect()),
                (ErrorKind::Conflict, Effect::No)
            );
            assert!(error.message().contains("another version"), "{error}");
        }
        let error = world.run(&policy, CHARGE, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert!(
        !world
            .server
            .command::<bool>(&["EXISTS", world.key.as_str()])
    );
}

/// A charge whose refund another version, or something else, wrote down is not made again.
#[tokio::test]
async fn a_refund_of_another_version_is_a_conflict() {
    let world = World::new();
    let policy = bucket();
    let limiter = Limiter::new(world.store.clone());
    let charge = [Charge::new(&policy, &world.key)];
    let once = limiter.charge_once(&world.id, &charge).await.unwrap();
    once.1.unwrap().refund().await.unwrap();
    let found: Vec<String> = world.server.command(&["KEYS", "ratelimit:%refund:*"]);
    let [refund] = &found[..] else {
        panic!("{found:?}");
    };
    let again = async || limiter.charge_once(&world.id, &charge).await.unwrap_err();
    assert_eq!(again().await.kind(), ErrorKind::Conflict);
    let operation = world.record(RecordKind::Operation);
    world.server.command::<()>(&["DEL", &operation]);
    for value in [&b"r\x02"[..], b"r:3:1"] {
        world.server.set(refund, value);
        assert_eq!(again().await.kind(), ErrorKind::Conflict, "{value:?}");
    }
    world.server.command::<()>(&["DEL", refund]);
    world.server.command::<()>(&["RPUSH", refund, "x"]);
    assert_eq!(again().await.kind(), ErrorKind::Foreign);
    assert_eq!(limiter.peek(&policy, &world.key).await.unwrap().used, 0);
}
