//! A call of an AI model behind a cache: a hit is counted, and only a call of the model is paid for.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ai_cache::scope::Addressed;
use ai_cache::{AiCache, Cacheable, CanonicalJson, ComputeError, Origin};
use limiter_core::limit::{
    Charge, Charged, GroupDecision, Limiter, ModelCall, ModelCallReserved, Policy, TokenUsage,
};
use limiter_core::{Error, Key};
use serde::Serialize;

/// The limits of one request that may call a model.
///
/// What happens, in this order:
///
/// 1. **Count.** Each policy of [`counted`](Self::counted) is charged 1, all or nothing: every request, answered from the cache
///    or not.
/// 2. **Look** into the cache. A hit ends here: it charges no AI call.
/// 3. **Reserve.** The policies of [`paid`](Self::paid) are charged: 1 to those that count requests, the
///    [estimate](Self::estimate) to those that count [tokens](limiter_core::limit::Unit::Tokens); all or nothing. If they deny,
///    the count is given back: nothing is charged to a request that is refused.
/// 4. **Ask** the model, once for all who ask the same meanwhile. Who only waits for another's call pays nothing.
/// 5. **Settle** to the tokens that the provider reports. A failure that used nothing gives everything back, the count too; so a
///    provider's outage uses up nobody's limit.
/// 6. **Store** the answer.
///
/// A caller that leaves cancels nothing: the call goes on, is settled, and is stored.
///
#[cfg_attr(
    feature = "memory",
    doc = r##"
```
use std::time::Duration;
use limiter::ai_cache::{AiCache, CacheConfig, CanonicalJson, Origin};
use limiter::{Failed, PaidCall, Policy, Quota, TokenUsage, Unit};
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
    Ok::<_, Failed<std::io::Error>>((format!("about {question}"), Some(usage)))
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

/// A failed call of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by callers from what their provider reports"
)]
pub struct Failed<E> {
    /// Why there is no answer.
    pub error: E,
    /// What the provider reports that it used all the same, as for an answer that was cut off. `None` if it did nothing, or
    /// does not say.
    pub usage: Option<TokenUsage>,
}

/// A failure that used nothing.
impl<E: StdError> From<E> for Failed<E> {
    fn from(error: E) -> Self {
        Self { error, usage: None }
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

    /// The longest that a call may take; then its estimate stands. 5 minutes unless this says otherwise.
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
        Fut: Future<Output = Result<(T, Option<TokenUsage>), Failed<E>>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        let count = self.count().await?;
        let mut decision = count.decision.clone();
        let used = Arc::new(AtomicBool::new(false));
        let asked = cache
            .get_or_admit(params, async || {
                let mut call = self.reserve(&mut decision).await?;
                let used = used.clone();
                Ok(move |question| async move {
                    if let Some(call) = &mut call {
                        call.started();
                    }
                    settled(call, ask(question).await, &used)
                })
            })
            .await
            .inspect_err(|_| count.give_back())?;
        match asked {
            Ok(answer) => Ok(PaidAnswer {
                value: answer.value,
                origin: answer.origin,
                decision,
            }),
            Err(error) => {
                // Nobody knows what a computation that panicked has used.
                if !matches!(error, ComputeError::Aborted) {
                    count.give_back_unless(&used);
                }
                Err(CallError::Failed { error, decision })
            }
        }
    }

    /// The answer of `ask`, which is kept nowhere; otherwise as [`cached`](Self::cached). A caller that leaves ends the call,
    /// whose estimate then stands.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn uncached<T, P, F, Fut, E>(
        &self,
        params: &P,
        ask: F,
    ) -> Result<PaidAnswer<T>, CallError>
    where
        P: Serialize + ?Sized,
        F: FnOnce(CanonicalJson) -> Fut,
        Fut: Future<Output = Result<(T, Option<TokenUsage>), Failed<E>>>,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let count = self.count().await?;
        let mut decision = count.decision.clone();
        let used = AtomicBool::new(false);
        let question = CanonicalJson::of(params).map_err(ComputeError::from);
        let asked = match question {
            Ok(question) => {
                let reserved = self.reserve(&mut decision).await;
                let mut call = reserved.inspect_err(|_| count.give_back())?;
                if let Some(call) = &mut call {
                    call.started();
                }
                settled(call, ask(question).await, &used)
                    .map_err(|error| ComputeError::Failed(error.into().into()))
            }
            Err(error) => Err(error),
        };
        match asked {
            Ok(value) => Ok(PaidAnswer {
                value,
                origin: Origin::Computed,
                decision,
            }),
            Err(error) => {
                count.give_back_unless(&used);
                Err(CallError::Failed { error, decision })
            }
        }
    }

    async fn count(&self) -> Result<Count, CallError> {
        if self.counted.is_empty() {
            return Ok(Count {
                decision: GroupDecision::new(Vec::new()),
                charged: None,
            });
        }
        let charges: Vec<_> = self
            .counted
            .iter()
            .map(|(policy, key)| Charge::new(policy, key))
            .collect();
        match self.limiter.charge(&charges).await {
            Ok((decision, charged)) if decision.is_allowed() => Ok(Count { decision, charged }),
            Ok((decision, _)) => Err(CallError::Limited(decision)),
            Err(error) => Err(unchecked(&self.counted, &error)),
        }
    }

    /// Adds what is decided to `decision`. Nothing is reserved where nothing is to be paid.
    async fn reserve(&self, decision: &mut GroupDecision) -> Result<Option<ModelCall>, CallError> {
        if self.paid.is_empty() {
            return Ok(None);
        }
        let limits: Vec<_> = self
            .paid
            .iter()
            .map(|(policy, key)| (policy, key))
            .collect();
        let reserved = self
            .limiter
            .reserve_model_call(&limits, self.estimate, self.within)
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
            Err(error) => Err(unchecked(&self.paid, &error)),
        }
    }
}

/// What every request is charged.
struct Count {
    decision: GroupDecision,
    charged: Option<Charged>,
}

impl Count {
    fn give_back(&self) {
        if let Some(charged) = &self.charged {
            charged.refund_detached();
        }
    }

    fn give_back_unless(&self, used: &AtomicBool) {
        if !used.load(Ordering::Relaxed) {
            self.give_back();
        }
    }
}

fn unchecked(limits: &[(Policy, Key)], error: &Error) -> CallError {
    if !error.kind().is_outage() {
        tracing::error!(%error, "limit refused");
    }
    let policies = limits.iter().map(|(policy, _)| policy);
    CallError::Limited(GroupDecision::unavailable(policies, error))
}

/// Settles or cancels a call by what came of it.
fn settled<T, E>(
    call: Option<ModelCall>,
    asked: Result<(T, Option<TokenUsage>), Failed<E>>,
    used: &AtomicBool,
) -> Result<T, E> {
    let (result, usage, did_nothing) = match asked {
        Ok((value, usage)) => (Ok(value), usage, false),
        Err(failed) => (Err(failed.error), failed.usage, failed.usage.is_none()),
    };
    used.store(!did_nothing, Ordering::Relaxed);
    match (call, usage) {
        (Some(call), Some(usage)) => {
            if let Err(error) = call.settle_detached(usage) {
                tracing::error!(%error, "a call is not settled; its estimate stands");
            }
        }
        (Some(call), None) if did_nothing => call.cancel_detached(),
        // Without a report the estimate stands.
        _ => {}
    }
    result
}
