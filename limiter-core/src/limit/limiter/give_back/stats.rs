//! What becomes of give-backs, in numbers.

/// What became of give-backs that were not delivered at once, since the limiter was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GiveBackStats {
    /// How many wait now.
    pub waiting: usize,
    /// How many groups are on their way for the first time, without having waited.
    pub trying: usize,
    /// How many were delivered in the end.
    pub delivered: u64,
    /// How many counted no more before the store was back.
    pub expired: u64,
    /// How many the store refused in the end, for a reason that waiting does not change.
    pub refused: u64,
    /// How many were given up at once, because too many waited already.
    pub dropped: u64,
}
