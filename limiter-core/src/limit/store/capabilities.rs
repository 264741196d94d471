//! What a store declares that it can do.

use super::action::Action;

/// What a store can do beyond the base: charge, peek and reset, in groups, enforced or in shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Gives single charges back by their receipt.
    pub refunds: bool,
    /// Reserve, settle and cancel.
    pub reservations: bool,
    /// Acquire, renew and release.
    pub leases: bool,
    /// Recognises a retried group by its operation id.
    pub operation_ids: bool,
    /// Debits, as of the end of a life, what is spent elsewhere.
    pub debits: bool,
}

impl Capabilities {
    /// What [`apply_group`](super::apply_group) does: all of it.
    pub const ALL: Self = Self {
        refunds: true,
        reservations: true,
        leases: true,
        operation_ids: true,
        debits: true,
    };

    /// Whether a store that can do this takes the action.
    pub fn supports(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Charge { .. } | Action::Peek { .. } | Action::Reset => true,
            Action::Debit { .. } => self.debits,
            Action::Refund { .. } => self.refunds,
            Action::Reserve { .. } | Action::Settle { .. } | Action::Cancel { .. } => {
                self.reservations
            }
            Action::Acquire { .. } | Action::Renew { .. } | Action::Release { .. } => self.leases,
        }
    }
}
