//! The Lua library: files joined into scripts when the crate is built.
//!
//! - `inline`: constants written in place. `call`: a group as a script takes it. `reply`: what it replies. `hot`: both for the
//!   script that most groups go to. `value`: the values of buckets.

mod inline;

pub(crate) mod call;
pub(crate) mod hot;
pub(crate) mod reply;
pub(crate) mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Script;

use self::inline::inline;

/// The limit script; what tests put in place of the time and the expiry of Redis.
macro_rules! library {
    ($clock:expr) => {
        concat!(
            include_str!("../lua/constants.lua"),
            include_str!("../lua/command.lua"),
            $clock,
            include_str!("../lua/number.lua"),
            include_str!("../lua/state.lua"),
            include_str!("../lua/cells.lua"),
            include_str!("../lua/arguments.lua"),
            include_str!("../lua/step.lua"),
            include_str!("../lua/apply.lua"),
            // One function for all, since each costs a call time for every local of the script that it uses.
            "function define(number)\n",
            // The two windows are one: the calendar's is the fixed one with other ends.
            "if number == FIXED_WINDOW or number == CALENDAR_WINDOW then\n",
            include_str!("../lua/algorithm/fixed_window.lua"),
            "if number == CALENDAR_WINDOW then\n",
            include_str!("../lua/algorithm/calendar_window.lua"),
            "end\nreturn fixed_window\nelseif number == SLIDING_WINDOW then\n",
            include_str!("../lua/algorithm/sliding_window.lua"),
            "elseif number == TOKEN_BUCKET then\n",
            include_str!("../lua/algorithm/token_bucket.lua"),
            "elseif number == SLIDING_LOG then\n",
            include_str!("../lua/algorithm/sliding_log.lua"),
            "elseif number == CONCURRENCY then\n",
            include_str!("../lua/algorithm/concurrency.lua"),
            "elseif number == RECORDS then\n",
            include_str!("../lua/record/charge.lua"),
            "elseif number == RESERVATIONS then\n",
            include_str!("../lua/record/reservation.lua"),
            "elseif number == LEASES then\n",
            include_str!("../lua/record/lease.lua"),
            "elseif number == OPERATIONS then\n",
            include_str!("../lua/record/operation.lua"),
            "end\nend\n",
            include_str!("../lua/main.lua"),
        )
    };
}

/// The short script; what tests put in place of the time and the expiry of Redis.
macro_rules! hot {
    ($clock:expr) => {
        concat!(
            include_str!("../lua/constants.lua"),
            $clock,
            include_str!("../lua/hot/begin.lua"),
            "while true do\n",
            include_str!("../lua/hot/policy.lua"),
            "if algorithm == FIXED_WINDOW or algorithm == CALENDAR_WINDOW then\n",
            include_str!("../lua/hot/window.lua"),
            "elseif algorithm > 0 then\n",
            include_str!("../lua/hot/state.lua"),
            "if algorithm == TOKEN_BUCKET then\n",
            include_str!("../lua/hot/bucket.lua"),
            "else\n",
            include_str!("../lua/hot/counter.lua"),
            "end\n",
            include_str!("../lua/hot/value.lua"),
            "end\n",
            include_str!("../lua/hot/keep.lua"),
            "if takes and kind < ENTANGLED then\n",
            include_str!("../lua/hot/write.lua"),
            // Nothing was done.
            "is_strange = refused and true\nend\n",
            include_str!("../lua/hot/group.lua"),
            "end\nif changes then\nlocal has_written = false\nfor key, change in pairs(changes) do\n",
            "local value, left, refused = values[key], lefts[key], nil\n",
            include_str!("../lua/hot/write.lua"),
            include_str!("../lua/hot/end.lua"),
            "end\nend\nreturn table.concat(replies)\n",
        )
    };
}

/// The text of the limit script, for tests of its own contract.
#[cfg(feature = "virtual-clock")]
pub fn limit_script() -> String {
    inline(library!(""))
}

/// The text of the hot script, for measurements of what it alone can do.
#[cfg(feature = "virtual-clock")]
pub fn hot_script() -> String {
    inline(hot!(""))
}

/// The scripts that apply a batch of groups; see `lua/main.lua` for the arguments and the reply, and `lua/hot/begin.lua` for the
/// hot one's.
#[derive(Debug)]
pub(crate) struct Scripts {
    /// For the groups that [`Call::is_hot`](call::Call::is_hot) tells.
    hot: Option<Arc<Script>>,
    /// For all of them.
    plain: Arc<Script>,
    /// The same, run also by a Redis that is out of memory: for what gives back. Needs Redis 7.
    giving: Option<Arc<Script>>,
    /// When a server refused the second one (milliseconds since `begun`; 0 for never): it is not asked for a while.
    refused: AtomicU64,
    begun: Instant,
}

/// How long an old server is not asked to run a script that it cannot read: it may be upgraded.
const REFUSAL: Duration = Duration::from_secs(60);

impl Scripts {
    pub(crate) fn new() -> Self {
        let script = inline(library!(""));
        Self {
            hot: Some(Arc::new(Script::new(&inline(hot!(""))))),
            plain: Arc::new(Script::new(&script)),
            giving: Some(Arc::new(Script::new(&format!(
                "#!lua flags=allow-oom\n{script}"
            )))),
            refused: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// Those that read a clock which tests set; see `lua/clock_virtual.lua`. Its keys are not declared, which the giving one may
    /// not do in a cluster.
    #[cfg(feature = "virtual-clock")]
    pub(crate) fn with_virtual_clock() -> Self {
        let hot = hot!(concat!(
            include_str!("../lua/command.lua"),
            include_str!("../lua/clock_virtual.lua"),
            include_str!("../lua/hot_virtual.lua"),
        ));
        Self {
            hot: Some(Arc::new(Script::new(&inline(hot)))),
            plain: Arc::new(Script::new(&inline(library!(include_str!(
                "../lua/clock_virtual.lua"
            ))))),
            giving: None,
            refused: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// All groups go to the one script.
    #[cfg(feature = "virtual-clock")]
    pub(crate) fn without_hot(self) -> Self {
        Self { hot: None, ..self }
    }

    pub(crate) fn hot(&self) -> Option<&Arc<Script>> {
        self.hot.as_ref()
    }

    pub(crate) fn plain(&self) -> &Arc<Script> {
        &self.plain
    }

    /// For a full Redis, unless the servers are older.
    pub(crate) fn giving(&self) -> Option<&Arc<Script>> {
        self.giving.as_ref().filter(|_| !self.was_refused())
    }

    fn millis(&self) -> u64 {
        1 + u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn was_refused(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        refused > 0 && u128::from(self.millis() - refused) < REFUSAL.as_millis()
    }

    /// A server that cannot read the first line of the [giving](Self::giving) script has run nothing, and is not asked for a
    /// minute.
    pub(crate) fn refuse_giving(&self) {
        self.refused.store(self.millis(), Ordering::Relaxed);
    }
}

/// Uses every command of the limit scripts once.
pub(crate) fn probe() -> Script {
    Script::new(concat!(
        include_str!("../lua/command.lua"),
        include_str!("../lua/probe.lua"),
    ))
}

/// What each cache script starts with.
macro_rules! cache_script {
    ($main:literal) => {
        Script::new(concat!(
            include_str!("../lua/command.lua"),
            include_str!("../lua/cache/index.lua"),
            include_str!($main),
        ))
    };
}

pub(crate) fn cache_set() -> Script {
    cache_script!("../lua/cache/set.lua")
}

pub(crate) fn cache_increment() -> Script {
    cache_script!("../lua/cache/increment.lua")
}

pub(crate) fn cache_rank() -> Script {
    cache_script!("../lua/cache/rank.lua")
}

pub(crate) fn cache_unindex() -> Script {
    cache_script!("../lua/cache/unindex.lua")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::inline::declared;

    /// Each stands in the script by its value, wherever its name does.
    #[test]
    fn no_constant_is_declared_twice() {
        let clock = include_str!("../lua/clock_virtual.lua");
        for script in [concat!(library!(""), "\n"), hot!("")] {
            let script = format!("{script}{clock}");
            let mut names = HashSet::new();
            for (name, _) in script.lines().filter_map(declared).flatten() {
                assert!(names.insert(name.to_owned()), "{name}");
            }
            assert!(names.contains("MAX_INTEGER") && names.contains("RELEASE"));
        }
    }
}
