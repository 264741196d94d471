//! Counting somewhere else, or nowhere, because an operator says so (C6).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::local::{Earlier, Local, Why};
use super::outage::OutageRules;
use super::routing::{Bucket, Route, Routing};
use crate::error::{Error, ErrorKind};
use crate::figures::Figure;
use crate::health::Health;
use crate::limit::share::Share;
use crate::limit::store::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Source, Step, Verdict,
};

/// Where limits are counted, to be changed while the service runs. Clones share it. A change holds from the next call on; calls
/// that are under way end where they began.
///
/// ```
/// use limiter_core::limit::wrap::{Route, Routing, Switch};
///
/// let switch = Switch::new("instance-1");
/// let before = switch.set(Routing::to(Route::Local));
/// assert_eq!(before, Routing::default());
/// assert_eq!(switch.routing().to_string(), "local");
/// ```
#[derive(Clone, Debug)]
pub struct Switch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Bucket,
    /// Looked at by every call, so that without a switch thrown none takes the lock.
    is_plain: AtomicBool,
    routing: RwLock<Routing>,
    /// Whether there was a call since somebody waited for one.
    is_used: AtomicBool,
    used: Notify,
}

impl Switch {
    /// Everything goes to the store. The instance's name says to which portion of the instances it belongs: a name that stays,
    /// such as the host's.
    pub fn new(instance: &str) -> Self {
        Self(Arc::new(Inner {
            instance: Bucket::of(instance),
            is_plain: AtomicBool::new(true),
            routing: RwLock::default(),
            is_used: AtomicBool::new(false),
            used: Notify::new(),
        }))
    }

    /// What holds now.
    pub fn routing(&self) -> Routing {
        *self
            .0
            .routing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what holds from now on, and returns what held before.
    pub fn set(&self, next: Routing) -> Routing {
        let routing = &self.0.routing;
        let mut routing = routing.write().unwrap_or_else(PoisonError::into_inner);
        self.0.is_plain.store(next.is_plain(), Ordering::Release);
        std::mem::replace(&mut routing, next)
    }

    /// Waits for a call; at once, if there was one since this was awaited last. Who follows what others say need not ask for an
    /// instance that is idle. For one follower.
    pub async fn used(&self) {
        while !self.0.is_used.swap(false, Ordering::Relaxed) {
            self.0.used.notified().await;
        }
    }

    fn note_use(&self) {
        // Only read, mostly: a line of the cache that all threads share.
        if !self.0.is_used.load(Ordering::Relaxed) && !self.0.is_used.swap(true, Ordering::Relaxed)
        {
            self.0.used.notify_one();
        }
    }

    fn is_plain(&self) -> bool {
        self.0.is_plain.load(Ordering::Acquire)
    }

    /// Where keys are counted on this instance: one place, or two.
    pub fn routes(&self) -> Vec<Route> {
        self.routing().routes(self.0.instance)
    }

    /// Where a key is counted on this instance.
    pub fn route(&self, key: &crate::Key) -> Route {
        self.routing().of(self.0.instance, key.as_str())
    }
}

/// A store beside which there is another one, and nothing: where each call goes is what its [`Switch`] says.
///
/// - A key may be granted one capacity more for each place in which it is counted, and no more, however often the switch is
///   thrown: each place keeps what it has counted. In this process that is the [share](Routing::share) of the limit.
/// - What was reserved, leased or charged is settled, renewed and given back where it was made, wherever the switch stands by
///   then; what was admitted while limits were off, nowhere. An operation that was made in this process and is asked for again
///   under its id was made; one that was made in the store is made anew in this process, once.
/// - A reset forgets what is counted in this process and in the store, wherever the switch stands.
/// - Where this process cannot count (its table is full, its share of the limit is less than what is asked for), the policies'
///   rules for outages decide.
/// - While limits are off, only what can never be admitted is denied: a cost above the capacity.
#[derive(Debug)]
pub struct Switched<S> {
    inner: S,
    local: Option<Local>,
    /// Decides where this process cannot count: its table is full, or its share is too small.
    rules: OutageRules<Unasked>,
    switch: Switch,
    /// Of what was admitted while limits were off.
    issuer: Issuer,
}

/// Whether nothing of a group is taken, so that nothing is to be followed up.
fn is_seen_only(group: &Group<'_>) -> bool {
    !group.steps().iter().any(|step| step.action.takes())
}

/// A store that nobody asks: the rules around it are told of an error, and decide.
#[derive(Debug)]
struct Unasked;

#[async_trait]
impl LimitStore for Unasked {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, _: Issuer) -> bool {
        false
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
        Err(group.conflict())
    }

    async fn health(&self) -> Health {
        Health::new("none", false, None, "nobody asks it")
    }
}

/// Who keeps what was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Store,
    Local,
    /// Nobody: it was admitted without being counted.
    Nowhere,
}

/// Where a group goes.
enum Place {
    Store,
    Local(Share),
    Nowhere,
}

impl<S: LimitStore> Switched<S> {
    /// `inner`, as long as `switch` says so; `local`, which has to answer without I/O, counts in its place. Without one, what is to
    /// be counted here is refused as `Unsupported`.
    pub fn new(inner: S, local: Option<Arc<dyn LimitStore>>, switch: Switch) -> Self {
        Self {
            inner,
            local: local.map(|local| Local::new(local, Why::Switch)),
            rules: OutageRules::new(Unasked),
            switch,
            issuer: Issuer::unique(),
        }
    }

    /// Where what an issuer keeps is followed up.
    fn home(&self, issuer: Issuer) -> Home {
        if issuer == self.issuer || self.rules.is_issuer(issuer) {
            Home::Nowhere
        } else if self.is_of_local(issuer) {
            Home::Local
        } else {
            Home::Store
        }
    }

    fn is_of_local(&self, issuer: Issuer) -> bool {
        let local = self.local.as_ref();
        local.is_some_and(|local| local.is_issuer(issuer))
    }

    /// Where a group goes; an error if it is of several places.
    fn place(&self, group: &Group<'_>) -> Result<Place, Error> {
        self.switch.note_use();
        let mut issuers = group.issuers();
        if let Some(first) = issuers.next() {
            let home = self.home(first);
            let is_whole = home == Home::Store || group.issuers().count() == group.steps().len();
            if !is_whole || !issuers.all(|issuer| self.home(issuer) == home) {
                return Err(Error::new(
                    ErrorKind::Misdirected,
                    "limit.apply",
                    "what was counted in this process, or nowhere, stands in one group with what was not; give it a group of its own",
                ));
            }
            return Ok(match home {
                Home::Store => Place::Store,
                Home::Local => Place::Local(self.switch.routing().share()),
                Home::Nowhere => Place::Nowhere,
            });
        }
        // Whoever is reset is reset everywhere: what is counted here was forgotten before.
        if group
            .steps()
            .iter()
            .all(|step| step.action == Action::Reset)
        {
            return Ok(Place::Store);
        }
        // What follows up without saying where it was made was made in the store, as far as anybody knows.
        if group.steps().iter().any(|step| step.action.follows_up()) {
            return Ok(Place::Store);
        }
        if let Some(local) = &self.local {
            match local.knows(group) {
                Earlier::No => {}
                Earlier::Yes => return Ok(Place::Local(self.switch.routing().share())),
                Earlier::Another => return Err(group.conflict()),
            }
        }
        if self.switch.is_plain() {
            return Ok(Place::Store);
        }
        let routing = self.switch.routing();
        let key = group.steps()[0].key().as_str();
        Ok(match routing.of(self.switch.0.instance, key) {
            Route::Store => Place::Store,
            Route::Local => Place::Local(routing.share()),
            Route::Off => Place::Nowhere,
        })
    }

    /// The answer to a group that the store is not asked for; `None` if it is to be asked.
    fn answer(&self, group: &Group<'_>, observed: &mut [Observed]) -> Option<Result<(), Error>> {
        let place = match self.place(group) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        if let Some(local) = &self.local {
            local.reset(group);
        }
        if let (Place::Local(_) | Place::Nowhere, Err(late)) = (&place, group.check_deadline()) {
            return Some(Err(late));
        }
        match place {
            Place::Store => None,
            Place::Local(share) => Some(self.count(group, share, observed)),
            Place::Nowhere => {
                self.admit(group, observed);
                Some(Ok(()))
            }
        }
    }

    /// Counts a group in this process.
    fn count(
        &self,
        group: &Group<'_>,
        share: Share,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let Some(local) = &self.local else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "limit.apply",
                "limits are to be counted in this process, and there is no store for that; give the stack one (Stack::local)",
            ));
        };
        let places: Vec<usize> = (0..group.steps().len()).collect();
        let answer = local.apply_share(group, &places, |_| share, observed);
        let answer = answer.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Capacity,
                "limit.apply",
                format!("limits are counted in this process, whose share of {share} is less than what is asked for; ask for less at once"),
            ))
        });
        match answer {
            Ok(()) => {
                // What of a group is counted is followed up here as a whole.
                let counted = observed.iter().find_map(|it| it.issuer);
                for observed in observed.iter_mut().filter(|it| it.issuer.is_none()) {
                    observed.issuer = counted.filter(|_| !is_seen_only(group));
                }
                Ok(())
            }
            Err(error) => self.rules.judge(group, observed, Err(error)),
        }
    }

    /// Admits a group that nobody counts.
    fn admit(&self, group: &Group<'_>, observed: &mut [Observed]) {
        let never = |(index, step): (usize, &Step<'_>)| {
            group.total_cost(index) > step.policy.quota().capacity()
        };
        let blocks =
            |(index, step): (usize, &Step<'_>)| never((index, step)) && !step.policy.is_shadow();
        let is_blocked = group.steps().iter().enumerate().any(blocks);
        for (at, observed) in group.steps().iter().enumerate().zip(observed) {
            let verdict = match (never(at), is_blocked) {
                (true, _) => Verdict::Never,
                (false, true) => Verdict::Unseen,
                (false, false) => Verdict::Admit,
            };
            let blind = Observed::blind(verdict, Source::Switch);
            *observed = match at.1.action {
                Action::Reset | Action::Peek { .. } => blind,
                _ => blind.issued_by(self.issuer),
            };
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore> LimitStore for Switched<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == self.issuer
            || self.is_of_local(issuer)
            || self.rules.is_issuer(issuer)
            || self.inner.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        match self.answer(group, observed) {
            Some(answer) => Some(answer),
            None => self.inner.try_apply_now(group, observed),
        }
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        match self.answer(group, observed) {
            Some(answer) => answer,
            None => self.inner.apply(group, observed).await,
        }
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        self.inner.note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        let local = self.local.iter().flat_map(Local::figures);
        let local = local.map(|figure| figure.with("store", "switch"));
        self.inner.figures().into_iter().chain(local).collect()
    }

    async fn health(&self) -> Health {
        let mut health = self.inner.health().await;
        if !self.switch.is_plain() {
            let told = format!("; switched: {}", self.switch.routing());
            health.message.push_str(&told);
        }
        health
    }
}
