//! What a cache did since its process started.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::answer::Origin;

/// Counts since the cache was built, in this process. Every `get` and `get_or_compute` with usable
/// parameters that is awaited to its end adds one to `l1_hits`, `l2_hits` or `misses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Answers from this process.
    pub l1_hits: u64,
    /// Answers from the store.
    pub l2_hits: u64,
    /// No answer, or one that had to be computed or waited for.
    pub misses: u64,
    /// Computations started.
    pub computations: u64,
    /// Failed calls of the store.
    pub store_errors: u64,
    /// Stored values that gave no answer: corrupt, or of another build of the service.
    pub unreadable: u64,
    /// Bytes of stored answers that were read.
    pub bytes_read: u64,
    /// Bytes of answers that were stored.
    pub bytes_written: u64,
    /// Answers that this process holds now, roughly.
    pub l1_entries: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    l1_hits: Counter,
    l2_hits: Counter,
    misses: Counter,
    pub(crate) computations: Counter,
    pub(crate) store_errors: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) bytes_read: Counter,
    pub(crate) bytes_written: Counter,
}

impl Counters {
    /// Counts a lookup by what it found.
    pub(crate) fn lookup(&self, origin: Option<Origin>) {
        match origin {
            Some(Origin::L1) => self.l1_hits.add(),
            Some(Origin::L2) => self.l2_hits.add(),
            Some(Origin::Computed) | None => self.misses.add(),
        }
    }

    pub(crate) fn snapshot(&self, l1_entries: u64) -> Stats {
        Stats {
            l1_hits: self.l1_hits.get(),
            l2_hits: self.l2_hits.get(),
            misses: self.misses.get(),
            computations: self.computations.get(),
            store_errors: self.store_errors.get(),
            unreadable: self.unreadable.get(),
            bytes_read: self.bytes_read.get(),
            bytes_written: self.bytes_written.get(),
            l1_entries,
        }
    }
}

/// Counts orders nothing else, so relaxed is enough.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
