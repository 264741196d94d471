//! Groups over several slots: charged slot by slot, and given back if one of them denies. The rules and
//! the bound are in the documentation of [`ClusterStore`].

use futures_util::future::join_all;
use limiter_core::limit::{
    Action, Charged, Group, LimitStore, Observed, OperationId, Source, Step,
};
use limiter_core::{Effect, Error, ErrorKind};
use tokio::time::{Instant, timeout_at};

use super::store::ClusterStore;
use crate::guard::Span;
use crate::script::call::OPERATION;

/// The steps of one slot.
struct Part<'a> {
    slot: u16,
    steps: Vec<Step<'a>>,
    /// Where each of them stands in the group.
    places: Vec<usize>,
}

/// Applies a group whose keys stand in several slots.
pub(super) async fn apply(
    store: &ClusterStore,
    group: &Group<'_>,
    observed: &mut [Observed],
    end: Instant,
) -> Result<(), Error> {
    check(group)?;
    let parts = split(store, group);
    if group.steps().iter().any(|step| step.action.takes()) {
        charge(store, &parts, observed, end).await
    } else {
        each(store, &parts, observed, end).await
    }
}

/// Refuses what cannot be undone.
fn check(group: &Group<'_>) -> Result<(), Error> {
    let refused = |what: &str| {
        let message = format!(
            "{what} over several slots of the cluster cannot be undone; give the keys one hash tag"
        );
        Err(Error::new(ErrorKind::Unsupported, OPERATION, message))
    };
    if group.operation().is_some() {
        return refused("an operation id");
    }
    let taking = group.steps().iter().any(|step| step.action.takes());
    for step in group.steps() {
        match step.action {
            Action::Charge { .. } | Action::Peek { .. } => {}
            Action::Reserve { .. } | Action::Acquire { .. } | Action::Debit { .. } => {
                return refused(&format!("to {}", step.action.as_str()));
            }
            _ if taking => {
                return refused(&format!(
                    "a charge together with a {}",
                    step.action.as_str()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The parts, in the order in which their slots first appear.
fn split<'a>(store: &ClusterStore, group: &Group<'a>) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    for (place, step) in group.steps().iter().enumerate() {
        let slot = store.slot(step);
        let index = match parts.iter().position(|part| part.slot == slot) {
            Some(index) => index,
            None => {
                parts.push(Part {
                    slot,
                    steps: Vec::new(),
                    places: Vec::new(),
                });
                parts.len() - 1
            }
        };
        parts[index].steps.push(step.clone());
        parts[index].places.push(place);
    }
    parts
}

/// Charges slot by slot; all or, in the end, nothing.
async fn charge(
    store: &ClusterStore,
    parts: &[Part<'_>],
    observed: &mut [Observed],
    end: Instant,
) -> Result<(), Error> {
    let mut taken = Taken(Vec::new());
    for (index, part) in parts.iter().enumerate() {
        let seen = match part.apply(store, &part.steps, end).await {
            Ok(seen) => seen,
            Err(error) => {
                let given_back = taken.give_back(end).await;
                return Err(if given_back {
                    error
                } else {
                    error.with_effect(Effect::Unknown)
                });
            }
        };
        part.report(&seen, observed);
        if !part.admits(&seen) {
            taken.give_back(end).await;
            let others = parts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            let looks = others.map(async |(_, part)| (part, part.look(store, end).await));
            for (part, seen) in join_all(looks).await {
                part.report(&seen, observed);
            }
            return Ok(());
        }
        taken.add(store, part, &seen);
    }
    taken.keep();
    Ok(())
}

/// Applies to each slot what is never denied, or only looks.
async fn each(
    store: &ClusterStore,
    parts: &[Part<'_>],
    observed: &mut [Observed],
    end: Instant,
) -> Result<(), Error> {
    let applied = parts
        .iter()
        .map(async |part| (part, part.apply(store, &part.steps, end).await));
    let mut failed: Option<Error> = None;
    let mut done = false;
    for (part, result) in join_all(applied).await {
        match result {
            Ok(seen) => {
                done = true;
                part.report(&seen, observed);
            }
            // An outage is what is told: it passes, and the caller asks again. What has failed for good will
            // fail again, and what is done is not done twice.
            Err(error) => {
                if failed
                    .as_ref()
                    .is_none_or(|known| !known.kind().is_outage())
                {
                    failed = Some(error);
                }
            }
        }
    }
    match failed {
        Some(error) if done => Err(error.with_effect(Effect::Unknown)),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Part<'_> {
    async fn apply(
        &self,
        store: &ClusterStore,
        steps: &[Step<'_>],
        end: Instant,
    ) -> Result<Vec<Observed>, Error> {
        let group = Group::new(steps, &store.capabilities())?;
        let mut seen = vec![Observed::default(); steps.len()];
        let call = store.call(&group)?;
        let span = Span::until(end);
        let applied = store.apply_in(self.slot, call, &group, &mut seen, span);
        applied.await?;
        Ok(seen)
    }

    /// What the part would be told now. A look takes nothing, so each asks for what the steps before it
    /// would have taken from its key, too.
    async fn peek(&self, store: &ClusterStore, end: Instant) -> Result<Vec<Observed>, Error> {
        let group = Group::new(&self.steps, &store.capabilities())?;
        let steps = self.steps.iter().enumerate();
        let peeks: Vec<Step<'_>> = steps
            .map(|(index, step)| {
                let cost = match step.action.cost() {
                    0 => 0,
                    _ => group.total_cost(index),
                };
                Step::new(step.policy, step.key(), Action::Peek { cost })
            })
            .collect();
        self.apply(store, &peeks, end).await
    }

    /// The same, or that nobody knows.
    async fn look(&self, store: &ClusterStore, end: Instant) -> Vec<Observed> {
        match self.peek(store, end).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "a denied group may have violated more policies than it names");
                vec![Observed::unseen(Source::Outage); self.steps.len()]
            }
        }
    }

    fn admits(&self, seen: &[Observed]) -> bool {
        let mut steps = self.steps.iter().zip(seen);
        steps.all(|(step, seen)| step.policy.is_shadow() || seen.is_admitted())
    }

    fn report(&self, seen: &[Observed], observed: &mut [Observed]) {
        for (place, seen) in self.places.iter().zip(seen) {
            observed[*place] = *seen;
        }
    }
}

/// What was charged so far. Dropped, it is given back in the background.
struct Taken(Vec<Charged>);

impl Taken {
    fn add(&mut self, store: &ClusterStore, part: &Part<'_>, seen: &[Observed]) {
        let (queue, id) = (store.give_backs(), OperationId::random());
        self.0.push(Charged::of(&queue, &id, &part.steps, seen));
    }

    /// Whether all of it is given back by `end`; what is not goes on in the background.
    async fn give_back(&mut self, end: Instant) -> bool {
        let refunds = self
            .0
            .iter()
            .map(|charged| timeout_at(end, charged.refund()));
        let refunded = join_all(refunds).await;
        self.keep();
        refunded.iter().all(|refund| matches!(refund, Ok(Ok(()))))
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for charged in self.0.drain(..) {
            // Tried again until it is done, and logged if it cannot be.
            charged.refund_detached();
        }
    }
}
