//! What became of each charge, reservation and lease of a group, in the words that metrics and audit trails share.

use limiter_core::ErrorKind;
use limiter_core::limit::wrap::Event;
use limiter_core::limit::{GroupDecision, Observed, Step, Verdict};

/// One step of a group that takes something (a charge, a reservation, a lease), and what became of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// The counter, the policy and the action.
    pub step: &'a Step<'a>,
    /// What was to be charged, reserved or held; at least 1.
    pub cost: u64,
    /// What the store saw; `None` if none answered.
    pub observed: Option<&'a Observed>,
    /// `allowed`, `denied`, `never`, `shadow_denied` or `shadow_never`; `not_charged` for a step that
    /// was no obstacle in a group that was denied, `unseen` for one that nobody looked at. Without an answer, the kind of the error.
    pub outcome: &'static str,
}

/// The charges, reservations and leases of a group, in its order. What looks (a charge of 0 too), resets or
/// gives back is left out.
///
/// ```
/// use limiter::limiter_core::limit::wrap::{Event, Observer};
///
/// #[derive(Debug)]
/// struct Log;
///
/// impl Observer for Log {
///     fn observe(&self, event: &Event<'_>) {
///         for attempt in limiter::events::attempts(event) {
///             println!("{} {}", attempt.step.policy.name(), attempt.outcome);
///         }
///     }
/// }
/// ```
pub fn attempts<'a>(event: &'a Event<'a>) -> impl Iterator<Item = Attempt<'a>> {
    all(event).filter(|attempt| attempt.step.action.takes())
}

/// Every step of a call, in its order; also those that look, reset or give back, whose outcome is `done`, if they were done.
pub fn all<'a>(event: &'a Event<'a>) -> impl Iterator<Item = Attempt<'a>> {
    let steps = event.steps;
    let admitted = event.result.is_ok_and(|observed| {
        steps
            .iter()
            .zip(observed)
            .all(|(step, observed)| step.policy.is_shadow() || observed.verdict == Verdict::Admit)
    });
    steps.iter().enumerate().filter_map(move |(index, step)| {
        let (observed, outcome) = match event.result {
            Ok(observed) => {
                let observed = observed.get(index)?;
                (Some(observed), outcome(step, observed, admitted))
            }
            Err(error) => (None, error.kind().as_str()),
        };
        Some(Attempt {
            step,
            cost: step.action.cost(),
            observed,
            outcome,
        })
    })
}

/// What became of a call as a whole: `allowed`, `denied`, `never`, `unseen`; `done` for what only resets or gives back;
/// `unavailable` if no store answered, `refused` if it was misused, `cancelled` if the caller left.
pub fn of_call(event: &Event<'_>) -> &'static str {
    let observed = match event.result {
        Ok(observed) => observed,
        Err(error) if error.kind() == ErrorKind::Cancelled => return "cancelled",
        Err(error) if error.kind().is_outage() => return "unavailable",
        Err(_) => return "refused",
    };
    if !event.steps.iter().any(|step| step.action.can_be_denied()) {
        return "done";
    }
    GroupDecision::of(event.steps, observed).outcome.as_str()
}

fn outcome(step: &Step<'_>, observed: &Observed, admitted: bool) -> &'static str {
    if !step.action.can_be_denied() && observed.verdict == Verdict::Admit {
        return "done";
    }
    match (step.policy.is_shadow(), observed.verdict) {
        (_, Verdict::Admit) if admitted => "allowed",
        (_, Verdict::Admit) => "not_charged",
        (false, Verdict::Deny { .. }) => "denied",
        (false, Verdict::Never) => "never",
        (true, Verdict::Deny { .. }) => "shadow_denied",
        (true, Verdict::Never) => "shadow_never",
        (_, Verdict::Unseen) => "unseen",
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use std::sync::{Arc, Mutex};

    use limiter_core::limit::wrap::Observer;
    use limiter_core::limit::{Charge, Policy, Quota};
    use limiter_core::{Key, limit::Period};

    use super::*;

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<(String, &'static str)>>);

    impl Observer for Seen {
        fn observe(&self, event: &Event<'_>) {
            self.0.lock().unwrap().extend(
                attempts(event)
                    .map(|charged| (charged.step.policy.name().to_owned(), charged.outcome)),
            );
        }
    }

    #[tokio::test]
    async fn every_step_of_a_group_has_its_own_outcome() {
        let seen = Arc::new(Seen::default());
        let builder = crate::Builder::new().observe(seen.clone());
        let limiter = builder.connect("memory:").await.unwrap().limiter;
        let policy = |name: &str, limit| {
            Policy::new(name, Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
        };
        let (wide, narrow) = (policy("wide", 10), policy("narrow", 2));
        let shadow = policy("shadow", 1).with_shadow(true);
        let keys = ["a", "b", "c"].map(|name| Key::new([name]));
        for cost in [1, 2, 3] {
            let steps = [&wide, &narrow, &shadow];
            let steps = steps.iter().zip(&keys);
            let charges: Vec<_> = steps
                .map(|(policy, key)| Charge::new(policy, key).with_cost(cost))
                .collect();
            limiter.check_all(&charges).await;
        }
        limiter.peek(&wide, &keys[0]).await.unwrap();
        let seen = seen.0.lock().unwrap();
        let outcomes: Vec<_> = seen
            .iter()
            .map(|(name, outcome)| (&**name, *outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("wide", "allowed"),
                ("narrow", "allowed"),
                ("shadow", "allowed"),
                ("wide", "not_charged"),
                ("narrow", "denied"),
                ("shadow", "shadow_never"),
                ("wide", "not_charged"),
                ("narrow", "never"),
                ("shadow", "shadow_never"),
            ]
        );
    }
}
