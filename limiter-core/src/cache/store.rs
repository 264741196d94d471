//! The contract of a cache store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
// `Bytes` is in the signatures because values are shared between tiers without a copy.
use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::figures::Figure;
use crate::health::Health;
use crate::key::Key;

/// The longest time to live: 366 days.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);

/// The name of one cached value: a namespace, which can be cleared as a whole, and a name in it.
///
/// ```
/// use limiter_core::Key;
/// use limiter_core::cache::CacheKey;
///
/// let research = Key::new(["cache", "companyResearch"]);
/// assert_eq!(CacheKey::new(&research, "9f86d0").as_str(), "cache:companyResearch:9f86d0");
/// ```
///
/// `Debug` masks it, as it does a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    namespace: Key,
    key: Key,
}

impl CacheKey {
    /// The value `name` in `namespace`.
    pub fn new(namespace: &Key, name: &str) -> Self {
        Self {
            namespace: namespace.clone(),
            key: namespace.join(name),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Key {
        &self.namespace
    }

    /// The whole encoded text, without the store's prefix.
    pub fn as_str(&self) -> &str {
        self.key.as_str()
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// What a store holds under a key. `Debug` shows the value's length.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// How long the store keeps it from now, rounded down to what the store counts in.
    pub ttl: Duration,
}

impl Entry {
    /// A value with what is left of its time.
    pub fn new(value: Bytes, ttl: Duration) -> Self {
        Self { value, ttl }
    }
}

/// What to store under a key. `Debug` shows the value's length.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewEntry<'a> {
    /// The value.
    pub value: Bytes,
    /// How long to keep it: 1 ms to [`MAX_TTL`], in whole milliseconds (rounded down).
    pub ttl: Duration,
    /// Labels by which the value can be removed together with others. Needs
    /// [`CacheCapabilities::tags`].
    pub tags: &'a [Key],
}

impl NewEntry<'_> {
    /// A value without tags.
    pub fn new(value: impl Into<Bytes>, ttl: Duration) -> Self {
        Self {
            value: value.into(),
            ttl,
            tags: &[],
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("bytes", &self.value.len())
            .field("ttl", &self.ttl)
            .finish()
    }
}

impl fmt::Debug for NewEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEntry")
            .field("bytes", &self.value.len())
            .field("ttl", &self.ttl)
            .field("tags", &self.tags)
            .finish()
    }
}

/// The error of an [increment](CacheStore::increment) of what is no integer. For implementors of stores.
pub fn no_integer() -> Error {
    const WHY: &str =
        "the counter's key holds a value that is no integer; delete it or use another key";
    Error::new(ErrorKind::Foreign, "cache.increment", WHY)
}

/// The error of an [increment](CacheStore::increment) out of the range of a counter. For implementors of stores.
pub fn out_of_range() -> Error {
    const WHY: &str = "the counter would leave the range of a 64-bit integer";
    Error::new(ErrorKind::InvalidInput, "cache.increment", WHY)
}

/// Where cached bytes live.
///
/// # Contract
/// - **Expiry.** A value is gone once its time is over. A store may drop it earlier (capacity,
///   eviction), so a miss is always possible; a cache is no place for counters that must hold.
/// - **Atomicity.** Every method is one atomic step for each key it names. [`clear`] is not atomic: a
///   value written while it runs may stay.
/// - **Errors.** An error is not a miss. `Effect::Unknown` on a write: it may have been made.
/// - **Cancellation.** A dropped future's write is made or not, never in part.
/// - **Clones** of a store share its state.
///
/// [`clear`]: CacheStore::clear
#[async_trait]
pub trait CacheStore: Send + Sync + fmt::Debug {
    /// What this store can do beyond the methods without a condition. Constant.
    fn capabilities(&self) -> CacheCapabilities;

    /// The value under a key, if there is one.
    ///
    /// # Errors
    /// What the backend reports; `Foreign` if the key holds no bytes.
    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error>;

    /// The values under several keys, in their order, in one round trip where the backend can.
    ///
    /// # Errors
    /// As [`get`](CacheStore::get).
    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error>;

    /// Stores a value, in place of what was there.
    ///
    /// # Errors
    /// `InvalidInput` for a time to live out of range, `Unsupported` for tags that the store lacks.
    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error>;

    /// Removes a value; whether there was one.
    ///
    /// # Errors
    /// What the backend reports.
    async fn delete(&self, key: &CacheKey) -> Result<bool, Error>;

    /// Adds `by` to the integer under a key and returns the sum. A missing key counts as 0 and gets
    /// `ttl`; an existing one keeps its time. One atomic step (E2).
    ///
    /// # Errors
    /// `Foreign` if the value is no integer, `InvalidInput` if the sum leaves the range of `i64` or
    /// the time to live its own.
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error>;

    /// Removes every value of a namespace; how many there were.
    ///
    /// # Errors
    /// What the backend reports. Some values may be gone already.
    async fn clear(&self, namespace: &Key) -> Result<u64, Error>;

    /// How the store is. Never fails and answers within the store's deadline.
    async fn health(&self) -> Health;

    /// What the store tells of itself for metrics, without I/O. A wrapper passes it on.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

/// What a cache store can do beyond the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCapabilities {
    /// Labels on values, by which they are removed together.
    pub tags: bool,
}

/// A time to live in whole milliseconds. For implementors.
///
/// # Errors
/// `InvalidInput` unless it is 1 ms to [`MAX_TTL`].
pub fn check_ttl(operation: &'static str, ttl: Duration) -> Result<u64, Error> {
    match u64::try_from(ttl.as_millis()) {
        Ok(millis) if millis > 0 && ttl <= MAX_TTL => Ok(millis),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            operation,
            format!("a time to live of {ttl:?} is out of range; give 1 ms to 366 days"),
        )),
    }
}

/// Shared stores are stores.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CacheStore + ?Sized> CacheStore for Arc<S> {
    fn capabilities(&self) -> CacheCapabilities {
        (**self).capabilities()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        (**self).get(key).await
    }

    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        (**self).get_many(keys).await
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        (**self).set(key, entry).await
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        (**self).delete(key).await
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        (**self).increment(key, by, ttl).await
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        (**self).clear(namespace).await
    }

    async fn health(&self) -> Health {
        (**self).health().await
    }

    fn figures(&self) -> Vec<Figure> {
        (**self).figures()
    }
}
