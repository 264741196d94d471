//! A request that the layer refuses, and the response that it becomes.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use limiter_core::limit::GroupDecision;

use crate::problem::{CONTENT_TYPE, Problem};

/// What is known of a request that the layer refuses: what a function of [`RateLimitLayer::refuse_with`] makes a response
/// from.
///
/// [`RateLimitLayer::refuse_with`]: crate::RateLimitLayer::refuse_with
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// Why, with the status, a sentence for people and the time to wait.
    pub problem: &'a Problem<'a>,
    /// What the limiter decided; `None` if it was not asked, because the request names nobody.
    pub decision: Option<&'a GroupDecision>,
    /// The request without its body.
    pub request: &'a Parts,
}

impl Refusal<'_> {
    /// The response of the default: the problem's status and JSON, `application/problem+json`, and
    /// `Cache-Control: no-store`; for a 401 `WWW-Authenticate: Bearer`.
    ///
    /// `B` is any body that is made of a `String`: axum's, `http_body_util::Full<Bytes>`.
    pub fn to_response<B: From<String>>(&self) -> Response<B> {
        respond(self.problem)
    }
}

/// The default of a layer.
pub(crate) fn problem_json(refusal: &Refusal<'_>) -> Response<Full<Bytes>> {
    refusal.to_response()
}

/// A problem as a response, without headers about limits.
pub(crate) fn respond<B: From<String>>(problem: &Problem<'_>) -> Response<B> {
    let mut response = Response::new(B::from(problem.to_json()));
    *response.status_mut() = problem.status();
    if problem.status() == StatusCode::UNAUTHORIZED {
        // A 401 has to name a scheme (RFC 9110, section 15.5.2).
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
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
