//! What a call of a model behind a cache charges, and what it gives back.
#![cfg(all(feature = "ai-cache", feature = "memory"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limiter::Spent;
use limiter::ai_cache::{AiCache, CacheConfig, ComputeError, Origin};
use limiter::{
    Backends, CallError, CallFailure, Key, LimitStore, Outcome, PaidAnswer, PaidCall, Policy,
    Quota, TokenUsage, Unit,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const USAGE: TokenUsage = TokenUsage {
    prompt: 40,
    completion: 60,
};

struct World {
    backends: Backends,
    cache: AiCache<String>,
    requests: Policy,
    calls: Policy,
    tokens: Policy,
    asked: Arc<AtomicU64>,
}

fn policy(name: &str, limit: u64) -> Policy {
    let quota = Quota::fixed_window(limit, limiter::Period::HOUR).unwrap();
    Policy::new(name, quota).unwrap()
}

impl World {
    async fn new() -> Self {
        let backends = limiter::connect("memory:").await.unwrap();
        let config = CacheConfig::company_research("1");
        Self {
            cache: AiCache::new(backends.cache.clone(), config),
            backends,
            requests: policy("requests", 20),
            calls: policy("calls", 3),
            tokens: policy("tokens", 1_000).with_unit(Unit::Tokens),
            asked: Arc::default(),
        }
    }

    fn call(&self, user: &str) -> PaidCall {
        PaidCall::new(self.backends.limiter.clone())
            .counted(&self.requests, &self.requests.key([user]))
            .paid(&self.calls, &self.calls.key([user]))
            .paid(&self.tokens, &self.tokens.key(["tenant"]))
            .estimate(300)
    }

    /// Asks as a user; `reply` is what the model does.
    async fn ask(
        &self,
        user: &str,
        question: &str,
        reply: Result<Option<TokenUsage>, CallFailure<io::Error>>,
    ) -> Result<PaidAnswer<String>, CallError> {
        let asked = self.asked.clone();
        let params = json!({ "company": question });
        let model = move |question| async move {
            asked.fetch_add(1, Ordering::SeqCst);
            reply.map(|usage| (format!("about {question}"), usage))
        };
        self.call(user).cached(&self.cache, &params, model).await
    }

    /// Used of requests, calls and tokens.
    async fn used(&self, user: &str) -> [u64; 3] {
        let peek = async |policy: &Policy, key: Key| {
            self.backends.limiter.peek(policy, &key).await.unwrap().used
        };
        [
            peek(&self.requests, self.requests.key([user])).await,
            peek(&self.calls, self.calls.key([user])).await,
            peek(&self.tokens, self.tokens.key(["tenant"])).await,
        ]
    }

    /// Waits for what is given back in the background.
    async fn settles(&self, user: &str, expected: [u64; 3]) {
        for _ in 0..1_000 {
            if self.used(user).await == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(self.used(user).await, expected);
    }
}

type Reply = fn() -> Result<(String, Option<TokenUsage>), CallFailure<io::Error>>;

/// A model that says when it is asked, and answers when it is told to.
#[derive(Clone, Default)]
struct Gate {
    entered: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Gate {
    /// Asks it as a user, in a task.
    fn ask(
        &self,
        world: &World,
        user: &str,
        is_cached: bool,
        reply: Reply,
    ) -> JoinHandle<Result<PaidAnswer<String>, CallError>> {
        let (call, cache, gate) = (world.call(user), world.cache.clone(), self.clone());
        tokio::spawn(async move {
            let model = move |_| async move {
                gate.entered.notify_one();
                gate.go_on.notified().await;
                reply()
            };
            let params = json!({ "company": "Acme" });
            match is_cached {
                true => call.cached(&cache, &params, model).await,
                false => call.uncached(&params, model).await,
            }
        })
    }
}

fn broken() -> CallFailure<io::Error> {
    CallFailure::unspent(io::Error::other("the provider is away"))
}

fn denied_by(error: CallError) -> String {
    let CallError::Limited(decision) = error else {
        panic!("{error:?}");
    };
    assert!(!decision.is_allowed());
    decision.violated().next().unwrap().policy.name().to_owned()
}

#[tokio::test]
async fn a_hit_is_counted_and_not_paid() {
    let world = World::new().await;
    let miss = world.ask("alice", "Acme", Ok(Some(USAGE))).await.unwrap();
    assert_eq!(
        (miss.origin, miss.decision.decisions.len()),
        (Origin::Computed, 3)
    );
    world.settles("alice", [1, 1, 100]).await;
    for count in 2..=20 {
        let hit = world.ask("alice", "Acme", Err(broken())).await.unwrap();
        assert!(hit.origin.is_hit());
        assert_eq!(hit.decision.decisions.len(), 1);
        assert_eq!(world.used("alice").await, [count, 1, 100]);
    }
    let denied = world.ask("alice", "Acme", Ok(None)).await.unwrap_err();
    assert_eq!(denied_by(denied), "requests");
    // Who has used up the model still has what is cached.
    for question in ["a", "b", "c"] {
        world.ask("bob", question, Ok(None)).await.unwrap();
    }
    let denied = world.ask("bob", "d", Ok(None)).await.unwrap_err();
    assert_eq!(denied_by(denied), "calls");
    world.settles("bob", [3, 3, 1_000]).await;
    assert!(
        world
            .ask("bob", "Acme", Ok(None))
            .await
            .unwrap()
            .origin
            .is_hit()
    );
    assert_eq!(world.asked.load(Ordering::SeqCst), 4);
}

/// Known fault: 20 failures of the provider used up the hour.
#[tokio::test]
async fn a_failure_uses_nothing_up() {
    let world = World::new().await;
    for _ in 0..50 {
        let failed = world.ask("alice", "Acme", Err(broken())).await.unwrap_err();
        let CallError::Failed { error, decision } = failed else {
            panic!("{failed:?}");
        };
        assert!(error.downcast_ref::<io::Error>().is_some());
        assert!(decision.is_allowed());
        world.settles("alice", [0, 0, 0]).await;
    }
    let uncached = |reply: Result<(String, Option<TokenUsage>), CallFailure<io::Error>>| {
        let call = world.call("alice");
        async move { call.uncached(&json!({}), async |_| reply).await }
    };
    for _ in 0..50 {
        assert!(uncached(Err(broken())).await.is_err());
        world.settles("alice", [0, 0, 0]).await;
    }
    let answer = uncached(Ok(("yes".to_owned(), Some(USAGE)))).await.unwrap();
    assert_eq!((&*answer.value, answer.origin), ("yes", Origin::Computed));
    world.settles("alice", [1, 1, 100]).await;
}

/// An answer that was cut off has been paid for, or whoever asks for long ones asks for nothing. It is no answer, so it is not
/// counted.
#[tokio::test]
async fn a_failure_that_used_tokens_is_paid() {
    let world = World::new().await;
    let cut = || CallFailure {
        error: io::Error::other("cut off"),
        spent: Spent::Tokens(USAGE),
    };
    assert!(world.ask("alice", "Acme", Err(cut())).await.is_err());
    world.settles("alice", [0, 1, 100]).await;
    // Without a report the estimate stands.
    world.ask("alice", "Other", Ok(None)).await.unwrap();
    world.settles("alice", [1, 2, 400]).await;
}

/// Nobody is refused for another's limit, and who waits for another's call pays nothing.
#[tokio::test]
async fn one_call_is_paid_once_by_who_makes_it() {
    let world = World::new().await;
    let gate = Gate::default();
    let ask = |user| {
        gate.ask(&world, user, true, || {
            Ok(("answer".to_owned(), Some(USAGE)))
        })
    };
    // Carol has no calls left.
    for question in ["a", "b", "c"] {
        world
            .ask(
                "carol",
                question,
                Err(CallFailure {
                    error: io::Error::other("x"),
                    spent: Spent::Tokens(TokenUsage::default()),
                }),
            )
            .await
            .unwrap_err();
    }
    world.settles("carol", [0, 3, 0]).await;
    let first = ask("alice");
    gate.entered.notified().await;
    let second = ask("bob");
    assert_eq!(denied_by(ask("carol").await.unwrap().unwrap_err()), "calls");
    // Bob waits, and holds nothing meanwhile: others of the tenant's budget are not kept from it.
    world.settles("bob", [1, 0, 300]).await;
    gate.go_on.notify_one();
    for waiting in [first, second] {
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(
            (&*answer.value, answer.origin),
            ("answer", Origin::Computed)
        );
    }
    world.settles("alice", [1, 1, 100]).await;
    world.settles("bob", [1, 0, 100]).await;
}

/// I-K4: a client that leaves cancels nothing, and the call is settled.
#[tokio::test]
async fn a_caller_that_leaves_cancels_nothing() {
    let world = World::new().await;
    let gate = Gate::default();
    let caller = gate.ask(&world, "alice", true, || {
        Ok(("answer".to_owned(), Some(USAGE)))
    });
    gate.entered.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(world.used("alice").await, [1, 1, 300]);
    gate.go_on.notify_one();
    world.settles("alice", [1, 1, 100]).await;
    assert!(
        world
            .ask("alice", "Acme", Err(broken()))
            .await
            .unwrap()
            .origin
            .is_hit()
    );
}

/// A limit of pages is none of a call's, and nothing is charged for it.
#[tokio::test]
async fn misuse_is_no_permission() {
    let world = World::new().await;
    let pages = policy("pages", 5).with_unit(Unit::named("pages").unwrap());
    let call = world.call("alice").paid(&pages, &pages.key(["alice"]));
    let ask = async |_| Ok::<_, CallFailure<io::Error>>((String::new(), None));
    let error = call.uncached(&json!({}), ask).await.unwrap_err();
    let CallError::Limited(decision) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(decision.outcome, Outcome::Unavailable { .. }));
}

/// A caller that leaves, whose call then fails: nothing of it stays charged. Known fault: 20 of these used up the hour.
#[tokio::test]
async fn who_leaves_a_call_that_fails_is_charged_nothing() {
    let world = World::new().await;
    for is_cached in [true, false] {
        let gate = Gate::default();
        let caller = gate.ask(&world, "alice", is_cached, || Err(broken()));
        gate.entered.notified().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(world.used("alice").await, [1, 1, 300]);
        gate.go_on.notify_one();
        world.settles("alice", [0, 0, 0]).await;
    }
}

/// What nobody knows the cost of stays at its estimate: an answer that broke off, a panic, a call that is cut.
#[tokio::test(start_paused = true)]
async fn what_nobody_knows_the_cost_of_is_paid() {
    let world = World::new().await;
    let unknown = world
        .ask(
            "alice",
            "Acme",
            Err(io::Error::other("it broke off").into()),
        )
        .await;
    assert!(unknown.is_err());
    world.settles("alice", [0, 1, 300]).await;

    let params = json!({ "company": "Globex" });
    let panics = |_| async {
        assert!(json!([]).is_object(), "on purpose");
        Ok::<_, CallFailure<io::Error>>((String::new(), None))
    };
    let error = world
        .call("alice")
        .cached(&world.cache, &params, panics)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Failed {
                error: ComputeError::Aborted,
                ..
            }
        ),
        "{error:?}"
    );
    world.settles("alice", [0, 2, 600]).await;

    let hangs = |_| std::future::pending::<Result<(String, _), CallFailure<io::Error>>>();
    let call = world
        .call("alice")
        .within(std::time::Duration::from_secs(7));
    let began = tokio::time::Instant::now();
    assert!(call.cached(&world.cache, &params, hangs).await.is_err());
    assert_eq!(began.elapsed().as_secs(), 7);
    world.settles("alice", [0, 3, 900]).await;
}

/// A shadow policy blocks nothing: neither when it would deny nor when it cannot be used.
#[tokio::test]
async fn shadow_policies_never_block() {
    let world = World::new().await;
    let pages = policy("pages", 1)
        .with_unit(Unit::named("pages").unwrap())
        .with_shadow(true);
    let none = policy("none", 1).with_shadow(true);
    let call = PaidCall::new(world.backends.limiter.clone()).counted(&none, &none.key(["alice"]));
    for paid in [&pages, &none.clone().with_unit(Unit::Tokens)] {
        // Also beside one that is enforced.
        let call = call.clone().paid(paid, &paid.key(["alice"])).estimate(300);
        let call = call.paid(&world.tokens, &world.tokens.key(["bob"]));
        for _ in 0..3 {
            let ask = async |_| Ok::<_, CallFailure<io::Error>>((7, Some(USAGE)));
            let answer = call.uncached(&json!({}), ask).await.unwrap();
            assert_eq!(answer.value, 7);
            assert!(answer.decision.is_allowed());
        }
    }
}

/// A store that is away.
#[derive(Debug)]
struct Away;

#[async_trait::async_trait]
impl LimitStore for Away {
    fn capabilities(&self) -> limiter::limiter_core::limit::Capabilities {
        limiter::limiter_core::limit::Capabilities::ALL
    }

    fn is_issuer(&self, _: limiter::limiter_core::limit::Issuer) -> bool {
        false
    }

    fn try_apply_now(
        &self,
        _: &limiter::limiter_core::limit::Group<'_>,
        _: &mut [limiter::Observed],
    ) -> Option<Result<(), limiter::Error>> {
        None
    }

    async fn apply(
        &self,
        _: &limiter::limiter_core::limit::Group<'_>,
        _: &mut [limiter::Observed],
    ) -> Result<(), limiter::Error> {
        let kind = limiter::ErrorKind::Connection;
        Err(limiter::Error::new(kind, "limit.apply", "it is not there"))
    }

    async fn health(&self) -> limiter::Health {
        limiter::Health::new("away", false, None, "it is not there")
    }
}

/// Each policy's rule decides while the store is away, and the cache is asked all the same.
#[tokio::test]
async fn an_outage_is_decided_by_the_rules() {
    let world = World::new().await;
    let limiter = limiter::Limiter::new(Away);
    let open = |policy: &Policy| policy.clone().with_outage(limiter::Outage::Allow);
    let call = |requests: &Policy, calls: &Policy| {
        PaidCall::new(limiter.clone())
            .counted(requests, &requests.key(["alice"]))
            .paid(calls, &calls.key(["alice"]))
    };
    let ask = async |_| Ok::<_, CallFailure<io::Error>>((7, None));
    for (requests, calls, is_allowed) in [
        (open(&world.requests), open(&world.calls), true),
        (world.requests.clone(), open(&world.calls), false),
        (open(&world.requests), world.calls.clone(), false),
    ] {
        match call(&requests, &calls).uncached(&json!({}), ask).await {
            Ok(answer) => assert!(is_allowed && answer.decision.is_degraded()),
            Err(CallError::Limited(decision)) => {
                assert!(!is_allowed && matches!(decision.outcome, Outcome::Unavailable { .. }));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Who waits and leaves is counted, or a flood of such requests would be none; who is refused or leaves before is not.
#[tokio::test]
async fn who_leaves_while_waiting_is_counted() {
    let world = World::new().await;
    let gate = Gate::default();
    let first = gate.ask(&world, "alice", true, || {
        Ok(("answer".to_owned(), Some(USAGE)))
    });
    gate.entered.notified().await;
    let waiting = gate.ask(&world, "bob", true, || Err(broken()));
    world.settles("bob", [1, 0, 300]).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    gate.go_on.notify_one();
    assert!(first.await.unwrap().is_ok());
    world.settles("bob", [1, 0, 100]).await;
}
