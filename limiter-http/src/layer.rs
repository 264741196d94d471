//! A tower layer that checks limits before a service runs: what it is told.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use limiter_core::Key;
use limiter_core::limit::{Limiter, Policy};
use tower_layer::Layer;

use crate::client::ClientAddress;
use crate::responder::Responder;
use crate::service::RateLimit;

/// Checks one or several policies for each request, all or nothing, before the inner service runs.
///
/// A refused request is answered by the layer's [`Responder`] and never reaches the service. An
/// allowed one passes, and its response gets the headers, unless the service set those of a limit of
/// its own. It works with every service whose response body is made of a `String`: axum's routers,
/// hyper with `Full<Bytes>`.
///
/// The key is `ratelimit:{policy}:{client}` by default, the client being found by a
/// [`ClientAddress`]. Without a peer address in the request there is none, and the answer is 500,
/// logged with what to do, rather than one bucket for everybody.
///
/// Layers around this one run first: checks of a webhook's signature or a login belong there, so that
/// strangers cannot use up a user's limit.
///
/// ```
/// use http::request::Parts;
/// use limiter_core::limit::{Limiter, Period, Policy, Quota};
/// use limiter_http::{RateLimitLayer, Target};
///
/// # fn example(limiter: Limiter) -> Result<RateLimitLayer, limiter_core::Error> {
/// /// What an outer layer found out.
/// #[derive(Clone)]
/// struct UserId(String);
///
/// /// `ratelimit:cover-letter:{user}`: the layer puts the policy's name in front.
/// fn of_user(request: &Parts) -> Option<Target> {
///     let user = request.extensions.get::<UserId>()?;
///     Some(Target::new([&user.0]))
/// }
///
/// let letters = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?;
/// let by_client = Policy::new("by-client", Quota::token_bucket(10, 100, Period::MINUTE)?)?;
/// let layer = RateLimitLayer::new(limiter, letters)
///     .key(of_user)
///     .also(by_client)
///     .operation("coverLetter");
/// # Ok(layer)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitLayer(Arc<Settings>);

/// Whom a request is charged to, and how much.
///
/// Made of parts, the key is the policy's own ([`Policy::key`]): `ratelimit:{policy}:{part}:...`. So one function can
/// serve several policies, whose counters stay apart. A [`Key`] is used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    counter: Counter,
    pub(crate) cost: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum Counter {
    Parts(Vec<String>),
    Exact(Key),
}

/// As a key's: it may name a user.
impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counter(masked)")
    }
}

impl Target {
    /// A charge of 1 to whom the parts name, under the policy's name.
    pub fn new<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> Self {
        let parts = parts.into_iter().map(|part| part.as_ref().to_owned());
        Self {
            counter: Counter::Parts(parts.collect()),
            cost: 1,
        }
    }

    /// A charge of 1 to exactly this key, for a format that must stay as it is. Give no two policies one: they would
    /// share a counter.
    pub fn exact(key: Key) -> Self {
        Self {
            counter: Counter::Exact(key),
            cost: 1,
        }
    }

    /// The counter's key under a policy.
    pub(crate) fn key(&self, policy: &Policy) -> Key {
        match &self.counter {
            Counter::Parts(parts) => policy.key(parts),
            Counter::Exact(key) => key.clone(),
        }
    }

    /// The same counter at another cost. 0 only looks.
    #[must_use]
    pub fn cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }
}

impl From<Key> for Target {
    fn from(key: Key) -> Self {
        Self::exact(key)
    }
}

impl RateLimitLayer {
    /// A layer that checks `policy` under the default key.
    pub fn new(limiter: Limiter, policy: Policy) -> Self {
        Self(Arc::new(Settings {
            limiter,
            rules: vec![Rule::new(policy)],
            client: ClientAddress::default(),
            responder: Responder::default(),
            operation: None,
        }))
    }

    /// Checks one more policy in the same step: all are charged, or none.
    #[must_use]
    pub fn also(self, policy: Policy) -> Self {
        self.with(|settings| settings.rules.push(Rule::new(policy)))
    }

    /// Whom the policy named last limits: a function that gives a [`Target`], of parts to which the policy's name is
    /// added, or of a [`Key`] that is used as it is. `None` means that this policy does not limit the request; a request
    /// that no policy limits passes without headers.
    #[must_use]
    pub fn key<F, T>(self, key: F) -> Self
    where
        F: Fn(&Parts) -> Option<T> + Send + Sync + 'static,
        T: Into<Target>,
    {
        self.with(|settings| {
            if let Some(rule) = settings.rules.last_mut() {
                rule.target = Some(Arc::new(move |request| key(request).map(Into::into)));
            }
        })
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
        self.with(|settings| settings.operation = Some(Arc::new(name)))
    }

    /// How the default key's client is found. The connection's peer by default.
    #[must_use]
    pub fn client(self, client: ClientAddress) -> Self {
        self.with(|settings| settings.client = client)
    }

    /// How answers look.
    #[must_use]
    pub fn responder(self, responder: Responder) -> Self {
        self.with(|settings| settings.responder = responder)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit::new(inner, Arc::clone(&self.0))
    }
}

pub(crate) type ByRequest<T> = Arc<dyn Fn(&Parts) -> Option<T> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) limiter: Limiter,
    pub(crate) rules: Vec<Rule>,
    pub(crate) client: ClientAddress,
    pub(crate) responder: Responder,
    pub(crate) operation: Option<ByRequest<String>>,
}

/// A policy and where its key comes from; `None` is the default key.
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    pub(crate) target: Option<ByRequest<Target>>,
}

impl Rule {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            target: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<_> = self.rules.iter().map(|rule| &rule.policy).collect();
        f.debug_struct("Settings")
            .field("limiter", &self.limiter)
            .field("policies", &policies)
            .field("client", &self.client)
            .field("responder", &self.responder)
            .finish_non_exhaustive()
    }
}
