//! Faults, each a small wrapper of what it spoils: a store's contract, or the network in front of a server.
//!
//! - [`Faulty`]: a store that loses requests and replies.
//! - [`Proxy`]: a network that delays, holds packets back, freezes and cuts.
//! - [`ReplyProxy`]: a server that answers what a test says.

mod proxy;
mod replies;
mod store;

use tokio::task::JoinHandle;

pub use proxy::Proxy;
pub use replies::ReplyProxy;
pub use store::{Fault, Faulty};

/// Ends a task.
#[derive(Debug)]
struct Aborts(JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}
