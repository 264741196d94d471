//! A group that waits for its turn, and what it is told.

use limiter_core::{Effect, Error};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::script::call::Call;
use crate::script::reply::Reply;

/// Who waits.
pub(super) struct Member {
    pub(super) call: Call,
    /// Its keys' slot; 0 on a single server.
    pub(super) slot: u16,
    pub(super) is_asking: bool,
    /// Whether the hot script has handed it over to the other.
    pub(super) is_handed_over: bool,
    pub(super) since: Instant,
    pub(super) end: Instant,
    /// How many answers there had been then.
    pub(super) answers: u64,
    pub(super) reply: oneshot::Sender<Told>,
}

impl Member {
    /// Its call comes back with an error that says that it did not run.
    pub(super) fn fail(self, error: Error) {
        let call = (error.effect() == Effect::No).then_some(self.call);
        // Who has left is told nothing.
        let _ = self.reply.send(Err(Undone { error, call }));
    }
}

/// What the script replies to the group, or why it was not done.
pub(super) type Told = Result<Reply, Undone>;

/// The call comes back, to be sent elsewhere perhaps.
pub(crate) struct Undone {
    pub(crate) error: Error,
    pub(crate) call: Option<Call>,
}
