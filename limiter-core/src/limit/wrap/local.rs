//! A share of each limit, counted in this process while the store is away, or is not to be asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::figures::Figure;
use crate::limit::policy::{Outage, Policy};
use crate::limit::share::Share;
use crate::limit::store::{Action, Group, Issuer, LimitStore, Observed, Source, Step};

/// The store that counts meanwhile. It keeps what it has counted when the other is asked again, so that an outage that comes and
/// goes grants nothing anew (I-B1).
#[derive(Debug)]
pub(super) struct Local {
    store: Arc<dyn LimitStore>,
    why: Why,
    known: Mutex<Known>,
    /// Looked at by every call, so that before the first outage none takes the lock.
    knows_any: AtomicBool,
}

/// Why it counts here, and how much of each limit is this process's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// The store is away. The policies say how much, and answers are degraded.
    Outage,
    /// An operator has said so. How much is told with each call.
    Switch,
}

/// Ids under which something was done here: asked again while that is remembered, it was done here.
#[derive(Debug, Default)]
struct Known {
    made: HashMap<u128, Made>,
    /// How many there may be before those are dropped that are over.
    room: usize,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    until: Instant,
    /// Of the group: another one under the same id is a conflict.
    fingerprint: u128,
}

/// Whether a group was made here before.
pub(super) enum Earlier {
    /// It was not, as far as is known.
    No,
    /// It was.
    Yes,
    /// Another one was, under one of its ids.
    Another,
}

impl Local {
    pub(super) fn new(store: Arc<dyn LimitStore>, why: Why) -> Self {
        Self {
            store,
            why,
            known: Mutex::default(),
            knows_any: AtomicBool::new(false),
        }
    }

    pub(super) fn is_issuer(&self, issuer: Issuer) -> bool {
        self.store.is_issuer(issuer)
    }

    pub(super) fn figures(&self) -> Vec<Figure> {
        self.store.figures()
    }

    /// Whether a group was made here before, by its ids.
    pub(super) fn knows(&self, group: &Group<'_>) -> Earlier {
        if !self.knows_any.load(Ordering::Relaxed) {
            return Earlier::No;
        }
        let mut ids = ids(group).peekable();
        if ids.peek().is_none() {
            return Earlier::No;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let live = |id: u128| known.made.get(&id).filter(|made| now < made.until);
        match ids.find_map(|(id, _)| live(id)) {
            None => Earlier::No,
            Some(made) if made.fingerprint == group.fingerprint() => Earlier::Yes,
            Some(_) => Earlier::Another,
        }
    }

    /// Applies those steps of a group that are at `places`, under the shares of their policies. `None` if it cannot: one of them
    /// asks for more than its share ever grants, or the store does not answer at once.
    pub(super) fn apply(
        &self,
        group: &Group<'_>,
        places: &[usize],
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        self.apply_share(group, places, share_of, observed)
    }

    /// The same under the shares that `share_of` says.
    pub(super) fn apply_share(
        &self,
        group: &Group<'_>,
        places: &[usize],
        share_of: impl Fn(&Step<'_>) -> Share,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        let mut counted = Vec::with_capacity(places.len());
        let mut policies = Vec::with_capacity(places.len());
        for place in places {
            match policy_of(group, *place, share_of(&group.steps()[*place])) {
                Some(policy) => {
                    counted.push(*place);
                    policies.push(policy);
                }
                // A shadow never blocks.
                None if group.steps()[*place].policy.is_shadow() => {
                    observed[*place] = self.marked(Observed::unseen(Source::Outage));
                }
                None => return None,
            }
        }
        let places = &counted[..];
        if places.is_empty() {
            return Some(Ok(()));
        }
        let steps: Vec<Step<'_>> = places
            .iter()
            .zip(&policies)
            .map(|(place, policy)| {
                let step = &group.steps()[*place];
                Step::new(policy, step.key(), step.action.clone()).at(step.issuer)
            })
            .collect();
        let capabilities = self.store.capabilities();
        // The caller's deadline may be over: this takes no time.
        let built = Group::new(&steps, &capabilities).and_then(|local| match group.operation() {
            Some((id, ttl)) => local.with_operation(id, ttl, &capabilities),
            None => Ok(local),
        });
        let mut answers = vec![Observed::default(); steps.len()];
        let result = match built {
            Ok(local) => self.store.try_apply_now(&local, &mut answers)?,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return Some(Err(error));
        }
        let admits = |(place, answer): (&usize, &Observed)| {
            group.steps()[*place].policy.is_shadow() || answer.is_admitted()
        };
        if places.iter().zip(&answers).all(admits) {
            self.remember(group);
        }
        for (place, mut answer) in places.iter().zip(answers) {
            answer.source = Source::Memory;
            let share = share_of(&group.steps()[*place]);
            observed[*place] = self.marked(answer).of_share(share);
        }
        Some(Ok(()))
    }

    /// What an operator wants is worth what the operator wanted.
    fn marked(&self, answer: Observed) -> Observed {
        match self.why {
            Why::Outage => answer.degrade(),
            Why::Switch if answer.source == Source::Outage => Observed::unseen(Source::Switch),
            Why::Switch => answer,
        }
    }

    /// Forgets what resets of the group name.
    pub(super) fn reset(&self, group: &Group<'_>) {
        let resets = group.steps().iter();
        let steps: Vec<Step<'_>> = resets
            .filter(|step| step.action == Action::Reset)
            .map(|step| Step::new(step.policy, step.key(), Action::Reset))
            .collect();
        if steps.is_empty() {
            return;
        }
        if let Ok(resets) = Group::new(&steps, &self.store.capabilities()) {
            let mut observed = vec![Observed::default(); steps.len()];
            // Nothing is there to be forgotten, if it fails.
            let _ = self.store.try_apply_now(&resets, &mut observed);
        }
    }

    fn remember(&self, group: &Group<'_>) {
        let mut ids = ids(group).peekable();
        if ids.peek().is_none() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.knows_any.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let fingerprint = group.fingerprint();
        for (id, ttl) in ids {
            let until = now + ttl;
            known.made.insert(id, Made { until, fingerprint });
        }
        if known.made.len() > known.room {
            known.made.retain(|_, made| now < made.until);
            known.room = (2 * known.made.len()).max(1_024);
        }
    }
}

/// What tells that a group is asked again: its operation, or its reservations. Leases are taken once under each id.
fn ids<'a>(group: &'a Group<'_>) -> impl Iterator<Item = (u128, Duration)> + 'a {
    let home = || group.home().fingerprint().as_u128();
    let operation = group
        .operation()
        .map(|(id, ttl)| (id.digest() ^ home(), ttl));
    let reservations = group.steps().iter().filter_map(|step| match &step.action {
        Action::Reserve { id, ttl, .. } => {
            let counter = step.counter.fingerprint().as_u128();
            Some((id.digest() ^ counter, *ttl))
        }
        _ => None,
    });
    operation.into_iter().chain(reservations)
}

/// The share that a step's policy has here; all of it for what was begun under another rule.
fn share_of(step: &Step<'_>) -> Share {
    match step.policy.outage() {
        Outage::Local { share } => share,
        _ => Share::WHOLE,
    }
}

/// A step's policy here, with its share of the quota; `None` if that is nothing, or less than what is asked for.
fn policy_of(group: &Group<'_>, place: usize, share: Share) -> Option<Policy> {
    let step = &group.steps()[place];
    let policy = step.policy;
    let asked = group.total_cost(place);
    if asked > policy.quota().capacity() {
        // It is never admitted anywhere, which the store says.
        return Some(policy.clone());
    }
    let quota = match policy.quota().scaled(share) {
        Ok(quota) => quota,
        // What was taken of a larger share is given back all the same.
        Err(_) if step.action.follows_up() => *policy.quota(),
        Err(_) => return None,
    };
    let is_beyond = asked > quota.capacity();
    (!is_beyond || policy.is_shadow()).then(|| policy.clone().with_quota(quota))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::limit::store::Capabilities;
    use crate::limit::{OperationId, Period, Quota};
    use crate::testing::MapStore;

    /// Ids that are over are forgotten when others come: what is known is bounded by what lives.
    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_what_lives() {
        const ROUND: u64 = 2_000;
        let ttl = Duration::from_secs(60);
        let all = Capabilities::ALL;
        let local = Local::new(Arc::new(MapStore::new(all)), Why::Outage);
        let quota = Quota::fixed_window(1_000_000, Period::DAY).unwrap();
        let share = Share::WHOLE;
        let policy = Policy::new("p", quota).unwrap();
        let policy = policy.with_outage(Outage::Local { share });
        let key = Key::new(["ratelimit", "a"]);
        for round in 0..20 {
            for number in 0..ROUND {
                let id = OperationId::new(format!("{round} {number}"));
                let charge = Action::Charge { cost: 1 };
                let steps = [Step::new(&policy, &key, charge)];
                let group = Group::new(&steps, &all).unwrap();
                let group = group.with_operation(&id, ttl, &all).unwrap();
                let mut observed = [Observed::default()];
                let made = local.apply(&group, &[0], &mut observed);
                made.unwrap().unwrap();
                assert!(matches!(local.knows(&group), Earlier::Yes));
            }
            tokio::time::advance(ttl).await;
        }
        let known = local.known.lock().unwrap().made.len() as u64;
        assert!((ROUND..=2 * ROUND + 1).contains(&known), "{known}");
    }
}
