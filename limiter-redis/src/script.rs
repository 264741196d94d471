//! The Lua library: files joined into scripts when the crate is built.

use std::sync::atomic::{AtomicBool, Ordering};

use limiter_core::limit::{Action, Group, Step};
use limiter_core::{Effect, Error, ErrorKind};
use redis::{Script, Value};

/// What each limit script starts with, for a given clock.
macro_rules! library {
    ($clock:literal, $main:literal) => {
        concat!(
            include_str!("lua/command.lua"),
            include_str!("lua/number.lua"),
            include_str!($clock),
            include_str!("lua/state.lua"),
            include_str!("lua/fixed_window.lua"),
            include_str!("lua/calendar_window.lua"),
            include_str!("lua/sliding_window.lua"),
            include_str!("lua/sliding_log.lua"),
            include_str!("lua/token_bucket.lua"),
            include_str!("lua/concurrency.lua"),
            include_str!("lua/record.lua"),
            include_str!("lua/cells.lua"),
            include_str!("lua/arguments.lua"),
            include_str!("lua/apply.lua"),
            include_str!($main),
        )
    };
}

/// The scripts that apply a batch of groups; see `lua/main.lua` for the arguments and the reply.
#[derive(Debug)]
pub(crate) struct Scripts {
    plain: Script,
    /// The same, run also by a Redis that is out of memory: for what gives back. Needs Redis 7.
    giving: Option<Script>,
    /// Set once a server has refused the second one.
    is_old: AtomicBool,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            plain: Script::new(library!("lua/clock.lua", "lua/main.lua")),
            giving: Some(Script::new(concat!(
                "#!lua flags=allow-oom\n",
                library!("lua/clock.lua", "lua/main.lua")
            ))),
            is_old: AtomicBool::new(false),
        }
    }

    /// The first one, reading a clock that tests set; see `lua/clock_virtual.lua`. Its keys are not declared, which the second
    /// one may not do in a cluster.
    #[cfg(feature = "virtual-clock")]
    pub(crate) fn with_virtual_clock() -> Self {
        Self {
            plain: Script::new(library!("lua/clock_virtual.lua", "lua/main.lua")),
            giving: None,
            is_old: AtomicBool::new(false),
        }
    }

    pub(crate) fn plain(&self) -> &Script {
        &self.plain
    }

    /// The script for a group: what only gives back, or forgets, is done by a full Redis too, where the server
    /// can (Redis 7).
    pub(crate) fn of(&self, group: &Group<'_>) -> &Script {
        let gives = |step: &Step<'_>| step.action.follows_up() || step.action == Action::Reset;
        let giving = self.giving.as_ref().filter(|_| {
            group.operation().is_none()
                && group.steps().iter().all(gives)
                && !self.is_old.load(Ordering::Relaxed)
        });
        giving.unwrap_or(&self.plain)
    }

    /// Whether a call has to be made again with the [plain](Self::plain) script: a server that cannot read the first line
    /// of the other one has run nothing, and is not asked again.
    pub(crate) fn is_refused(&self, script: &Script, answer: &Result<Value, Error>) -> bool {
        let unreadable =
            |error: &Error| error.kind() == ErrorKind::Unsupported && error.effect() == Effect::No;
        let refused =
            answer.as_ref().is_err_and(unreadable) && script.get_hash() != self.plain.get_hash();
        if refused {
            self.is_old.store(true, Ordering::Relaxed);
        }
        refused
    }
}

/// Uses every command of the limit scripts once.
pub(crate) fn probe() -> Script {
    Script::new(concat!(
        include_str!("lua/command.lua"),
        include_str!("lua/clock.lua"),
        include_str!("lua/probe.lua"),
    ))
}

/// What each cache script starts with.
macro_rules! cache_script {
    ($main:literal) => {
        Script::new(concat!(
            include_str!("lua/command.lua"),
            include_str!("lua/cache_index.lua"),
            include_str!($main),
        ))
    };
}

pub(crate) fn cache_set() -> Script {
    cache_script!("lua/cache_set.lua")
}

pub(crate) fn cache_increment() -> Script {
    cache_script!("lua/cache_increment.lua")
}

pub(crate) fn cache_unindex() -> Script {
    cache_script!("lua/cache_unindex.lua")
}
