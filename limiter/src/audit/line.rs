//! One decision as a line of JSON.

use std::time::{Duration, SystemTime};

use limiter_core::limit::wrap::Event;
use limiter_core::limit::{OperationId, Policy, Verdict};
use limiter_core::{Effect, ErrorKind, IdentitySecret, Key};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::AuditConfig;
use crate::events;

/// What is kept of a call until it is written: whoever waits for the answer does not wait for digests and JSON.
pub(super) struct Record {
    pub(super) sequence: u64,
    at: SystemTime,
    outcome: &'static str,
    operation: Option<OperationId>,
    error: Option<(ErrorKind, Effect)>,
    elapsed: Duration,
    limits: Vec<Limit>,
}

struct Limit {
    policy: Policy,
    key: Key,
    action: &'static str,
    cost: u64,
    outcome: &'static str,
    seen: Option<Seen>,
}

struct Seen {
    source: &'static str,
    is_seen: bool,
    used: u64,
    limit: u64,
    retry_after: Option<Duration>,
    degraded: bool,
    replayed: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: String,
    instance: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'static str>,
    elapsed_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<String>,
    limits: Vec<LimitLine<'a>>,
}

#[derive(Serialize)]
struct LimitLine<'a> {
    policy: &'a str,
    scope: &'a str,
    action: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    cost: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    limit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    degraded: bool,
    #[serde(skip_serializing_if = "is_false")]
    shadow: bool,
    #[serde(skip_serializing_if = "is_false")]
    replayed: bool,
}

#[derive(Serialize)]
struct LostLine<'a> {
    lost: u64,
    time: String,
    instance: &'a str,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(it: &bool) -> bool {
    !it
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let limits: Vec<Limit> = events::all(event)
            .map(|attempt| Limit {
                policy: attempt.step.policy.clone(),
                key: attempt.step.key().clone(),
                action: attempt.step.action.as_str(),
                cost: attempt.cost,
                outcome: attempt.outcome,
                seen: attempt.observed.map(|seen| Seen {
                    source: seen.source.as_str(),
                    is_seen: seen.seen,
                    used: seen.used,
                    limit: seen.share.of(attempt.step.policy.quota().capacity()),
                    retry_after: match seen.verdict {
                        Verdict::Deny { retry_after } => Some(retry_after),
                        _ => None,
                    },
                    degraded: seen.degraded,
                    replayed: seen.replayed.is_some(),
                }),
            })
            .collect();
        Self {
            sequence: 0,
            at: SystemTime::now(),
            outcome: events::of_call(event),
            operation: event.operation.cloned(),
            error: event
                .result
                .err()
                .map(|error| (error.kind(), error.effect())),
            elapsed: event.elapsed,
            limits,
        }
    }

    /// Whether it was allowed by the store that was asked, and nothing else is to be said of it.
    pub(super) fn is_plain(&self) -> bool {
        let is_degraded = |limit: &Limit| limit.seen.as_ref().is_some_and(|seen| seen.degraded);
        self.outcome == "allowed" && !self.limits.iter().any(is_degraded)
    }

    pub(super) fn write(&self, config: &AuditConfig, lines: &mut Vec<u8>) {
        let limits = self.limits.iter().map(|limit| {
            let seen = limit.seen.as_ref();
            let version = limit.policy.version();
            LimitLine {
                policy: limit.policy.name(),
                scope: limit.policy.scope(),
                action: limit.action,
                key: hash(&config.secret, limit.key.as_str()),
                version: (version > 1).then_some(version),
                cost: limit.cost,
                outcome: limit.outcome,
                source: seen.map(|seen| seen.source),
                used: seen.filter(|seen| seen.is_seen).map(|seen| seen.used),
                limit: seen.map_or_else(|| limit.policy.quota().capacity(), |seen| seen.limit),
                retry_after_ms: seen.and_then(|seen| seen.retry_after).map(millis),
                degraded: seen.is_some_and(|seen| seen.degraded),
                shadow: limit.policy.is_shadow(),
                replayed: seen.is_some_and(|seen| seen.replayed),
            }
        });
        let operation = self.operation.as_ref();
        let line = Line {
            sequence: self.sequence,
            time: rfc3339(self.at),
            instance: &config.instance,
            outcome: self.outcome,
            operation: operation.map(|id| hash(&config.secret, id.as_str())),
            error: self.error.map(|(kind, _)| kind.as_str()),
            effect: self.error.map(|(_, effect)| effect.as_str()),
            elapsed_us: u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX),
            sample: (config.sample != limiter_core::limit::Share::WHOLE)
                .then(|| config.sample.to_string()),
            limits: limits.collect(),
        };
        write(&line, lines);
    }
}

/// So that who reads the trail alone sees what is missing.
pub(super) fn write_lost(lines: &mut Vec<u8>, instance: &str, lost: u64) {
    let time = rfc3339(SystemTime::now());
    write(
        &LostLine {
            lost,
            time,
            instance,
        },
        lines,
    );
}

fn write(line: &impl Serialize, lines: &mut Vec<u8>) {
    let begin = lines.len();
    // Texts and numbers into memory cannot fail; half a line would be worse than none.
    if serde_json::to_writer(&mut *lines, line).is_err() {
        lines.truncate(begin);
        return;
    }
    lines.push(b'\n');
}

/// The first 128 bits of the HMAC, in hex.
pub(super) fn hash(secret: &IdentitySecret, text: &str) -> String {
    let mut digest = secret.digest(text);
    digest.truncate(32);
    digest
}

/// Rounded up: who waits so long may ask again.
fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn rfc3339(at: SystemTime) -> String {
    // Whole microseconds. A clock before the year 0 or after 9999 has no such text.
    let at = OffsetDateTime::from(at);
    let micros = at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000);
    micros.unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}
