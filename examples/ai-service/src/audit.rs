//! The audit trail: the last decisions, for `/api/admin/audit` (C6).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use limiter::core::limit::wrap::{Event, Observer};
use limiter::outcome;
use serde::Serialize;

/// How many decisions are remembered.
const LENGTH: usize = 200;

/// Remembers the last decisions of this instance.
#[derive(Debug, Default)]
pub(crate) struct Audit(Mutex<VecDeque<Entry>>);

/// One charge and its outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// Milliseconds since the epoch.
    at: u64,
    policy: String,
    scope: String,
    key: String,
    cost: u64,
    outcome: &'static str,
    source: &'static str,
    elapsed_micros: u64,
}

impl Audit {
    /// The last decisions, the newest first.
    pub(crate) fn latest(&self) -> Vec<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().cloned().collect()
    }
}

impl Observer for Audit {
    fn observe(&self, event: &Event<'_>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for charged in outcome::attempts(event) {
            let step = charged.step;
            if entries.len() == LENGTH {
                entries.pop_front();
            }
            entries.push_back(Entry {
                at,
                policy: step.policy.name().to_owned(),
                scope: step.policy.scope().to_owned(),
                key: step.counter.to_string(),
                cost: charged.cost,
                outcome: charged.outcome,
                source: charged
                    .observed
                    .map_or("none", |observed| observed.source.as_str()),
                elapsed_micros: u64::try_from(event.elapsed.as_micros()).unwrap_or(u64::MAX),
            });
        }
    }
}
