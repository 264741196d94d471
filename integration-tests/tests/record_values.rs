//! Records and leases that something else wrote: of another type, or no records at all.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Logs, RedisServer, policy};
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, OPERATION_TTL, Observed, OperationId, Period, Policy,
    Quota, Receipt, RecordKind, Step,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use limiter_redis::RedisStore;

const TTL: Duration = Duration::from_secs(60);
const NEVER: &str = "9007199254740991";
const HEX: &str = "0123456789abcdef0123456789abcdef";

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
        kind.name("", &self.key, &self.id)
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
    assert!(error.message().contains("ratelimit:records"), "{error}");
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
        assert!(seen.is_admitted());
        assert_eq!((seen.charged, seen.used), (0, 0));
    }
    world.server.command::<()>(&["DEL", key]);
    let charged = world.apply(&policy, Action::Charge { cost: 5 }).await;
    assert_eq!(charged.unwrap().used, 5);
    let cancel = Action::Cancel { id: &world.id };
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
    foreign(world.apply(&policy, Action::Cancel { id: &world.id }).await);
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
    assert_eq!((reserved.used, reserved.charged), (2, 0));
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
    let values = [
        String::new(),
        "5".to_owned(),
        format!("r:0:2:0:2:1:1:{NEVER}1"),
        format!("r:4:2:0:2:1:1:{NEVER}"),
        format!("r:0:-2:0:2:1:1:{NEVER}"),
        format!("r:0:02:0:2:1:1:{NEVER}"),
        format!("r:0:2:0:2:1:1:{NEVER}:1"),
        format!("r:0:nan:0:2:1:1:{NEVER}"),
        format!("r:0:2:0:2::1:{NEVER}"),
        format!("o:{HEX}:{NEVER}"),
        format!("o:{HEX}:{NEVER};1:1"),
        format!("o:{HEX}:{NEVER};1:1:nan;"),
        format!("o:{}:{NEVER};1:1:1;", HEX.to_uppercase()),
    ];
    for value in values {
        world.server.command::<()>(&["DEL", world.key.as_str()]);
        world.server.command::<()>(&["SET", &reservation, &value]);
        let settled = world.apply(&policy, world.settle()).await.unwrap_err();
        assert_eq!(settled.kind(), ErrorKind::Expired, "{value}");
        let reserved = world.apply(&policy, world.reserve()).await.unwrap();
        assert_eq!((reserved.used, reserved.charged), (2, 2), "{value}");
        let settled = world.apply(&policy, world.settle()).await.unwrap();
        assert_eq!((settled.used, settled.charged), (1, 1), "{value}");

        world.server.command::<()>(&["SET", &operation, &value]);
        for _ in 0..2 {
            let once = world.run(&policy, CHARGE, true).await.unwrap();
            assert_eq!((once.used, once.charged), (2, 1), "{value}");
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
    let values = [
        String::new(),
        "1".to_owned(),
        format!("c:{HEX}:1:{NEVER}"),
        format!("c:{HEX}:1:{NEVER};x"),
        format!("c:{HEX}0:1:{NEVER};"),
        format!("c:{HEX}:nan:{NEVER};"),
        format!("c:{HEX}:1:{NEVER}1;"),
        format!("c:{HEX}:1:{NEVER};x{HEX}:1:{NEVER};"),
    ];
    let acquire = |id| Action::Acquire {
        lease: id,
        cost: 1,
        ttl: TTL,
    };
    let other = OperationId::new("other");
    for value in values {
        world
            .server
            .command::<()>(&["SET", world.key.as_str(), &value]);
        let held = world.apply(&policy, acquire(&world.id)).await.unwrap();
        assert!(held.is_admitted() && held.used == 1, "{value}");
        let denied = world.apply(&policy, acquire(&other)).await.unwrap();
        assert!(!denied.is_admitted(), "{value}");
        assert!(world.server.command::<i64>(&["PTTL", world.key.as_str()]) > 0);
    }
}
