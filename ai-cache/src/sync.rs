//! Locks and tasks, where synchronisation is written by hand. Shuttle's take their place in its tests,
//! which then try many interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use {parking_lot::Mutex, tokio::spawn};
#[cfg(all(test, shuttle))]
pub(crate) use {shuttle::future::spawn, shuttle_parking_lot::Mutex};
