//! `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.

use std::fmt::{self, Write as _};

use http::header::{HeaderMap, HeaderValue};
use limiter_core::limit::{Decision, Unit};

use crate::decided::{Decided, seconds, window_seconds};

pub(super) const RATELIMIT: &str = "ratelimit";
pub(super) const RATELIMIT_POLICY: &str = "ratelimit-policy";

/// The largest integer of a structured field (RFC 9651, section 3.3.1). Limits may be larger.
const SF_MAX: u64 = 999_999_999_999_999;

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
    /// with the longer window is listed. It knows no units.
    V07,
    /// Drafts 08 to 10: `RateLimit: "name";r=50;t=5` and `RateLimit-Policy: "name";q=100;w=60`, each
    /// a list of every enforced policy. On a denial only the policies that denied have a `t`, which
    /// is their own time to wait: the draft wants no `t` later than `Retry-After`.
    ///
    /// A policy that counts AI tokens says so, `"name";q=100000;qu="tokens";w=60`: without a `qu` they
    /// would be requests. The drafts' registry of units has no name for tokens yet.
    #[default]
    V10,
}

pub(super) fn write(
    draft: IetfDraft,
    answer: &Decided<'_>,
    binding: &Decision,
    headers: &mut HeaderMap,
) {
    let (policies, limits) = match draft {
        IetfDraft::V07 => (policies_v07(answer), limit_v07(answer, binding)),
        IetfDraft::V10 => (policies_v10(answer), limits_v10(answer)),
    };
    for (name, text) in [(RATELIMIT_POLICY, policies), (RATELIMIT, limits)] {
        // Always a value: digits, punctuation, and names that `Policy` checked.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

/// `10;w=1, 50;w=60`.
fn policies_v07(answer: &Decided<'_>) -> String {
    let mut policies: Vec<(u64, u64)> = Vec::new();
    for decision in answer.told() {
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
fn limit_v07(answer: &Decided<'_>, binding: &Decision) -> String {
    format!(
        "limit={}, remaining={}, reset={}",
        sf(binding.limit),
        sf(binding.remaining),
        sf(more_after(answer, binding))
    )
}

/// `"burst";q=10;w=1, "daily";q=100000;qu="tokens";w=86400`.
fn policies_v10(answer: &Decided<'_>) -> String {
    list(answer.told(), |text, decision| {
        let name = decision.policy.name();
        write!(text, "\"{name}\";q={}", sf(decision.limit))?;
        let Some(window) = window_seconds(decision.policy.quota()) else {
            return text.write_str(";qu=\"concurrent-requests\"");
        };
        match decision.policy.unit() {
            // The draft's own default.
            Unit::Requests => {}
            unit => write!(text, ";qu=\"{}\"", unit.as_str())?,
        }
        write!(text, ";w={}", sf(window))
    })
}

/// `"burst";r=0;t=1, "daily";r=50`.
fn limits_v10(answer: &Decided<'_>) -> String {
    list(answer.told(), |text, decision| {
        let name = decision.policy.name();
        write!(text, "\"{name}\";r={}", sf(decision.remaining))?;
        if answer.retry_after().is_none() || !decision.is_allowed() {
            write!(text, ";t={}", sf(more_after(answer, decision)))?;
        }
        Ok(())
    })
}

/// Seconds until this policy has what was asked for, or else until all of it is free.
fn more_after(answer: &Decided<'_>, decision: &Decision) -> u64 {
    match answer.wait_of(decision) {
        Some(wait) => seconds(wait).max(1),
        None => seconds(answer.reset_after(decision)),
    }
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
