//! The suite over the simplest store, so that this crate's tests alone hold its algorithms to it.
//! The suite asserts.

use super::*;
use crate::limit::Capabilities;
use crate::testing::MapStore;

#[async_trait]
impl LimitHarness for MapStore {
    fn store(&self) -> Arc<dyn LimitStore> {
        Arc::new(self.clone())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test]
async fn a_map_conforms() {
    limits(&MapStore::new(Capabilities::ALL)).await;
}

#[tokio::test]
async fn a_store_that_lacks_everything_conforms() {
    limits(&MapStore::new(Capabilities::default())).await;
}
