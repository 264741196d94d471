//! Shared caches: bytes with a time to live, and the contract of the stores that keep them.

mod store;

pub use store::{CacheCapabilities, CacheKey, CacheStore, Entry, MAX_TTL, NewEntry, check_ttl};
