//! Who counts most: bounded lists that instances add up (B10).

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Error;
use crate::key::Key;

/// Lists of names with counts, of which the largest are kept. For implementors of stores.
///
/// Each list is a sketch (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005,
/// "Space-Saving"): where it is full, a new name takes the place of the one that counts least, and goes on from its count. Who
/// counts more than one `most`-th of all is in it; a count is too high by what the least one has at most.
#[async_trait]
pub trait Ranking: Send + Sync + fmt::Debug {
    /// Adds counts to lists, all in one step. Each list has `most` names at most, and ends `ttl` after the last addition.
    ///
    /// # Errors
    /// What keeps the store from doing it.
    async fn add(&self, lists: &[Addition], most: usize, ttl: Duration) -> Result<(), Error>;

    /// The `count` largest of a list, the largest first; none of a list that is not there.
    ///
    /// # Errors
    /// What keeps the store from telling.
    async fn top(&self, list: &Key, count: usize) -> Result<Vec<Ranked>, Error>;
}

/// What is added to one list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a list, and what is added")]
pub struct Addition {
    /// The list.
    pub list: Key,
    /// Names and counts.
    pub counts: Vec<(String, u64)>,
}

/// One name of a list. `Debug` masks the name: it may be a user's.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ranked {
    /// The name.
    pub name: String,
    /// Its count.
    pub count: u64,
}

impl Ranked {
    /// A name and its count.
    pub fn new(name: impl Into<String>, count: u64) -> Self {
        let name = name.into();
        Self { name, count }
    }
}

impl fmt::Debug for Ranked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranked({})", self.count)
    }
}

/// One list in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceSaving {
    counts: HashMap<String, u64>,
}

impl SpaceSaving {
    /// Adds to a name's count; where `most` others are there, it takes the place of the one that counts least.
    pub fn add(&mut self, name: &str, count: u64, most: usize) {
        if let Some(known) = self.counts.get_mut(name) {
            *known = known.saturating_add(count);
            return;
        }
        let mut from = 0;
        while self.counts.len() >= most.max(1) {
            let least = self
                .counts
                .iter()
                .min_by_key(|(name, count)| (**count, *name));
            let Some((least, count)) = least.map(|(name, count)| (name.clone(), *count)) else {
                break;
            };
            self.counts.remove(&least);
            from = count;
        }
        let count = count.saturating_add(from);
        self.counts.insert(name.to_owned(), count);
    }

    /// The largest, the largest first; of equal ones by their names.
    pub fn top(&self, count: usize) -> Vec<Ranked> {
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let top = all.into_iter().take(count);
        top.map(|(name, count)| Ranked::new(name.clone(), *count))
            .collect()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
