//! One of each for each tokio runtime: what runs in one stops with it, and may not run while nobody drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

pub(crate) struct PerRuntime<T>(RwLock<Vec<Made<T>>>);

struct Made<T> {
    runtime: Id,
    it: T,
    is_alive: Arc<AtomicBool>,
    /// Ends with its runtime, or with this.
    sentinel: AbortHandle,
}

impl<T: Clone> PerRuntime<T> {
    pub(crate) fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Those of all runtimes.
    pub(crate) fn each(&self, mut look: impl FnMut(&T)) {
        let all = self.0.read();
        all.iter()
            .filter(|made| made.is_alive())
            .for_each(|made| look(&made.it));
    }

    /// The one of this runtime, made if there is none yet. Needs a runtime, as everything that waits does.
    pub(crate) fn here(&self, make: impl FnOnce() -> T) -> T {
        let runtime = Handle::current().id();
        let known = |made: &&Made<T>| made.runtime == runtime && made.is_alive();
        if let Some(made) = self.0.read().iter().find(known) {
            return made.it.clone();
        }
        let new = Made::new(runtime, make());
        let mut all = self.0.write();
        if let Some(made) = all.iter().find(known) {
            return made.it.clone();
        }
        let it = new.it.clone();
        // Dropped once the lock is: what they are may end tasks.
        let ended: Vec<_> = all.extract_if(.., |made| !made.is_alive()).collect();
        all.push(new);
        drop(all);
        drop(ended);
        it
    }
}

impl<T> Made<T> {
    fn new(runtime: Id, it: T) -> Self {
        let is_alive = Arc::new(AtomicBool::new(true));
        let ending = Ending(is_alive.clone());
        let sentinel = tokio::spawn(async move {
            let _ending = ending;
            std::future::pending::<()>().await;
        });
        Self {
            runtime,
            it,
            is_alive,
            sentinel: sentinel.abort_handle(),
        }
    }

    fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        self.sentinel.abort();
    }
}

/// The runtime has ended the sentinel.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
