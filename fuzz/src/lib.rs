//! Fuzz targets: each is a function over bytes that panics where something is wrong.
//!
//! `scripts/fuzz.sh` runs them all on a stable compiler, for a bounded time. cargo-fuzz finds deeper
//! faults, because it sees which code an input reaches:
//! `cargo +nightly fuzz run TARGET --features libfuzzer`.
//!
//! A new target is a module here with `target` and `SEEDS`, a line in [`TARGETS`], a file in
//! `fuzz_targets/` and a `[[bin]]` in `Cargo.toml`.

pub mod forwarded;
pub mod headers;
pub mod keys;
pub mod replies;

mod bytes;
/// Property tests and fuzzing judge by the same rules.
#[path = "../../limiter-http/tests/properties/oracle/mod.rs"]
mod oracle;

/// A target as the driver runs it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
    /// Inputs that mutation starts from.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "keys",
        run: keys::target,
        seeds: keys::SEEDS,
    },
    Target {
        name: "forwarded",
        run: forwarded::target,
        seeds: forwarded::SEEDS,
    },
    Target {
        name: "headers",
        run: headers::target,
        seeds: headers::SEEDS,
    },
    Target {
        name: "replies",
        run: replies::target,
        seeds: replies::SEEDS,
    },
];
