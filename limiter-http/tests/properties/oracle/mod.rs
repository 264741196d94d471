//! Independent judges of `limiter-http`, over its public interface. They panic where something is
//! wrong. `fuzz/` includes this directory.

pub(crate) mod client;
pub(crate) mod headers;
