//! How every answer of a service looks, in one place.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Response};
use limiter_core::clock::{Clock, SystemClock, Timestamp};

use crate::answer::Answer;
use crate::headers::{HeaderStyle, has_limit_headers};
use crate::problem::{Asked, CONTENT_TYPE, Problem, UnavailableStatus};

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
    clock: Arc<dyn Clock>,
}

impl Default for Responder {
    fn default() -> Self {
        Self {
            headers: HeaderStyle::default(),
            unavailable: UnavailableStatus::default(),
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

    /// What tells when a decision was made and when its headers are written, and where an
    /// `X-RateLimit-Reset` in epoch seconds counts from. The machine's clock by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// Now, by the responder's clock: what [`Answer::decided_at`] takes.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes the headers of an answer, unless those of another one are there already: a limit
    /// checked closer to the work is the more specific one, and mixing two would be wrong for both.
    ///
    /// A handler that works between its check and its response says when it checked:
    ///
    /// ```
    /// # use limiter_core::{Key, limit::{Limiter, Policy}};
    /// # use limiter_http::{Answer, Responder};
    /// # async fn ask_the_model() -> http::Response<String> { http::Response::default() }
    /// # async fn handler(limiter: Limiter, policy: Policy, key: Key, responder: Responder)
    /// #     -> http::Response<String> {
    /// let decision = limiter.check(&policy, &key).await;
    /// let decided = responder.now();
    /// if let Some(refusal) = responder.refusal(&decision, "coverLetter") {
    ///     return refusal;
    /// }
    /// let mut response = ask_the_model().await;
    /// let answer = Answer::from(&decision).decided_at(decided);
    /// responder.write_headers(answer, response.headers_mut());
    /// # response
    /// # }
    /// ```
    pub fn write_headers<'a>(&self, answer: impl Into<Answer<'a>>, headers: &mut HeaderMap) {
        if !has_limit_headers(headers) {
            self.headers.write(answer, self.clock.now(), headers);
        }
    }

    /// The response to a request that was not allowed; `None` if it was.
    ///
    /// It carries the headers of [`HeaderStyle`], `Cache-Control: no-store`, and a [`Problem`] as its
    /// body. `B` is any body that is made of a `String`: axum's, `http_body_util::Full<Bytes>`.
    pub fn refusal<'a, B: From<String>>(
        &self,
        answer: impl Into<Answer<'a>>,
        asked: impl Into<Asked<'a>>,
    ) -> Option<Response<B>> {
        let answer = answer.into().seen_at(self.now());
        let problem = Problem::new(answer, asked.into(), self.unavailable)?;
        let mut response = respond(&problem);
        self.write_headers(answer, response.headers_mut());
        Some(response)
    }

    /// The refusal without headers, for a service with a body format of its own.
    pub fn problem<'a>(
        &self,
        answer: impl Into<Answer<'a>>,
        asked: impl Into<Asked<'a>>,
    ) -> Option<Problem<'a>> {
        let answer = answer.into().seen_at(self.now());
        Problem::new(answer, asked.into(), self.unavailable)
    }
}

/// A problem as a response, without headers about limits.
pub(crate) fn respond<B: From<String>>(problem: &Problem<'_>) -> Response<B> {
    let mut response = Response::new(B::from(problem.to_json()));
    *response.status_mut() = problem.status();
    let fixed: [(HeaderName, &'static str); 2] = [
        (header::CONTENT_TYPE, CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
