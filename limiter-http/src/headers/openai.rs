//! The headers that OpenAI's API has about limits.
//!
//! Their names and the form of their spans are those of "Rate limits in headers" in OpenAI's guide;
//! `retry-after-ms` is what its Python and TypeScript SDKs read before `Retry-After`.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use limiter_core::limit::{Decision, GroupDecision, Unit};

use crate::decided::{Decided, millis};

const RETRY_AFTER_MS: &str = "retry-after-ms";

/// Its SDKs obey it before they look at a time to wait.
const X_SHOULD_RETRY: &str = "x-should-retry";

/// The longest wait that a client is left to sleep through.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The names of the limit of requests, of what is left and of the reset.
pub(super) const REQUESTS: &[&str] = &[
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];

/// The same of tokens.
pub(super) const TOKENS: &[&str] = &[
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

const UNITS: [(Unit, &[&str]); 2] = [(Unit::Requests, REQUESTS), (Unit::Tokens, TOKENS)];

pub(super) fn names() -> impl Iterator<Item = HeaderName> {
    let names = REQUESTS.iter().chain(TOKENS).copied();
    let names = names.chain([RETRY_AFTER_MS, X_SHOULD_RETRY]);
    names.map(HeaderName::from_static)
}

pub(super) fn write(answer: &Decided<'_>, headers: &mut HeaderMap) {
    if let Some(wait) = answer.retry_after() {
        // Beyond what a client can wait for anyway.
        let wait = u64::try_from(millis(wait).max(1)).unwrap_or(u64::MAX);
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait));
    }
    if answer
        .retry_after()
        .is_some_and(|wait| wait > LONGEST_SLEEP)
    {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    for (unit, names) in UNITS {
        let (Some(binding), &[limit, remaining, reset]) = (binding(answer, unit), names) else {
            continue;
        };
        headers.insert(limit, HeaderValue::from(binding.limit));
        headers.insert(remaining, HeaderValue::from(binding.remaining));
        // Always a value: digits, letters and a point.
        if let Ok(span) = HeaderValue::try_from(span(answer.reset_after(&binding))) {
            headers.insert(reset, span);
        }
    }
}

/// What binds most among the policies of one unit.
fn binding(answer: &Decided<'_>, unit: Unit) -> Option<Decision> {
    let of_unit = answer
        .told()
        .filter(|decision| decision.policy.unit() == unit)
        // What is held at once is no count of requests.
        .filter(|decision| !decision.policy.quota().is_concurrency());
    GroupDecision::new(of_unit.cloned().collect())
        .binding()
        .cloned()
}

/// A span as Go's `time.Duration` prints it, in whole milliseconds, rounded up: `0s`, `17ms`, `1.5s`,
/// `6m0s`, `1h2m3s`.
fn span(duration: Duration) -> String {
    let millis = millis(duration);
    if (1..1_000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (seconds, fraction) = (millis / 1_000, millis % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match (hours, minutes) {
        (0, 0) => Ok(()),
        (0, _) => write!(text, "{minutes}m"),
        _ => write!(text, "{hours}h{minutes}m"),
    };
    let _ = write!(text, "{seconds}");
    if fraction > 0 {
        let digits = format!(".{fraction:03}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests;
