//! Calls of AI models: the tokens are estimated before, and known after.

use std::time::Duration;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::reserve::{Reservation, Reserved, Settled};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::unit::Unit;

/// What a provider reports of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by callers from what their provider reports"
)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub completion: u64,
}

impl TokenUsage {
    /// Both together.
    pub fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// The answer to [`Limiter::reserve_model_call`].
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "held or not held are all there is")]
pub enum ModelCallReserved {
    /// The request and the estimate are charged.
    Held(ModelCall),
    /// Nothing was charged.
    Denied(GroupDecision),
}

/// A call of a model whose estimate is charged. Made by [`Limiter::reserve_model_call`]; what a drop does
/// is said at [`Reservation`].
#[derive(Debug)]
#[must_use = "dropped at once, the estimate is given back"]
pub struct ModelCall {
    reservation: Reservation,
    amounts: Vec<PerCall>,
}

/// What a call takes of a limit.
#[derive(Clone, Copy, Debug)]
enum PerCall {
    One,
    Tokens,
}

impl PerCall {
    fn of(policy: &Policy) -> Result<Self, Error> {
        match policy.unit() {
            Unit::Requests => Ok(Self::One),
            Unit::Tokens => Ok(Self::Tokens),
            unit @ Unit::Named(_) => Err(Error::new(
                ErrorKind::InvalidInput,
                "limit.reserve",
                format!(
                    "policy {} counts {}, and a model call has requests and tokens; reserve it with Limiter::reserve",
                    policy.name(),
                    unit.as_str()
                ),
            )),
        }
    }

    fn of_tokens(self, tokens: u64) -> u64 {
        match self {
            Self::One => 1,
            Self::Tokens => tokens,
        }
    }
}

impl Limiter {
    /// Charges one request to each limit that counts requests, and `estimate` tokens to each that counts
    /// [tokens](Policy::with_unit), per minute and per day at once: all or nothing. To be settled within
    /// `ttl`, the longest that the call may take.
    ///
    /// A limit that counts neither is refused. An estimate above a limit's capacity is `Never`. A good one is the prompt's tokens plus the most
    /// that the answer may have (`max_tokens`).
    ///
    /// ```
    /// # async fn ask_model() -> (u64, u64) { (900, 300) }
    /// # async fn example(limiter: limiter_core::limit::Limiter) -> Result<(), limiter_core::Error> {
    /// use std::time::Duration;
    /// use limiter_core::Key;
    /// use limiter_core::limit::{Calendar, ModelCallReserved, Period, Policy, Quota, TokenUsage, Unit};
    ///
    /// let requests = Policy::new("requests", Quota::sliding_window(60, Period::MINUTE)?)?;
    /// let minute = Policy::new("tokens-minute", Quota::token_bucket(90_000, 90_000, Period::MINUTE)?)?
    ///     .with_unit(Unit::Tokens);
    /// let day = Policy::new("tokens-day", Quota::calendar_window(1_000_000, Calendar::Day)?)?
    ///     .with_unit(Unit::Tokens);
    /// let key = |of: &str| Key::builder().segment("ratelimit").hash_tag("acme").segment(of).build();
    ///
    /// let limits = [(&requests, &key("requests")), (&minute, &key("minute")), (&day, &key("day"))];
    /// let ttl = Duration::from_secs(120);
    /// match limiter.reserve_model_call(&limits, 4_000, ttl).await? {
    ///     ModelCallReserved::Held(mut call) => {
    ///         call.started();
    ///         let (prompt, completion) = ask_model().await;
    ///         call.settle(TokenUsage { prompt, completion }).await?;
    ///     }
    ///     ModelCallReserved::Denied(decision) => println!("{:?}", decision.outcome),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve); `InvalidInput` for a limit that counts neither requests nor tokens, and for an estimate
    /// of 0.
    pub async fn reserve_model_call(
        &self,
        limits: &[(&Policy, &Key)],
        estimate: u64,
        ttl: Duration,
    ) -> Result<ModelCallReserved, Error> {
        if estimate == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "limit.reserve",
                "the estimate is 0 tokens; give those of the prompt and the most that the answer may have",
            ));
        }
        let amounts: Vec<PerCall> = limits
            .iter()
            .map(|(policy, _)| PerCall::of(policy))
            .collect::<Result<_, _>>()?;
        let charges: Vec<Charge<'_>> = limits
            .iter()
            .zip(&amounts)
            .map(|((policy, key), amount)| {
                Charge::new(policy, key).with_cost(amount.of_tokens(estimate))
            })
            .collect();
        Ok(match self.reserve(&charges, ttl).await? {
            // Under a random id nothing was settled before.
            Reserved::Settled(_) => return Err(never_settled()),
            Reserved::Denied(decision) => ModelCallReserved::Denied(decision),
            Reserved::Held(reservation) => ModelCallReserved::Held(ModelCall {
                reservation,
                amounts,
            }),
        })
    }
}

fn never_settled() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "limit.reserve",
        "the store says that a new reservation was settled before",
    )
}

impl ModelCall {
    /// What the charge of the estimate answered.
    pub fn decision(&self) -> &GroupDecision {
        self.reservation.decision()
    }

    /// Says that the request goes out: from here on a drop leaves the estimate charged, because the
    /// provider counts what it does for a client that went away.
    pub fn started(&mut self) {
        self.reservation.started();
    }

    /// Charges what the provider reports in place of the estimate.
    ///
    /// # Errors
    /// As [`Reservation::settle`].
    pub async fn settle(self, usage: TokenUsage) -> Result<Settled, Error> {
        let actual = self.actual(usage);
        self.reservation.settle(&actual).await
    }

    /// As [`settle`](Self::settle), in the background and without an answer.
    ///
    /// # Errors
    /// As [`Reservation::settle_detached`].
    pub fn settle_detached(self, usage: TokenUsage) -> Result<(), Error> {
        let actual = self.actual(usage);
        self.reservation.settle_detached(&actual)
    }

    /// As [`cancel`](Self::cancel), in the background and without an answer.
    pub fn cancel_detached(self) {
        self.reservation.cancel_detached();
    }

    /// Gives request and estimate back: the provider did not do anything.
    ///
    /// # Errors
    /// As [`Reservation::cancel`].
    pub async fn cancel(self) -> Result<(), Error> {
        self.reservation.cancel().await
    }

    fn actual(&self, usage: TokenUsage) -> Vec<u64> {
        let amounts = self.amounts.iter();
        amounts
            .map(|amount| amount.of_tokens(usage.total()))
            .collect()
    }
}
