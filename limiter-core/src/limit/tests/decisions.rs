//! What decisions mean, alone and in groups.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::limit::{
    Decision, GroupDecision, Observed, Outage, Outcome, Period, Policy, Quota, Source, Unit,
    Verdict,
};

fn policy(name: &str, limit: u64) -> Policy {
    Policy::new(name, Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
}

fn decision(name: &str, limit: u64, used: u64, verdict: Verdict) -> Decision {
    let observed = Observed::new(verdict, used, Duration::from_secs(9), Source::Memory);
    Decision::new(&policy(name, limit), &observed)
}

fn deny(seconds: u64) -> Verdict {
    let retry_after = Duration::from_secs(seconds);
    Verdict::Deny { retry_after }
}

fn binding(decisions: Vec<Decision>) -> String {
    let group = GroupDecision::new(decisions);
    group.binding().unwrap().policy.name().to_owned()
}

#[test]
fn a_decision_says_what_was_observed() {
    let allowed = decision("p", 5, 2, Verdict::Admit);
    assert!(allowed.is_allowed() && !allowed.degraded && allowed.shadow.is_none());
    assert_eq!((allowed.limit, allowed.used, allowed.remaining), (5, 2, 3));
    assert_eq!(allowed.reset_after, Duration::from_secs(9));
    assert_eq!(allowed.source, Source::Memory);
    assert_eq!(allowed.retry_after(), None);
    // A lowered quota leaves more used than there is.
    assert_eq!(decision("p", 5, 8, deny(1)).remaining, 0);
    let denied = decision("p", 5, 5, deny(7));
    assert!(!denied.is_allowed());
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(7)));
    let never = decision("p", 5, 0, Verdict::Never);
    assert_eq!((never.outcome, never.retry_after()), (Outcome::Never, None));

    // Degraded is a fact that a store states, whatever the source.
    let outage = Observed::blind(Verdict::Admit, Source::Outage);
    assert!(!Decision::new(&policy("p", 5), &outage).degraded);
    let outage = Decision::new(&policy("p", 5), &outage.degrade());
    assert!(outage.degraded && outage.is_allowed());
    assert_eq!(
        (outage.seen, outage.remaining),
        (false, 0),
        "nothing is made up"
    );
    let unseen = Decision::new(&policy("p", 5), &Observed::unseen(Source::DenialCache));
    assert_eq!((unseen.outcome, unseen.seen), (Outcome::Unseen, false));
    let kind = ErrorKind::Timeout;
    let broken = Decision::unavailable(&policy("p", 5), &Error::new(kind, "test", "late"));
    assert_eq!(broken.outcome, Outcome::Unavailable { kind });
    assert_eq!((broken.limit, broken.remaining), (5, 0));
    assert!(broken.degraded && broken.source == Source::Outage);
}

#[test]
fn a_shadow_tells_and_does_not_block() {
    let shadow = policy("p", 5).with_shadow(true);
    let observed = Observed::new(deny(7), 5, Duration::ZERO, Source::Store);
    let decision = Decision::new(&shadow, &observed);
    assert!(decision.is_allowed());
    assert_eq!(decision.shadow, Some(Outcome::from(deny(7))));
    assert_eq!(GroupDecision::new(vec![decision]).binding(), None);
}

#[test]
fn outcomes_have_stable_names() {
    let retry_after = Duration::ZERO;
    let kind = ErrorKind::Timeout;
    assert_eq!(Outcome::Allowed.as_str(), "allowed");
    assert_eq!(Outcome::Denied { retry_after }.as_str(), "denied");
    assert_eq!(Outcome::Never.as_str(), "never");
    assert_eq!(Outcome::Unavailable { kind }.as_str(), "unavailable");
}

/// Worst first: unavailable, never, the longest wait, allowed.
#[test]
fn a_group_is_as_bad_as_its_worst_part() {
    let unavailable = {
        let error = Error::new(ErrorKind::Timeout, "test", "late");
        Decision::unavailable(&policy("u", 5), &error)
    };
    let parts = [
        decision("allowed", 5, 1, Verdict::Admit),
        decision("soon", 5, 5, deny(1)),
        decision("late", 5, 5, deny(8)),
        decision("never", 5, 5, Verdict::Never),
        unavailable,
    ];
    for count in 1..=parts.len() {
        let worst = &parts[count - 1];
        // In both orders.
        let forward = parts[..count].to_vec();
        let backward = forward.iter().rev().cloned().collect();
        for decisions in [forward, backward] {
            let group = GroupDecision::new(decisions);
            assert_eq!(group.outcome, worst.outcome);
            assert_eq!(group.is_allowed(), count == 1);
            assert_eq!(group.violated().count(), count - 1);
            assert_eq!(group.binding().unwrap().policy, worst.policy);
        }
    }
    assert_eq!(GroupDecision::new(Vec::new()).outcome, Outcome::Allowed);
}

/// Without a violation the smallest share that is left binds, not the smallest number.
#[test]
fn the_smallest_share_binds() {
    let left = |name, limit, remaining| decision(name, limit, limit - remaining, Verdict::Admit);
    // 3/5 and 10/100.
    assert_eq!(
        binding(vec![left("few", 5, 3), left("many", 100, 10)]),
        "many"
    );
    assert_eq!(
        binding(vec![left("many", 100, 10), left("few", 5, 3)]),
        "many"
    );
    // 1/3 and 4/10: as sums, 1 + 10 is less than 4 + 3 is not.
    assert_eq!(binding(vec![left("a", 10, 4), left("b", 3, 1)]), "b");
    // 1/2 and 3/5: 1 + 5 < 3 + 2 is false though 1/2 is less.
    assert_eq!(binding(vec![left("a", 5, 3), left("b", 2, 1)]), "b");
    assert_eq!(binding(vec![left("b", 2, 1), left("a", 5, 3)]), "b");
    // Equal shares: the first asked.
    assert_eq!(binding(vec![left("a", 4, 2), left("b", 2, 1)]), "a");
}

#[test]
fn a_policy_is_what_it_was_made_of() {
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    let plain = Policy::new("name", quota).unwrap();
    assert_eq!((plain.name(), plain.scope()), ("name", "default"));
    assert_eq!((plain.version(), plain.is_shadow()), (1, false));
    assert_eq!(
        (plain.outage(), plain.unit()),
        (Outage::Deny, Unit::Requests)
    );
    let other = Quota::fixed_window(6, Period::HOUR).unwrap();
    let changed = plain.clone();
    let changed = changed.with_scope("api").unwrap().with_quota(other);
    let changed = changed.with_outage(Outage::Allow).with_shadow(true);
    let changed = changed.with_version(3).with_unit(Unit::Tokens);
    assert_eq!((changed.scope(), changed.quota()), ("api", &other));
    assert_eq!((changed.version(), changed.is_shadow()), (3, true));
    assert_eq!(
        (changed.outage(), changed.unit()),
        (Outage::Allow, Unit::Tokens)
    );
    assert_eq!(plain.quota(), &quota, "a clone's change is its own");
    let debug = format!("{changed:?}");
    for part in [
        "name",
        "api",
        "Allow",
        "shadow: true",
        "version: 3",
        "Tokens",
    ] {
        assert!(debug.contains(part), "{debug}");
    }
    assert_eq!(Unit::Requests.as_str(), "requests");
    assert_eq!(Unit::Tokens.as_str(), "tokens");
}

#[test]
fn names_are_1_to_64_of_a_few_characters() {
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    let longest = "x".repeat(64);
    for name in ["a", "A-Z.0_9", longest.as_str()] {
        assert_eq!(Policy::new(name, quota).unwrap().name(), name);
    }
    assert!(Policy::new(&"x".repeat(65), quota).is_err());
}

/// What nobody looked at is neither named nor shown, and never lets a group through.
#[test]
fn an_unseen_part_stands_in_nobodys_way() {
    let unseen = || Decision::new(&policy("unseen", 5), &Observed::unseen(Source::DenialCache));
    let denied = GroupDecision::new(vec![unseen(), decision("full", 5, 5, deny(3))]);
    assert_eq!(
        denied.outcome,
        Outcome::Denied {
            retry_after: Duration::from_secs(3)
        }
    );
    let names: Vec<_> = denied
        .violated()
        .map(|part| part.policy.name().to_owned())
        .collect();
    assert_eq!(names, ["full"]);
    assert_eq!(
        denied.binding().map(|part| part.policy.name()),
        Some("full")
    );
    let odd = GroupDecision::new(vec![decision("free", 5, 1, Verdict::Admit), unseen()]);
    assert!(!odd.is_allowed());
    assert_eq!(odd.binding().map(|part| part.policy.name()), Some("free"));
}

/// Known fault: `wait.as_secs()` told people "0 s".
#[test]
fn waits_are_told_in_seconds_rounded_up() {
    for (micros, seconds) in [(0, 1), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
        let retry_after = Duration::from_micros(micros);
        let outcome = Outcome::Denied { retry_after };
        assert_eq!(outcome.retry_after_secs(), Some(seconds), "{micros}");
        assert_eq!(outcome.retry_after(), Some(retry_after));
    }
    let longest = Outcome::Denied {
        retry_after: Duration::MAX,
    };
    assert_eq!(longest.retry_after_secs(), Some(u64::MAX));
    for outcome in [Outcome::Allowed, Outcome::Never, Outcome::Unseen] {
        assert_eq!(outcome.retry_after_secs(), None);
    }
    let denied = |seconds: u64| {
        let retry_after = Duration::from_millis(seconds * 1_000 - 1);
        let verdict = Verdict::Deny { retry_after };
        let observed = Observed::new(verdict, 5, retry_after, Source::Store);
        Decision::new(&policy("p", 5), &observed)
    };
    assert_eq!(denied(3).retry_after_secs(), Some(3));
    let group = GroupDecision::new(vec![denied(3), denied(7)]);
    assert_eq!(group.retry_after_secs(), Some(7));
    assert_eq!(group.retry_after(), Some(Duration::from_millis(6_999)));
}
