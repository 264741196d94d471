//! Deliberately wrong stores: each fails the case that is there for its fault, and a right one passes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{LimitHarness, cases, contract, debit, lease, once, reserve};
use crate::error::{Error, ErrorKind};
use crate::health::Health;
use crate::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, OperationId, Policy, Replay, Source,
    Step, Verdict,
};
use crate::testing::MapStore;

/// What a store gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    BeginsAfterTheDeadline,
    DoesWhatAnotherIssued,
    NamesNoIssuer,
    TakesAStrangerForNone,
    InventsWhatNobodySaw,
    KeepsVersionsTogether,
    SaysItIsDegraded,
    ForgetsWhatWasCancelled,
    ForgetsWhatWasReleased,
    HidesReplays,
    HoldsWhatIsSettled,
    KeepsAnOperationsOrder,
    AdmitsWithoutTheLease,
    AdmitsWhatWasGivenBack,
    GivesBackForEver,
    DebitsForNow,
    DebitsAllOrNothing,
    DebitsForAsLongAsAsked,
}

#[derive(Clone, Debug)]
struct Wrong {
    inner: MapStore,
    fault: Fault,
    asked: Arc<AtomicUsize>,
}

impl Wrong {
    fn new(fault: Fault) -> Self {
        Self {
            inner: MapStore::new(Capabilities::ALL),
            fault,
            asked: Arc::default(),
        }
    }

    fn action<'a>(&self, action: &Action<'a>) -> Action<'a> {
        let soon = Duration::from_millis(1);
        match (self.fault, action) {
            (Fault::ForgetsWhatWasCancelled, Action::Cancel { id, .. }) => {
                Action::Cancel { id, ttl: soon }
            }
            (Fault::ForgetsWhatWasReleased, Action::Release { lease, .. }) => {
                Action::Release { lease, ttl: soon }
            }
            (Fault::DebitsForNow, Action::Debit { at_most, .. }) => Action::Debit {
                at_most: *at_most,
                life: soon,
            },
            (Fault::DebitsAllOrNothing, Action::Debit { at_most, .. }) => {
                Action::Charge { cost: *at_most }
            }
            _ => action.clone(),
        }
    }

    /// The inner store's answer to the group as this store understands it.
    fn ask(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let policies: Vec<Policy> = group
            .steps()
            .iter()
            .map(|step| match self.fault {
                Fault::KeepsVersionsTogether => step.policy.clone().with_version(1),
                _ => step.policy.clone(),
            })
            .collect();
        let steps = group.steps().iter().zip(&policies);
        let steps: Vec<Step<'_>> = steps
            .map(|(step, policy)| {
                let issuer = match self.fault {
                    Fault::DoesWhatAnotherIssued => None,
                    _ => step.issuer,
                };
                Step::new(policy, step.key(), self.action(&step.action)).at(issuer)
            })
            .collect();
        let all = Capabilities::ALL;
        let mut asked = Group::new(&steps, &all)?;
        let id;
        if let Some((operation, ttl)) = group.operation() {
            id = match self.fault {
                Fault::KeepsAnOperationsOrder => {
                    let first = group.steps()[0].counter;
                    OperationId::new(format!("{} of {first}", operation.as_str()))
                }
                _ => operation.clone(),
            };
            asked = asked.with_operation(&id, ttl, &all)?;
        }
        if let (Some(deadline), true) = (
            group.deadline(),
            self.fault != Fault::BeginsAfterTheDeadline,
        ) {
            asked = asked.with_deadline(deadline);
        }
        self.inner.try_apply_now(&asked, observed).unwrap()
    }

    fn reset(&self, group: &Group<'_>) {
        for step in group.steps() {
            let steps = [Step::new(step.policy, step.key(), Action::Reset)];
            let reset = Group::new(&steps, &Capabilities::ALL).unwrap();
            let mut observed = [Observed::default()];
            let _ = self.inner.try_apply_now(&reset, &mut observed);
        }
    }
}

#[async_trait]
impl LimitStore for Wrong {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.inner.is_issuer(issuer)
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = self.ask(group, observed);
        let kind = answer.as_ref().err().map(Error::kind);
        match (self.fault, kind, group.operation()) {
            (Fault::TakesAStrangerForNone, Some(ErrorKind::Conflict), None) => {
                self.reset(group);
                answer = self.ask(group, observed);
            }
            (Fault::AdmitsWithoutTheLease, Some(ErrorKind::Expired), Some(_))
            | (Fault::AdmitsWhatWasGivenBack, Some(ErrorKind::Conflict), Some(_))
            | (Fault::GivesBackForEver, Some(ErrorKind::Expired), _) => {
                observed.fill(Observed::new(
                    Verdict::Admit,
                    0,
                    Duration::ZERO,
                    Source::Store,
                ));
                answer = Ok(());
            }
            _ => {}
        }
        for (observed, step) in observed.iter_mut().zip(group.steps()) {
            match self.fault {
                Fault::NamesNoIssuer => observed.issuer = None,
                Fault::InventsWhatNobodySaw if observed.verdict == Verdict::Unseen => {
                    *observed = Observed::new(Verdict::Admit, 0, Duration::ZERO, Source::Store);
                }
                Fault::SaysItIsDegraded => observed.degraded = true,
                Fault::HidesReplays => observed.replayed = None,
                Fault::HoldsWhatIsSettled if observed.replayed.is_some() => {
                    observed.replayed = Some(Replay::Held);
                }
                Fault::DebitsForAsLongAsAsked => {
                    if let (Action::Debit { life, .. }, false) =
                        (&step.action, observed.life.is_zero())
                    {
                        observed.life = *life;
                    }
                }
                _ => {}
            }
        }
        answer
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}

#[async_trait]
impl LimitHarness for Wrong {
    fn store(&self) -> Arc<dyn LimitStore> {
        Arc::new(self.clone())
    }

    async fn advance(&self, by: Duration) {
        self.inner.clock.advance(by);
    }
}

/// The case passes over a right store, and fails over a wrong one.
macro_rules! fails {
    ($($name:ident: $fault:ident, $case:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let case = $case;
            let right = Wrong::new(Fault::None);
            case(&right).await;
            assert!(right.asked.load(Ordering::Relaxed) > 0);
            let wrong = tokio::spawn(async move {
                let wrong = Wrong::new(Fault::$fault);
                let case = $case;
                case(&wrong).await;
            });
            assert!(wrong.await.unwrap_err().is_panic(), "{:?} passes", Fault::$fault);
        }
    )*};
}

/// A case of one algorithm, for each of them.
macro_rules! of_each {
    ($case:path) => {
        async |harness: &Wrong| {
            for of in cases() {
                $case(harness, &of).await;
            }
        }
    };
}

fails! {
    a_deadline: BeginsAfterTheDeadline, async |harness: &Wrong| contract::a_deadline_is_kept(harness).await;
    another_issuer: DoesWhatAnotherIssued, of_each!(contract::an_issuer_is_asked_for_its_own);
    no_issuer: NamesNoIssuer, of_each!(contract::an_issuer_is_asked_for_its_own);
    a_stranger: TakesAStrangerForNone, async |harness: &Wrong| contract::a_stranger_is_a_conflict(harness).await;
    nobody_saw: InventsWhatNobodySaw, async |harness: &Wrong| contract::a_stranger_is_a_conflict(harness).await;
    versions: KeepsVersionsTogether, of_each!(contract::versions_never_meet);
    degraded: SaysItIsDegraded, of_each!(contract::an_answer_is_its_own);
    cancelled: ForgetsWhatWasCancelled, of_each!(reserve::a_cancel_overtakes_its_reservation);
    released: ForgetsWhatWasReleased, async |harness: &Wrong| lease::a_release_overtakes_its_acquisition(harness).await;
    replays: HidesReplays, of_each!(reserve::a_replay_is_told_apart);
    settled: HoldsWhatIsSettled, async |harness: &Wrong| reserve::a_named_holder_does_not_cancel(harness).await;
    order: KeepsAnOperationsOrder, of_each!(once::an_operation_charges_once);
    the_lease: AdmitsWithoutTheLease, async |harness: &Wrong| once::an_operation_that_lost_its_hold(harness).await;
    given_back: AdmitsWhatWasGivenBack, of_each!(once::an_operation_charges_once);
    for_ever: GivesBackForEver, async |harness: &Wrong| once::a_charge_is_given_back_for_a_week(harness).await;
    debits_for_now: DebitsForNow, async |harness: &Wrong| debit::a_bucket_is_charged_as_of_the_end(harness).await;
    debits_in_a_log: DebitsForNow, async |harness: &Wrong| debit::a_log_dates_it_at_the_end(harness).await;
    debits_whole: DebitsAllOrNothing, of_each!(debit::takes_what_is_free);
    debits_for_long: DebitsForAsLongAsAsked, async |harness: &Wrong| debit::a_window_ends_it(harness).await;
}
