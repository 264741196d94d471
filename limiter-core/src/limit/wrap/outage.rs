//! Answers for a store that cannot, by the rule of each policy.

use std::sync::Arc;

use async_trait::async_trait;

use super::local::{Earlier, Local, Why};
use crate::error::{Effect, Error, ErrorKind};
use crate::figures::Figure;
use crate::health::Health;
use crate::limit::policy::Outage;
use crate::limit::store::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Source, Step, Verdict,
};
use crate::outage_log::{OutageLog, Substitute};

/// A store that applies the [`Outage`] rules of the policies when the inner store gives no answer. What it answers is
/// marked as degraded.
///
/// - `Deny`: the error stays. `Allow`: admitted unseen; no number is in the answer. `Local`: counted by the
///   [local store](Self::with_local), under the policy's share of the quota.
/// - In a group `Deny` wins, then `Local`, then `Allow`: it is admitted if no enforced policy denies and all that count locally
///   admit.
/// - Who admitted something keeps it: it is settled, renewed and given back there, also once the store is back. What `Allow`
///   admitted though nothing was sent to the store, nobody keeps: there is nothing to settle or to give back. What may have been
///   done at the store is settled and given back there, by its id; a plain charge without an answer has none.
/// - An operation or a reservation that was made locally and is asked for again under its id was made: also then.
/// - Only outages count ([`ErrorKind::is_outage`](crate::ErrorKind::is_outage)): misuse stays an error. Only what takes or looks is
///   answered (charges, reservations, leases, peeks): a reset or a give-back that did not happen is an error under any rule. A
///   reset always forgets what was counted locally, too.
/// - A cost above this process's share is the store's error, and not `Never`: it is admitted once the store is back.
#[derive(Debug)]
pub struct OutageRules<S> {
    inner: S,
    issuer: Issuer,
    local: Option<Local>,
    log: OutageLog,
}

impl<S: LimitStore> OutageRules<S> {
    /// Applies the rules around `inner`, without a local store.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            issuer: Issuer::unique(),
            local: None,
            log: OutageLog::new(),
        }
    }

    /// Counts locally in `store`, which has to answer without I/O, such as `limiter_memory::MemoryStore`. Without one, a policy
    /// that counts locally is refused by a store that does I/O, as `Unsupported`, and not first in an outage.
    #[must_use]
    pub fn with_local(self, store: Arc<dyn LimitStore>) -> Self {
        Self {
            local: Some(Local::new(store, Why::Outage)),
            ..self
        }
    }

    /// Counts what it answers in `log`.
    #[must_use]
    pub fn with_log(self, log: OutageLog) -> Self {
        Self { log, ..self }
    }

    /// What to say to a group whose inner answer is known.
    pub(super) fn judge(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
        result: Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(local) = &self.local {
            local.reset(group);
        }
        let error = match result {
            Err(error) if error.kind().is_outage() => error,
            Err(error) => return Err(error),
            Ok(()) => {
                self.log.note_answer();
                return Ok(());
            }
        };
        let Some(rule) = rule_of(group) else {
            return Err(error);
        };
        let answer = self.substitute(group, observed, error, rule);
        answer.inspect_err(|error| {
            if error.kind().is_outage() {
                self.log.note(Substitute::Denied, error);
            }
        })
    }

    /// Answers in the store's place, which has met `error`.
    fn substitute(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
        error: Error,
        rule: Substitute,
    ) -> Result<(), Error> {
        if rule == Substitute::Denied {
            return Err(error);
        }
        let places: Vec<usize> = (0..group.steps().len())
            .filter(|place| is_local(&group.steps()[*place]))
            .collect();
        if let Some(never) = self.never(group) {
            // Before anything is counted: the group is not admitted.
            observed.copy_from_slice(&never);
            self.log.note(rule, &error);
            return Ok(());
        }
        if !places.is_empty() {
            match self
                .local
                .as_ref()
                .and_then(|local| local.apply(group, &places, observed))
            {
                Some(Ok(())) => {}
                // Its table is full, say, or an id was used for something else.
                Some(Err(local)) => return Err(local),
                None => return Err(error),
            }
        }
        self.log.note(rule, &error);
        let is_unsent = error.effect() == Effect::No || !places.is_empty();
        for (index, (step, observed)) in group.steps().iter().zip(&mut *observed).enumerate() {
            if !is_local(step) {
                *observed = self.allowed(step, group.total_cost(index), is_unsent);
            }
        }
        if !places.is_empty() {
            self.keep(observed);
        }
        Ok(())
    }

    /// What was made here in part is followed up here as a whole: what no local store keeps, nobody does.
    fn keep(&self, observed: &mut [Observed]) {
        for observed in observed.iter_mut().filter(|it| it.issuer.is_none()) {
            *observed = observed.issued_by(self.issuer);
        }
    }

    /// The answer to a group of which a part that no local store counts can never be admitted.
    fn never(&self, group: &Group<'_>) -> Option<Vec<Observed>> {
        let is_never = |(index, step): (usize, &Step<'_>)| {
            let asked = group.total_cost(index);
            !is_local(step) && !step.policy.is_shadow() && asked > step.policy.quota().capacity()
        };
        let steps = group.steps().iter().enumerate();
        if !steps.clone().any(is_never) {
            return None;
        }
        let unseen = Observed::unseen(Source::Outage).degrade();
        let answers = steps.map(|(index, step)| match is_never((index, step)) {
            true => Observed::blind(Verdict::Never, Source::Outage).degrade(),
            false => unseen,
        });
        Some(answers.collect())
    }

    /// What is allowed unseen.
    fn allowed(&self, step: &Step<'_>, cost: u64, is_unsent: bool) -> Observed {
        // What can never be admitted is not admitted by an outage either.
        let verdict = if cost > step.policy.quota().capacity() {
            Verdict::Never
        } else {
            Verdict::Admit
        };
        let allowed = Observed::blind(verdict, Source::Outage).degrade();
        // A lease is renewed, and taken again, at the store when it is back.
        if is_unsent && !matches!(step.action, Action::Acquire { .. }) {
            allowed.issued_by(self.issuer)
        } else {
            allowed
        }
    }

    /// Answers a group that follows up on what was admitted here, or that was made locally before.
    fn answer_here(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        let is_of_local =
            |issuer: Issuer| (self.local.as_ref()).is_some_and(|local| local.is_issuer(issuer));
        let is_here = |step: &Step<'_>| {
            step.issuer
                .is_some_and(|it| it == self.issuer || is_of_local(it))
        };
        if !group.steps().iter().any(is_here) {
            return self.answer_again(group, observed);
        }
        if !group.steps().iter().all(is_here) {
            return Some(Err(Error::new(
                ErrorKind::Misdirected,
                "limit.apply",
                "what an outage's rule admitted stands in one group with what it did not; give it a group of its own",
            )));
        }
        let places: Vec<usize> = (0..group.steps().len())
            .filter(|place| group.steps()[*place].issuer.is_some_and(is_of_local))
            .collect();
        observed.fill(
            Observed::blind(Verdict::Admit, Source::Outage)
                .degrade()
                .issued_by(self.issuer),
        );
        if places.is_empty() {
            return Some(Ok(()));
        }
        let local = self.local.as_ref()?;
        Some(match local.apply(group, &places, observed) {
            Some(answer) => answer,
            None => Err(shrunk()),
        })
    }

    /// Answers a group again that was made locally.
    fn answer_again(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        let local = self.local.as_ref()?;
        match local.knows(group) {
            Earlier::No => return None,
            Earlier::Another => {
                let reserve = |step: &&Step<'_>| matches!(step.action, Action::Reserve { .. });
                let reserved = group.steps().iter().find(reserve);
                return Some(Err(match (group.operation(), reserved) {
                    (None, Some(step)) => step.conflict(),
                    _ => group.conflict(),
                }));
            }
            // Where another rule decides by now, it is not made again here.
            Earlier::Yes if rule_of(group) != Some(Substitute::Local) => return None,
            Earlier::Yes => {}
        }
        let places: Vec<usize> = (0..group.steps().len())
            .filter(|place| is_local(&group.steps()[*place]))
            .collect();
        let Some(answer) = local.apply(group, &places, observed) else {
            return Some(Err(shrunk()));
        };
        for (index, (step, observed)) in group.steps().iter().zip(&mut *observed).enumerate() {
            if !is_local(step) {
                *observed = self.allowed(step, group.total_cost(index), true);
            }
        }
        self.keep(observed);
        Some(answer)
    }

    /// Refuses what is not to be done here, or now: no rule answers that.
    fn check(&self, group: &Group<'_>) -> Result<(), Error> {
        group.check_issuer(|issuer| self.is_issuer(issuer))?;
        group.check_deadline()
    }

    /// Refuses what could not be done in an outage, before there is one.
    fn check_local(&self, group: &Group<'_>) -> Result<(), Error> {
        if self.local.is_some() {
            return Ok(());
        }
        match group.steps().iter().find(|step| is_local(step)) {
            None => Ok(()),
            Some(step) => Err(Error::new(
                ErrorKind::Unsupported,
                "limit.apply",
                format!(
                    "policy {} counts locally in an outage, and there is no store for that; give the stack one (Stack::local), or choose another rule",
                    step.policy.name()
                ),
            )),
        }
    }
}

fn shrunk() -> Error {
    Error::new(
        ErrorKind::Capacity,
        "limit.apply",
        "this process's share of the limit has become too small for what was admitted of it",
    )
}

fn is_local(step: &Step<'_>) -> bool {
    matches!(step.policy.outage(), Outage::Local { .. })
}

/// Which rule a group's policies come to; `None` for what no rule answers: what gives back or forgets, and what is to be done at
/// the store that was asked.
fn rule_of(group: &Group<'_>) -> Option<Substitute> {
    let answered = |step: &Step<'_>| {
        let takes_or_looks = step.action.takes()
            || matches!(step.action, Action::Charge { .. } | Action::Peek { .. });
        takes_or_looks && step.issuer.is_none()
    };
    if !group.steps().iter().all(answered) {
        return None;
    }
    let rule = |step: &Step<'_>| match step.policy.outage() {
        Outage::Local { .. } => Substitute::Local,
        Outage::Deny if !step.policy.is_shadow() => Substitute::Denied,
        // A shadow never blocks.
        Outage::Allow | Outage::Deny => Substitute::Allowed,
    };
    let rules = || group.steps().iter().map(rule);
    [Substitute::Denied, Substitute::Local, Substitute::Allowed]
        .into_iter()
        .find(|first| rules().any(|rule| rule == *first))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore> LimitStore for OutageRules<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        let is_local = |local: &Local| local.is_issuer(issuer);
        issuer == self.issuer
            || self.inner.is_issuer(issuer)
            || self.local.as_ref().is_some_and(is_local)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        if let Err(error) = self.check(group) {
            return Some(Err(error));
        }
        if let Some(answer) = self.answer_here(group, observed) {
            return Some(answer);
        }
        let result = self.inner.try_apply_now(group, observed)?;
        Some(self.judge(group, observed, result))
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.check(group)?;
        if let Some(answer) = self.answer_here(group, observed) {
            return answer;
        }
        self.check_local(group)?;
        let result = self.inner.apply(group, observed).await;
        self.judge(group, observed, result)
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        self.inner.note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        let local = self.local.iter().flat_map(Local::figures);
        let local = local.map(|figure| figure.with("store", "outage"));
        self.inner.figures().into_iter().chain(local).collect()
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
