//! Waiting until a charge is admitted, in the order of arrival.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Limiter;
use super::decision::{Decision, Outcome};
use super::give_back::deadline;
use crate::error::Error;
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, LimitStore as _, Observed, Step, Verdict};
use crate::sync::{sleep, timeout_at};

#[cfg(all(test, shuttle))]
mod interleavings;

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
        let verdict = match decision.outcome {
            Outcome::Denied { retry_after } => Verdict::Deny { retry_after },
            Outcome::Never => Verdict::Never,
            _ => return Ok(decision),
        };
        // It was asked for, and is denied, though no store was asked to charge it.
        let (used, source) = (decision.used, decision.source);
        let observed = [Observed::new(verdict, used, decision.reset_after, source)];
        let steps = [Step::new(policy, key, Action::Charge { cost })];
        self.store().note(&steps, Ok(&observed));
        Ok(decision)
    }
}
