//! Waiting until a charge is admitted, in the order of arrival.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Decision, Outcome};
use super::deliver::deadline;
use super::limiter::Limiter;
use super::policy::Policy;
use crate::error::Error;
use crate::key::Key;
use crate::sync::{Mutex, sleep, timeout_at};

#[cfg(all(test, shuttle))]
mod interleavings;

/// A queue for each key that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Key, Queue>>);

#[derive(Debug, Default)]
struct Queue {
    /// How many have a place in it. Counted under the map's lock, because the count of `turn` goes down
    /// after it: two who leave at once would each leave the queue to the other.
    places: usize,
    /// A fair lock: first come, first served.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Queues {
    fn join(self: &Arc<Self>, key: &Key) -> Place {
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
struct Place {
    queues: Arc<Queues>,
    key: Key,
    turn: Arc<tokio::sync::Mutex<()>>,
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

impl Limiter {
    /// Charges `cost` as soon as it is admitted, waiting at most `longest`. Those who wait for one key
    /// through clones of one limiter are served in the order in which they came; other instances and
    /// plain checks are not held back. `Duration::MAX` waits for as long as it takes.
    ///
    /// The answer is a denial if it is not their turn in time or the store says that it will take
    /// longer, which it says at once. Dropping the future leaves the queue and charges nothing, unless
    /// it is dropped while the store is being asked.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check).
    pub async fn until_ready(
        &self,
        policy: &Policy,
        key: &Key,
        cost: u64,
        longest: Duration,
    ) -> Result<Decision, Error> {
        let end = deadline(longest);
        let place = self.queues().join(key);
        let Ok(_turn) = timeout_at(end, place.turn.lock()).await else {
            return self.still_denied(policy, key, cost).await;
        };
        loop {
            let decision = self.try_check_n(policy, key, cost).await?;
            match decision.outcome {
                Outcome::Denied { retry_after } if Instant::now() + retry_after <= end => {
                    sleep(retry_after).await;
                }
                _ => return Ok(decision),
            }
        }
    }

    /// The answer to one whose turn did not come: when it would be alone. What is free belongs to those
    /// before it, so it does not take it.
    async fn still_denied(&self, policy: &Policy, key: &Key, cost: u64) -> Result<Decision, Error> {
        let mut decision = self.peek_n(policy, key, cost).await?;
        if decision.outcome == Outcome::Allowed && decision.shadow.is_none() {
            let retry_after = Duration::from_micros(1);
            decision.outcome = Outcome::Denied { retry_after };
        }
        Ok(decision)
    }
}
