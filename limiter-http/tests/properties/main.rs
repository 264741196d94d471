//! What holds for any header line that a client may send and for any decision that a store may
//! give: the oracles judge, proptest makes the cases. The fuzz targets use the same oracles.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests stand outside the test functions that clippy.toml exempts"
)]

mod client;
mod headers;
mod oracle;
