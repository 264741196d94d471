//! Typed caches for AI answers, over a store that all instances of a service share.
//!
//! - [`AiCache`]: get, set, clear, and compute once. Values are any type that `serde_json` reads
//!   back. A cache in this process stands in front of the store.
//! - [`CacheConfig`]: operation, times, sizes and versions, with presets such as
//!   [`CacheConfig::company_research`]. [`scope`]: who shares an answer.
//! - [`CacheRequest`]: what identifies an answer, and its key `cache:<op>:<hash>`; [`canonical`]: the
//!   JSON that is hashed.
//! - [`Answer`], [`Origin`], [`ComputeError`], [`Stats`]: what comes back.
//!
//! The store is any [`CacheStore`](limiter_core::cache::CacheStore): `limiter-memory` and
//! `limiter-redis` have one each.
//!
//! ```
//! use std::sync::Arc;
//! use ai_cache::{AiCache, CacheConfig, CanonicalJson};
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
//! struct Research { summary: String }
//!
//! # use std::{collections::HashMap, sync::Mutex, time::Duration};
//! # use limiter_core::cache::{CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry};
//! # use limiter_core::{Error, Health, Key};
//! # #[derive(Debug, Default)]
//! # struct MapStore(Mutex<HashMap<String, Entry>>);
//! # #[async_trait::async_trait]
//! # impl CacheStore for MapStore {
//! #     fn capabilities(&self) -> CacheCapabilities { CacheCapabilities::default() }
//! #     async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
//! #         Ok(self.0.lock().unwrap().get(key.as_str()).cloned())
//! #     }
//! #     async fn get_many(&self, _: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> { unreachable!() }
//! #     async fn set(&self, key: &CacheKey, new: NewEntry<'_>) -> Result<(), Error> {
//! #         self.0.lock().unwrap().insert(key.to_string(), Entry::new(new.value, new.ttl));
//! #         Ok(())
//! #     }
//! #     async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
//! #         Ok(self.0.lock().unwrap().remove(key.as_str()).is_some())
//! #     }
//! #     async fn increment(&self, _: &CacheKey, _: i64, _: Duration) -> Result<i64, Error> { unreachable!() }
//! #     async fn clear(&self, _: &Key) -> Result<u64, Error> { unreachable!() }
//! #     async fn health(&self) -> Health { Health::new("map", true, None, "in this process") }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let store = Arc::new(MapStore::default());
//! let research: AiCache<Research> = AiCache::new(store.clone(), CacheConfig::company_research("1"));
//! // What the model is sent is what the key is made of.
//! let ask = |parameters: CanonicalJson| async move {
//!     assert_eq!(parameters.as_str(), r#"{"company":"Acme","lang":"en"}"#);
//!     Ok::<_, std::io::Error>(Research { summary: "Makes anvils.".to_owned() })
//! };
//!
//! let first = research.get_or_compute(&json!({ "company": "Acme", "lang": "en" }), ask).await?;
//! assert_eq!(first.origin.x_cache(), "miss");
//! let again = research.get_or_compute(&json!({ "lang": "en", "company": "Acme" }), ask).await?;
//! assert_eq!(again.origin.x_cache(), "hit");
//! assert_eq!(again.value, first.value);
//!
//! // A cache of personal answers has no `get` of its own: it is asked through a user.
//! let resumes: AiCache<String, _> = AiCache::new(store, CacheConfig::resume_analysis("1"));
//! resumes.user("42").set("my resume", "Add numbers.".to_owned()).await?;
//! assert_eq!(resumes.user("42").get("my resume").await?.as_deref(), Some("Add numbers."));
//! assert_eq!(resumes.user("43").get("my resume").await?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod answer;
mod cache;
pub mod canonical;
mod config;
mod envelope;
mod flight;
mod key;
mod l1;
mod presets;
pub mod scope;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod tiers;
mod writes;

pub use answer::{Answer, ComputeError, Origin};
pub use cache::{AiCache, Cacheable};
pub use canonical::CanonicalJson;
pub use config::CacheConfig;
pub use key::CacheRequest;
pub use stats::Stats;
