//! Giving back: refunds, settlements, cancellations and releases, which are asked again by their id
//! until they are answered or count no more.
//!
//! What could not be delivered waits in one bounded queue for the whole limiter, each give-back once, which one task
//! delivers when the store is back.

mod give;
mod stats;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use self::give::Name;
pub(super) use self::give::{Give, What};
pub use self::stats::GiveBackStats;
use crate::error::{Error, ErrorKind};
use crate::limit::store::{Group, LimitStore, Observed, Step};
use crate::sync::Mutex;

/// How many give-backs wait for a store that is away, unless [`Limiter::with_give_backs`](super::Limiter::with_give_backs)
/// says otherwise.
pub const GIVE_BACKS: usize = 10_000;

/// How many are on their way to the store at once.
const AT_ONCE: usize = 32;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Thirty years, which every clock can add.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment `after` from now, or as late as can be told: whoever passes `Duration::MAX` means for ever.
pub(super) fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now + FOR_EVER)
}

/// Where give-backs wait for a store that is away: one for a [`Limiter`](super::Limiter), which has its own, or for a store that
/// makes one group of several and gives back what it must not keep. Clones share it.
#[derive(Clone, Debug)]
pub struct GiveBackQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn LimitStore>,
    most: usize,
    queue: Mutex<Queue>,
    /// Told whenever fewer wait.
    settled: Notify,
    /// Told when somebody waits for all of them: no time for a pause.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<Name, Give>,
    /// Whether a task delivers them.
    delivering: bool,
    /// How many tasks make a first try, without having waited here.
    first_tries: usize,
    stats: GiveBackStats,
}

impl GiveBackQueue {
    /// A queue in front of a store, for at most so many ([`GIVE_BACKS`] is a good number).
    pub fn new(store: Arc<dyn LimitStore>, most: usize) -> Self {
        Self(Arc::new(Inner {
            store,
            most,
            queue: Mutex::default(),
            settled: Notify::new(),
            hurry: Notify::new(),
        }))
    }

    /// What became of those that were not delivered at once.
    pub fn stats(&self) -> GiveBackStats {
        let queue = self.0.lock();
        GiveBackStats {
            waiting: queue.waiting.len(),
            trying: queue.first_tries,
            ..queue.stats
        }
    }

    /// Waits until nothing waits and nothing is on its way, at most so long; what became of all of them.
    pub(super) async fn drain(&self, within: Duration) -> GiveBackStats {
        let end = deadline(within);
        // Takes up what was left when there was no runtime.
        self.wait(Vec::new());
        self.0.hurry.notify_one();
        loop {
            let mut settled = pin!(self.0.settled.notified());
            // Before the look, so that none is missed.
            settled.as_mut().enable();
            let is_done = {
                let queue = self.0.lock();
                queue.waiting.is_empty() && queue.first_tries == 0
            };
            if is_done || timeout_at(end, settled).await.is_err() {
                return self.stats();
            }
        }
    }

    /// Gives back, in one group. What an outage keeps from being delivered waits in the queue.
    ///
    /// # Errors
    /// What the first try met; `Saturated` of the operation `limit.give_back` if it is not tried again, because too many wait
    /// already.
    pub(super) async fn deliver(&self, gives: Vec<Give>) -> Result<Vec<Observed>, Error> {
        Undelivered::new(self, gives).deliver().await
    }

    /// Gives back in several groups, each for itself.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver), of one of them; the others are tried all the same.
    pub(super) async fn deliver_all(&self, groups: Vec<Vec<Give>>) -> Result<(), Error> {
        let groups: Vec<Undelivered> = groups
            .into_iter()
            .map(|gives| Undelivered::new(self, gives))
            .collect();
        let mut result = Ok(());
        for group in groups {
            result = result.and(group.deliver().await.map(drop));
        }
        result
    }

    /// Gives back without an answer: from a destructor.
    ///
    /// The first try is made by a task of its own, so that what is given back in the normal course of things does not wait
    /// behind what an outage has left. Where too many of these run, or no runtime does, it waits in the queue.
    pub(super) fn deliver_detached(&self, gives: Vec<Give>) {
        let mut undelivered = Undelivered::new(self, gives);
        if undelivered.try_now() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if let Some(first_try) = FirstTry::begin(&self.0) {
            runtime.spawn(async move {
                let gives = undelivered.gives.clone();
                match undelivered.deliver().await {
                    Err(error) if !is_passing(&error) && !is_one_of(&gives, &error) => {
                        report(&gives[0], &error);
                    }
                    // Given back, or waiting.
                    _ => {}
                }
                drop(first_try);
            });
        }
    }

    /// Lets give-backs wait for the store; how many could not, because too many wait.
    fn wait(&self, gives: Vec<Give>) -> usize {
        let mut queue = self.0.lock();
        let mut dropped = 0;
        for give in gives {
            let name = give.name();
            if queue.waiting.len() >= self.0.most && !queue.waiting.contains_key(&name) {
                dropped += 1;
            } else {
                queue.waiting.insert(name, give);
            }
        }
        queue.stats.dropped += dropped as u64;
        if dropped > 0 {
            tracing::error!(
                dropped,
                waiting = self.0.most,
                "not given back, and not tried again: too many wait for the store already"
            );
        }
        if queue.delivering || queue.waiting.is_empty() {
            return dropped;
        }
        match Handle::try_current() {
            Ok(runtime) => {
                queue.delivering = true;
                drop(queue);
                let delivery = Delivery {
                    inner: self.0.clone(),
                    ended: false,
                };
                runtime.spawn(delivery.run());
            }
            Err(_) => tracing::warn!(
                waiting = queue.waiting.len(),
                "nothing is given back for now: dropped outside of a tokio runtime; the next one inside delivers it"
            ),
        }
        dropped
    }
}

impl Inner {
    #[cfg(not(all(test, shuttle)))]
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(all(test, shuttle))]
    fn lock(&self) -> impl std::ops::DerefMut<Target = Queue> + '_ {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is still to be given back; dropped, it waits in the queue, so a caller that is dropped has still given back.
struct Undelivered {
    queue: GiveBackQueue,
    gives: Vec<Give>,
}

impl Undelivered {
    fn new(queue: &GiveBackQueue, gives: Vec<Give>) -> Self {
        Self {
            queue: queue.clone(),
            gives,
        }
    }

    async fn deliver(mut self) -> Result<Vec<Observed>, Error> {
        let result = attempt(&self.queue.0.store, &self.gives).await;
        let error = match result {
            Err(error) if is_passing(&error) => error,
            Err(error) if is_one_of(&self.gives, &error) => {
                // One that is refused does not keep the others from being given back.
                let gives = std::mem::take(&mut self.gives);
                self.queue.wait(gives);
                return Err(error);
            }
            settled => {
                self.gives.clear();
                // Takes up what was left when there was no runtime.
                self.queue.wait(Vec::new());
                return settled;
            }
        };
        let dropped = self.queue.wait(std::mem::take(&mut self.gives));
        Err(if dropped > 0 {
            full(self.queue.0.most, error)
        } else {
            error
        })
    }
}

impl Undelivered {
    /// Whether a store that answers at once, as one in memory does, has settled all of it. That needs no runtime.
    fn try_now(&mut self) -> bool {
        if self.gives.is_empty() {
            return true;
        }
        match attempt_now(&self.queue.0.store, &self.gives) {
            None => return false,
            Some(Err(error)) if is_passing(&error) || is_one_of(&self.gives, &error) => {
                return false;
            }
            Some(Err(error)) => report(&self.gives[0], &error),
            Some(Ok(_)) => {}
        }
        self.gives.clear();
        true
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if self.try_now() {
            return;
        }
        let gives = std::mem::take(&mut self.gives);
        self.queue.wait(gives);
    }
}

/// A task that makes a first try. At most so many do at once.
struct FirstTry(Arc<Inner>);

const FIRST_TRIES: usize = 1_024;

impl FirstTry {
    fn begin(inner: &Arc<Inner>) -> Option<Self> {
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

/// The one task that delivers what waits. Dropped with its runtime, it leaves that to the next one.
struct Delivery {
    inner: Arc<Inner>,
    /// Whether it has said so itself.
    ended: bool,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.lock().delivering = false;
        }
    }
}

impl Delivery {
    async fn run(mut self) {
        let jitter = RandomState::new();
        let mut pause = FIRST_PAUSE;
        for pass in 0_u64.. {
            // Another order each time, so that what cannot be delivered does not stand in the way of the rest.
            let order = |name: &Name| jitter.hash_one((pass, name));
            match self.deliver_once(order).await {
                Some(true) => pause = FIRST_PAUSE,
                Some(false) => {
                    // Between half of the pause and all of it, so that instances do not come back as one.
                    let half = pause / 2;
                    let part = u32::try_from(jitter.hash_one(pass) % 1_024).unwrap_or(0);
                    let pausing = sleep(half + half * part / 1_024);
                    tokio::select! {
                        () = pausing => {}
                        () = self.inner.hurry.notified() => {}
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                None => return,
            }
        }
    }

    /// Tries all that waits, so many at once, until as many in a row are not answered: then the store is away. Whether
    /// any was delivered. `None` if nothing waits.
    async fn deliver_once(&mut self, order: impl Fn(&Name) -> u64) -> Option<bool> {
        let mut waiting: Vec<Name> = {
            let mut queue = self.inner.lock();
            let (now, before) = (Instant::now(), queue.waiting.len());
            queue.waiting.retain(|_, give| now < give.until);
            let expired = before - queue.waiting.len();
            queue.stats.expired += expired as u64;
            if expired > 0 {
                self.inner.settled.notify_waiters();
                tracing::warn!(expired, "not given back: the charges count no more");
            }
            if queue.waiting.is_empty() {
                // Under the lock, so that what comes next starts a task of its own.
                queue.delivering = false;
                self.ended = true;
                return None;
            }
            queue.waiting.keys().copied().collect()
        };
        waiting.sort_by_cached_key(order);
        let mut waiting = waiting.into_iter();
        let (mut any, mut unanswered) = (false, 0);
        let mut tries = JoinSet::new();
        loop {
            while tries.len() + unanswered < AT_ONCE {
                let Some(name) = waiting.next() else { break };
                let Some(give) = self.inner.lock().waiting.get(&name).cloned() else {
                    continue;
                };
                let inner = self.inner.clone();
                tries.spawn(async move { inner.settle(name, give).await });
            }
            match tries.join_next().await {
                None => return Some(any),
                Some(Ok(true)) => (any, unanswered) = (true, 0),
                Some(_) => unanswered += 1,
            }
        }
    }
}

impl Inner {
    /// Tries one give-back; whether it is settled.
    async fn settle(&self, name: Name, give: Give) -> bool {
        let gives = [give];
        let result = attempt(&self.store, &gives).await;
        let [give] = gives;
        let mut queue = self.lock();
        match result {
            Ok(_) => queue.stats.delivered += 1,
            Err(error) if is_passing(&error) && Instant::now() < give.until => return false,
            Err(error) => {
                if is_passing(&error) {
                    queue.stats.expired += 1;
                } else {
                    queue.stats.refused += 1;
                }
                report(&give, &error);
            }
        }
        queue.waiting.remove(&name);
        drop(queue);
        self.settled.notify_waiters();
        true
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

/// Whether the error may be that of one give-back in a group of several, which undoes none of the others.
fn is_one_of(gives: &[Give], error: &Error) -> bool {
    gives.len() > 1 && error.kind() != ErrorKind::InvalidInput
}

fn full(most: usize, error: Error) -> Error {
    Error::new(
        ErrorKind::Saturated,
        "limit.give_back",
        format!(
            "not given back, and not tried again: {most} give-backs wait for the store already; ask again when it is back"
        ),
    )
    .with_effect(error.effect())
    .with_source(error)
}

fn report(give: &Give, error: &Error) {
    let policy = give.policy.name();
    if error.kind() == ErrorKind::Expired {
        // What is gone counts no more.
        tracing::debug!(policy, %error, "nothing left to give back");
    } else {
        tracing::warn!(policy, %error, "not given back");
    }
}
