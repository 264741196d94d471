//! How every answer of a service looks, in one place.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{HeaderName, Response};
use limiter_core::clock::{Clock, SystemClock, Timestamp};

use crate::decided::Decided;
use crate::headers::{FAMILIES, HeaderStyle};
use crate::problem::{Asked, Problem, UnavailableStatus};
use crate::refusal::respond;

/// Turns decisions into headers and responses, the same ones for every route of a service.
///
/// A [`RateLimitLayer`](crate::RateLimitLayer) has one; handlers that check limits themselves use
/// one directly. Clones share the clock.
///
/// ```
/// use limiter_core::limit::{Decision, Observed, Period, Policy, Quota, Source, Verdict};
/// use limiter_http::Responder;
/// use std::time::Duration;
///
/// let policy = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?;
/// let wait = Duration::from_secs(2_520);
/// let denied = Observed::new(Verdict::Deny { retry_after: wait }, 20, wait, Source::Store);
/// let decision = Decision::new(&policy, &denied);
///
/// let refusal: Option<http::Response<String>> =
///     Responder::default().refusal(&decision, "coverLetter");
/// let response = refusal.expect("denied");
/// assert_eq!(response.status(), 429);
/// assert_eq!(response.headers()["retry-after"], "2520");
/// assert!(response.body().contains("coverLetter is limited to 20 per hour; try again in 42 minutes"));
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Responder {
    headers: HeaderStyle,
    unavailable: UnavailableStatus,
    foreign: ForeignHeaders,
    clock: Arc<dyn Clock>,
}

/// What becomes of limit headers in a response that another system has written: those of a provider, which a proxy passes
/// on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one of the two has to speak for the limit"
)]
pub enum ForeignHeaders {
    /// Ours take the place of those of the same family (`X-RateLimit-*`, the IETF draft's, OpenAI's of a unit); others stay. The
    /// default.
    #[default]
    Overwrite,
    /// A response that has one of the headers that we would write is left as it is.
    Leave,
}

/// Puts headers into a response and marks it. Of a family that is written none of another's stays: a limit of ours beside what
/// remains of another one is wrong for both.
fn put<B>(headers: &HeaderMap, response: &mut Response<B>) {
    if headers.is_empty() {
        return;
    }
    response.extensions_mut().insert(Written);
    for family in FAMILIES {
        if family.iter().any(|name| headers.contains_key(*name)) {
            for name in *family {
                response.headers_mut().remove(*name);
            }
        }
    }
    for (name, value) in headers {
        response.headers_mut().insert(name, value.clone());
    }
}

/// In the extensions of a response whose headers about limits are ours.
#[derive(Clone, Copy, Debug)]
struct Written;

impl Default for Responder {
    fn default() -> Self {
        Self {
            headers: HeaderStyle::default(),
            unavailable: UnavailableStatus::default(),
            foreign: ForeignHeaders::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl Responder {
    /// Which headers to write.
    #[must_use]
    pub fn headers(self, headers: HeaderStyle) -> Self {
        Self { headers, ..self }
    }

    /// The status when the limit could not be checked. 429 by default.
    #[must_use]
    pub fn unavailable_status(self, unavailable: UnavailableStatus) -> Self {
        Self {
            unavailable,
            ..self
        }
    }

    /// What becomes of limit headers that another system has written. Overwritten by default.
    #[must_use]
    pub fn foreign_headers(self, foreign: ForeignHeaders) -> Self {
        Self { foreign, ..self }
    }

    /// The names of all headers that may be written, for `Access-Control-Expose-Headers`: see [`HeaderStyle::names`].
    pub fn header_names(&self) -> Vec<HeaderName> {
        self.headers.names()
    }

    /// What tells when a decision was made and when its headers are written, and where an
    /// `X-RateLimit-Reset` in epoch seconds counts from. The machine's clock by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// Now, by the responder's clock: what [`Decided::at`] takes.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes the headers of an answer into a response, unless a responder has written those of another one: a limit that is
    /// checked closer to the work is the more specific one, and mixing two would be wrong for both. Our own headers are known
    /// by a mark among the response's extensions, not by their names; see [`ForeignHeaders`] for those of others.
    ///
    /// A handler that works between its check and its response says when it checked:
    ///
    /// ```
    /// # use limiter_core::{Key, limit::{Limiter, Policy}};
    /// # use limiter_http::{Decided, Responder};
    /// # async fn ask_the_model() -> http::Response<String> { http::Response::default() }
    /// # async fn handler(limiter: Limiter, policy: Policy, key: Key, responder: Responder)
    /// #     -> http::Response<String> {
    /// let decision = limiter.check(&policy, &key).await;
    /// let at = responder.now();
    /// if let Some(refusal) = responder.refusal(&decision, "coverLetter") {
    ///     return refusal;
    /// }
    /// let mut response = ask_the_model().await;
    /// responder.write_headers(Decided::from(&decision).at(at), &mut response);
    /// # response
    /// # }
    /// ```
    pub fn write_headers<'a, B>(
        &self,
        decided: impl Into<Decided<'a>>,
        response: &mut Response<B>,
    ) {
        if response.extensions().get::<Written>().is_some() {
            return;
        }
        let mut headers = HeaderMap::new();
        self.headers.write(decided, self.clock.now(), &mut headers);
        let is_there = |name| response.headers().contains_key(name);
        if self.foreign == ForeignHeaders::Leave && headers.keys().any(is_there) {
            return;
        }
        put(&headers, response);
    }

    /// Writes the headers of a refusal, which is our own whatever stands in it.
    pub(crate) fn overwrite_headers<'a, B>(
        &self,
        decided: impl Into<Decided<'a>>,
        response: &mut Response<B>,
    ) {
        let mut headers = HeaderMap::new();
        self.headers.write(decided, self.clock.now(), &mut headers);
        put(&headers, response);
    }

    /// The response to a request that was not allowed; `None` if it was.
    ///
    /// It carries the headers of [`HeaderStyle`], `Cache-Control: no-store`, and a [`Problem`] as its
    /// body. `B` is any body that is made of a `String`: axum's, `http_body_util::Full<Bytes>`.
    pub fn refusal<'a, B: From<String>>(
        &self,
        answer: impl Into<Decided<'a>>,
        asked: impl Into<Asked<'a>>,
    ) -> Option<Response<B>> {
        let answer = answer.into().seen_at(self.now());
        let problem = Problem::new(answer, asked.into(), self.unavailable)?;
        let mut response = respond(&problem);
        self.write_headers(answer, &mut response);
        Some(response)
    }

    /// The refusal without headers, for a service with a body format of its own.
    pub fn problem<'a>(
        &self,
        answer: impl Into<Decided<'a>>,
        asked: impl Into<Asked<'a>>,
    ) -> Option<Problem<'a>> {
        let answer = answer.into().seen_at(self.now());
        Problem::new(answer, asked.into(), self.unavailable)
    }
}
