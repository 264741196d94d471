//! Lists of who counts most, in this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use limiter_core::clock::{Clock, MonotonicClock, Timestamp};
use limiter_core::ranking::{Addition, Ranked, Ranking, SpaceSaving};
use limiter_core::{Error, Key};

/// Bounded lists in this process.
pub struct MemoryRanking {
    lists: Mutex<HashMap<Key, List>>,
    clock: MonotonicClock,
}

struct List {
    sketch: SpaceSaving,
    until: Timestamp,
}

impl MemoryRanking {
    /// No list yet.
    pub fn new() -> Self {
        Self {
            lists: Mutex::default(),
            clock: MonotonicClock::new(),
        }
    }
}

impl Default for MemoryRanking {
    fn default() -> Self {
        Self::new()
    }
}

/// The names may be users'.
impl fmt::Debug for MemoryRanking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRanking").finish_non_exhaustive()
    }
}

#[async_trait]
impl Ranking for MemoryRanking {
    async fn add(&self, lists: &[Addition], most: usize, ttl: Duration) -> Result<(), Error> {
        let now = self.clock.now();
        let mut all = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, list| now < list.until);
        for addition in lists {
            let list = all.entry(addition.list.clone()).or_insert_with(|| List {
                sketch: SpaceSaving::default(),
                until: now,
            });
            list.until = now.saturating_add(ttl);
            for (name, count) in &addition.counts {
                list.sketch.add(name, *count, most);
            }
        }
        Ok(())
    }

    async fn top(&self, list: &Key, count: usize) -> Result<Vec<Ranked>, Error> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let list = lists.get(list).filter(|list| self.clock.now() < list.until);
        Ok(list.map_or_else(Vec::new, |list| list.sketch.top(count)))
    }
}
