//! The queues of `until_ready`: one for each key that somebody waits for.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::key::Key;
use crate::sync::Mutex;

/// A queue for each key that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Queues(pub(super) Mutex<HashMap<Key, Queue>>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// How many have a place in it. Counted under the map's lock, because the count of `turn` goes down
    /// after it: two who leave at once would each leave the queue to the other.
    places: usize,
    /// A fair lock: first come, first served.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Queues {
    pub(super) fn join(self: &Arc<Self>, key: &Key) -> Place {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(key.clone()).or_default();
        queue.places += 1;
        Place {
            turn: queue.turn.clone(),
            key: key.clone(),
            queues: self.clone(),
        }
    }
}

/// A place in the queue of a key; the last one to leave removes it.
pub(super) struct Place {
    queues: Arc<Queues>,
    key: Key,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.queues.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.places -= 1;
            if queue.places == 0 {
                queues.remove(&self.key);
            }
        }
    }
}
