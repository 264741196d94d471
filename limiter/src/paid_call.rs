//! A call of an AI model behind a cache: a hit is counted, and only a call of the model is paid for.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ai_cache::scope::Addressed;
use ai_cache::{AiCache, Cacheable, CanonicalJson, ComputeError, Origin};
use limiter_core::limit::{
    Charge, Charged, GroupDecision, Limiter, MAX_HOLD, ModelCall, ModelCallReserved, Policy,
    TokenUsage, Unit,
};
use limiter_core::{Error, Key};
use serde::Serialize;
use tokio::time::timeout;
use tracing::Instrument;

/// The limits of one request that may call a model.
///
/// What happens, in this order:
///
/// 1. **Count.** Each policy of [`counted`](Self::counted) is charged 1, all or nothing: for every answer, from the cache or not.
/// 2. **Look** into the cache. A hit ends here: it charges no AI call.
/// 3. **Reserve.** The policies of [`paid`](Self::paid) are charged: 1 to those that count requests, the
///    [estimate](Self::estimate) to those that count [tokens](limiter_core::limit::Unit::Tokens); all or nothing. If they deny,
///    the count is given back: nothing is charged to a request that is refused.
/// 4. **Ask** the model, once for all who ask the same meanwhile. Who only waits for another's call pays nothing.
/// 5. **Settle** to the tokens that the provider reports. A failure gives the count back, so a provider's outage uses up nobody's
///    limit. What the provider may charge for it stays paid: its [`Spent`] says what that is, and where nobody knows, the estimate
///    stands.
/// 6. **Store** the answer.
///
/// A caller that leaves cancels nothing: the call goes on in a task of its own, is settled, and is stored.
///
#[cfg_attr(
    feature = "memory",
    doc = r##"
```
use std::time::Duration;
use limiter::ai_cache::{AiCache, CacheConfig, CanonicalJson, Origin};
use limiter::{CallFailure, PaidCall, Policy, Quota, TokenUsage, Unit};
use serde_json::json;

# tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
let backends = limiter::connect("memory:").await?;
let requests = Policy::new("requests", Quota::per_minute(60)?)?;
let tokens = Policy::new("tokens", Quota::per_day(100_000)?)?.with_unit(Unit::Tokens);
let cache: AiCache<String> = AiCache::new(backends.cache, CacheConfig::company_research("1"));

let call = PaidCall::new(backends.limiter.clone())
    .counted(&requests, &requests.key(["alice"]))
    .paid(&tokens, &tokens.key(["acme"]))
    .estimate(2_000)
    .within(Duration::from_secs(120));
let ask = |question: CanonicalJson| async move {
    let usage = TokenUsage { prompt: 40, completion: 60 };
    Ok::<_, CallFailure<std::io::Error>>((format!("about {question}"), Some(usage)))
};
let question = json!({ "company": "Acme" });
for origin in [Origin::Computed, Origin::L1] {
    let answer = call.cached(&cache, &question, ask).await?;
    assert_eq!(answer.origin, origin);
}
let used = backends.limiter.peek(&tokens, &tokens.key(["acme"])).await?.used;
assert_eq!(used, 100, "the second was a hit");
# Ok::<(), Box<dyn std::error::Error>>(())
# }).unwrap();
```
"##
)]
#[derive(Clone, Debug)]
pub struct PaidCall {
    limiter: Limiter,
    counted: Vec<(Policy, Key)>,
    paid: Vec<(Policy, Key)>,
    estimate: u64,
    within: Duration,
}

/// A failed call of a model, and what it has cost all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by callers from what their provider reports"
)]
pub struct CallFailure<E> {
    /// Why there is no answer.
    pub error: E,
    /// What the provider charges for it.
    pub spent: Spent,
}

/// What a provider charges for a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is nothing between knowing and not knowing"
)]
pub enum Spent {
    /// Nothing: it was not reached, or was too busy, or failed by itself. The call is given back.
    Nothing,
    /// Nobody knows: the answer broke off, or could not be read. The estimate stands.
    Unknown,
    /// These tokens, as for an answer that was cut off.
    Tokens(TokenUsage),
}

impl<E> CallFailure<E> {
    /// A failure that the provider does not charge for: it could not be reached, was too busy, or failed by itself.
    pub fn unspent(error: E) -> Self {
        let spent = Spent::Nothing;
        Self { error, spent }
    }
}

/// A failure of which nobody knows what it has cost, so that its estimate stands.
impl<E: StdError> From<E> for CallFailure<E> {
    fn from(error: E) -> Self {
        let spent = Spent::Unknown;
        Self { error, spent }
    }
}

/// An answer of [`PaidCall`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaidAnswer<T> {
    /// The answer.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
    /// What was decided, for headers: the counted policies, and the paid ones if they were asked.
    pub decision: GroupDecision,
}

/// `Debug` does not show the value.
impl<T> fmt::Debug for PaidAnswer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaidAnswer")
            .field("origin", &self.origin)
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}

/// Why [`PaidCall`] has no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// A limit denied the request, or could not be checked. Whatever the decision says, it is not allowed.
    Limited(GroupDecision),
    /// The parameters name no answer, or the model failed.
    Failed {
        /// How.
        error: ComputeError,
        /// What was decided, for headers.
        decision: GroupDecision,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(decision) => write!(f, "limited: {}", decision.outcome.as_str()),
            Self::Failed { error, .. } => error.fmt(f),
        }
    }
}

impl StdError for CallError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Limited(_) => None,
            Self::Failed { error, .. } => error.source(),
        }
    }
}

/// How long a call may take until its estimate stands.
const WITHIN: Duration = Duration::from_secs(300);

/// How long after the longest call it can be settled.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

impl PaidCall {
    /// A request without limits.
    pub fn new(limiter: Limiter) -> Self {
        Self {
            limiter,
            counted: Vec::new(),
            paid: Vec::new(),
            estimate: 1,
            within: WITHIN,
        }
    }

    /// A policy that every request is charged 1 of.
    #[must_use]
    pub fn counted(mut self, policy: &Policy, key: &Key) -> Self {
        self.counted.push((policy.clone(), key.clone()));
        self
    }

    /// A policy that only a call of the model is charged to. It counts requests or tokens.
    #[must_use]
    pub fn paid(mut self, policy: &Policy, key: &Key) -> Self {
        self.paid.push((policy.clone(), key.clone()));
        self
    }

    /// How many tokens are reserved before the model is asked: those of the prompt and the most that the answer may have.
    /// 1 unless this says otherwise.
    #[must_use]
    pub fn estimate(self, tokens: u64) -> Self {
        Self {
            estimate: tokens.max(1),
            ..self
        }
    }

    /// The longest that a call may take: then it is cut, and its estimate stands. 5 minutes unless this says otherwise.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The cached answer for these parameters, or else that of `ask`, which is stored. `ask` gets the parameters as the text
    /// that the cache's key is made of, and gives the answer with what the provider reports of it: without a report the
    /// estimate stands.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn cached<T, S, P, F, Fut, E>(
        &self,
        cache: &AiCache<T, S>,
        params: &P,
        ask: F,
    ) -> Result<PaidAnswer<T>, CallError>
    where
        T: Cacheable,
        S: Addressed,
        P: Serialize + ?Sized,
        F: FnOnce(CanonicalJson) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(T, Option<TokenUsage>), CallFailure<E>>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        let (count, mut decision) = self.count().await?;
        let asked = cache
            .get_or_admit(params, async || {
                let call = self.reserve(&mut decision).await?;
                count.waits();
                let (within, count) = (self.within, count.clone());
                Ok(move |question| make(call, count, within, ask(question)))
            })
            .await?;
        let asked = asked.map(|answer| (answer.value, answer.origin));
        finished(asked, &count, decision)
    }

    /// The answer of `ask`, which is kept nowhere; otherwise as [`cached`](Self::cached).
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn uncached<T, P, F, Fut, E>(
        &self,
        params: &P,
        ask: F,
    ) -> Result<PaidAnswer<T>, CallError>
    where
        T: Send + 'static,
        P: Serialize + ?Sized,
        F: FnOnce(CanonicalJson) -> Fut,
        Fut: Future<Output = Result<(T, Option<TokenUsage>), CallFailure<E>>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        let (count, mut decision) = self.count().await?;
        let asked = match CanonicalJson::of(params) {
            Ok(question) => {
                let call = self.reserve(&mut decision).await?;
                count.waits();
                // In a task, as a computation of a cache: a caller that leaves does not keep it from being settled.
                let work = make(call, count.clone(), self.within, ask(question));
                match tokio::spawn(work.in_current_span()).await {
                    Ok(Ok(value)) => Ok((value, Origin::Computed)),
                    Ok(Err(error)) => Err(ComputeError::Failed(error.into())),
                    Err(_) => Err(ComputeError::Aborted),
                }
            }
            Err(error) => Err(error.into()),
        };
        finished(asked, &count, decision)
    }

    /// Charges what every request is charged; gives the charge, to be kept or given back, and the decision.
    async fn count(&self) -> Result<(Arc<Count>, GroupDecision), CallError> {
        if self.counted.is_empty() {
            return Ok((Count::new(None), GroupDecision::new(Vec::new())));
        }
        let charges: Vec<_> = self
            .counted
            .iter()
            .map(|(policy, key)| Charge::new(policy, key))
            .collect();
        match self.limiter.charge(&charges).await {
            Ok((decision, charged)) if decision.is_allowed() => Ok((Count::new(charged), decision)),
            Ok((decision, _)) => Err(CallError::Limited(decision)),
            Err(error) => Ok((Count::new(None), unchecked(&self.counted, &error)?)),
        }
    }

    /// Adds what is decided to `decision`. Nothing is reserved where nothing is to be paid.
    async fn reserve(&self, decision: &mut GroupDecision) -> Result<Option<ModelCall>, CallError> {
        if self.paid.is_empty() {
            return Ok(None);
        }
        // A shadow policy that cannot be used blocks no more than one that denies.
        let is_usable =
            |policy: &Policy| !(policy.is_shadow() && matches!(policy.unit(), Unit::Named(_)));
        let limits: Vec<_> = self
            .paid
            .iter()
            .filter(|(policy, _)| is_usable(policy))
            .map(|(policy, key)| (policy, key))
            .collect();
        if limits.is_empty() {
            return Ok(None);
        }
        // Longer than the call, so that what comes at its very end is settled too, also after an outage.
        let held = self.within.saturating_add(SETTLED_WITHIN).min(MAX_HOLD);
        let reserved = self
            .limiter
            .reserve_model_call(&limits, self.estimate, held)
            .await;
        let mut add = |more: &GroupDecision| {
            let both = decision.decisions.iter().chain(&more.decisions);
            *decision = GroupDecision::new(both.cloned().collect());
        };
        match reserved {
            Ok(ModelCallReserved::Held(call)) => {
                add(call.decision());
                Ok(Some(call))
            }
            Ok(ModelCallReserved::Denied(denied)) => {
                add(&denied);
                Err(CallError::Limited(decision.clone()))
            }
            Err(error) => {
                add(&unchecked(&self.paid, &error)?);
                Ok(None)
            }
        }
    }
}

/// What a request is charged for an answer. Whoever decides first decides whether it is kept.
struct Count {
    charged: Option<Charged>,
    state: AtomicU8,
}

/// Dropped, it is given back: nothing was found and nobody was asked.
const NEW: u8 = 0;
/// Dropped, it is kept: its caller has left what is made for it, or for others.
const WAITING: u8 = 1;
const DECIDED: u8 = 2;

impl Count {
    fn new(charged: Option<Charged>) -> Arc<Self> {
        let state = AtomicU8::new(NEW);
        Arc::new(Self { charged, state })
    }

    fn waits(&self) {
        let _ = self.state.compare_exchange(NEW, WAITING, Relaxed, Relaxed);
    }

    fn keep(&self) {
        self.state.store(DECIDED, Relaxed);
    }

    fn give_back(&self) {
        if self.state.swap(DECIDED, Relaxed) != DECIDED
            && let Some(charged) = &self.charged
        {
            charged.refund_detached();
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if self.state.load(Relaxed) == NEW {
            self.give_back();
        }
    }
}

/// The decision of policies that could not be checked, if they let the request through all the same: shadows do.
fn unchecked(limits: &[(Policy, Key)], error: &Error) -> Result<GroupDecision, CallError> {
    if !error.kind().is_outage() {
        tracing::error!(%error, "limit refused");
    }
    let policies = limits.iter().map(|(policy, _)| policy);
    let decision = GroupDecision::unavailable(policies, error);
    match decision.is_allowed() {
        true => Ok(decision),
        false => Err(CallError::Limited(decision)),
    }
}

/// Makes a call that may be made, and settles or cancels it by what came of it.
async fn make<T, E>(
    mut call: Option<ModelCall>,
    count: Arc<Count>,
    within: Duration,
    ask: impl Future<Output = Result<(T, Option<TokenUsage>), CallFailure<E>>>,
) -> Result<T, Box<dyn StdError + Send + Sync>>
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    if let Some(call) = &mut call {
        call.started();
    }
    let (result, spent) = match timeout(within, ask).await {
        Ok(Ok((value, Some(usage)))) => (Ok(value), Spent::Tokens(usage)),
        Ok(Ok((value, None))) => (Ok(value), Spent::Unknown),
        Ok(Err(failure)) => (Err(failure.error.into()), failure.spent),
        Err(elapsed) => (Err(elapsed.into()), Spent::Unknown),
    };
    match &result {
        Ok(_) => count.keep(),
        Err(_) => count.give_back(),
    }
    let settled = match (call, spent) {
        (Some(call), Spent::Tokens(usage)) => call.settle(usage).await.map(drop),
        (Some(call), Spent::Nothing) => call.cancel().await,
        // The estimate stands.
        (Some(_), Spent::Unknown) | (None, _) => Ok(()),
    };
    match settled {
        // After an outage it is tried again.
        Err(error) if !error.kind().is_outage() => {
            tracing::error!(%error, "a call is not settled; its estimate stands");
        }
        _ => {}
    }
    result
}

/// What the caller gets. Its count is kept for an answer, whoever has asked for it, and given back for none.
fn finished<T>(
    asked: Result<(T, Origin), ComputeError>,
    count: &Count,
    decision: GroupDecision,
) -> Result<PaidAnswer<T>, CallError> {
    match asked {
        Ok((value, origin)) => {
            count.keep();
            Ok(PaidAnswer {
                value,
                origin,
                decision,
            })
        }
        Err(error) => {
            count.give_back();
            Err(CallError::Failed { error, decision })
        }
    }
}
