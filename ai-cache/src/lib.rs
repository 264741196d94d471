//! Typed caches for AI answers, over a store that all instances of a service share.
//!
//! - [`AiCache`]: `get`, `set`, `clear` and `get_or_compute`, which computes an answer once for all callers. A value is any type
//!   that `serde_json` writes and reads. A smaller cache in the process (L1) holds recent answers in front of the store (L2).
//! - [`CacheConfig`]: operation, times to live, sizes and versions, with presets such as
//!   [`CacheConfig::company_research`]. [`scope`]: whether all users share an answer or each has its own.
//! - [`CacheRequest`]: what identifies an answer, and its key `cache:<op>:<hash>`. [`canonical`]: the JSON that is hashed.
//! - [`Answer`], [`Origin`], [`ComputeError`], [`Stats`]: what the calls return.
//!
//! The store is any [`CacheStore`](limiter_core::cache::CacheStore), such as that of `limiter-memory` or
//! `limiter-redis`.
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
//! /// The client of a provider.
//! struct Model;
//! impl Model {
//!     async fn ask(&self, question: &str) -> Result<Research, std::io::Error> {
//!         assert_eq!(question, r#"{"company":"Acme","lang":"en"}"#);
//!         Ok(Research { summary: "Makes anvils.".to_owned() })
//!     }
//! }
//! let model = Arc::new(Model);
//! // The computation runs in its own task, so it owns what it uses: here a clone of the `Arc`. The text that it gets is the one
//! // that the key is made of.
//! let ask = || {
//!     let model = model.clone();
//!     move |question: CanonicalJson| async move { model.ask(question.as_str()).await }
//! };
//!
//! let first = research.get_or_compute(&json!({ "company": "Acme", "lang": "en" }), ask()).await?;
//! assert_eq!(first.origin.x_cache(), "miss");
//! let again = research.get_or_compute(&json!({ "lang": "en", "company": "Acme" }), ask()).await?;
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
