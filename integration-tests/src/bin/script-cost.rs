//! What each limit costs a Redis, as a multiple of the smallest script that limits anything: GCRA in a GET and a SET.
//! Prints a table for people, with the server's own time (`INFO commandstats`). Rounds are interleaved, and each ratio
//! is taken within one round; the table has their medians. In a round, a call follows the other on one state, as GCRA's do:
//! what a server did in between, e.g. restored a state, would be in the first calls' time only.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: its failures are panics"
)]

use std::time::Duration;

use integration_tests::{RedisServer, policy};
use limiter_core::Key;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, OperationId, Period, Policy, Quota, Step,
};
use limiter_redis::RedisStore;
use redis::{Connection, Script};

const ROUNDS: usize = 9;
const CALLS: usize = 300;
const FULL: u64 = 1_000;
const TTL: Duration = Duration::from_secs(600);

/// The generic cell rate algorithm (ITU-T I.371) with the server's time, in the fewest commands.
const GCRA: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + 1000
if arrival - now > 1000000 then
  return 0
end
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', 2000)
return 1";

struct World {
    server: RedisServer,
    admin: Connection,
    store: RedisStore,
    key: Key,
}

/// A call of which the state was made before, and is made again before each round.
struct Case {
    name: &'static str,
    policy: Policy,
    /// How many leases or charges there are when a round begins.
    held: u64,
    /// Of leases: what the first one costs; the others cost 1.
    first: u64,
    action: fn(&OperationId) -> Action<'_>,
    /// Whether the call names a lease that is held.
    known: bool,
}

fn charge(_: &OperationId) -> Action<'_> {
    Action::Charge { cost: 1 }
}

fn charge_many(_: &OperationId) -> Action<'_> {
    Action::Charge { cost: 500 }
}

fn peek(_: &OperationId) -> Action<'_> {
    Action::Peek { cost: 1 }
}

fn acquire(lease: &OperationId) -> Action<'_> {
    Action::Acquire {
        lease,
        cost: 1,
        ttl: TTL,
    }
}

fn acquire_many(lease: &OperationId) -> Action<'_> {
    Action::Acquire {
        lease,
        cost: 500,
        ttl: TTL,
    }
}

fn renew(lease: &OperationId) -> Action<'_> {
    Action::Renew { lease, ttl: TTL }
}

fn release(lease: &OperationId) -> Action<'_> {
    Action::Release { lease, ttl: TTL }
}

fn cases() -> Vec<Case> {
    let concurrency = || policy(Quota::concurrency(FULL));
    let log = || policy(Quota::sliding_log(FULL, Period::DAY));
    let case = |name, policy, held, action, known| Case {
        name,
        policy,
        held,
        first: 1,
        action,
        known,
    };
    let hourly = policy(Quota::fixed_window(FULL, Period::HOUR));
    let counter = policy(Quota::sliding_window(FULL, Period::HOUR));
    let bucket = policy(Quota::token_bucket(FULL, 1, Period::HOUR));
    vec![
        case("fixed window: charge", hourly, 1, charge, false),
        case("sliding window counter: charge", counter, 1, charge, false),
        case("token bucket: charge", bucket, 1, charge, false),
        case(
            "concurrency 1,000: acquire",
            concurrency(),
            FULL - CALLS as u64,
            acquire,
            false,
        ),
        case("concurrency 1,000: renew", concurrency(), FULL, renew, true),
        case(
            "concurrency 1,000: release",
            concurrency(),
            FULL,
            release,
            true,
        ),
        case("concurrency 1,000: peek", concurrency(), FULL, peek, false),
        case(
            "concurrency 1,000: denied",
            concurrency(),
            FULL,
            acquire,
            false,
        ),
        Case {
            first: 2,
            ..case(
                "concurrency 1,000 of different costs: denied 500",
                concurrency(),
                FULL - 1,
                acquire_many,
                false,
            )
        },
        case(
            "sliding log 1,000: charge",
            log(),
            FULL - CALLS as u64,
            charge,
            false,
        ),
        case("sliding log 1,000: peek", log(), FULL, peek, false),
        case("sliding log 1,000: denied", log(), FULL, charge, false),
        case(
            "sliding log 1,000: denied 500",
            log(),
            FULL,
            charge_many,
            false,
        ),
    ]
}

impl World {
    async fn call(&self, policy: &Policy, action: Action<'_>) {
        let steps = [Step::new(policy, &self.key, action)];
        let group = Group::new(&steps, &Capabilities::ALL).unwrap();
        self.store
            .apply(&group, &mut [Observed::default()])
            .await
            .unwrap();
    }

    /// The value of a key that has so many units taken.
    async fn state(&mut self, case: &Case) -> Vec<u8> {
        redis::cmd("DEL")
            .arg(self.key.as_str())
            .exec(&mut self.admin)
            .unwrap();
        for number in 0..case.held {
            let id = held(number);
            let action = if case.policy.quota().is_concurrency() {
                Action::Acquire {
                    lease: &id,
                    cost: if number == 0 { case.first } else { 1 },
                    ttl: TTL,
                }
            } else {
                charge(&id)
            };
            self.call(&case.policy, action).await;
        }
        let mut dump = redis::cmd("DUMP");
        dump.arg(self.key.as_str()).query(&mut self.admin).unwrap()
    }

    /// Puts a state back, and nothing else: no record of what former rounds released.
    fn restore(&mut self, state: &[u8]) {
        redis::cmd("FLUSHALL").exec(&mut self.admin).unwrap();
        let mut restore = redis::cmd("RESTORE");
        restore.arg(self.key.as_str()).arg(600_000).arg(state);
        restore.arg("REPLACE").exec(&mut self.admin).unwrap();
    }

    /// What the server spent on each script call since it was asked last.
    fn micros(&mut self) -> f64 {
        let mut info = redis::cmd("INFO");
        let stats: String = info.arg("commandstats").query(&mut self.admin).unwrap();
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"));
        let (_, rest) = line.unwrap().split_once("usec_per_call=").unwrap();
        let micros = rest.split(',').next().unwrap().parse().unwrap();
        self.reset();
        micros
    }

    fn reset(&mut self) {
        let mut reset = redis::cmd("CONFIG");
        reset.arg("RESETSTAT").exec(&mut self.admin).unwrap();
    }

    async fn measure(&mut self, case: &Case, state: &[u8], round: usize) -> f64 {
        self.restore(state);
        self.reset();
        for call in 0..CALLS {
            let id = if case.known {
                held((call as u64 * 331) % case.held)
            } else {
                OperationId::new(format!("new {round} {call}"))
            };
            self.call(&case.policy, (case.action)(&id)).await;
        }
        self.micros()
    }

    /// A charge, which is what the others are compared with: a denial writes nothing, and costs half as much.
    fn measure_gcra(&mut self, script: &Script) -> f64 {
        redis::cmd("FLUSHALL").exec(&mut self.admin).unwrap();
        self.reset();
        let mut admitted = 0;
        for _ in 0..CALLS {
            let call = script
                .key("ratelimit:gcra")
                .invoke::<usize>(&mut self.admin);
            admitted += call.unwrap();
        }
        assert_eq!(admitted, CALLS, "GCRA denied");
        self.micros()
    }
}

fn held(number: u64) -> OperationId {
    OperationId::new(format!("held {number}"))
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = RedisServer::start();
    let config = server.config().with_pool_size(1);
    let mut world = World {
        store: RedisStore::new(&config).unwrap(),
        admin: server.admin(),
        key: Key::new(["ratelimit", "cost"]),
        server,
    };
    let gcra = Script::new(GCRA);
    let cases = cases();
    let mut states = Vec::new();
    for case in &cases {
        states.push(world.state(case).await);
    }
    let mut floor = Vec::new();
    let mut measured = vec![(Vec::new(), Vec::new()); cases.len()];
    for round in 0..ROUNDS {
        for ((case, state), (micros, ratios)) in cases.iter().zip(&states).zip(&mut measured) {
            // Beside each, so that a noisy moment is both's.
            let least = world.measure_gcra(&gcra);
            let taken = world.measure(case, state, round).await;
            floor.push(least);
            micros.push(taken);
            ratios.push(taken / least);
        }
    }
    let version: String = redis::cmd("INFO")
        .arg("server")
        .query(&mut world.admin)
        .unwrap();
    let version = version
        .lines()
        .find(|line| line.starts_with("redis_version"));
    println!(
        "{}, {} rounds of {CALLS} calls",
        version.unwrap_or_default(),
        ROUNDS
    );
    println!("| Call | us on the server | times GCRA |\n|---|---|---|");
    println!(
        "| GCRA, one GET and one SET | {:.1} | 1.0 |",
        median(&mut floor)
    );
    for (case, (mut micros, mut ratios)) in cases.iter().zip(measured) {
        let (micros, ratio) = (median(&mut micros), median(&mut ratios));
        println!("| {} | {micros:.1} | {ratio:.1} |", case.name);
    }
    drop(world.server);
}
