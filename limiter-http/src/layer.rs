//! A tower layer that checks limits before a service runs: what it is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body_util::Full;
use limiter_core::limit::{Limiter, LivePolicy};
use tower_layer::Layer;

use crate::client::ClientAddress;
use crate::refusal::{Refusal, problem_json};
use crate::responder::Responder;
use crate::service::RateLimit;
use crate::settle::Finished;
use crate::target::Target;

/// Checks one or several policies for each request, all or nothing, before the inner service runs.
///
/// A refused request never reaches the service. An allowed one passes, and its response gets the headers, unless the
/// service checked a limit of its own. The layer works with every service: the body of its responses is a
/// [`RateLimitBody`](crate::RateLimitBody), either the service's or the refusal's, `B`.
///
/// **Whom a request is charged to** is the client's address by default, found by a [`ClientAddress`]; the key is
/// `ratelimit:{policy}:{client}`. Without a peer in the request there is none, and the answer is 500, logged with what to do,
/// rather than one bucket for everybody. [`key`](Self::key) takes a function instead, whose answer is a [`Target`]: charge,
/// skip, or refuse. One that finds nobody refuses.
///
/// ```
/// use http::request::Parts;
/// use limiter_core::limit::{Limiter, Quota, Policy};
/// use limiter_http::{RateLimitLayer, Target};
///
/// # fn example(limiter: Limiter) -> Result<RateLimitLayer, limiter_core::Error> {
/// /// What an outer layer found out.
/// #[derive(Clone)]
/// struct UserId(String);
///
/// /// `ratelimit:cover-letter:{user}`: the layer puts the policy's name in front. Without a user: 400.
/// fn of_user(request: &Parts) -> Option<Target> {
///     let user = request.extensions.get::<UserId>()?;
///     Some(Target::new([&user.0]))
/// }
///
/// let letters = Policy::new("cover-letter", Quota::per_hour(20)?)?;
/// let by_client = Policy::new("by-client", Quota::per_minute(100)?.with_burst(10)?)?;
/// let layer = RateLimitLayer::new(limiter, letters)
///     .key(of_user)
///     .also(by_client)
///     .operation("coverLetter");
/// # Ok(layer)
/// # }
/// ```
///
/// # Order of layers
///
/// Layers around this one run first. Checks of a signature or a login belong there, so that strangers cannot use up a
/// user's limit. So does CORS (tower-http's `CorsLayer`): it answers preflight requests itself, so that they are not charged,
/// and gives refusals the headers without which a browser hides them from the page. It needs the names of the limit's headers,
/// [`Responder::header_names`], in `expose_headers`. Where preflights reach this layer all the same,
/// [`exempt`](Self::exempt) `Method::OPTIONS`.
pub struct RateLimitLayer<B = Full<Bytes>>(Arc<Settings<B>>);

/// Whatever the body is: none is copied.
impl<B> Clone for RateLimitLayer<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> fmt::Debug for RateLimitLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimitLayer").field(&self.0).finish()
    }
}

impl RateLimitLayer {
    /// A layer that checks `policy` under the default key: a [`Policy`](limiter_core::limit::Policy), or a
    /// [`LivePolicy`] that changes while the service runs.
    pub fn new(limiter: Limiter, policy: impl Into<LivePolicy>) -> Self {
        Self(Arc::new(Settings {
            limiter,
            checks: Arc::new(Checks {
                rules: vec![Rule::new(policy.into())],
                exempt: Vec::new(),
                client: ClientAddress::default(),
                operation: None,
                settle_within: SETTLE_WITHIN,
            }),
            responder: Responder::default(),
            refuse: Arc::new(problem_json),
        }))
    }
}

impl<B> RateLimitLayer<B> {
    /// Checks one more policy in the same step: all are charged, or none.
    #[must_use]
    pub fn also(self, policy: impl Into<LivePolicy>) -> Self {
        let policy = policy.into();
        self.with_checks(|checks| checks.rules.push(Rule::new(policy)))
    }

    /// Whom the policy named last limits: a function that gives a [`Target`], or what becomes one: a [`Key`], and an `Option`
    /// or a `Result` of either, whose `None` and `Err` refuse the request.
    ///
    /// [`Key`]: limiter_core::Key
    #[must_use]
    pub fn key<F, T>(self, key: F) -> Self
    where
        F: Fn(&Parts) -> T + Send + Sync + 'static,
        T: Into<Target>,
    {
        self.with_rule(|rule| rule.target = Some(Arc::new(move |request| key(request).into())))
    }

    /// Another policy by request in the place of the one named last: that of a tenant's plan. `None` keeps the one named
    /// last. The key is made of the name of the policy that is chosen, so plans of different names have counters of their own.
    ///
    /// ```
    /// # use limiter_core::limit::{Limiter, LivePolicy};
    /// # use limiter_http::{RateLimitLayer, Target};
    /// # #[derive(Clone)] struct Tenant { id: String, plan: LivePolicy }
    /// # fn example(limiter: Limiter, free_plan: LivePolicy) -> RateLimitLayer {
    /// RateLimitLayer::new(limiter, free_plan)
    ///     .policy_by(|request| request.extensions.get::<Tenant>().map(|tenant| tenant.plan.clone()))
    ///     .key(|request| request.extensions.get::<Tenant>().map(|tenant| Target::new([&tenant.id])))
    /// # }
    /// ```
    #[must_use]
    pub fn policy_by<F, P>(self, policy: F) -> Self
    where
        F: Fn(&Parts) -> Option<P> + Send + Sync + 'static,
        P: Into<LivePolicy>,
    {
        self.with_rule(|rule| {
            rule.chosen = Some(Arc::new(move |request| policy(request).map(Into::into)));
        })
    }

    /// What a request has cost of the policy named last, where that is known only afterwards: bytes, tokens. The
    /// [target's cost](Target::cost) is then an estimate that is reserved, at least 1, and this is charged in its place once
    /// the response's body has been sent, or its client has left. `None` leaves the estimate, and so does a service that
    /// fails, or a response that takes longer than [`settle_within`](Self::settle_within).
    ///
    /// All policies of the layer are then reserved, so no two of them may name one key.
    ///
    /// ```
    /// # use limiter_core::limit::{Limiter, Policy, Quota, Unit};
    /// # use limiter_http::{RateLimitLayer, Target};
    /// # #[derive(Clone)] struct UserId(String);
    /// # fn example(limiter: Limiter) -> Result<RateLimitLayer, limiter_core::Error> {
    /// let bytes = Policy::new("egress", Quota::per_minute(10_000_000)?)?
    ///     .with_unit(Unit::named("content-bytes")?);
    /// let layer = RateLimitLayer::new(limiter, bytes)
    ///     .key(|request| request.extensions.get().map(|user: &UserId| Target::new([&user.0]).cost(10_000)))
    ///     .settle(|finished| Some(finished.body_bytes));
    /// # Ok(layer)
    /// # }
    /// ```
    #[must_use]
    pub fn settle(
        self,
        cost: impl Fn(&Finished<'_>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.with_rule(|rule| rule.settle = Some(Arc::new(cost)))
    }

    /// How long a response may take until the estimates of [`settle`](Self::settle) stand: 2 minutes unless this says
    /// otherwise, at most 7 days. The store remembers each request for so long, so that a settlement counts once; in memory
    /// that takes the room of a key.
    #[must_use]
    pub fn settle_within(self, within: Duration) -> Self {
        self.with_checks(|checks| checks.settle_within = within)
    }

    /// Methods that no policy limits, such as `Method::OPTIONS`.
    #[must_use]
    pub fn exempt(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with_checks(|checks| checks.exempt.extend(methods))
    }

    /// The operation's name in problems. The policy's name by default.
    #[must_use]
    pub fn operation(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.operation_by(move |_| Some(name.clone()))
    }

    /// The operation's name in problems, by request; asked only when a request is refused. `None`
    /// means the policy's name.
    #[must_use]
    pub fn operation_by(
        self,
        name: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with_checks(|checks| checks.operation = Some(Arc::new(name)))
    }

    /// How the default key's client is found. The connection's peer by default.
    #[must_use]
    pub fn client(self, client: ClientAddress) -> Self {
        self.with_checks(|checks| checks.client = client)
    }

    /// Which headers responses get, and the status in an outage.
    #[must_use]
    pub fn responder(self, responder: Responder) -> Self {
        Self(Arc::new(Settings {
            responder,
            ..Settings::clone(&self.0)
        }))
    }

    /// What a refused request is answered with: any response, with any body. The layer adds the headers of the limit.
    /// [`Refusal::to_response`] is the default; for gRPC see `limiter_http::grpc::refusal` (feature `grpc`).
    ///
    /// ```
    /// use http::Response;
    /// # use limiter_core::limit::{Limiter, Policy};
    /// use limiter_http::{ProblemType, RateLimitLayer, Refusal};
    ///
    /// /// As OpenAI's API answers.
    /// fn openai(refusal: &Refusal<'_>) -> Response<String> {
    ///     let code = match refusal.problem.problem_type() {
    ///         ProblemType::RateLimitExceeded => "rate_limit_exceeded",
    ///         ProblemType::UnknownClient => "invalid_api_key",
    ///         _ => "limit_not_checked",
    ///     };
    ///     let body = serde_json::json!({
    ///         "error": { "message": refusal.problem.detail(), "type": "requests", "param": null, "code": code },
    ///     });
    ///     let mut response = Response::new(body.to_string());
    ///     *response.status_mut() = refusal.problem.status();
    ///     response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    ///     response
    /// }
    /// # fn example(limiter: Limiter, policy: Policy) -> RateLimitLayer<String> {
    /// RateLimitLayer::new(limiter, policy).refuse_with(openai)
    /// # }
    /// ```
    #[must_use]
    pub fn refuse_with<C>(
        self,
        refuse: impl Fn(&Refusal<'_>) -> Response<C> + Send + Sync + 'static,
    ) -> RateLimitLayer<C> {
        RateLimitLayer(Arc::new(Settings {
            limiter: self.0.limiter.clone(),
            checks: Arc::clone(&self.0.checks),
            responder: self.0.responder.clone(),
            refuse: Arc::new(refuse),
        }))
    }

    fn with_checks(self, change: impl FnOnce(&mut Checks)) -> Self {
        let mut settings = Settings::clone(&self.0);
        change(Arc::make_mut(&mut settings.checks));
        Self(Arc::new(settings))
    }

    fn with_rule(self, change: impl FnOnce(&mut Rule)) -> Self {
        self.with_checks(|checks| {
            if let Some(rule) = checks.rules.last_mut() {
                change(rule);
            }
        })
    }
}

impl<S, B> Layer<S> for RateLimitLayer<B> {
    type Service = RateLimit<S, B>;

    fn layer(&self, inner: S) -> RateLimit<S, B> {
        RateLimit::new(inner, Arc::clone(&self.0))
    }
}

pub(crate) type ByRequest<T> = Arc<dyn Fn(&Parts) -> T + Send + Sync>;
pub(crate) type Settle = Arc<dyn Fn(&Finished<'_>) -> Option<u64> + Send + Sync>;

pub(crate) type Refuse<B> = Arc<dyn Fn(&Refusal<'_>) -> Response<B> + Send + Sync>;

pub(crate) struct Settings<B> {
    pub(crate) limiter: Limiter,
    pub(crate) checks: Arc<Checks>,
    pub(crate) responder: Responder,
    pub(crate) refuse: Refuse<B>,
}

/// What is checked.
#[derive(Clone)]
pub(crate) struct Checks {
    pub(crate) rules: Vec<Rule>,
    pub(crate) exempt: Vec<Method>,
    pub(crate) client: ClientAddress,
    pub(crate) operation: Option<ByRequest<Option<String>>>,
    pub(crate) settle_within: Duration,
}

/// How long a response may take, unless a setting says otherwise.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// A policy, where its key comes from, and what becomes of its charge.
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) policy: LivePolicy,
    pub(crate) chosen: Option<ByRequest<Option<LivePolicy>>>,
    /// `None` is the default key.
    pub(crate) target: Option<ByRequest<Target>>,
    pub(crate) settle: Option<Settle>,
}

impl Rule {
    fn new(policy: LivePolicy) -> Self {
        Self {
            policy,
            chosen: None,
            target: None,
            settle: None,
        }
    }
}

impl<B> Clone for Settings<B> {
    fn clone(&self) -> Self {
        Self {
            limiter: self.limiter.clone(),
            checks: Arc::clone(&self.checks),
            responder: self.responder.clone(),
            refuse: Arc::clone(&self.refuse),
        }
    }
}

impl<B> fmt::Debug for Settings<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.checks.rules.iter();
        let policies: Vec<_> = rules.map(|rule| rule.policy.current()).collect();
        f.debug_struct("Settings")
            .field("limiter", &self.limiter)
            .field("policies", &policies)
            .field("exempt", &self.checks.exempt)
            .field("client", &self.checks.client)
            .field("responder", &self.responder)
            .finish_non_exhaustive()
    }
}
