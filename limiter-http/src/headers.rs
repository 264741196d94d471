//! Decisions as response headers.

use std::fmt::{self, Write as _};

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use limiter_core::clock::Timestamp;
use limiter_core::limit::Decision;

use crate::answer::{Answer, seconds, window_seconds};

const X_LIMIT: &str = "x-ratelimit-limit";
const X_REMAINING: &str = "x-ratelimit-remaining";
const X_RESET: &str = "x-ratelimit-reset";
const RATELIMIT: &str = "ratelimit";
const RATELIMIT_POLICY: &str = "ratelimit-policy";

/// The largest integer of a structured field (RFC 9651, section 3.3.1). Limits may be larger.
const SF_MAX: u64 = 999_999_999_999_999;

/// Which headers say how much is left.
///
/// - `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` speak of the policy that
///   binds ([`GroupDecision::binding`](limiter_core::limit::GroupDecision::binding)): its limit, what
///   is left of it, and when all of it is free again.
/// - `RateLimit-Policy` and `RateLimit` are the IETF draft's, see [`IetfDraft`].
/// - `Retry-After` is added to denials, and to refusals because the store is away (1 s): whole
///   seconds (RFC 9110, section 10.2.3), rounded up, at least 1.
///
/// Shadow policies are left out. The default is `X-RateLimit-*` with a reset in epoch seconds, and
/// the latest draft.
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

/// A version of draft-ietf-httpapi-ratelimit-headers. Its syntax changed from draft to draft, and
/// clients of an older one cannot read a newer one.
///
/// In all of them the window is the time in which the whole capacity comes back, in whole seconds,
/// rounded up: the drafts know nothing shorter than a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IetfDraft {
    /// Draft 07: `RateLimit: limit=100, remaining=50, reset=5` of the policy that binds, and
    /// `RateLimit-Policy: 100;w=60` of all. That draft forbids two policies of one quota; the one
    /// with the longer window is listed.
    V07,
    /// Drafts 08 to 10: `RateLimit: "name";r=50;t=5` and `RateLimit-Policy: "name";q=100;w=60`, each
    /// a list of every enforced policy. On a denial only the policies that denied have a `t`, which
    /// is their own time to wait: the draft wants no `t` later than `Retry-After`.
    #[default]
    V10,
}

impl Default for HeaderStyle {
    fn default() -> Self {
        Self {
            legacy: true,
            reset: ResetFormat::default(),
            ietf: Some(IetfDraft::default()),
        }
    }
}

impl HeaderStyle {
    /// Whether to write `X-RateLimit-*`. On by default.
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

    /// Writes the headers of a `&Decision` or a `&GroupDecision`, in place of those of the same
    /// names. `now` is what an epoch reset counts from.
    ///
    /// Nothing is written where nothing is known: every policy is a shadow, or the check failed for
    /// another reason than an outage.
    pub fn write<'a>(
        &self,
        answer: impl Into<Answer<'a>>,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) {
        let answer = answer.into();
        let Some(binding) = answer.binding().filter(|_| !answer.is_failure()) else {
            return;
        };
        if let Some(seconds) = answer.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.legacy {
            headers.insert(X_LIMIT, HeaderValue::from(binding.limit));
            headers.insert(X_REMAINING, HeaderValue::from(binding.remaining));
            headers.insert(X_RESET, HeaderValue::from(self.reset_of(binding, now)));
        }
        let (policies, limits) = match self.ietf {
            Some(IetfDraft::V07) => (policies_v07(&answer), limit_v07(binding)),
            Some(IetfDraft::V10) => (policies_v10(&answer), limits_v10(&answer)),
            None => return,
        };
        for (name, text) in [(RATELIMIT_POLICY, policies), (RATELIMIT, limits)] {
            // Always a value: digits, punctuation, and names that `Policy` checked.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }

    fn reset_of(&self, decision: &Decision, now: Timestamp) -> u64 {
        // A limiter that could not answer knows no reset; the client may come back then.
        let wait = Answer::from(decision).retry_after().unwrap_or_default();
        let reset_after = decision.reset_after.max(wait);
        match self.reset {
            ResetFormat::Epoch => now
                .saturating_add(reset_after)
                .as_micros()
                .div_ceil(1_000_000),
            ResetFormat::Delta => seconds(reset_after),
        }
    }
}

/// Whether a response already speaks of a limit.
pub(crate) fn has_limit_headers(headers: &HeaderMap) -> bool {
    [X_LIMIT, RATELIMIT, RATELIMIT_POLICY]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// `10;w=1, 50;w=60`.
fn policies_v07(answer: &Answer<'_>) -> String {
    let mut policies: Vec<(u64, u64)> = Vec::new();
    for decision in answer.enforced() {
        let quota = sf(decision.limit);
        // That version has no quota without a window.
        let Some(window) = window_seconds(decision.policy.quota()).map(sf) else {
            continue;
        };
        match policies.iter_mut().find(|(listed, _)| *listed == quota) {
            Some((_, longest)) => *longest = window.max(*longest),
            None => policies.push((quota, window)),
        }
    }
    list(policies, |text, (quota, window)| {
        write!(text, "{quota};w={window}")
    })
}

/// `limit=100, remaining=50, reset=5`.
fn limit_v07(binding: &Decision) -> String {
    format!(
        "limit={}, remaining={}, reset={}",
        sf(binding.limit),
        sf(binding.remaining),
        sf(more_after(binding))
    )
}

/// `"burst";q=10;w=1, "daily";q=1000;w=86400`.
fn policies_v10(answer: &Answer<'_>) -> String {
    list(answer.enforced(), |text, decision| {
        let name = decision.policy.name();
        write!(text, "\"{name}\";q={}", sf(decision.limit))?;
        match window_seconds(decision.policy.quota()) {
            Some(window) => write!(text, ";w={}", sf(window)),
            None => text.write_str(";qu=\"concurrent-requests\""),
        }
    })
}

/// `"burst";r=0;t=1, "daily";r=50`.
fn limits_v10(answer: &Answer<'_>) -> String {
    list(answer.enforced(), |text, decision| {
        let name = decision.policy.name();
        write!(text, "\"{name}\";r={}", sf(decision.remaining))?;
        if answer.retry_after().is_none() || !decision.is_allowed() {
            write!(text, ";t={}", sf(more_after(decision)))?;
        }
        Ok(())
    })
}

/// Seconds until this policy has what was asked for, or else until all of it is free.
fn more_after(decision: &Decision) -> u64 {
    Answer::from(decision)
        .retry_after_seconds()
        .unwrap_or_else(|| seconds(decision.reset_after))
}

fn sf(integer: u64) -> u64 {
    integer.min(SF_MAX)
}

fn list<T>(
    items: impl IntoIterator<Item = T>,
    item: impl Fn(&mut String, T) -> fmt::Result,
) -> String {
    let mut text = String::new();
    for next in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = item(&mut text, next);
    }
    text
}

#[cfg(test)]
mod tests;
