//! Decisions as response headers.

mod ietf;
mod openai;

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use limiter_core::Substitute;
use limiter_core::clock::Timestamp;

pub use self::ietf::IetfDraft;
use crate::decided::{Decided, is_told, seconds};

const X_LIMIT: &str = "x-ratelimit-limit";
const X_REMAINING: &str = "x-ratelimit-remaining";
const X_RESET: &str = "x-ratelimit-reset";
const X_DEGRADED: &str = "x-ratelimit-degraded";

/// Headers that say together what one limit is.
///
/// With those that others have and we do not: GitHub's, and those of the IETF's drafts up to 06.
pub(crate) const FAMILIES: &[&[&str]] = &[
    &[
        X_LIMIT,
        X_REMAINING,
        X_RESET,
        X_DEGRADED,
        "x-ratelimit-used",
        "x-ratelimit-resource",
    ],
    &[
        ietf::RATELIMIT,
        ietf::RATELIMIT_POLICY,
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
    ],
    openai::REQUESTS,
    openai::TOKENS,
];

/// Which headers say how much is left.
///
/// - `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` speak of the policy that
///   binds ([`GroupDecision::binding`](limiter_core::limit::GroupDecision::binding)): its limit, what
///   is left of it, and when all of it is free again.
/// - `RateLimit-Policy` and `RateLimit` are the IETF draft's, see [`IetfDraft`].
/// - `x-ratelimit-limit-requests`, `x-ratelimit-limit-tokens` and the rest of OpenAI's are off by
///   default, see [`openai`](Self::openai).
/// - `Retry-After` is added to denials, and to refusals because the store is away (1 s): whole
///   seconds (RFC 9110, section 10.2.3), rounded up, at least 1.
///
/// - `X-RateLimit-Degraded` is added while the store gives no answer, and says which rule decided: `denied`, `allowed` or
///   `local`. The other headers are then those of the rule: of a denial nothing remains, and the reset is when the store
///   is asked again; what was allowed has `X-RateLimit-Limit` alone, because nobody knows what is left; and a local counter's
///   numbers are those of this process's share.
///
/// Each family is switched on its own, and all of them may stand in one response. A response with
/// `Retry-After` has the three `X-RateLimit-*` even if they are off otherwise: a client that was
/// refused shall find them whatever else it reads. Shadow policies are left out. The default is
/// `X-RateLimit-*` with a reset in epoch seconds, and the latest draft.
///
/// ```
/// use limiter_core::clock::Timestamp;
/// use limiter_core::limit::{Decision, Observed, Period, Policy, Quota, Source, Verdict};
/// use limiter_http::{HeaderStyle, ResetFormat};
/// use std::time::Duration;
///
/// let policy = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?;
/// let reset = Duration::from_secs(2_520);
/// let decision = Decision::new(&policy, &Observed::new(Verdict::Admit, 5, reset, Source::Store));
///
/// let mut headers = http::HeaderMap::new();
/// HeaderStyle::default()
///     .reset(ResetFormat::Delta)
///     .write(&decision, Timestamp::default(), &mut headers);
/// assert_eq!(headers["x-ratelimit-remaining"], "15");
/// assert_eq!(headers["x-ratelimit-reset"], "2520");
/// assert_eq!(headers["ratelimit-policy"], r#""cover-letter";q=20;w=3600"#);
/// assert_eq!(headers["ratelimit"], r#""cover-letter";r=15;t=2520"#);
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderStyle {
    legacy: bool,
    reset: ResetFormat,
    ietf: Option<IetfDraft>,
    openai: bool,
}

/// What `X-RateLimit-Reset` counts, in whole seconds, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a moment and a span are all that clients in the field expect"
)]
pub enum ResetFormat {
    /// Seconds since the Unix epoch.
    #[default]
    Epoch,
    /// Seconds from now.
    Delta,
}

impl Default for HeaderStyle {
    fn default() -> Self {
        Self {
            legacy: true,
            reset: ResetFormat::default(),
            ietf: Some(IetfDraft::default()),
            openai: false,
        }
    }
}

impl HeaderStyle {
    /// Whether to write `X-RateLimit-*` where nothing was refused. On by default.
    #[must_use]
    pub fn legacy(self, legacy: bool) -> Self {
        Self { legacy, ..self }
    }

    /// What `X-RateLimit-Reset` counts. Epoch seconds by default.
    #[must_use]
    pub fn reset(self, reset: ResetFormat) -> Self {
        Self { reset, ..self }
    }

    /// Which draft's `RateLimit` and `RateLimit-Policy` to write, if any. The latest by default.
    #[must_use]
    pub fn ietf(self, draft: impl Into<Option<IetfDraft>>) -> Self {
        Self {
            ietf: draft.into(),
            ..self
        }
    }

    /// Whether to write the headers that OpenAI's API has, for clients made for it. Off by default.
    ///
    /// `x-ratelimit-limit-UNIT`, `x-ratelimit-remaining-UNIT` and `x-ratelimit-reset-UNIT`, UNIT being
    /// `requests` or `tokens`, if an enforced policy counts that [`Unit`](limiter_core::limit::Unit). Policies of other
    /// units and of concurrency have no header here. Of several policies of one unit the one that binds is shown: the worst
    /// that denied, else the one with the smallest share left. A reset is the span until all of it is
    /// free again, as Go prints one (`17ms`, `1.5s`, `6m0s`, `1h2m3s`), rounded up to a millisecond.
    ///
    /// Where there is a `Retry-After` there is also `retry-after-ms`, the same wait in whole
    /// milliseconds, rounded up, at least 1: OpenAI's SDKs prefer it. Above 60 s there is `x-should-retry: false` besides:
    /// its SDKs would sleep for all of it, or ask again at once (openai-node#1840), and a caller is better told.
    ///
    /// ```
    /// use limiter_core::clock::Timestamp;
    /// use limiter_core::limit::{Decision, Observed, Period, Policy, Quota, Source, Unit, Verdict};
    /// use limiter_http::HeaderStyle;
    /// use std::time::Duration;
    ///
    /// let tokens = Policy::new("tokens", Quota::fixed_window(150_000, Period::HOUR)?)?
    ///     .with_unit(Unit::Tokens);
    /// let observed = Observed::new(Verdict::Admit, 16, Duration::from_secs(360), Source::Store);
    /// let decision = Decision::new(&tokens, &observed);
    ///
    /// let mut headers = http::HeaderMap::new();
    /// HeaderStyle::default().openai(true).write(&decision, Timestamp::default(), &mut headers);
    /// assert_eq!(headers["x-ratelimit-limit-tokens"], "150000");
    /// assert_eq!(headers["x-ratelimit-remaining-tokens"], "149984");
    /// assert_eq!(headers["x-ratelimit-reset-tokens"], "6m0s");
    /// # Ok::<(), limiter_core::Error>(())
    /// ```
    #[must_use]
    pub fn openai(self, openai: bool) -> Self {
        Self { openai, ..self }
    }

    /// The names of all headers that may be written: what `Access-Control-Expose-Headers` has to list, so that a page of
    /// another origin can read them.
    pub fn names(&self) -> Vec<HeaderName> {
        let always = [X_LIMIT, X_REMAINING, X_RESET, X_DEGRADED];
        let ietf = self.ietf.map(|_| [ietf::RATELIMIT, ietf::RATELIMIT_POLICY]);
        let openai = self.openai.then(openai::names);
        std::iter::once(RETRY_AFTER)
            .chain(always.map(HeaderName::from_static))
            .chain(ietf.into_iter().flatten().map(HeaderName::from_static))
            .chain(openai.into_iter().flatten())
            .collect()
    }

    /// Writes the headers of a `&Decision` or a `&GroupDecision`, in place of those of the same
    /// names. `now` is when they are written, and when the decision was made unless
    /// [`Decided::at`] says otherwise.
    ///
    /// A layer around the handler does not know these headers from those of a provider, and may write its own in their place:
    /// [`Responder::write_headers`](crate::Responder::write_headers) marks the response.
    ///
    /// Nothing is written where nothing is known: every policy is a shadow, or the check failed for another reason than an
    /// outage.
    pub fn write<'a>(
        &self,
        answer: impl Into<Decided<'a>>,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) {
        let answer = answer.into().seen_at(now);
        let Some(binding) = answer.binding().filter(|_| !answer.is_failure()) else {
            return;
        };
        if let Some(substitute) = binding.substitute() {
            let rule = HeaderValue::from_static(substitute.as_str());
            headers.insert(X_DEGRADED, rule);
            if substitute == Substitute::Allowed && self.legacy {
                headers.insert(X_LIMIT, HeaderValue::from(binding.limit));
            }
        }
        if !is_told(binding) {
            return;
        }
        let retry_after = answer.retry_after_secs();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.legacy || retry_after.is_some() {
            let reset = match self.reset {
                ResetFormat::Epoch => {
                    let at = answer.reset_at(binding, now);
                    at.as_micros().div_ceil(1_000_000)
                }
                ResetFormat::Delta => seconds(answer.reset_after(binding)),
            };
            headers.insert(X_LIMIT, HeaderValue::from(binding.limit));
            headers.insert(X_REMAINING, HeaderValue::from(binding.remaining));
            headers.insert(X_RESET, HeaderValue::from(reset));
        }
        if let Some(draft) = self.ietf {
            ietf::write(draft, &answer, binding, headers);
        }
        if self.openai {
            openai::write(&answer, headers);
        }
    }
}

#[cfg(test)]
mod tests;
