use std::time::Duration;

use limiter_core::limit::{
    Decision, GroupDecision, Observed, Period, Policy, Quota, Share, Source, Unit, Verdict,
};
use limiter_core::{Error, ErrorKind};

use super::*;

mod structured_fields;

/// 2023-11-14T22:13:20Z.
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn hourly(name: &str, limit: u64) -> Policy {
    Policy::new(name, Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
}

fn allowed(policy: &Policy, used: u64, reset: Duration) -> Decision {
    let observed = Observed::new(Verdict::Admit, used, reset, Source::Store);
    Decision::new(policy, &observed)
}

fn denied(policy: &Policy, used: u64, retry_after: Duration, reset: Duration) -> Decision {
    let verdict = Verdict::Deny { retry_after };
    Decision::new(policy, &Observed::new(verdict, used, reset, Source::Store))
}

fn unavailable(policy: &Policy, kind: ErrorKind) -> Decision {
    Decision::unavailable(policy, &Error::new(kind, "limit.apply", "no answer"))
}

fn written<'a>(style: &HeaderStyle, answer: impl Into<Decided<'a>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    style.write(answer, NOW, &mut headers);
    headers
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_denial_has_the_four_headers() {
    // A3.
    let decision = denied(&hourly("letters", 20), 20, secs(2_520), secs(2_520));
    let headers = written(&HeaderStyle::default(), &decision);
    assert_eq!(text(&headers, "retry-after"), Some("2520"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("20"));
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700002520"));
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""letters";q=20;w=3600"#)
    );
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=0;t=2520"#));
    assert_eq!(headers.len(), 6);
}

#[test]
fn what_is_allowed_has_no_retry_after() {
    let decision = allowed(&hourly("letters", 20), 5, secs(90));
    let headers = written(&HeaderStyle::default(), &decision);
    assert_eq!(text(&headers, "retry-after"), None);
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("15"));
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=15;t=90"#));
}

#[test]
fn times_are_whole_seconds_rounded_up() {
    // Known fault: "Retry-After of 0, fractions".
    let policy = hourly("letters", 20);
    for (micros, retry_after, reset) in [
        (1, "1", "1"),
        (999_999, "1", "1"),
        (1_000_000, "1", "1"),
        (1_000_001, "2", "2"),
    ] {
        let wait = Duration::from_micros(micros);
        let style = HeaderStyle::default().reset(ResetFormat::Delta);
        let headers = written(&style, &denied(&policy, 20, wait, wait));
        assert_eq!(text(&headers, "retry-after"), Some(retry_after));
        assert_eq!(text(&headers, "x-ratelimit-reset"), Some(reset));
    }
    let none = denied(&policy, 20, Duration::ZERO, Duration::ZERO);
    let headers = written(&HeaderStyle::default(), &none);
    assert_eq!(text(&headers, "retry-after"), Some("1"));

    // An epoch reset rounds the moment, not the span.
    let mut headers = HeaderMap::new();
    let now = Timestamp::from_micros(10_400_000);
    let decision = allowed(&policy, 1, Duration::from_millis(500));
    HeaderStyle::default().write(&decision, now, &mut headers);
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("11"));
}

#[test]
fn each_family_can_be_chosen() {
    let decision = allowed(&hourly("letters", 20), 5, secs(90));
    let ietf_only = written(&HeaderStyle::default().legacy(false), &decision);
    assert_eq!(ietf_only.len(), 2);
    assert_eq!(
        text(&ietf_only, "ratelimit"),
        Some(r#""letters";r=15;t=90"#)
    );

    let legacy_only = HeaderStyle::default().ietf(None);
    assert_eq!(written(&legacy_only, &decision).len(), 3);

    let older = written(&HeaderStyle::default().ietf(IetfDraft::V07), &decision);
    assert_eq!(
        text(&older, "ratelimit"),
        Some("limit=20, remaining=15, reset=90")
    );
    assert_eq!(text(&older, "ratelimit-policy"), Some("20;w=3600"));
}

#[test]
fn a_group_shows_what_binds_and_lists_the_rest() {
    // N1.
    let burst = Policy::new("burst", Quota::token_bucket(10, 7, Period::MINUTE).unwrap()).unwrap();
    let group = GroupDecision::new(vec![
        allowed(&hourly("hourly", 1_000), 10, secs(3_000)),
        denied(&burst, 10, secs(9), secs(86)),
        denied(&hourly("watched", 1), 1, secs(5), secs(5)),
    ]);
    let style = HeaderStyle::default().reset(ResetFormat::Delta);
    let headers = written(&style, &group);
    assert_eq!(text(&headers, "retry-after"), Some("9"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("10"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("86"));
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""hourly";q=1000;w=3600, "burst";q=10;w=86, "watched";q=1;w=3600"#)
    );
    // No `t` is later than Retry-After.
    assert_eq!(
        text(&headers, "ratelimit"),
        Some(r#""hourly";r=990, "burst";r=0;t=9, "watched";r=0;t=5"#)
    );
    let older = written(&style.ietf(IetfDraft::V07), &group);
    assert_eq!(
        text(&older, "ratelimit"),
        Some("limit=10, remaining=0, reset=9")
    );
}

#[test]
fn draft_07_lists_no_quota_twice() {
    let minute = Policy::new("m", Quota::fixed_window(10, Period::MINUTE).unwrap()).unwrap();
    let group = GroupDecision::new(vec![
        allowed(&minute, 1, secs(1)),
        allowed(&hourly("h", 10), 1, secs(1)),
        allowed(&hourly("other", 50), 1, secs(1)),
        // Two that are one number once they fit into a structured field.
        allowed(&hourly("large", 1 << 50), 1, secs(1)),
        allowed(&hourly("larger", (1 << 50) + 1), 1, secs(1)),
    ]);
    let headers = written(&HeaderStyle::default().ietf(IetfDraft::V07), &group);
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some("10;w=3600, 50;w=3600, 999999999999999;w=3600")
    );
}

#[test]
fn shadow_policies_are_not_shown() {
    // N9.
    let shadow = hourly("shadow", 1).with_shadow(true);
    let watching = denied(&shadow, 1, secs(60), secs(60));
    let group = GroupDecision::new(vec![
        watching.clone(),
        allowed(&hourly("letters", 20), 5, secs(90)),
    ]);
    let headers = written(&HeaderStyle::default(), &group);
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("20"));
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=15;t=90"#));
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""letters";q=20;w=3600"#)
    );

    assert!(written(&HeaderStyle::default(), &watching).is_empty());
    let alone = GroupDecision::new(vec![watching]);
    assert!(written(&HeaderStyle::default(), &alone).is_empty());
}

#[test]
fn an_outage_says_come_back_soon_and_a_fault_says_nothing() {
    // A3, C2.
    let policy = hourly("admin", 5);
    let headers = written(
        &HeaderStyle::default(),
        &unavailable(&policy, ErrorKind::Timeout),
    );
    assert_eq!(text(&headers, "retry-after"), Some("1"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("5"));
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700000001"));
    assert_eq!(text(&headers, "ratelimit"), Some(r#""admin";r=0;t=1"#));

    let misused = unavailable(&policy, ErrorKind::InvalidInput);
    assert!(written(&HeaderStyle::default(), &misused).is_empty());
}

/// C2, D3, N5: what stands in the place of a store that is away says so, by its rule.
#[test]
fn each_rule_for_outages_has_its_headers() {
    let all = HeaderStyle::default();
    let policy = hourly("letters", 20);
    let names = |headers: &HeaderMap| {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    let blind = Observed::blind(Verdict::Admit, Source::Outage).degrade();
    let headers = written(&all, &Decision::new(&policy, &blind));
    assert_eq!(
        names(&headers),
        ["x-ratelimit-degraded", "x-ratelimit-limit"]
    );
    assert_eq!(text(&headers, "x-ratelimit-degraded"), Some("allowed"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("20"));

    let share = Share::new(1, 3).unwrap();
    let local = Observed::new(Verdict::Admit, 2, secs(60), Source::Memory)
        .degrade()
        .of_share(share);
    let headers = written(&all, &Decision::new(&policy, &local));
    assert_eq!(text(&headers, "x-ratelimit-degraded"), Some("local"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("6"));
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("4"));
    let limits = text(&headers, "ratelimit-policy");
    assert_eq!(limits, Some(r#""letters";q=6;w=3600"#));

    // A3: the reset is when the store is asked again.
    let error = Error::new(ErrorKind::BreakerOpen, "limit.apply", "open");
    for (asked_again, expected) in [(secs(0), "1"), (Duration::from_millis(3_200), "4")] {
        let error = Error::new(error.kind(), error.operation(), "open");
        let error = error.with_retry_after(asked_again);
        let headers = written(&all, &Decision::unavailable(&policy, &error));
        assert_eq!(text(&headers, "x-ratelimit-degraded"), Some("denied"));
        assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("0"));
        assert_eq!(text(&headers, "retry-after"), Some(expected));
        let reset = format!("170000000{expected}");
        assert_eq!(text(&headers, "x-ratelimit-reset"), Some(&*reset));
    }
    // A memory store's own answers are no substitute.
    let own = Observed::new(Verdict::Admit, 2, secs(60), Source::Memory);
    let headers = written(&all, &Decision::new(&policy, &own));
    assert_eq!(text(&headers, "x-ratelimit-degraded"), None);
}

/// Nobody looked: there is nothing to tell of a limit's state. A refusal has its four headers all the same.
#[test]
fn nothing_is_made_up_of_what_nobody_saw() {
    let (letters, day) = (hourly("letters", 20), hourly("day", 100));
    let decide = |policy, observed: Observed| Decision::new(policy, &observed);
    let all = HeaderStyle::default();
    let blind = Observed::blind(Verdict::Admit, Source::Store).degrade();
    for silent in [
        decide(&letters, blind),
        decide(&letters, Observed::unseen(Source::Store)),
        decide(&letters, Observed::unseen(Source::Outage)),
    ] {
        let headers = written(&all, &silent);
        assert!(headers.is_empty(), "{silent:?}: {headers:?}");
    }
    let seen = allowed(&day, 5, secs(60));
    let group = GroupDecision::new(vec![
        decide(&letters, Observed::unseen(Source::Store)),
        seen.clone(),
    ]);
    let headers = written(&all, &group);
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""day";q=100;w=3600"#)
    );
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("100"));
    // A3: a remembered denial.
    let retry_after = secs(30);
    let denied = decide(
        &letters,
        Observed::blind(Verdict::Deny { retry_after }, Source::Store),
    );
    let headers = written(&all, &denied);
    assert_eq!(text(&headers, "retry-after"), Some("30"));
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("20"));
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700000030"));
}

#[test]
fn what_never_passes_has_no_time_to_wait() {
    // N8.
    let never = Observed::new(Verdict::Never, 3, secs(60), Source::Store);
    let decision = Decision::new(&hourly("letters", 20), &never);
    let headers = written(&HeaderStyle::default(), &decision);
    assert_eq!(text(&headers, "retry-after"), None);
    assert_eq!(text(&headers, "x-ratelimit-remaining"), Some("17"));
}

#[test]
fn integers_stay_within_structured_fields() {
    // RFC 9651, section 3.3.1: at most 15 digits. A quota may have 16.
    let limit = (1 << 51) - 1;
    let policy = hourly("huge", limit);
    let decision = allowed(&policy, 0, secs(1));
    let headers = written(&HeaderStyle::default(), &decision);
    assert_eq!(
        text(&headers, "x-ratelimit-limit"),
        Some("2251799813685247")
    );
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""huge";q=999999999999999;w=3600"#)
    );
    assert_eq!(
        text(&headers, "ratelimit"),
        Some(r#""huge";r=999999999999999;t=1"#)
    );
}

#[test]
fn a_unit_other_than_requests_is_named() {
    let tokens = hourly("tokens", 100_000).with_unit(Unit::Tokens);
    let group = GroupDecision::new(vec![
        allowed(&hourly("letters", 20), 5, secs(90)),
        allowed(&tokens, 40_000, secs(90)),
    ]);
    let headers = written(&HeaderStyle::default(), &group);
    assert_eq!(
        text(&headers, "ratelimit-policy"),
        Some(r#""letters";q=20;w=3600, "tokens";q=100000;qu="tokens";w=3600"#)
    );
    assert_eq!(
        text(&headers, "ratelimit"),
        Some(r#""letters";r=15;t=90, "tokens";r=60000;t=90"#)
    );
}

#[test]
fn a_refusal_has_the_four_headers_whatever_the_style() {
    // A3.
    let policy = hourly("letters", 20);
    let refusals = [
        denied(&policy, 20, secs(2_520), secs(2_520)),
        unavailable(&policy, ErrorKind::Timeout),
    ];
    for refusal in &refusals {
        for ietf in [None, Some(IetfDraft::V07), Some(IetfDraft::V10)] {
            for openai in [false, true] {
                let style = HeaderStyle::default()
                    .legacy(false)
                    .ietf(ietf)
                    .openai(openai);
                let headers = written(&style, refusal);
                for name in [RETRY_AFTER.as_str(), X_LIMIT, X_REMAINING, X_RESET] {
                    assert!(headers.contains_key(name), "{style:?}: {name}");
                }
            }
        }
    }
}

#[test]
fn all_families_stand_side_by_side() {
    let decision = denied(&hourly("letters", 20), 20, secs(2_520), secs(2_520));
    let headers = written(&HeaderStyle::default().openai(true), &decision);
    assert_eq!(text(&headers, "x-ratelimit-limit"), Some("20"));
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=0;t=2520"#));
    assert_eq!(text(&headers, "x-ratelimit-limit-requests"), Some("20"));
    assert_eq!(text(&headers, "x-ratelimit-reset-requests"), Some("42m0s"));
    assert_eq!(text(&headers, "retry-after-ms"), Some("2520000"));
    assert_eq!(text(&headers, "x-should-retry"), Some("false"));
    assert_eq!(headers.len(), 11);
}

#[test]
fn spans_count_from_the_decision_and_moments_stay() {
    let policy = hourly("letters", 20);
    let style = HeaderStyle::default().openai(true);
    let late = |style: &HeaderStyle, decision: &Decision, elapsed: Duration| {
        let mut headers = HeaderMap::new();
        let answer = Decided::from(decision).at(NOW);
        style.write(answer, NOW.saturating_add(elapsed), &mut headers);
        headers
    };
    let passed = allowed(&policy, 5, secs(90));
    for (elapsed, t, span) in [
        (0, 90, "1m30s"),
        (3, 87, "1m27s"),
        (90, 0, "0s"),
        (95, 0, "0s"),
    ] {
        let headers = late(&style, &passed, secs(elapsed));
        assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700000090"));
        let limit = format!(r#""letters";r=15;t={t}"#);
        assert_eq!(text(&headers, "ratelimit"), Some(&*limit));
        assert_eq!(text(&headers, "x-ratelimit-reset-requests"), Some(span));
        let delta = late(
            &style.clone().reset(ResetFormat::Delta),
            &passed,
            secs(elapsed),
        );
        assert_eq!(text(&delta, "x-ratelimit-reset"), Some(&*t.to_string()));
    }
    let refused = denied(&policy, 20, secs(60), secs(90));
    let headers = late(&style, &refused, secs(3));
    assert_eq!(text(&headers, "retry-after"), Some("57"));
    assert_eq!(text(&headers, "retry-after-ms"), Some("57000"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700000090"));
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=0;t=57"#));

    // Nothing was computed in an outage, so the second counts from when it is said.
    let away = unavailable(&policy, ErrorKind::Timeout);
    let headers = late(&style, &away, secs(3));
    assert_eq!(text(&headers, "retry-after"), Some("1"));
    assert_eq!(text(&headers, "x-ratelimit-reset"), Some("1700000004"));

    // A clock that stepped back adds nothing.
    let mut headers = HeaderMap::new();
    let answer = Decided::from(&passed).at(NOW.saturating_add(secs(5)));
    style.write(answer, NOW, &mut headers);
    assert_eq!(text(&headers, "ratelimit"), Some(r#""letters";r=15;t=90"#));
}
