//! The Lua library: files joined into scripts when the crate is built.

use redis::Script;

/// What each limit script starts with, for a given clock.
macro_rules! library {
    ($clock:literal, $main:literal) => {
        concat!(
            include_str!("lua/command.lua"),
            include_str!("lua/number.lua"),
            include_str!($clock),
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

/// A batch of groups; see `lua/main.lua` for the arguments and the reply.
pub(crate) fn apply() -> Script {
    Script::new(library!("lua/clock.lua", "lua/main.lua"))
}

/// The same, reading a clock that tests set; see `lua/clock_virtual.lua`.
#[cfg(feature = "virtual-clock")]
pub(crate) fn apply_with_virtual_clock() -> Script {
    Script::new(library!("lua/clock_virtual.lua", "lua/main.lua"))
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
