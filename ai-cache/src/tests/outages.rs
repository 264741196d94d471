use std::fmt::{self, Write as _};

use limiter_core::ErrorKind;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::store::TestStore;
use super::*;
use crate::Origin;

/// B6: reads are misses; what changes the store says that it did not.
#[tokio::test]
async fn an_outage_is_a_miss() {
    let store = TestStore::new();
    let cache = without_l1(&store);
    cache.set("a", text("answer")).await.unwrap();
    store.set_down(true);
    assert_eq!(cache.get("a").await.unwrap(), None);
    assert!(!cache.has("a").await.unwrap());
    let errors = [
        cache.set("a", text("b")).await.unwrap_err(),
        cache.clear("a").await.unwrap_err(),
        cache.clear_all().await.unwrap_err(),
    ];
    assert!(errors.iter().all(|e| e.kind() == ErrorKind::Connection));
    assert_eq!(cache.stats().store_errors, 5);
    store.set_down(false);
    assert_eq!(cache.get("a").await.unwrap(), Some(text("answer")));
}

/// I-K4: one computation per instance and L1 time while the store is away, whatever other keys do
/// meanwhile. Known fault: "Redis error treated as a miss floods the provider".
#[tokio::test(start_paused = true)]
async fn an_outage_does_not_flood_the_provider() {
    let store = TestStore::new();
    let config = CacheConfig::shared("op", HOUR).unwrap();
    let cache: AiCache<String> = AiCache::new(store.clone(), config.with_l1_ttl(5 * MINUTE));
    store.set_down(true);
    let ask = |params: &'static str| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let compute = |_| async {
                // Of paused time.
                tokio::time::sleep(MINUTE).await;
                Ok::<_, &str>(text("answer"))
            };
            cache.get_or_compute(params, compute).await.unwrap().origin
        })
    };
    let first = ["a", "b", "a", "b"].map(ask);
    for answer in first {
        assert_eq!(answer.await.unwrap(), Origin::Computed);
    }
    tokio::time::advance(3 * MINUTE).await;
    for params in ["a", "b"] {
        assert_eq!(ask(params).await.unwrap(), Origin::L1);
    }
    assert_eq!(cache.stats().computations, 2);
    tokio::time::advance(2 * MINUTE).await;
    assert_eq!(ask("a").await.unwrap(), Origin::Computed);
}

/// A failed clear still takes effect in this process.
#[tokio::test]
async fn a_failed_clear_empties_this_process() {
    let store = TestStore::new();
    let cache = cache(&store);
    for clear_all in [false, true] {
        store.set_down(false);
        cache.set("a", text("answer")).await.unwrap();
        store.set_down(true);
        assert!(cache.has("a").await.unwrap(), "from L1");
        if clear_all {
            cache.clear_all().await.unwrap_err();
        } else {
            cache.clear("a").await.unwrap_err();
        }
        assert!(!cache.has("a").await.unwrap());
    }
}

/// B6, and a known fault: "prompts logged as cache keys": one warning a second of each kind, with the operation, and
/// neither the parameters nor the answer.
#[tokio::test(start_paused = true)]
async fn warnings_name_the_operation_and_no_content() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    // What other tests' threads met before, without a subscriber.
    tracing::callsite::rebuild_interest_cache();
    let store = TestStore::new();
    let config = CacheConfig::shared("coverLetter", HOUR).unwrap();
    let cache: AiCache<String> = AiCache::new(store.clone(), config);
    let secret = "my secret resume";
    store.set_down(true);

    for _ in 0..3 {
        cache.get(secret).await.unwrap();
        assert_eq!(log.warnings(), 1);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let compute = |_| async { Ok::<_, &str>(text("a secret answer")) };
    cache.get_or_compute(secret, compute).await.unwrap();
    settle().await;
    assert_eq!(log.warnings(), 3, "one for the read, one for the write");

    store.set_down(false);
    let key = CacheRequest::new("coverLetter", "b").key().unwrap();
    store.put_raw(&key, "a secret answer");
    cache.get("b").await.unwrap();
    assert_eq!(log.warnings(), 4);

    let text = log.0.lock().clone();
    assert_eq!(
        text.matches("operation=\"coverLetter\"").count(),
        4,
        "{text}"
    );
    assert!(text.contains("kind=\"connection\""), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// Keeps what is logged at level warning, one line an event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn warnings(&self) -> usize {
        self.0.lock().lines().count()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Line<'a>(&'a mut String);
        impl Visit for Line<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut log = self.0.lock();
        event.record(&mut Line(&mut log));
        log.push('\n');
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
