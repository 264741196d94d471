//! A circuit breaker: after some failures a store is left alone for a while, and then asked carefully.
//!
//! - [`Circuit`]: the state machine, pure. [`BreakerConfig`]: its settings.
//! - [`Breaker`]: a circuit that many callers share, with the time and the log.
//!
//! What speaks against a store is said by [`ErrorKind::blames_the_server`]: neither misuse nor this process's own saturation opens
//! a breaker.
//!
//! ```
//! use limiter_core::breaker::{Breaker, BreakerConfig, Entry};
//! use limiter_core::{Error, ErrorKind};
//! use tokio::time::Instant;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let breaker = Breaker::new("redis.example.com:6379", BreakerConfig::default());
//! for _ in 0..5 {
//!     let Entry::Call(call) = breaker.enter() else { panic!("closed") };
//!     call.end(Instant::now(), Err(&Error::new(ErrorKind::Connection, "limit.apply", "refused")));
//! }
//! assert!(matches!(breaker.enter(), Entry::Refused(_)));
//! # });
//! ```

mod circuit;
mod config;

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use self::circuit::{Admission, Change, Circuit, Completion, Permit, Position};
pub use self::config::BreakerConfig;
use crate::error::{Error, ErrorKind};
use crate::figures::Figure;
use crate::log_limit::LogLimit;

/// A circuit that many callers share. Clones share it.
#[derive(Clone)]
pub struct Breaker(Arc<Inner>);

struct Inner {
    name: String,
    start: Instant,
    /// The circuit's generation while it is closed, or [`NOT_CLOSED`]: then a call is let through without a lock.
    closed: AtomicU64,
    state: Mutex<State>,
    log: LogLimit,
}

struct State {
    circuit: Circuit,
    /// Since when it is not closed, and why.
    since: Option<Instant>,
    why: Arc<str>,
    /// How many were refused since then.
    refused: u64,
}

/// What a caller may do.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a call, a knock or neither are all there is"
)]
pub enum Entry<'a> {
    /// Call the store, and say what came of it.
    Call(Pass<'a>),
    /// Refuse the call with that error, and find out meanwhile whether the store is there.
    Knock(Pass<'a>, Error),
    /// Refuse the call.
    Refused(Error),
}

/// A call or a knock that is under way. Dropped, it says nothing of the store.
#[derive(Debug)]
#[must_use = "dropped, it tells the breaker nothing"]
pub struct Pass<'a> {
    breaker: Cow<'a, Breaker>,
    permit: Option<Permit>,
}

/// How a breaker stands, for health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Closed, open, or half open.
    pub position: Position,
    /// For how long it has not been closed; zero if it is.
    pub since: Duration,
    /// How many calls it has refused since then.
    pub refused: u64,
}

/// No generation of a circuit: it would take centuries to come to.
const NOT_CLOSED: u64 = u64::MAX;

/// About how long it takes to find out whether a store is there.
const KNOCK: Duration = Duration::from_millis(100);

impl BreakerStatus {
    /// What health says of it, to be put behind another sentence; nothing while it is closed.
    pub fn words(&self) -> String {
        if self.position == Position::Closed {
            return String::new();
        }
        format!(
            "; its breaker is {} since {:.1} s, and {} calls were not sent",
            self.position.as_str().replace('_', " "),
            self.since.as_secs_f64(),
            self.refused
        )
    }
}

impl Breaker {
    /// A closed breaker in front of what logs call `name`: a server's host.
    pub fn new(name: impl Into<String>, config: BreakerConfig) -> Self {
        let seed = RandomState::new().hash_one(0_u8);
        let circuit = Circuit::new(config, seed);
        Self(Arc::new(Inner {
            name: name.into(),
            start: Instant::now(),
            closed: AtomicU64::new(circuit.closed().unwrap_or(NOT_CLOSED)),
            state: Mutex::new(State {
                circuit,
                since: None,
                why: "".into(),
                refused: 0,
            }),
            log: LogLimit::default(),
        }))
    }

    /// Asks to call the store.
    pub fn enter(&self) -> Entry<'_> {
        self.enter_at(Instant::now())
    }

    /// The same, for who has just looked at the clock: it is `now`.
    pub fn enter_at(&self, now: Instant) -> Entry<'_> {
        let now = self.0.at(now);
        // Opened at this moment, it takes no notice of what becomes of the call.
        let closed = self.0.closed.load(Ordering::Relaxed);
        if closed != NOT_CLOSED {
            return Entry::Call(self.pass(Permit::of(closed, now)));
        }
        let mut state = self.0.lock();
        let admission = state.circuit.admit(now);
        let is_refused = !matches!(admission, Admission::Call(_));
        state.refused += u64::from(is_refused);
        let why = state.why.clone();
        drop(state);
        match admission {
            Admission::Call(permit) => Entry::Call(self.pass(permit)),
            Admission::Knock(permit) => Entry::Knock(self.pass(permit), self.refusal(KNOCK, &why)),
            Admission::Refused { retry_after } => Entry::Refused(self.refusal(retry_after, &why)),
        }
    }

    /// Asks to call the store, now, and refuses where it may not be called. If it is time to knock, `is_there` finds out in the
    /// background whether the store is there. Needs a tokio runtime.
    ///
    /// # Errors
    /// `BreakerOpen`, after others could run: who asks again and again does not keep the knock waiting.
    pub async fn enter_or_knock<F>(
        &self,
        now: Instant,
        is_there: impl FnOnce() -> F,
    ) -> Result<Pass<'_>, Error>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let admitted = self.admit(now, is_there);
        if admitted.is_err() {
            tokio::task::yield_now().await;
        }
        admitted
    }

    /// As [`enter_or_knock`](Self::enter_or_knock), for who lets others run itself where it is refused.
    ///
    /// # Errors
    /// `BreakerOpen`.
    pub fn admit<F>(&self, now: Instant, is_there: impl FnOnce() -> F) -> Result<Pass<'_>, Error>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        match self.enter_at(now) {
            Entry::Call(pass) => Ok(pass),
            Entry::Refused(error) => Err(error),
            Entry::Knock(pass, refusal) => {
                let (pass, is_there) = (pass.into_owned(), is_there());
                tokio::spawn(async move {
                    let completion = match is_there.await {
                        true => Completion::Answered,
                        false => Completion::Failed,
                    };
                    pass.end_as(Instant::now(), completion, None);
                });
                Err(refusal)
            }
        }
    }

    /// The error of a call that was not made.
    fn refusal(&self, retry_after: Duration, why: &str) -> Error {
        let name = &self.0.name;
        let message = format!("{name} has failed and is left alone for a moment ({why})");
        Error::new(ErrorKind::BreakerOpen, "limiter.breaker", message).with_retry_after(retry_after)
    }

    /// How it stands, for metrics: 0 closed, 1 half open, 2 open.
    pub fn figure(&self) -> Figure {
        let position = match self.status().position {
            Position::Closed => 0,
            Position::HalfOpen => 1,
            Position::Open => 2,
        };
        Figure::new("limiter_breaker_state", position).with("server", &*self.0.name)
    }

    /// How it stands.
    pub fn status(&self) -> BreakerStatus {
        let state = self.0.lock();
        BreakerStatus {
            position: state.circuit.position(),
            since: state.since.map_or(Duration::ZERO, |since| since.elapsed()),
            refused: state.refused,
        }
    }

    fn pass(&self, permit: Permit) -> Pass<'_> {
        Pass {
            breaker: Cow::Borrowed(self),
            permit: Some(permit),
        }
    }

    fn complete(&self, now: Instant, permit: Permit, completion: Completion, why: Option<&Error>) {
        let mut state = self.0.lock();
        let change = state.circuit.complete(self.0.at(now), permit, completion);
        if change.is_some() {
            let closed = state.circuit.closed().unwrap_or(NOT_CLOSED);
            self.0.closed.store(closed, Ordering::Relaxed);
        }
        match change {
            None => {}
            Some(Change::Opened) => {
                state.since = Some(Instant::now());
                state.refused = 0;
                let error = why.map_or("", Error::message);
                state.why = error.into();
                drop(state);
                let store = &*self.0.name;
                let Some(more) = self.0.log.pass("opened") else {
                    return;
                };
                tracing::warn!(
                    more,
                    store,
                    error,
                    "the store fails: it is left alone for a moment, and then asked whether it is there"
                );
            }
            Some(Change::Closed) => {
                let away = state.since.take().map(|since| since.elapsed());
                let (refused, store) = (state.refused, &*self.0.name);
                drop(state);
                let Some(more) = self.0.log.pass("closed") else {
                    return;
                };
                let millis = away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX));
                tracing::info!(
                    store,
                    millis,
                    not_asked = refused,
                    more,
                    "the store answers again"
                );
            }
        }
    }
}

impl Inner {
    /// A moment as the circuit knows it.
    fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.0.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Pass<'_> {
    /// The same, of which nobody needs to keep the breaker.
    pub fn into_owned(mut self) -> Pass<'static> {
        Pass {
            breaker: Cow::Owned(self.breaker.as_ref().clone()),
            permit: self.permit.take(),
        }
    }

    /// Says what came of a call that had all the time that the store takes, and is over `now`.
    pub fn end(self, now: Instant, result: Result<(), &Error>) {
        self.end_as(now, completion_of(result), result.err());
    }

    /// As [`end`](Self::end), for a caller with a shorter deadline than the store's own: that it is over says little of the
    /// store.
    pub fn end_in_haste(self, now: Instant, result: Result<(), &Error>) {
        let completion = match completion_of(result) {
            Completion::Failed if result.is_err_and(|error| error.kind() == ErrorKind::Timeout) => {
                Completion::Late
            }
            other => other,
        };
        self.end_as(now, completion, result.err());
    }

    /// Says what came of it.
    pub fn end_as(mut self, now: Instant, completion: Completion, why: Option<&Error>) {
        if let Some(permit) = self.permit.take() {
            self.breaker.complete(now, permit, completion, why);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let now = Instant::now();
            self.breaker
                .complete(now, permit, Completion::Nothing, None);
        }
    }
}

/// What a result says of the store.
fn completion_of(result: Result<(), &Error>) -> Completion {
    use ErrorKind::{Conflict, Expired, Foreign};
    match result.map_err(Error::kind) {
        // Only the store knows that.
        Ok(()) | Err(Foreign | Conflict | Expired) => Completion::Answered,
        Err(kind) if kind.blames_the_server() => Completion::Failed,
        Err(_) => Completion::Nothing,
    }
}
