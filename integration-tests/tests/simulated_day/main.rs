//! Quotas that rounding breaks, exact over a simulated day: 7 a minute, 3 million a second, 10
//! million a day, and 1 a month, over memory and over Redis.
//!
//! What is right is computed here from the definitions in docs, from the list of admitted charges,
//! in 128-bit integers; nothing of it comes from the library.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod fixed_window;
mod sliding_window;
mod token_bucket;
mod world;
