//! What a server tells of itself: looked at when its connections begin, and about once a minute while it is used. Hosted
//! servers answer INFO where they refuse CONFIG.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8;
use limiter_core::ServerInfo;
use parking_lot::Mutex;
use redis::Value;
use tokio::time::{Instant, sleep, timeout};

use super::Keeps;
use crate::pool::connection::{Manager, Origin};

/// How often, while it is used: an idle instance asks nothing.
const PERIOD: Duration = Duration::from_secs(60);

/// How often it is seen whether it is time.
const TICK: Duration = Duration::from_secs(5);

/// For one question.
const LIMIT: Duration = Duration::from_secs(2);

/// From how many percent of its memory on it is said that a server fills up, and that it is nearly full.
const FILLING: u64 = 80;
const NEARLY_FULL: u64 = 95;

/// What a server tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// Whether it is a node of a cluster.
    pub(crate) is_node: bool,
    info: ServerInfo,
}

/// What was seen last, and when. Shared by the pools of all runtimes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<(Instant, ServerInfo)>>>);

impl Seen {
    /// Notes what a server tells, and says what has become worse for counters, if it has some.
    pub(crate) fn note(&self, host: &str, server: Server, keeps: Keeps) {
        let Server { mut info, .. } = server;
        host.clone_into(&mut info.host);
        let before = self.0.lock().replace((Instant::now(), info.clone()));
        let before = before.map(|(_, before)| before).unwrap_or_default();
        if keeps == Keeps::Counters {
            alarm(host, &info, &before);
        }
    }

    /// What it was.
    pub(crate) fn info(&self) -> Option<ServerInfo> {
        let seen = self.0.lock();
        seen.as_ref().map(|(_, info)| info.clone())
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        let seen = self.0.lock();
        seen.as_ref().is_some_and(|(at, _)| at.elapsed() < age)
    }
}

impl Server {
    /// Reads the reply to INFO.
    pub(crate) fn read(info: &Value) -> Self {
        let text = match info {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Value::VerbatimString { text, .. } => text,
            _ => "",
        };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|number| number.parse().ok());
        let mut info = ServerInfo::default();
        info.version = field("redis_version").map(str::to_owned);
        info.memory_used = number("used_memory");
        info.memory_limit = number("maxmemory").filter(|limit| *limit > 0);
        info.evicted = number("evicted_keys");
        info.commands = number("total_commands_processed");
        if info.memory_limit.is_some() {
            info.eviction = field("maxmemory_policy").map(str::to_owned);
        }
        Self {
            is_node: field("cluster_enabled") == Some("1"),
            info,
        }
    }
}

/// Says what has become worse.
fn alarm(host: &str, info: &ServerInfo, before: &ServerInfo) {
    if let Some(policy) = &info.eviction
        && policy != "noeviction"
        && before.eviction != info.eviction
    {
        tracing::error!(
            policy,
            host,
            "this Redis evicts keys when it is full, counters too: set maxmemory-policy noeviction, and give caches a Redis of their own with CACHE_REDIS_URL"
        );
    }
    let percent = info.memory_percent().unwrap_or(0);
    let earlier = before.memory_percent().unwrap_or(0);
    if percent >= NEARLY_FULL && earlier < NEARLY_FULL {
        tracing::error!(
            percent,
            host,
            "this Redis is nearly full: then charges fail, or counters are evicted; raise maxmemory"
        );
    } else if percent >= FILLING && earlier < FILLING {
        tracing::warn!(
            percent,
            host,
            "this Redis fills up; raise maxmemory before it is full"
        );
    }
}

/// What health says of a server in words, to be put behind another sentence.
pub(crate) fn words(info: &ServerInfo) -> String {
    let mut words = String::new();
    if let Some(version) = &info.version {
        words.push_str(&format!(" (version {version})"));
    }
    if let Some(percent) = info.memory_percent() {
        let policy = info.eviction.as_deref().unwrap_or("unknown");
        words.push_str(&format!(
            "; it uses {percent} % of its memory, maxmemory-policy {policy}"
        ));
    }
    words
}

/// Looks for as long as the pool is there.
pub(super) async fn look(
    pool: bb8::Pool<Manager>,
    origin: Arc<Origin>,
    host: String,
    seen: Seen,
    keeps: Keeps,
) {
    let (mut beginning, mut answers) = (origin.beginnings(), origin.answers());
    let mut tried = Instant::now();
    loop {
        sleep(TICK).await;
        let is_time = tried.elapsed() >= PERIOD && !seen.is_younger_than(PERIOD);
        let is_used = answers != origin.answers() && is_time;
        if seen.is_younger_than(2 * TICK) {
            // It was asked when the connections began.
            beginning = origin.beginnings();
        }
        let is_new = beginning != origin.beginnings();
        if !(is_used || is_new) || *origin.live().borrow() == 0 {
            continue;
        }
        (beginning, answers) = (origin.beginnings(), origin.answers());
        tried = Instant::now();
        let ask = async {
            let mut io = pool.get().await.ok()?.io.clone();
            let info = redis::cmd("INFO");
            info.query_async::<Value>(&mut io).await.ok()
        };
        if let Ok(Some(info)) = timeout(LIMIT, ask).await {
            seen.note(&host, Server::read(&info), keeps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells() {
        let told = |text: &str| Server::read(&Value::BulkString(text.into()));
        let full = "redis_version:7.0.15\r\n# Memory\r\nused_memory:83\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n# Cluster\r\ncluster_enabled:1\r\n";
        let server = told(full);
        assert!(server.is_node);
        assert_eq!(server.info.eviction.as_deref(), Some("allkeys-lru"));
        assert_eq!(
            words(&server.info),
            " (version 7.0.15); it uses 83 % of its memory, maxmemory-policy allkeys-lru"
        );
        let endless = told(&full.replace("maxmemory:100", "maxmemory:0")).info;
        assert_eq!((&endless.eviction, endless.memory_limit), (&None, None));
        assert_eq!(words(&endless), " (version 7.0.15)");
        assert_eq!(told("cluster_enabled:0"), Server::default());
        assert_eq!(Server::read(&Value::Nil), Server::default());
    }
}
