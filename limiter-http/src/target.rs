//! What a policy does with a request: charge somebody, skip it, or refuse it.

use std::fmt;

use http::StatusCode;
use limiter_core::Key;
use limiter_core::limit::Policy;

/// What a policy of the layer does with a request: a key function's answer.
///
/// - **Charge**: [`Target::new`] names whom by parts; the key is the policy's own ([`Policy::key`]),
///   `ratelimit:{policy}:{part}:...`, so one function can serve several policies, whose counters stay apart.
///   [`Target::exact`] is a key as it is.
/// - **Skip**: [`Target::skip`]. This policy does not limit the request.
/// - **Refuse**: [`Target::refuse`]. What a `None` or an `Err` with a status becomes, so that a key function with a `?` lets
///   nobody through who names nobody.
///
/// ```
/// use http::StatusCode;
/// use http::request::Parts;
/// use limiter_http::Target;
///
/// # fn is_known(_: &[u8]) -> bool { true }
/// /// By API key; 401 without one that is known, and no limit for a health check.
/// fn by_api_key(request: &Parts) -> Result<Target, StatusCode> {
///     if request.uri.path() == "/health" {
///         return Ok(Target::skip());
///     }
///     let key = request.headers.get("x-api-key").filter(|key| is_known(key.as_bytes()));
///     let key = key.ok_or(StatusCode::UNAUTHORIZED)?;
///     Ok(Target::token(key))
/// }
///
/// let (request, ()) = http::Request::new(()).into_parts();
/// assert_eq!(Target::from(by_api_key(&request)), Target::refuse(StatusCode::UNAUTHORIZED));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target(pub(crate) Choice);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    Charge { counter: Counter, cost: u64 },
    Skip,
    Refuse(StatusCode),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Counter {
    Parts(Vec<String>),
    Token(Vec<u8>),
    Exact(Key),
}

impl Counter {
    /// The counter's key under a policy.
    pub(crate) fn key(&self, policy: &Policy) -> Key {
        match self {
            Self::Parts(parts) => policy.key(parts),
            Self::Token(token) => Key::builder()
                .segment("ratelimit")
                .segment(policy.name())
                .token(token)
                .build(),
            Self::Exact(key) => key.clone(),
        }
    }
}

/// Without the key: it may name a user.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Charge { cost, .. } => write!(f, "Target(masked, cost {cost})"),
            Choice::Skip => f.write_str("Target(skip)"),
            Choice::Refuse(status) => write!(f, "Target(refuse with {})", status.as_u16()),
        }
    }
}

impl Target {
    /// A charge of 1 to whom the parts name, under the policy's name.
    pub fn new<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> Self {
        let parts = parts.into_iter().map(|part| part.as_ref().to_owned());
        Self::charge(Counter::Parts(parts.collect()))
    }

    /// A charge of 1 to whom a credential names, such as an API key: its SHA-256 stands in the key, never the credential.
    ///
    /// Only for one that was checked: a client that makes up another one for each request has another limit each time. Check it in
    /// the key function or in a layer around, or limit the address as well ([`also`](crate::RateLimitLayer::also)).
    pub fn token(token: impl AsRef<[u8]>) -> Self {
        Self::charge(Counter::Token(token.as_ref().to_vec()))
    }

    /// A charge of 1 to exactly this key, for a format that must stay as it is. Give no two policies one: they would
    /// share a counter.
    pub fn exact(key: Key) -> Self {
        Self::charge(Counter::Exact(key))
    }

    /// This policy does not limit the request. A request that no policy limits passes without headers.
    pub fn skip() -> Self {
        Self(Choice::Skip)
    }

    /// The request is refused with this status, and no policy is charged. A status that is none of a client's error counts as
    /// 400.
    pub fn refuse(status: StatusCode) -> Self {
        let status = match status.is_client_error() {
            true => status,
            false => StatusCode::BAD_REQUEST,
        };
        Self(Choice::Refuse(status))
    }

    /// The same target at another cost. 0 only looks, unless the policy settles
    /// ([`RateLimitLayer::settle`](crate::RateLimitLayer::settle)), which reserves at least 1.
    #[must_use]
    pub fn cost(self, cost: u64) -> Self {
        match self.0 {
            Choice::Charge { counter, .. } => Self(Choice::Charge { counter, cost }),
            other => Self(other),
        }
    }

    fn charge(counter: Counter) -> Self {
        Self(Choice::Charge { counter, cost: 1 })
    }
}

impl From<Key> for Target {
    fn from(key: Key) -> Self {
        Self::exact(key)
    }
}

/// `None` refuses with 400: a request that names nobody has no limit.
impl<T: Into<Target>> From<Option<T>> for Target {
    fn from(found: Option<T>) -> Self {
        found.map_or_else(|| Self::refuse(StatusCode::BAD_REQUEST), Into::into)
    }
}

/// An error refuses with its status.
impl<T: Into<Target>> From<Result<T, StatusCode>> for Target {
    fn from(found: Result<T, StatusCode>) -> Self {
        found.map_or_else(Self::refuse, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_core::limit::Quota;

    #[test]
    fn credentials_are_digested_and_never_meet() {
        let policy = Policy::new("api", Quota::per_minute(1).unwrap()).unwrap();
        let key = |token: &[u8]| match Target::token(token).0 {
            Choice::Charge { counter, .. } => counter.key(&policy).as_str().to_owned(),
            _ => unreachable!(),
        };
        // printf hunter2 | sha256sum
        assert_eq!(
            key(b"hunter2"),
            "ratelimit:api:f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7"
        );
        assert_ne!(key(b"\xff"), key(b"\xfe"), "bytes that are no text");
    }

    #[test]
    fn what_names_nobody_is_refused() {
        let none: Option<Target> = None;
        assert_eq!(Target::from(none), Target::refuse(StatusCode::BAD_REQUEST));
        let refused: Result<Key, _> = Err(StatusCode::UNAUTHORIZED);
        assert_eq!(
            Target::from(refused),
            Target::refuse(StatusCode::UNAUTHORIZED)
        );
        let key = Key::new(["ratelimit", "a"]);
        assert_eq!(Target::from(Some(key.clone())), Target::exact(key.clone()));
        assert_eq!(Target::skip().cost(3), Target::skip());
        let ok = Target::refuse(StatusCode::OK);
        assert_eq!(ok, Target::refuse(StatusCode::BAD_REQUEST), "no refusal");
        assert_eq!(
            format!("{:?}", Target::new(["alice"]).cost(3)),
            "Target(masked, cost 3)"
        );
    }
}
