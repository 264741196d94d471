//! Who is denied most, across restarts and instances (B10).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::ranking::{Addition, Ranked, Ranking, SpaceSaving};
use limiter_core::{Effect, Error, Key};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::events;

/// Counts denials by policy and key, in bounded lists, one for each day (UTC). An observer: give it to
/// [`Builder::observe`](crate::Builder::observe), and then say [where it is kept](Self::keep_in).
///
/// What one instance has counted it adds to the lists at most once a second, in one call. A list has the 200 keys that are
/// denied most, and is kept for a week: see [`Ranking`] for how exact it is. Shadow policies deny nobody.
///
/// Keys are kept as they are, as they stand in Redis anyway: they may name users.
///
/// ```
/// use limiter::{Offenders, Period, Policy, Quota};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let offenders = Offenders::new();
/// let backends = limiter::Builder::new().observe(offenders.clone()).connect("memory:").await?;
/// offenders.keep_in(backends.ranking.clone());
///
/// let letters = Policy::new("letters", Quota::fixed_window(1, Period::DAY)?)?;
/// for _ in 0..5 {
///     backends.limiter.check(&letters, &letters.key(["42"])).await;
/// }
/// offenders.flush().await?;
/// let top = offenders.top("letters", 0, 10).await?;
/// assert_eq!((&*top[0].name, top[0].count), ("ratelimit:letters:42", 4));
/// # Ok::<(), limiter::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Offenders(Arc<Inner>);

/// How many keys a list has.
const MOST: usize = 200;

/// How many of a policy's keys wait to be added.
const PENDING: usize = 200;

/// How many policies' keys wait: beyond it the denials of others are not counted until those are added.
const POLICIES: usize = 1_000;

const EVERY: Duration = Duration::from_secs(1);
/// Between two tries while they fail, at most.
const LONGEST: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a list is kept.
const KEPT: Duration = Duration::from_secs(8 * 86_400);

#[derive(Default)]
struct Inner {
    pending: Mutex<BTreeMap<String, SpaceSaving>>,
    has_pending: Arc<Notify>,
    /// One flush at a time: who waits for it finds everything written.
    flushing: tokio::sync::Mutex<()>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    ranking: Arc<dyn Ranking>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Offenders {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what is counted to the lists in `ranking`, from now on until the last clone is dropped. Needs a tokio runtime.
    pub fn keep_in(&self, ranking: Arc<dyn Ranking>) {
        // Not kept alive by its own task, which ends with it.
        let (weak, has_pending) = (Arc::downgrade(&self.0), self.0.has_pending.clone());
        let task = tokio::spawn(async move {
            let mut pause = EVERY;
            loop {
                has_pending.notified().await;
                let Some(inner) = weak.upgrade() else { return };
                match Self(inner).flush().await {
                    Ok(()) => pause = EVERY,
                    Err(error) => {
                        if error.kind().is_outage() {
                            // The rules for outages tell of it.
                            tracing::debug!(%error, "the lists of who is denied most wait");
                        } else {
                            tracing::warn!(%error, "the lists of who is denied most are not written");
                        }
                        pause = (2 * pause).min(LONGEST);
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
        let task = task.abort_handle();
        *self.kept() = Some(Kept { ranking, task });
    }

    /// Adds what was counted now.
    ///
    /// # Errors
    /// What keeps the lists from being written: then it is counted on, and tried again.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(ranking) = self.ranking() else {
            return Ok(());
        };
        let _alone = self.0.flushing.lock().await;
        let pending = std::mem::take(&mut *self.pending());
        if pending.is_empty() {
            return Ok(());
        }
        let today = today();
        let lists: Vec<_> = pending
            .iter()
            .map(|(policy, counts)| Addition {
                list: list(policy, today),
                counts: counts
                    .top(PENDING)
                    .into_iter()
                    .map(|it| (it.name, it.count))
                    .collect(),
            })
            .collect();
        let added = ranking.add(&lists, MOST, KEPT).await;
        // What may have been added is not added again.
        if added
            .as_ref()
            .is_err_and(|error| error.effect() == Effect::No)
        {
            let mut waiting = self.pending();
            for (policy, counts) in pending {
                for Ranked { name, count, .. } in counts.top(PENDING) {
                    waiting
                        .entry(policy.clone())
                        .or_default()
                        .add(&name, count, PENDING);
                }
            }
            self.0.has_pending.notify_one();
        }
        added
    }

    /// The keys that a policy has denied most on a day, the first one first; day 0 is today, 7 the last that is kept.
    ///
    /// # Errors
    /// What keeps the lists from being read.
    pub async fn top(&self, policy: &str, day: u64, count: usize) -> Result<Vec<Ranked>, Error> {
        match self.ranking() {
            Some(ranking) => {
                ranking
                    .top(&list(policy, today().saturating_sub(day)), count)
                    .await
            }
            None => Ok(Vec::new()),
        }
    }

    fn ranking(&self) -> Option<Arc<dyn Ranking>> {
        self.kept().as_ref().map(|kept| kept.ranking.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<String, SpaceSaving>> {
        self.0
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// No operation of a cache has an empty name.
fn list(policy: &str, day: u64) -> Key {
    Key::new(["cache", "", "denied", policy, &day.to_string()])
}

/// Days since the epoch.
fn today() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs() / DAY.as_secs()
}

impl Observer for Offenders {
    fn observe(&self, event: &Event<'_>) {
        for attempt in events::attempts(event) {
            if !matches!(attempt.outcome, "denied" | "never") {
                continue;
            }
            let mut pending = self.pending();
            let policy = attempt.step.policy.name();
            if !pending.contains_key(policy) {
                if pending.len() >= POLICIES {
                    continue;
                }
                pending.insert(policy.to_owned(), SpaceSaving::default());
            }
            if let Some(counts) = pending.get_mut(policy) {
                counts.add(attempt.step.key().as_str(), 1, PENDING);
            }
            drop(pending);
            self.0.has_pending.notify_one();
        }
    }
}

impl fmt::Debug for Offenders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offenders").finish_non_exhaustive()
    }
}
