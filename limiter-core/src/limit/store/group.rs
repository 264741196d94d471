//! Groups of steps: one call, all or nothing.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::action::{Action, MAX_HOLD, MAX_LIFE};
use super::capabilities::Capabilities;
use super::counter::Counter;
use super::id::{Issuer, OperationId, half};
use super::record::RecordKind;
use crate::clock::MAX_INTEGER;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::limit::algorithm::LIMIT_BOUND;
use crate::limit::policy::Policy;

/// The most steps in one group.
pub const MAX_STEPS: usize = 64;

/// How long an admitted group is remembered under its operation id, unless it says otherwise: 60 s.
pub const OPERATION_TTL: Duration = Duration::from_secs(60);

/// One action on one key under one policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The counter: the key, and the policy's version.
    pub counter: Counter<'a>,
    /// The quota, and what wrappers need: name, version, enforced or shadow, outage rule.
    pub policy: &'a Policy,
    /// What to do.
    pub action: Action<'a>,
    /// Where it is to be done, if it follows up on what was charged there; `None` leaves it to the store.
    pub issuer: Option<Issuer>,
}

impl<'a> Step<'a> {
    /// A step.
    pub fn new(policy: &'a Policy, key: &'a Key, action: Action<'a>) -> Self {
        Self {
            counter: Counter::new(policy, key),
            policy,
            action,
            issuer: None,
        }
    }

    /// The same step, to be done where `issuer` keeps the counter.
    #[must_use]
    pub fn at(self, issuer: Option<Issuer>) -> Self {
        Self { issuer, ..self }
    }

    /// The caller's key.
    pub fn key(&self) -> &'a Key {
        self.counter.key()
    }

    /// What the step's record is kept for, and under which id; `None` if it needs none.
    pub fn record(&self) -> Option<(RecordKind, &OperationId)> {
        match &self.action {
            Action::Refund { receipt } => Some((RecordKind::Refund, receipt.id())),
            Action::Reserve { id, .. } | Action::Settle { id, .. } | Action::Cancel { id, .. } => {
                Some((RecordKind::Reservation, id))
            }
            Action::Acquire { lease, .. } | Action::Release { lease, .. } => {
                Some((RecordKind::Lease, lease))
            }
            _ => None,
        }
    }

    /// The error of a step whose reservation or lease is gone, or whose charge is too old to be given back. For implementors of
    /// stores.
    pub fn gone(&self) -> Error {
        let (what, why) = match self.action {
            Action::Renew { .. } | Action::Acquire { .. } => {
                ("lease", "is gone: it was never made, or it ran out")
            }
            Action::Refund { .. } => (
                "charge",
                "was made 7 days ago or earlier, and is given back no more",
            ),
            _ => ("reservation", "is gone: it was never made, or it ran out"),
        };
        refused(
            ErrorKind::Expired,
            format!("the {what} under {} {why}", self.place()),
        )
    }

    /// The error of a step whose id was used before for something else: another amount, or what was settled, cancelled
    /// or released otherwise. For implementors of stores.
    pub fn conflict(&self) -> Error {
        refused(
            ErrorKind::Conflict,
            format!(
                "the id of this {} under {} was used for another amount, or ended otherwise; give each its own id",
                self.action.as_str(),
                self.place()
            ),
        )
    }

    /// The error of a step whose counter holds a live state of another algorithm. For implementors of stores.
    pub fn stranger(&self, found: &str) -> Error {
        refused(
            ErrorKind::Conflict,
            format!(
                "policy {} counts by {}, but its key holds the count of a {found}; give each policy keys of its own (Policy::key), or raise the policy's version if its algorithm changed",
                self.policy.name(),
                self.policy.quota().algorithm()
            ),
        )
    }

    /// The error of a step whose counter holds a state, or a record, of a form that this version does not know. For
    /// implementors of stores.
    pub fn newer(&self) -> Error {
        refused(
            ErrorKind::Conflict,
            format!(
                "the key of {} (or a record of it) holds a state that another version of this library wrote; finish the deploy, or reset the key",
                self.place()
            ),
        )
    }

    /// The error of a step whose key holds what is no state of a limit. For implementors of stores.
    pub fn foreign(&self) -> Error {
        refused(
            ErrorKind::Foreign,
            format!(
                "the key of {} (or a record of it) holds a value of another type and was left alone; rename or delete it",
                self.place()
            ),
        )
    }

    /// Where it works, for errors: neither a user's id nor an operation's, which whoever asked knows, and which logs are not to have.
    fn place(&self) -> String {
        format!("policy {}", self.policy.name())
    }
}

/// Steps that are taken together: all of them, or none.
///
/// Made by [`Group::new`], which checks it, so a store can rely on the checks.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    steps: &'a [Step<'a>],
    operation: Option<(&'a OperationId, Duration)>,
    deadline: Option<Instant>,
}

impl<'a> Group<'a> {
    /// A group for a store with the given capabilities.
    ///
    /// A key may stand in several steps that take something or look: their costs add up.
    ///
    /// # Errors
    /// `InvalidInput` if there is no step or more than [`MAX_STEPS`], if a key is empty, if a key
    /// stands in two steps under different policies, with an action that gives something back or with a debit, if an
    /// action does not fit the policy's algorithm (leases are for concurrency, and concurrency is for
    /// leases), or if a cost or a time is out of its range. `Unsupported` if the store lacks an action.
    pub fn new(steps: &'a [Step<'a>], capabilities: &Capabilities) -> Result<Self, Error> {
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(invalid(format!(
                "a group has {} steps; give 1 to {MAX_STEPS}",
                steps.len()
            )));
        }
        for (index, step) in steps.iter().enumerate() {
            check_step(step, capabilities)?;
            for earlier in &steps[..index] {
                check_pair(earlier, step)?;
            }
        }
        Ok(Self {
            steps,
            operation: None,
            deadline: None,
        })
    }

    /// The same group under an id, by which the store recognises a retry for `ttl` after it was
    /// admitted ([`OPERATION_TTL`] is a good one). The same steps in another order are the same group. The id belongs to
    /// one of the keys, the first by their texts.
    ///
    /// # Errors
    /// `Unsupported` if the store does not remember operations; `InvalidInput` if `ttl` is not 1 ms to
    /// [`MAX_HOLD`], or for a debit.
    pub fn with_operation(
        self,
        operation: &'a OperationId,
        ttl: Duration,
        capabilities: &Capabilities,
    ) -> Result<Self, Error> {
        if !capabilities.operation_ids {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "limit.group",
                "this store does not remember operation ids",
            ));
        }
        if self
            .steps
            .iter()
            .any(|step| matches!(step.action, Action::Debit { .. }))
        {
            return Err(invalid(
                "a debit stands under an operation id, but a life cannot be given twice; ask for another debit",
            ));
        }
        check_ttl("an operation is remembered", ttl)?;
        Ok(Self {
            operation: Some((operation, ttl)),
            ..self
        })
    }

    /// The same group, not to be begun after `deadline`.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// The steps, at least one.
    pub fn steps(&self) -> &'a [Step<'a>] {
        self.steps
    }

    /// The id and how long it is remembered, if there is one.
    pub fn operation(&self) -> Option<(&'a OperationId, Duration)> {
        self.operation
    }

    /// When the caller stops waiting, if it said so. What is not begun by then must not be begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Where steps are to be done, of those that say so: who has several stores behind it asks the one that is all of
    /// these.
    pub fn issuers(&self) -> impl Iterator<Item = Issuer> {
        self.steps.iter().filter_map(|step| step.issuer)
    }

    /// Refuses a group that comes too late. For implementors of stores, before they begin.
    ///
    /// # Errors
    /// `Timeout`, with `Effect::No`, after the [deadline](Self::deadline).
    pub fn check_deadline(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(refused(
                ErrorKind::Timeout,
                "the deadline passed before the store was asked".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a group that another store has to do. For implementors of stores: `is_issuer` is theirs.
    ///
    /// # Errors
    /// `Misdirected`, with `Effect::No`, if a step names another issuer.
    pub fn check_issuer(&self, is_issuer: impl Fn(Issuer) -> bool) -> Result<(), Error> {
        let misdirected = |step: &&Step<'_>| step.issuer.is_some_and(|issuer| !is_issuer(issuer));
        match self.steps.iter().find(misdirected) {
            Some(step) => Err(refused(
                ErrorKind::Misdirected,
                format!(
                    "the {} under {} was issued by another store; ask that one",
                    step.action.as_str(),
                    step.place()
                ),
            )),
            None => Ok(()),
        }
    }

    /// What step `index` asks of its key, with what the steps before it take from the same key. At
    /// most [`MAX_INTEGER`](crate::clock::MAX_INTEGER), which is above every capacity.
    pub fn total_cost(&self, index: usize) -> u64 {
        let step = &self.steps[index];
        let earlier = self.steps[..index]
            .iter()
            .filter(|earlier| earlier.action.takes() && earlier.counter == step.counter);
        earlier
            .map(|earlier| earlier.action.cost())
            .fold(step.action.cost(), u64::saturating_add)
            .min(MAX_INTEGER)
    }

    /// The error of a group whose operation id was used for another one, or one whose charges were given back. For
    /// implementors of stores.
    pub fn conflict(&self) -> Error {
        refused(
            ErrorKind::Conflict,
            "the operation's id was used for another group, or was given back; give each its own id"
                .to_owned(),
        )
    }

    /// The counter that the operation's record belongs to: the first one by its text.
    pub fn home(&self) -> Counter<'a> {
        let counters = self.steps.iter().map(|step| step.counter);
        let first = counters.min_by_key(ToString::to_string);
        // A group has a step.
        first.unwrap_or(self.steps[0].counter)
    }

    /// The steps' places in the operation's record: for each step where its charge is kept there, whatever the order in
    /// which the steps are asked for.
    pub fn places(&self) -> Vec<usize> {
        places(self.steps)
    }

    /// What tells this group from another one under the same operation id: the first half of the
    /// SHA-256 over the keys and actions of its steps, in an order of their own. Quotas may change between two tries.
    pub fn fingerprint(&self) -> u128 {
        let mut parts: Vec<[u8; 32]> = self.steps.iter().map(digest).collect();
        parts.sort_unstable();
        half(Sha256::digest(parts.concat()))
    }

    /// The id under which the charge of step `index` is given back, if the group has an operation id: then a retry can
    /// see that it was.
    pub fn refund_id(&self, index: usize) -> Option<OperationId> {
        let (operation, _) = self.operation?;
        let place = *self.places().get(index)?;
        matches!(self.steps[index].action, Action::Charge { cost: 1.. })
            .then(|| operation.charge(place))
    }
}

/// See [`Group::places`]. Steps that are alike may change places.
pub(crate) fn places(steps: &[Step<'_>]) -> Vec<usize> {
    let mut order: Vec<(String, [u8; 32], usize)> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| (step.counter.to_string(), digest(step), index))
        .collect();
    order.sort_unstable();
    let mut places = vec![0; steps.len()];
    for (place, (_, _, index)) in order.into_iter().enumerate() {
        places[index] = place;
    }
    places
}

/// What a step asks for, as one of an operation.
fn digest(step: &Step<'_>) -> [u8; 32] {
    let mut digest = Sha256::new();
    let counter = step.counter.to_string();
    digest.update((counter.len() as u64).to_be_bytes());
    digest.update(counter);
    digest.update(step.action.as_str());
    let (amount, id) = match &step.action {
        Action::Settle { actual, .. } => (*actual, step.action.id()),
        other => (other.cost(), other.id()),
    };
    digest.update(amount.to_be_bytes());
    digest.update(id.map_or(0, OperationId::digest).to_be_bytes());
    digest.finalize().into()
}

fn check_step(step: &Step<'_>, capabilities: &Capabilities) -> Result<(), Error> {
    if step.key().as_str().is_empty() {
        return Err(invalid("a key has no segment; give it at least one"));
    }
    let (action, policy) = (&step.action, step.policy);
    if !capabilities.supports(action) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "limit.group",
            format!("this store does not support {}", action.as_str()),
        ));
    }
    let concurrent = policy.quota().is_concurrency();
    let misfit = match action {
        Action::Peek { .. } | Action::Reset | Action::Charge { cost: 0 } => None,
        Action::Acquire { .. } | Action::Renew { .. } | Action::Release { .. } => {
            (!concurrent).then_some("leases are taken on a concurrency quota")
        }
        _ => concurrent.then_some("acquire a lease on a concurrency quota"),
    };
    if let Some(advice) = misfit {
        return Err(invalid(format!(
            "policy {} ({}) takes no {}; {advice}",
            policy.name(),
            policy.quota().algorithm(),
            action.as_str()
        )));
    }
    match action {
        Action::Reserve { estimate: 0, .. } => Err(invalid("a reservation is of at least 1")),
        Action::Acquire { cost: 0, .. } => Err(invalid("a lease is of at least 1")),
        Action::Settle { actual, .. } if *actual >= LIMIT_BOUND => Err(invalid(format!(
            "a reservation is settled to {actual}; it must be below 2^51"
        ))),
        Action::Refund { receipt }
            if receipt.cost() >= LIMIT_BOUND || receipt.mark().number > MAX_INTEGER =>
        {
            Err(invalid("a receipt is not of a charge that a store made"))
        }
        Action::Debit { at_most: 0, .. } => Err(invalid("a debit is of at least 1")),
        Action::Debit { life, .. } if *life < SHORTEST || *life > MAX_LIFE => Err(invalid(
            format!("a debit lives {life:?}; it must be 1 ms to a day"),
        )),
        Action::Reserve { ttl, .. } | Action::Cancel { ttl, .. } => {
            check_ttl("a reservation lives", *ttl)
        }
        Action::Acquire { ttl, .. } | Action::Renew { ttl, .. } | Action::Release { ttl, .. } => {
            check_ttl("a lease lives", *ttl)
        }
        _ => Ok(()),
    }
}

/// Two steps of one key.
fn check_pair(earlier: &Step<'_>, later: &Step<'_>) -> Result<(), Error> {
    if earlier.counter != later.counter {
        return Ok(());
    }
    let key = later.counter;
    if earlier.policy != later.policy {
        return Err(invalid(format!(
            "key {key} stands in one group under policies {} and {}; give each policy a key of its own",
            earlier.policy.name(),
            later.policy.name()
        )));
    }
    let adds_up = |action: &Action<'_>| {
        !matches!(action, Action::Debit { .. })
            && (action.takes() || matches!(action, Action::Peek { .. } | Action::Charge { .. }))
    };
    for (one, other) in [(earlier, later), (later, earlier)] {
        if !adds_up(&one.action) {
            return Err(invalid(format!(
                "key {key} has a {} and a {} in one group; give the first a group of its own",
                one.action.as_str(),
                other.action.as_str()
            )));
        }
    }
    if earlier.action.id().is_some() && earlier.action.id() == later.action.id() {
        return Err(invalid(format!(
            "key {key} has two {} steps of one id in one group; give each an id of its own",
            later.action.as_str()
        )));
    }
    Ok(())
}

const SHORTEST: Duration = Duration::from_millis(1);

fn check_ttl(what: &str, ttl: Duration) -> Result<(), Error> {
    if ttl < SHORTEST || ttl > MAX_HOLD {
        return Err(invalid(format!(
            "{what} {ttl:?}; it must be 1 ms to 7 days"
        )));
    }
    Ok(())
}

fn refused(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, "limit.apply", message)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, "limit.group", message)
}
