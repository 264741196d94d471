use std::time::Duration;

use limiter_core::limit::{GroupDecision, Observed, Period, Policy, Quota, Source, Verdict};
use limiter_core::{Error, ErrorKind};
use proptest::collection::vec;
use proptest::prelude::*;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::*;

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

fn written<'a>(style: &HeaderStyle, answer: impl Into<Answer<'a>>) -> HeaderMap {
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
    // LESSONS "Retry-After of 0, fractions".
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

fn policy() -> impl Strategy<Value = Policy> {
    let quota = (
        any::<bool>(),
        1u64..1 << 50,
        1u64..1 << 20,
        1u64..100_000_000,
    )
        .prop_filter_map("a quota that exists", |(bucket, limit, refill, millis)| {
            let period = Period::new(Duration::from_millis(millis)).ok()?;
            if bucket {
                Quota::token_bucket(limit >> 30 | 1, refill, period).ok()
            } else {
                Quota::fixed_window(limit, period).ok()
            }
        });
    ("[A-Za-z0-9_.\\-]{1,64}", quota, any::<bool>())
        .prop_map(|(name, quota, shadow)| Policy::new(&name, quota).unwrap().with_shadow(shadow))
}

fn decision() -> impl Strategy<Value = Decision> {
    let micros = || (0u64..1 << 52).prop_map(Duration::from_micros);
    let verdict = prop_oneof![
        Just(Verdict::Admit),
        Just(Verdict::Never),
        micros().prop_map(|retry_after| Verdict::Deny { retry_after }),
    ];
    (policy(), verdict, any::<u64>(), micros()).prop_map(|(policy, verdict, used, reset)| {
        Decision::new(&policy, &Observed::new(verdict, used, reset, Source::Store))
    })
}

fn integer(item: &BareItem) -> u64 {
    let BareItem::Integer(integer) = item else {
        panic!("{item:?} is no integer");
    };
    u64::try_from(i64::from(*integer)).unwrap()
}

fn param(item: &Item, name: &str) -> Option<u64> {
    item.params.get(name).map(integer)
}

fn items(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let list: List = Parser::new(headers.get(name).unwrap().as_bytes())
        .parse()
        .unwrap();
    list.into_iter()
        .map(|entry| match entry {
            ListEntry::Item(item) => item,
            ListEntry::InnerList(list) => panic!("{list:?} is no item"),
        })
        .collect()
}

proptest! {
    /// An independent parser of RFC 9651 reads what draft 10 wants, whatever the decisions are.
    #[test]
    fn draft_10_is_a_structured_field(decisions in vec(decision(), 1..6)) {
        let group = GroupDecision::new(decisions);
        let headers = written(&HeaderStyle::default(), &group);
        let enforced: Vec<_> =
            group.decisions.iter().filter(|decision| decision.shadow.is_none()).collect();
        prop_assert_eq!(headers.is_empty(), enforced.is_empty());
        if enforced.is_empty() {
            return Ok(());
        }
        let policies = items(&headers, "ratelimit-policy");
        let limits = items(&headers, "ratelimit");
        prop_assert_eq!(policies.len(), enforced.len());
        prop_assert_eq!(limits.len(), enforced.len());
        let retry_after: Option<u64> =
            text(&headers, "retry-after").map(|text| text.parse().unwrap());
        prop_assert!(retry_after != Some(0));
        for ((policy, limit), decision) in policies.iter().zip(&limits).zip(enforced) {
            let name = BareItem::String(decision.policy.name().to_owned().try_into().unwrap());
            prop_assert_eq!(&policy.bare_item, &name);
            prop_assert_eq!(&limit.bare_item, &name);
            prop_assert_eq!(param(policy, "q"), Some(decision.limit.min(999_999_999_999_999)));
            prop_assert!(param(policy, "w").unwrap() > 0);
            prop_assert!(param(limit, "r") <= param(policy, "q"));
            if let (Some(retry_after), Some(t)) = (retry_after, param(limit, "t")) {
                prop_assert!(t <= retry_after);
            }
        }
    }

    /// The same for draft 07, whose `RateLimit` is a dictionary.
    #[test]
    fn draft_07_is_a_structured_field(decisions in vec(decision(), 1..6)) {
        let group = GroupDecision::new(decisions);
        let style = HeaderStyle::default().ietf(IetfDraft::V07);
        let headers = written(&style, &group);
        let Some(binding) = group.binding() else {
            prop_assert!(headers.is_empty());
            return Ok(());
        };
        let limits: Dictionary =
            Parser::new(headers["ratelimit"].as_bytes()).parse().unwrap();
        let value = |name: &str| match &limits[name] {
            ListEntry::Item(item) => integer(&item.bare_item),
            other => panic!("{other:?} is no item"),
        };
        prop_assert_eq!(limits.len(), 3);
        prop_assert_eq!(value("limit"), binding.limit.min(999_999_999_999_999));
        prop_assert!(value("remaining") <= value("limit"));
        if let Some(retry_after) = text(&headers, "retry-after") {
            prop_assert_eq!(value("reset").to_string(), retry_after);
        }
        let mut quotas: Vec<u64> = Vec::new();
        for policy in items(&headers, "ratelimit-policy") {
            prop_assert!(param(&policy, "w").unwrap() > 0);
            let quota = integer(&policy.bare_item);
            prop_assert!(!quotas.contains(&quota), "a quota stands twice");
            quotas.push(quota);
        }
    }

    /// A decision is a group of one.
    #[test]
    fn one_decision_and_a_group_of_it_have_the_same_headers(decision in decision()) {
        for style in [HeaderStyle::default(), HeaderStyle::default().ietf(IetfDraft::V07)] {
            let group = GroupDecision::new(vec![decision.clone()]);
            prop_assert_eq!(written(&style, &decision), written(&style, &group));
        }
    }
}
