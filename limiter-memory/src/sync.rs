//! The locks of the table. Shuttle's take their place in its tests, which then try many
//! interleavings of the threads that take them.

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::MutexGuard;

/// Shuttle's lock in parking_lot's words.
#[cfg(all(test, shuttle))]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(all(test, shuttle))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock();
        guard.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
