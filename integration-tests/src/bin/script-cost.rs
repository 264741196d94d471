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

use integration_tests::{GCRA, RedisServer, policy};
use limiter_core::limit::algorithm::MAX_LOG;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, OperationId, Period, Policy, Quota, Receipt,
    Step,
};
use limiter_core::{Error, Key};
use limiter_redis::RedisStore;
use redis::{Connection, Script};

const ROUNDS: usize = 9;
const CALLS: usize = 300;
/// The most that there may be.
const LEASES: u64 = 10_000;
const ENTRIES: u64 = MAX_LOG;
const TTL: Duration = Duration::from_secs(600);

struct World {
    server: RedisServer,
    admin: Connection,
    store: RedisStore,
    key: Key,
}

/// A call of which the state was made before, and is made again before each round.
struct Case {
    name: &'static str,
    quota: Quota,
    /// How many leases or charges there are when a round begins.
    held: u64,
    /// Of leases: what the first one costs; the others cost 1.
    first: u64,
    call: Call,
}

#[derive(Clone, Copy)]
enum Call {
    Charge(u64),
    Peek,
    RefundOldest,
    RefundNewest,
    Acquire(u64),
    Renew,
    Release,
}

/// A key's value, and what made it.
struct State {
    dump: Vec<u8>,
    /// Oldest first.
    receipts: Vec<Receipt>,
}

fn cases() -> Vec<Case> {
    let leases = |name, held, call| Case {
        name,
        quota: Quota::concurrency(LEASES).unwrap(),
        held,
        first: 1,
        call,
    };
    let log = |name, held, call| Case {
        quota: Quota::sliding_log(ENTRIES, Period::DAY).unwrap(),
        ..leases(name, held, call)
    };
    let plain = |name, quota: Result<Quota, Error>| Case {
        quota: quota.unwrap(),
        ..leases(name, 1, Call::Charge(1))
    };
    let calls = CALLS as u64;
    vec![
        plain(
            "fixed window: charge",
            Quota::fixed_window(1_000, Period::HOUR),
        ),
        plain(
            "sliding window counter: charge",
            Quota::sliding_window(1_000, Period::HOUR),
        ),
        plain(
            "token bucket: charge",
            Quota::token_bucket(1_000, 1, Period::HOUR),
        ),
        leases("leases: acquire", LEASES - calls, Call::Acquire(1)),
        leases("leases: renew", LEASES, Call::Renew),
        leases("leases: release", LEASES, Call::Release),
        leases("leases: peek", LEASES, Call::Peek),
        leases("leases: denied", LEASES, Call::Acquire(1)),
        leases(
            "leases: half of all denied",
            LEASES,
            Call::Acquire(LEASES / 2),
        ),
        Case {
            first: 2,
            ..leases(
                "leases of different costs: half of all denied",
                LEASES - 1,
                Call::Acquire(LEASES / 2),
            )
        },
        log("log: charge", ENTRIES - calls, Call::Charge(1)),
        log("log: peek", ENTRIES, Call::Peek),
        log("log: denied", ENTRIES, Call::Charge(1)),
        log(
            "log: half of all denied",
            ENTRIES,
            Call::Charge(ENTRIES / 2),
        ),
        log("log: newest given back", ENTRIES, Call::RefundNewest),
        log("log: oldest given back", ENTRIES, Call::RefundOldest),
    ]
}

impl World {
    async fn call(&self, policy: &Policy, action: Action<'_>) -> Observed {
        let steps = [Step::new(policy, &self.key, action)];
        let group = Group::new(&steps, &Capabilities::ALL).unwrap();
        let mut observed = [Observed::default()];
        self.store.apply(&group, &mut observed).await.unwrap();
        observed[0]
    }

    /// The state of a key that has so many leases or charges.
    async fn state(&mut self, case: &Case) -> State {
        redis::cmd("FLUSHALL").exec(&mut self.admin).unwrap();
        let policy = policy(Ok(case.quota));
        let mut receipts = Vec::new();
        for number in 0..case.held {
            let id = held(number);
            let action = if case.quota.is_concurrency() {
                let cost = if number == 0 { case.first } else { 1 };
                let lease = &id;
                Action::Acquire {
                    lease,
                    cost,
                    ttl: TTL,
                }
            } else {
                Action::Charge { cost: 1 }
            };
            let observed = self.call(&policy, action).await;
            receipts.push(Receipt::new(id, observed.mark, 1));
        }
        let mut dump = redis::cmd("DUMP");
        let dump = dump.arg(self.key.as_str()).query(&mut self.admin).unwrap();
        State { dump, receipts }
    }

    /// Puts a state back, and nothing else: no record of what former rounds released.
    fn restore(&mut self, state: &State) {
        redis::cmd("FLUSHALL").exec(&mut self.admin).unwrap();
        let mut restore = redis::cmd("RESTORE");
        restore.arg(self.key.as_str()).arg(600_000).arg(&state.dump);
        restore.exec(&mut self.admin).unwrap();
    }

    /// What the server spent on each script call since it was asked last.
    fn micros(&mut self) -> f64 {
        let (micros, calls) = (self.server.micros("evalsha"), self.server.calls("evalsha"));
        self.reset();
        micros as f64 / calls as f64
    }

    fn reset(&mut self) {
        let mut reset = redis::cmd("CONFIG");
        reset.arg("RESETSTAT").exec(&mut self.admin).unwrap();
    }

    async fn measure(&mut self, case: &Case, state: &State, round: usize) -> f64 {
        self.restore(state);
        self.reset();
        let policy = policy(Ok(case.quota));
        for call in 0..CALLS {
            let new = OperationId::new(format!("new {round} {call}"));
            let known = held((call as u64 * 331) % case.held);
            let action = match case.call {
                Call::Charge(cost) => Action::Charge { cost },
                Call::Peek => Action::Peek { cost: 1 },
                Call::RefundOldest => Action::Refund {
                    receipt: &state.receipts[call],
                },
                Call::RefundNewest => Action::Refund {
                    receipt: &state.receipts[state.receipts.len() - 1 - call],
                },
                Call::Acquire(cost) => Action::Acquire {
                    lease: &new,
                    cost,
                    ttl: TTL,
                },
                Call::Renew => Action::Renew {
                    lease: &known,
                    ttl: TTL,
                },
                Call::Release => Action::Release {
                    lease: &known,
                    ttl: TTL,
                },
            };
            self.call(&policy, action).await;
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
        "{}, {ROUNDS} rounds of {CALLS} calls; {LEASES} leases, logs of {ENTRIES}",
        version.unwrap_or_default()
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
