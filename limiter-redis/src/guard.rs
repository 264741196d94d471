//! A breaker in front of one server: what speaks against it, and how it is asked whether it is there.

use std::error::Error as _;

use limiter_core::breaker::{Breaker, Completion, Pass, Position};
use limiter_core::{Effect, Error, Figure};
use redis::{RedisError, ServerErrorKind};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::error::server_error;
use crate::pool::Pool;

/// In front of one server's pool. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Option<Breaker>);

/// When a call began, and when it has to be over. Clocks are not read again for what a moment ago was now.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begun: Instant,
    pub(crate) end: Instant,
}

impl Span {
    /// From now on.
    pub(crate) fn until(end: Instant) -> Self {
        Self {
            begun: Instant::now(),
            end,
        }
    }
}

/// A call that was let through.
pub(crate) struct Passing<'a> {
    pass: Option<Pass<'a>>,
    /// Whether it has less time than the server's calls have.
    is_hasty: bool,
}

impl Guard {
    pub(crate) fn new(config: &RedisConfig) -> Self {
        Self(
            config
                .breaker
                .map(|breaker| Breaker::new(config.host(), breaker)),
        )
    }

    /// Asks for a call. Needs a runtime: the server may be asked in the background whether it is there.
    ///
    /// # Errors
    /// `BreakerOpen`. Who is refused has to let others run then ([`tokio::task::yield_now`]): it may ask again and again.
    pub(crate) fn enter(&self, pool: &Pool, span: Span) -> Result<Passing<'_>, Error> {
        let knock = || {
            let pool = pool.clone();
            async move { pool.knock().await }
        };
        let pass = match &self.0 {
            Some(breaker) => Some(breaker.admit(span.begun, knock)?),
            None => None,
        };
        let is_hasty = span.end < span.begun + pool.deadline() * 9 / 10;
        Ok(Passing { pass, is_hasty })
    }

    /// How the breaker stands, for metrics.
    pub(crate) fn figure(&self, pool: &Pool, name: &'static str) -> Option<Figure> {
        let breaker = self.0.as_ref()?;
        if breaker.status().position == Position::Open && Handle::try_current().is_ok() {
            // Where nobody calls it is asked now and then all the same whether the server is there. The call itself is not made.
            let end = Instant::now() + pool.deadline();
            drop(self.enter(pool, Span::until(end)));
        }
        Some(breaker.figure().with("pool", name))
    }

    /// What health says of the breaker; nothing while it is closed.
    pub(crate) fn words(&self) -> String {
        let status = self.0.as_ref().map(Breaker::status);
        status.map_or(String::new(), |status| status.words())
    }
}

impl Passing<'_> {
    /// Says what came of the call, which is over now.
    pub(crate) fn end(self, now: Instant, result: Result<(), &Error>) {
        let Some(pass) = self.pass else { return };
        match result.err().and_then(said) {
            Some(completion) => pass.end_as(now, completion, result.err()),
            None if self.is_hasty => pass.end_in_haste(now, result),
            None => pass.end(now, result),
        }
    }
}

/// What some replies say of the server, whatever they mean for the call.
fn said(error: &Error) -> Option<Completion> {
    use ServerErrorKind::{Ask, ClusterDown, CrossSlot, Moved, NoPerm, NoScript, TryAgain};
    let source = error.source()?.downcast_ref::<RedisError>()?;
    match server_error(source)? {
        // It is well, and another one is to be asked, or later.
        Ask | CrossSlot | Moved | NoScript | TryAgain => Some(Completion::Answered),
        // Of one slot, and not of the cluster.
        ClusterDown if source.detail().is_some_and(|text| text.contains("slot")) => {
            Some(Completion::Nothing)
        }
        // Of one key; a connection that may do nothing is not made.
        NoPerm if error.effect() == Effect::Unknown => Some(Completion::Nothing),
        _ => None,
    }
}
