use limiter_core::clock::Timestamp;
use limiter_core::limit::{Observed, Period, Policy, Quota, Source, Verdict};
use limiter_core::{Error, ErrorKind};

use super::*;
use crate::HeaderStyle;

fn policy(name: &str, limit: u64, unit: Unit) -> Policy {
    let quota = Quota::fixed_window(limit, Period::MINUTE).unwrap();
    Policy::new(name, quota).unwrap().with_unit(unit)
}

fn decision(policy: &Policy, verdict: Verdict, used: u64, reset: Duration) -> Decision {
    Decision::new(policy, &Observed::new(verdict, used, reset, Source::Store))
}

fn denied(policy: &Policy, used: u64, retry_after: Duration) -> Decision {
    decision(policy, Verdict::Deny { retry_after }, used, retry_after)
}

/// The headers of this family, `-` for one that is not there: limit, remaining, reset of requests,
/// the same of tokens, and the wait.
fn written<'a>(answer: impl Into<Decided<'a>>) -> [String; 7] {
    let mut headers = HeaderMap::new();
    let style = HeaderStyle::default().legacy(false).ietf(None).openai(true);
    style.write(answer, Timestamp::default(), &mut headers);
    [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "retry-after-ms",
    ]
    .map(|name| {
        let value = headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or("-").to_owned()
    })
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn spans_read_as_in_the_guide() {
    for (duration, expected) in [
        (Duration::ZERO, "0s"),
        (Duration::from_nanos(1), "1ms"),
        (Duration::from_millis(17), "17ms"),
        (Duration::from_micros(17_001), "18ms"),
        (Duration::from_micros(999_001), "1s"),
        (secs(1), "1s"),
        (Duration::from_millis(1_500), "1.5s"),
        (Duration::from_millis(8_640), "8.64s"),
        (Duration::from_millis(60_007), "1m0.007s"),
        (secs(360), "6m0s"),
        (secs(3_600), "1h0m0s"),
        (secs(3_723), "1h2m3s"),
        (secs(86_400), "24h0m0s"),
        (Duration::MAX, "5124095576030431h0m16s"),
    ] {
        assert_eq!(span(duration), expected, "{duration:?}");
    }
}

#[test]
fn each_unit_shows_what_binds_it() {
    let roomy = policy("roomy", 1_000, Unit::Requests);
    let tight = policy("tight", 10, Unit::Requests);
    let tokens = policy("tokens", 150_000, Unit::Tokens);
    let shadow = policy("shadow", 5, Unit::Tokens).with_shadow(true);
    let group = GroupDecision::new(vec![
        decision(&roomy, Verdict::Admit, 1, secs(1)),
        decision(&tight, Verdict::Admit, 9, secs(360)),
        decision(&tokens, Verdict::Admit, 16, Duration::from_millis(17)),
        denied(&shadow, 5, secs(50)),
    ]);
    assert_eq!(
        written(&group),
        ["10", "1", "6m0s", "150000", "149984", "17ms", "-"]
    );
}

#[test]
fn a_violated_policy_is_shown_rather_than_an_emptier_one() {
    let empty = policy("empty", 10, Unit::Tokens);
    let denies = policy("denies", 100, Unit::Tokens);
    let worse = policy("worse", 200, Unit::Tokens);
    let requests = policy("requests", 60, Unit::Requests);
    let group = GroupDecision::new(vec![
        decision(&empty, Verdict::Admit, 10, secs(60)),
        denied(&denies, 50, Duration::from_millis(10)),
        denied(&worse, 50, Duration::from_micros(1_500_001)),
        decision(&requests, Verdict::Admit, 1, secs(1)),
    ]);
    assert_eq!(
        written(&group),
        ["60", "59", "1s", "200", "150", "1.501s", "1501"]
    );
}

#[test]
fn a_unit_that_nothing_counts_has_no_headers() {
    let requests = policy("requests", 60, Unit::Requests);
    assert_eq!(
        written(&decision(&requests, Verdict::Admit, 1, secs(1))),
        ["60", "59", "1s", "-", "-", "-", "-"]
    );
    let shadow = requests.with_shadow(true);
    assert_eq!(written(&denied(&shadow, 60, secs(1))), ["-"; 7]);
}

#[test]
fn an_outage_says_come_back_in_a_second() {
    let error = Error::new(ErrorKind::Timeout, "limit.apply", "no answer");
    let away = Decision::unavailable(&policy("requests", 60, Unit::Requests), &error);
    assert_eq!(written(&away), ["60", "0", "1s", "-", "-", "-", "1000"]);
}

#[test]
fn a_wait_is_never_zero_milliseconds() {
    let requests = policy("requests", 60, Unit::Requests);
    let waits = |wait| written(&denied(&requests, 60, wait))[6].clone();
    assert_eq!(waits(Duration::ZERO), "1");
    assert_eq!(waits(Duration::MAX), u64::MAX.to_string());
}

/// Known fault: SDKs sleep through any wait that they are told (openai-node#1840).
#[test]
fn nobody_is_left_to_sleep_for_more_than_a_minute() {
    let requests = policy("requests", 60, Unit::Requests);
    let should_retry = |wait| {
        let mut headers = HeaderMap::new();
        write(&Decided::from(&denied(&requests, 60, wait)), &mut headers);
        headers.get(X_SHOULD_RETRY).cloned()
    };
    for wait in [Duration::ZERO, secs(1), secs(60)] {
        assert_eq!(should_retry(wait), None, "{wait:?}");
    }
    for wait in [Duration::from_millis(60_001), secs(3_600), Duration::MAX] {
        assert_eq!(should_retry(wait).unwrap(), "false", "{wait:?}");
    }
}

/// Known fault: bytes and places were shown as requests.
#[test]
fn other_units_are_not_shown_as_requests() {
    let bytes = policy("egress", 1_000, Unit::named("content-bytes").unwrap());
    let streams = Policy::new("streams", Quota::concurrency(3).unwrap()).unwrap();
    for policy in [&bytes, &streams] {
        let decision = decision(policy, Verdict::Admit, 1, secs(1));
        assert_eq!(written(&decision), ["-"; 7], "{}", policy.name());
    }
}
