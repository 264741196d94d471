//! Shared caches: bytes with a time to live, and the contract of the stores that keep them.
//!
//! [`Breaking`] and [`Fallback`] are stores around stores, for the time of an outage.

mod breaking;
mod fallback;
mod store;

pub use breaking::Breaking;
pub use fallback::Fallback;
pub use store::{
    CacheCapabilities, CacheKey, CacheStore, Entry, MAX_TTL, NewEntry, check_ttl, no_integer,
    out_of_range,
};
