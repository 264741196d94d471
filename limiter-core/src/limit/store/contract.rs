//! The contract of a limit store.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::capabilities::Capabilities;
use super::group::{Group, Step};
use super::id::Issuer;
use super::observed::Observed;
use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;

/// Where limits live. For implementors; users call [`Limiter`](crate::limit::Limiter).
///
/// # Contract
/// - **Atomicity.** A group is one atomic step: all of its charges are made, or none. A denied group
///   charges nothing. Concurrent groups behave as if they ran one after the other.
/// - **Clock.** One clock for all callers of the store (Redis `TIME`; in memory a
///   [`Clock`](crate::clock::Clock)), read once a group. A clock that steps back grants nothing.
/// - **Names.** A step's counter is kept under its [`Counter`](super::Counter), not under its key alone.
/// - **Deadline.** A group may carry one ([`Group::deadline`]). What is not begun by then is not begun: `Timeout` with
///   `Effect::No`, which a future that is dropped from outside can never say. A store with a deadline of its own keeps
///   the earlier one.
/// - **Errors.** An [`Error`] says whether the group took effect. `Effect::No`: nothing was charged
///   and asking again is safe. `Effect::Unknown`: it may have run; the store has not sent it again.
///   The kind tells whether this process is saturated, the server is gone or a breaker is open.
/// - **Issuer.** Each observation of a step that left something charged names who keeps it. A step that names an issuer
///   is done there; a store that [is not](LimitStore::is_issuer) that issuer refuses the group as `Misdirected`, with
///   `Effect::No`.
/// - **What is not known is not told.** A step whose state was not looked at is
///   [unseen](Observed::unseen). What is answered in place of the store that was asked is marked
///   [`degraded`](Observed::degraded).
/// - **Strangers.** A counter that holds a live state of another algorithm, or one that a newer version wrote, is
///   misuse: `Conflict`, and never a fresh start. Only a reset removes it.
/// - **What overtakes its own request.** A cancellation and a release remember an unknown id for their time to
///   live, so that the request that arrives after them is a `Conflict` and charges nothing.
/// - **Replays.** A request that is recognised as done before says so ([`Observed::replayed`]), with what stands. An
///   operation whose lease has run out, or whose reservation or charge was given back, is not admitted again.
/// - **Cancellation.** Dropping the future of [`apply`](LimitStore::apply) leaves the group either
///   whole or undone, never in part; which one is unknown.
/// - **Clones** of a store share its state.
/// - **Bounds.** Every key it creates is removed by itself some time after its state is fresh again.
#[async_trait]
pub trait LimitStore: Send + Sync + fmt::Debug {
    /// What this store can do beyond charge, peek and reset of groups. Constant.
    fn capabilities(&self) -> Capabilities;

    /// Whether this store, or one behind it, is that issuer.
    fn is_issuer(&self, issuer: Issuer) -> bool;

    /// Answers without I/O, or not at all: `None` means that nothing was done and that
    /// [`apply`](LimitStore::apply) has to be called.
    ///
    /// `observed` has one place for each step and is filled if the answer is `Some(Ok(()))`.
    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>>;

    /// Applies one group and fills `observed`, which has one place for each step.
    ///
    /// # Errors
    /// See the contract above. A denial is not an error.
    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error>;

    /// How many charges were made so far of which nobody was told, as far as the store knows: the caller had left when the
    /// answer came, or its deadline was over. 0 for a store without I/O. A wrapper passes it on.
    fn unheard(&self) -> u64 {
        0
    }

    /// Tells of a call that was answered without asking any store, for audit trails and metrics: it makes no group
    /// ([`Group::new`] refused it), or its turn did not come. A wrapper passes it on; nothing else has anything to do.
    fn note(&self, _steps: &[Step<'_>], _result: Result<&[Observed], &Error>) {}

    /// What the store tells of itself for metrics, without I/O. A wrapper passes it on, and adds its own.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// How the store is. Never fails and answers within the store's deadline.
    async fn health(&self) -> Health;
}

/// Shared stores are stores.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore + ?Sized> LimitStore for Arc<S> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        (**self).is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        (**self).try_apply_now(group, observed)
    }

    // As `async_trait` writes it, without a box around the box.
    fn apply<'a, 'b, 'c, 'd, 'r>(
        &'a self,
        group: &'b Group<'c>,
        observed: &'d mut [Observed],
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'r>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        'd: 'r,
        Self: 'r,
    {
        (**self).apply(group, observed)
    }

    fn unheard(&self) -> u64 {
        (**self).unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        (**self).note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        (**self).figures()
    }

    async fn health(&self) -> Health {
        (**self).health().await
    }
}
