//! Giving back: refunds, settlements, cancellations and releases, which are asked again by their id
//! until they are answered or too late.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Group, LimitStore, Observed, OperationId, Receipt, Step};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Thirty years, which every clock can add.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment `after` from now, or as late as can be told: whoever passes `Duration::MAX` means for ever.
pub(super) fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now + FOR_EVER)
}

/// One thing to give back.
#[derive(Clone, Debug)]
pub(super) struct Give {
    pub(super) policy: Policy,
    pub(super) key: Key,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Refund(Receipt),
    Settle { id: OperationId, actual: u64 },
    Cancel(OperationId),
    Release(OperationId),
}

impl Give {
    fn step(&self) -> Step<'_> {
        let action = match &self.what {
            What::Refund(receipt) => Action::Refund { receipt },
            What::Settle { id, actual } => Action::Settle {
                id,
                actual: *actual,
            },
            What::Cancel(id) => Action::Cancel { id },
            What::Release(lease) => Action::Release { lease },
        };
        Step::new(&self.policy, &self.key, action)
    }
}

/// Gives back, in one group. What an outage keeps from being delivered is tried again in the
/// background until `until`; each give-back has an id, so it is applied once however often it arrives.
///
/// # Errors
/// What the first try met.
pub(super) async fn deliver(
    store: &Arc<dyn LimitStore>,
    gives: Vec<Give>,
    until: Instant,
) -> Result<Vec<Observed>, Error> {
    Undelivered::new(store, gives, until).deliver().await
}

/// Gives back in several groups, each for itself.
///
/// # Errors
/// What the first try of one of them met; the others are tried all the same.
pub(super) async fn deliver_all(
    store: &Arc<dyn LimitStore>,
    groups: Vec<Vec<Give>>,
    until: Instant,
) -> Result<(), Error> {
    let waiting = |gives| Undelivered::new(store, gives, until);
    let groups: Vec<Undelivered> = groups.into_iter().map(waiting).collect();
    let mut result = Ok(());
    for group in groups {
        result = result.and(group.deliver().await.map(drop));
    }
    result
}

/// Gives back without an answer: from a destructor.
pub(super) fn deliver_detached(store: &Arc<dyn LimitStore>, gives: Vec<Give>, until: Instant) {
    drop(Undelivered::new(store, gives, until));
}

/// What is still to be given back; dropped, it goes on in the background, so a caller that is dropped
/// has still given back.
struct Undelivered {
    store: Arc<dyn LimitStore>,
    gives: Vec<Give>,
    until: Instant,
}

impl Undelivered {
    fn new(store: &Arc<dyn LimitStore>, gives: Vec<Give>, until: Instant) -> Self {
        Self {
            store: store.clone(),
            gives,
            until,
        }
    }

    async fn deliver(mut self) -> Result<Vec<Observed>, Error> {
        let result = attempt(&self.store, &self.gives).await;
        if result.as_ref().err().is_none_or(|error| !is_passing(error)) {
            self.gives.clear();
        }
        result
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let gives = std::mem::take(&mut self.gives);
        if gives.is_empty() {
            return;
        }
        // A store in memory needs no runtime.
        match attempt_now(&self.store, &gives) {
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => return report(&gives, &error),
            Some(Ok(_)) => return,
            None => {}
        }
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(keep_trying(self.store.clone(), gives, self.until));
            }
            Err(_) => tracing::warn!(
                policy = gives[0].policy.name(),
                "nothing was given back: dropped outside of a tokio runtime"
            ),
        }
    }
}

async fn keep_trying(store: Arc<dyn LimitStore>, gives: Vec<Give>, until: Instant) {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(&store, &gives).await {
            Ok(_) => return,
            Err(error) if !is_passing(&error) || Instant::now() + pause >= until => {
                return report(&gives, &error);
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

async fn attempt(store: &Arc<dyn LimitStore>, gives: &[Give]) -> Result<Vec<Observed>, Error> {
    if let Some(result) = attempt_now(store, gives) {
        return result;
    }
    let steps: Vec<Step<'_>> = gives.iter().map(Give::step).collect();
    let group = Group::new(&steps, &store.capabilities())?;
    let mut observed = vec![Observed::default(); steps.len()];
    store.apply(&group, &mut observed).await?;
    Ok(observed)
}

fn attempt_now(
    store: &Arc<dyn LimitStore>,
    gives: &[Give],
) -> Option<Result<Vec<Observed>, Error>> {
    let steps: Vec<Step<'_>> = gives.iter().map(Give::step).collect();
    let group = match Group::new(&steps, &store.capabilities()) {
        Ok(group) => group,
        Err(error) => return Some(Err(error)),
    };
    let mut observed = vec![Observed::default(); steps.len()];
    let result = store.try_apply_now(&group, &mut observed)?;
    Some(result.map(|()| observed))
}

fn is_passing(error: &Error) -> bool {
    error.kind().is_outage()
}

fn report(gives: &[Give], error: &Error) {
    let policies: Vec<_> = gives.iter().map(|give| give.policy.name()).collect();
    if error.kind() == ErrorKind::Expired {
        // What is gone counts no more.
        tracing::debug!(?policies, %error, "nothing left to give back");
    } else {
        tracing::warn!(?policies, %error, "not given back");
    }
}
