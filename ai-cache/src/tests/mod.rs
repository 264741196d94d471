//! The cache as a service sees it, over a store that tests can stop, fail and spoil.

mod clears;
mod flights;
mod lookups;
mod model;
mod outages;
mod store;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use limiter_core::cache::CacheKey;

use crate::{AiCache, CacheConfig, CacheRequest};
pub(crate) use store::TestStore;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A shared cache of texts over `store`. Several over one store are several instances.
fn cache(store: &Arc<TestStore>) -> AiCache<String> {
    AiCache::new(store.clone(), CacheConfig::shared("op", HOUR).unwrap())
}

/// The same without L1.
fn without_l1(store: &Arc<TestStore>) -> AiCache<String> {
    let config = CacheConfig::shared("op", HOUR).unwrap().with_l1_capacity(0);
    AiCache::new(store.clone(), config)
}

/// The key under which [`cache`] stores the answer to `params`.
fn key(params: &str) -> CacheKey {
    CacheRequest::new("op", params).key().unwrap()
}

fn text(value: &str) -> String {
    value.to_owned()
}

/// Lets every task of a single-threaded runtime run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
