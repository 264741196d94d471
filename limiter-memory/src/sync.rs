//! The locks of the table. Shuttle's take their place in its tests, which then try many interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard};
