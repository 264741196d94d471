//! What the tests share: real servers, and stores whose time a test can move.
//!
//! - [`RedisServer`]: a `redis-server` of its own for each test, ended with it.
//! - [`Bench`]: the memory and the Redis store under one clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failure is a panic"
)]

mod bench;
mod server;

pub use bench::Bench;
pub use server::RedisServer;
