use std::time::Duration;

use limiter_core::limit::{
    Decision, GroupDecision, Observed, Period, Policy, Quota, Source, Verdict,
};
use limiter_core::{Error, ErrorKind};
use serde_json::{Value, json};

use super::*;

fn policy(name: &str, quota: Result<Quota, Error>) -> Policy {
    Policy::new(name, quota.unwrap()).unwrap()
}

fn letters() -> Policy {
    policy("cover-letter", Quota::fixed_window(20, Period::HOUR))
}

fn decision(policy: &Policy, verdict: Verdict) -> Decision {
    let reset = Duration::from_secs(3_000);
    let used = policy.quota().capacity();
    Decision::new(policy, &Observed::new(verdict, used, reset, Source::Store))
}

fn denied(policy: &Policy, micros: u64) -> Decision {
    let retry_after = Duration::from_micros(micros);
    decision(policy, Verdict::Deny { retry_after })
}

fn unavailable(kind: ErrorKind) -> Decision {
    let error = Error::new(kind, "limit.apply", "redis://10.0.0.5 said no");
    Decision::unavailable(&letters(), &error)
}

fn body<'a>(answer: impl Into<Decided<'a>>, asked: impl Into<Asked<'a>>) -> Value {
    let problem = Problem::new(answer.into(), asked.into(), UnavailableStatus::default());
    serde_json::from_str(&problem.unwrap().to_json()).unwrap()
}

#[test]
fn a_denial_names_operation_maximum_period_and_minutes() {
    // B3.
    let decision = denied(&letters(), 2_460_000_001);
    assert_eq!(
        body(&decision, "coverLetter"),
        json!({
            "type": "urn:limiter:problem:rate-limit-exceeded",
            "title": "Rate limit exceeded",
            "status": 429,
            "detail": "coverLetter is limited to 20 per hour; try again in 42 minutes",
            "policy": "cover-letter",
            "operation": "coverLetter",
            "limit": 20,
            "remaining": 0,
            "period_seconds": 3600,
            "retry_after_seconds": 2461,
            "retry_after_minutes": 42,
            "violated": ["cover-letter"],
        })
    );
}

#[test]
fn minutes_agree_with_their_number() {
    // B3: "minute" or "minutes", rounded up.
    for (micros, minutes, words) in [
        (1, 1, "1 minute"),
        (60_000_000, 1, "1 minute"),
        (60_000_001, 2, "2 minutes"),
        (3_600_000_000, 60, "60 minutes"),
    ] {
        let body = body(&denied(&letters(), micros), Asked::default());
        assert_eq!(body["retry_after_minutes"], minutes);
        assert_eq!(
            body["detail"],
            format!("cover-letter is limited to 20 per hour; try again in {words}")
        );
    }
}

#[test]
fn a_bucket_says_its_size_and_its_rate() {
    let bucket = policy("burst", Quota::token_bucket(10, 7, Period::MINUTE));
    let body = body(&denied(&bucket, 9_000_000), Asked::default());
    assert_eq!(
        body["detail"],
        "burst is limited to 10 at once, 7 per minute; try again in 1 minute"
    );
    assert_eq!(body["limit"], 10);
    assert_eq!(body["period_seconds"], 86);
}

#[test]
fn a_group_names_every_policy_in_the_way_and_no_shadow() {
    // N1, N9.
    let daily = policy("daily", Quota::fixed_window(100, Period::DAY));
    let free = policy("free", Quota::fixed_window(100, Period::DAY));
    let shadow = policy("shadow", Quota::fixed_window(1, Period::DAY)).with_shadow(true);
    let group = GroupDecision::new(vec![
        denied(&letters(), 60_000_000),
        decision(&free, Verdict::Admit),
        denied(&shadow, 90_000_000),
        denied(&daily, 120_000_000),
    ]);
    let body = body(&group, Asked::default());
    assert_eq!(body["violated"], json!(["cover-letter", "daily"]));
    assert_eq!(body["policy"], "daily");
    assert_eq!(body["retry_after_seconds"], 120);
}

#[test]
fn a_cost_above_the_limit_is_told_to_shrink_not_to_wait() {
    // N8.
    let never = decision(&letters(), Verdict::Never);
    let with_cost = body(&never, Asked::from("coverLetter").cost(21));
    assert_eq!(with_cost["type"], "urn:limiter:problem:cost-above-limit");
    assert_eq!(with_cost["status"], 400);
    assert_eq!(with_cost["cost"], 21);
    assert_eq!(
        with_cost["detail"],
        "coverLetter asked for 21, above the limit of 20; ask for less"
    );
    assert_eq!(with_cost.get("retry_after_seconds"), None);

    let without = body(&never, Asked::default());
    assert_eq!(without.get("cost"), None);
    assert_eq!(
        without["detail"],
        "cover-letter asked for more than the limit of 20; ask for less"
    );
}

#[test]
fn an_outage_is_429_or_503_of_a_type_of_its_own() {
    // C2. A full table (`Capacity`) empties by itself too.
    for kind in [
        ErrorKind::Timeout,
        ErrorKind::Connection,
        ErrorKind::Capacity,
    ] {
        let decision = unavailable(kind);
        let denial = body(&decision, "coverLetter");
        assert_eq!(denial["type"], "urn:limiter:problem:limiter-unavailable");
        assert_eq!(denial["status"], 429);
        assert_eq!(denial["retry_after_seconds"], 1);
        assert_eq!(denial["limit"], 20);
        assert_eq!(denial["remaining"], 0);

        let status = UnavailableStatus::ServiceUnavailable;
        let problem = Problem::new((&decision).into(), Asked::default(), status).unwrap();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        let uri = problem.problem_type().uri();
        assert!(uri.ends_with("#temporary-reduced-capacity"), "{uri}");
        // Only this refusal changes.
        let denied = denied(&letters(), 1);
        let problem = Problem::new((&denied).into(), Asked::default(), status).unwrap();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}

#[test]
fn misuse_is_a_fault_of_the_server_and_tells_nothing() {
    for kind in [
        ErrorKind::InvalidInput,
        ErrorKind::Unsupported,
        ErrorKind::Config,
    ] {
        let decision = unavailable(kind);
        assert_eq!(
            body(&decision, "coverLetter"),
            json!({
                "type": "urn:limiter:problem:limiter-error",
                "title": "Rate limiter error",
                "status": 500,
                "detail": "the server could not check its limits",
            })
        );
    }
}

#[test]
fn what_is_allowed_is_no_problem_and_what_is_not_always_is_one() {
    let status = UnavailableStatus::default();
    let allowed = decision(&letters(), Verdict::Admit);
    assert_eq!(
        Problem::new((&allowed).into(), Asked::default(), status),
        None
    );

    // A refusal that names no policy is refused all the same.
    let mut nobody = GroupDecision::new(Vec::new());
    nobody.outcome = limiter_core::limit::Outcome::Never;
    let problem = Problem::new((&nobody).into(), Asked::default(), status).unwrap();
    assert_eq!(problem.problem_type(), ProblemType::LimiterError);
}
