//! The layer around services: alone, in axum and in plain hyper over TCP.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests stand outside the test functions that clippy.toml exempts"
)]

mod any_body;
mod foreign;
#[cfg(feature = "grpc")]
mod grpc;
mod latency;
mod layer;
mod policies;
mod support;
#[cfg(feature = "axum")]
mod with_axum;
#[cfg(all(feature = "axum", unix))]
mod with_axum_peers;
mod with_hyper;
