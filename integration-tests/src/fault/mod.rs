//! Faults, each a small wrapper of what it spoils: a store's contract, or the network in front of a server.
//!
//! - [`Faulty`]: a store that loses requests and replies.
//! - [`Proxy`]: a network that delays, holds packets back, freezes and cuts.

mod proxy;
mod store;

pub use proxy::Proxy;
pub use store::{Fault, Faulty};
