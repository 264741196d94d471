//! The layer around services: alone, in axum and in plain hyper over TCP.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests stand outside the test functions that clippy.toml exempts"
)]

mod latency;
mod layer;
mod support;
#[cfg(feature = "axum")]
mod with_axum;
mod with_hyper;
