//! The load of an AI agent on several instances (E4): every call is counted, and the counters in Redis
//! must be what was admitted, exactly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limiter::memory::MemoryStore;
use limiter::redis::RedisStore;
use limiter::{AgentLimits, ErrorKind, Limiter, Outcome, Period, Policy, Quota};
use serde::Serialize;
use tokio::sync::Barrier;

use crate::RedisServer;

const INSTANCES: usize = 3;
const SESSIONS: usize = 50;
const TURNS: usize = 10;
const TOOLS: [&str; 5] = ["search", "browse", "code", "files", "mail"];
/// Each instance calls each tool so often in each turn; together twice what a turn allows.
const CALLS: usize = 4;
const TURN_LIMIT: u64 = 6;
/// Reached in the seventh turn, in the middle.
const SESSION_LIMIT: u64 = 40;

/// The load asks whether limits are exact, and not how fast a busy machine is: no call is too slow for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// What happened. Counts are of all sessions and tools together; `faults` has a line for each counter
/// that is not what it has to be, and is empty if all is well.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct AgentLoad {
    /// Processes' worth of limiters, each with connections of its own.
    pub instances: usize,
    /// Sessions, served at once.
    pub sessions: usize,
    /// Turns of a session, one after the other.
    pub turns: usize,
    /// Tools.
    pub tools: usize,
    /// Calls asked for.
    pub calls: u64,
    /// Calls admitted.
    pub admitted: u64,
    /// What exact limits admit.
    pub expected: u64,
    /// Calls that the turn's limit denied.
    pub denied_by_turn: u64,
    /// Calls that the session's limit denied.
    pub denied_by_session: u64,
    /// Calls that could not be checked.
    pub unavailable: u64,
    /// Admitted calls that no counter in Redis holds.
    pub lost: u64,
    /// Admissions above a limit.
    pub exceeded: u64,
    /// Calls a second, all instances together.
    pub calls_per_second: f64,
    /// Median time of a call, in microseconds.
    pub p50_micros: u64,
    /// What one call in a hundred exceeds.
    pub p99_micros: u64,
    /// One line for each fault.
    pub faults: Vec<String>,
}

/// What one session's tasks saw.
#[derive(Debug, Default)]
struct Seen {
    /// By turn and tool.
    admitted: BTreeMap<(usize, usize), u64>,
    by_turn: u64,
    by_session: u64,
    /// Why calls could not be checked.
    unavailable: Vec<ErrorKind>,
    micros: Vec<u64>,
}

impl AgentLoad {
    /// Runs the load on a Redis of its own. With `sabotage`, the last instance counts in its own memory
    /// and not in Redis, which has to be found out.
    pub async fn run(sabotage: bool) -> Self {
        let server = RedisServer::start();
        let instances: Vec<Arc<AgentLimits>> = (0..INSTANCES)
            .map(|instance| {
                let limiter = if sabotage && instance + 1 == INSTANCES {
                    Limiter::new(MemoryStore::new())
                } else {
                    let config = server
                        .config()
                        .with_check_deadline(DEADLINE)
                        .with_slow_threshold(DEADLINE);
                    Limiter::new(RedisStore::new(&config).unwrap())
                };
                Arc::new(limits(limiter))
            })
            .collect();
        let start = Instant::now();
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| tokio::spawn(serve(instances.clone(), session)))
            .collect();
        let mut seen = Vec::new();
        for session in sessions {
            seen.push(session.await.unwrap());
        }
        report(&server, &instances[0], seen, start.elapsed())
    }

    /// The table that people read.
    pub fn table(&self) -> String {
        let rows = [
            (
                "instances x sessions x turns x tools",
                format!(
                    "{} x {} x {} x {}",
                    self.instances, self.sessions, self.turns, self.tools
                ),
            ),
            ("calls", self.calls.to_string()),
            ("admitted", self.admitted.to_string()),
            ("expected", self.expected.to_string()),
            (
                "denied by the turn's limit",
                self.denied_by_turn.to_string(),
            ),
            (
                "denied by the session's limit",
                self.denied_by_session.to_string(),
            ),
            ("not checked", self.unavailable.to_string()),
            ("above a limit", self.exceeded.to_string()),
            ("charges lost", self.lost.to_string()),
            ("calls a second", format!("{:.0}", self.calls_per_second)),
            ("median call", format!("{} us", self.p50_micros)),
            ("99th percentile", format!("{} us", self.p99_micros)),
        ];
        let rows = rows.map(|(name, value)| format!("{name:<38}{value:>18}\n"));
        let mut table = rows.concat();
        for fault in self.faults.iter().take(10) {
            table.push_str(&format!("FAULT  {fault}\n"));
        }
        if self.faults.len() > 10 {
            table.push_str(&format!("and {} more faults\n", self.faults.len() - 10));
        }
        table
    }
}

fn limits(limiter: Limiter) -> AgentLimits {
    let policy = |name, limit| {
        let quota = Quota::fixed_window(limit, Period::DAY).unwrap();
        Policy::new(name, quota).unwrap()
    };
    let (turn, session) = ("agent-turn", "agent-session");
    AgentLimits::with_policies(
        limiter,
        policy(turn, TURN_LIMIT),
        policy(session, SESSION_LIMIT),
    )
}

fn session_name(session: usize) -> String {
    format!("session-{session}")
}

fn turn_name(turn: usize) -> String {
    format!("turn-{turn}")
}

/// One session: its turns one after the other, each on every instance at once.
async fn serve(instances: Vec<Arc<AgentLimits>>, session: usize) -> Seen {
    let mut seen = Seen::default();
    for turn in 0..TURNS {
        let together = Arc::new(Barrier::new(instances.len()));
        let tasks: Vec<_> = instances
            .iter()
            .map(|instance| {
                let (instance, together) = (instance.clone(), together.clone());
                tokio::spawn(async move {
                    together.wait().await;
                    take_turn(&instance, session, turn).await
                })
            })
            .collect();
        for task in tasks {
            let one = task.await.unwrap();
            for (place, admitted) in one.admitted {
                *seen.admitted.entry(place).or_default() += admitted;
            }
            seen.by_turn += one.by_turn;
            seen.by_session += one.by_session;
            seen.unavailable.extend(one.unavailable);
            seen.micros.extend(one.micros);
        }
    }
    seen
}

async fn take_turn(limits: &AgentLimits, session: usize, turn: usize) -> Seen {
    let mut seen = Seen::default();
    let calls = limits.turn(&session_name(session), &turn_name(turn));
    for _ in 0..CALLS {
        for (tool, name) in TOOLS.into_iter().enumerate() {
            let asked = Instant::now();
            let decision = calls.call(name).await;
            seen.micros
                .push(u64::try_from(asked.elapsed().as_micros()).unwrap());
            if decision.is_allowed() {
                *seen.admitted.entry((turn, tool)).or_default() += 1;
                continue;
            }
            let denied = |level: usize| decision.decisions[level].retry_after().is_some();
            seen.by_turn += u64::from(denied(0));
            seen.by_session += u64::from(denied(1));
            if let Outcome::Unavailable { kind } = decision.outcome {
                seen.unavailable.push(kind);
            }
        }
    }
    seen
}

/// Holds what was admitted against what exact limits admit, and against the counters in Redis.
fn report(
    server: &RedisServer,
    limits: &AgentLimits,
    seen: Vec<Seen>,
    elapsed: Duration,
) -> AgentLoad {
    let mut redis = server.admin();
    let mut count = |key: limiter::Key| -> u64 {
        let value: Option<u64> = redis::cmd("GET")
            .arg(key.as_str())
            .query(&mut redis)
            .unwrap();
        value.unwrap_or(0)
    };
    let (mut faults, mut lost, mut exceeded, mut expected) = (Vec::new(), 0, 0, 0);
    let mut compare = |what: String, admitted: u64, right: u64, counted: u64, limit: u64| {
        exceeded += admitted.saturating_sub(limit);
        lost += admitted.saturating_sub(counted);
        if admitted != right || counted != right {
            faults.push(format!(
                "{what}: {admitted} admitted, {counted} counted, {right} expected, limit {limit}"
            ));
        }
    };
    for (session, seen) in seen.iter().enumerate() {
        for (tool, name) in TOOLS.into_iter().enumerate() {
            let mut of_session = 0;
            let mut left = SESSION_LIMIT;
            for turn in 0..TURNS {
                let admitted = seen.admitted.get(&(turn, tool)).copied().unwrap_or(0);
                let right = TURN_LIMIT.min(left);
                let (key, _) = limits
                    .turn(&session_name(session), &turn_name(turn))
                    .keys(name);
                let what = key.to_string();
                compare(what, admitted, right, count(key), TURN_LIMIT);
                of_session += admitted;
                left -= right;
            }
            let (_, key) = limits.turn(&session_name(session), "").keys(name);
            let right = SESSION_LIMIT - left;
            let what = key.to_string();
            compare(what, of_session, right, count(key), SESSION_LIMIT);
            expected += right;
        }
    }
    let unavailable: Vec<ErrorKind> = seen
        .iter()
        .flat_map(|seen| seen.unavailable.clone())
        .collect();
    faults.extend(
        unavailable
            .iter()
            .map(|kind| format!("a call was not checked: {kind}")),
    );
    let mut micros: Vec<u64> = seen.iter().flat_map(|seen| seen.micros.clone()).collect();
    micros.sort_unstable();
    let calls = micros.len() as u64;
    AgentLoad {
        instances: INSTANCES,
        sessions: SESSIONS,
        turns: TURNS,
        tools: TOOLS.len(),
        calls,
        admitted: seen.iter().flat_map(|seen| seen.admitted.values()).sum(),
        expected,
        denied_by_turn: seen.iter().map(|seen| seen.by_turn).sum(),
        denied_by_session: seen.iter().map(|seen| seen.by_session).sum(),
        unavailable: unavailable.len() as u64,
        lost,
        exceeded,
        calls_per_second: micros.len() as f64 / elapsed.as_secs_f64(),
        p50_micros: micros[micros.len() / 2],
        p99_micros: micros[micros.len() * 99 / 100],
        faults,
    }
}
