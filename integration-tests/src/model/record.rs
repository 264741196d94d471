//! What is remembered under an id, and by which name.

use limiter_core::limit::{Action, Step};

use super::Serial;

/// The kind, the counter and the id.
pub(super) type Name = (&'static str, String, String);

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) fate: Fate,
    pub(super) cost: u64,
    pub(super) stands: u64,
    pub(super) serial: Serial,
    pub(super) until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Held,
    Settled(u64),
    GivenBack,
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// The steps' keys and actions.
    pub(super) steps: Vec<String>,
    /// What was charged for each of them, in the order in which they were first asked for.
    pub(super) charged: Vec<(String, u64)>,
    pub(super) until: u64,
}

pub(super) fn record_name(step: &Step<'_>) -> Option<Name> {
    let kind = match step.action {
        Action::Refund { .. } => "refund",
        Action::Reserve { .. } | Action::Settle { .. } | Action::Cancel { .. } => "reservation",
        Action::Acquire { .. } | Action::Release { .. } => "lease",
        _ => return None,
    };
    let id = step.action.id()?.as_str().to_owned();
    Some((kind, step.counter.to_string(), id))
}

/// What tells one step from another: how long something is held may differ between two tries.
pub(super) fn description(step: &Step<'_>) -> String {
    let amount = match step.action {
        Action::Settle { actual, .. } => actual,
        ref other => other.cost(),
    };
    let id = step.action.id().map(|id| id.as_str());
    format!("{} {} {amount} {id:?}", step.counter, step.action.as_str())
}
