//! What is held and remembered, over Redis's own clock and expiry (`clock.lua`): leases and reservations
//! end when they said and not earlier, and every key that any action makes has a bounded expiry (I-H8).
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod ends;
mod expiry;

use std::time::{Duration, Instant};

use integration_tests::RedisServer;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, OperationId, Policy, Step,
};
use limiter_core::{Error, Key};
use limiter_redis::RedisStore;

const TTL: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_secs(3_600);
/// `RATE_LIMIT_TTL_SECONDS`.
const FLOOR: Duration = Duration::from_secs(7);

struct World {
    server: RedisServer,
    redis: redis::Connection,
    store: RedisStore,
    key: Key,
}

/// An answer, and Redis's time before and after it.
struct Answer {
    before: Timestamp,
    result: Result<Observed, Error>,
    after: Timestamp,
}

impl World {
    fn new() -> Self {
        let server = RedisServer::start();
        let config = server.config().with_state_ttl(FLOOR);
        Self {
            redis: server.admin(),
            store: RedisStore::new(&config).unwrap(),
            key: Key::new(["ratelimit", "real", "actions"]),
            server,
        }
    }

    fn time(&mut self) -> Timestamp {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut self.redis).unwrap();
        Timestamp::from_micros(seconds * 1_000_000 + micros)
    }

    async fn apply(&mut self, policy: &Policy, action: Action<'_>) -> Answer {
        self.apply_as(policy, action, None).await
    }

    async fn apply_as(
        &mut self,
        policy: &Policy,
        action: Action<'_>,
        operation: Option<(&OperationId, Duration)>,
    ) -> Answer {
        let key = self.key.clone();
        let steps = [Step::new(policy, &key, action)];
        let mut group = Group::new(&steps, &Capabilities::ALL).unwrap();
        if let Some((id, ttl)) = operation {
            group = group.with_operation(id, ttl, &Capabilities::ALL).unwrap();
        }
        let mut observed = [Observed::default()];
        let before = self.time();
        let result = self.store.apply(&group, &mut observed).await;
        let after = self.time();
        Answer {
            before,
            result: result.map(|()| observed[0]),
            after,
        }
    }

    /// Asks until `ended`, which must not be before `made + TTL` nor after it: what was made then ends so.
    async fn ends(
        &mut self,
        made: &Answer,
        policy: &Policy,
        action: Action<'_>,
        ended: impl Fn(&Result<Observed, Error>) -> bool,
    ) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.apply(policy, action.clone()).await;
            if ended(&answer.result) {
                let earliest = made.before.saturating_add(TTL);
                assert!(answer.after >= earliest, "{:?}: too early", answer.result);
                return;
            }
            let latest = made.after.saturating_add(TTL);
            assert!(answer.before < latest, "{:?}: and still", answer.result);
            assert!(Instant::now() < deadline, "never");
        }
    }
}

fn id(id: &str) -> OperationId {
    OperationId::new(id)
}

fn acquire(lease: &OperationId, ttl: Duration) -> Action<'_> {
    let cost = 1;
    Action::Acquire { lease, cost, ttl }
}
