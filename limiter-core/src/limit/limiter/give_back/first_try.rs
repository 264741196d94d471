//! Give-backs that have not waited in the queue.

use std::sync::Arc;

use super::Inner;

/// A task that makes a first try. At most so many do at once.
pub(super) struct FirstTry(Arc<Inner>);

const FIRST_TRIES: usize = 1_024;

impl FirstTry {
    pub(super) fn begin(inner: &Arc<Inner>) -> Option<Self> {
        let mut queue = inner.lock();
        if queue.first_tries >= FIRST_TRIES {
            return None;
        }
        queue.first_tries += 1;
        drop(queue);
        Some(Self(inner.clone()))
    }
}

impl Drop for FirstTry {
    fn drop(&mut self) {
        self.0.lock().first_tries -= 1;
        self.0.settled.notify_waiters();
    }
}
