use super::store::{Stop, TestStore, next};
use super::*;
use crate::Origin;

async fn compute(cache: &AiCache<String>, value: &'static str) -> crate::Answer<String> {
    let compute = move |_| async move { Ok::<_, &str>(text(value)) };
    cache.get_or_compute("a", compute).await.unwrap()
}

/// With and without L1, and each with a write that stands before the store.
fn held_up() -> [(AiCache<String>, Arc<TestStore>, Arc<super::store::Gate>); 2] {
    [cache, without_l1].map(|make| {
        let store = TestStore::new();
        let gate = store.stop(Stop::BeforeSet);
        (make(&store), store, gate)
    })
}

/// A slow store keeps nobody from an answer that is there, and nobody computes it again (I-K4).
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_stores_write() {
    for (cache, store, gate) in held_up() {
        let first = tokio::time::timeout(MINUTE, compute(&cache, "answer")).await;
        let first = first.expect("the store's write holds the answer up");
        assert_eq!(first.origin, Origin::Computed);
        gate.reached().await;
        let reads = store.reads();
        let again = compute(&cache, "another").await;
        assert_eq!((&*again.value, again.origin), ("answer", Origin::L1));
        assert_eq!(cache.get("a").await.unwrap(), Some(text("answer")));
        assert!(cache.has("a").await.unwrap());
        assert_eq!(store.reads(), reads, "this process has it");
        assert_eq!(store.keys(), Vec::<String>::new());

        gate.open();
        settle().await;
        assert_eq!(store.keys().len(), 1);
        assert_eq!(cache.get("a").await.unwrap(), Some(text("answer")));
        assert_eq!(cache.stats().computations, 1);
    }
}

/// What a caller does after it has its answer comes after the answer's way to the store.
#[tokio::test]
async fn a_write_on_its_way_does_not_overtake_a_set() {
    for (cache, store, gate) in held_up() {
        compute(&cache, "computed").await;
        gate.reached().await;
        let set = tokio::spawn({
            let cache = cache.clone();
            async move { cache.set("a", text("set")).await }
        });
        settle().await;
        gate.open();
        set.await.unwrap().unwrap();
        settle().await;
        for reader in [&cache, &without_l1(&store)] {
            assert_eq!(reader.get("a").await.unwrap(), Some(text("set")));
            assert_eq!(compute(reader, "new").await.value, "set");
        }
    }
}

/// The same for clears, one that comes while the write waits for its turn included.
#[tokio::test]
async fn a_write_on_its_way_does_not_overtake_a_clear() {
    for all in [false, true] {
        for (cache, store, gate) in held_up() {
            compute(&cache, "old").await;
            gate.reached().await;
            let clear = tokio::spawn({
                let cache = cache.clone();
                async move {
                    match all {
                        true => cache.clear_all().await.map(drop),
                        false => cache.clear("a").await,
                    }
                }
            });
            settle().await;
            gate.open();
            clear.await.unwrap().unwrap();
            settle().await;
            assert_eq!(cache.get("a").await.unwrap(), None, "all: {all}");
            assert_eq!(store.keys(), Vec::<String>::new(), "all: {all}");
            assert_eq!(compute(&cache, "new").await.value, "new");
        }
    }
}

/// Who asks after a set gets what was set, also where L1 holds nothing and the older computation
/// goes on.
#[tokio::test(start_paused = true)]
async fn a_computation_does_not_outlive_a_set() {
    let cache = without_l1(&TestStore::new());
    let never = |_| std::future::pending::<Result<String, &str>>();
    let old = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_compute("a", never).await }
    });
    settle().await;
    cache.set("a", text("set")).await.unwrap();
    let after = tokio::time::timeout(MINUTE, compute(&cache, "new")).await;
    assert_eq!(after.unwrap().value, "set");
    old.abort();
}

/// Other keys do not wait.
#[tokio::test]
async fn a_write_on_its_way_holds_up_its_key_alone() {
    let store = TestStore::new();
    let gate = store.stop(Stop::BeforeSet);
    let cache = cache(&store);
    compute(&cache, "answer").await;
    gate.reached().await;
    cache.set("b", text("other")).await.unwrap();
    cache.clear("b").await.unwrap();
    assert_eq!(store.keys(), Vec::<String>::new());
}

/// Whatever sets, clears, reads and computations meet, when all is quiet this process does not serve
/// what the store does not have.
#[tokio::test]
async fn the_tiers_agree_when_all_is_quiet() {
    let seeds = match std::env::var("LIMITER_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..3_000).collect(),
    };
    for seed in seeds {
        let store = TestStore::new();
        store.set_jitter(seed);
        let cache = cache(&store);
        let mut dice = next(seed * 0x9e37_79b9);
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                dice = next(dice);
                let (cache, throw) = (cache.clone(), dice);
                tokio::spawn(async move {
                    for _ in 0..(throw >> 8) % 10 {
                        tokio::task::yield_now().await;
                    }
                    let value = format!("{throw:x}");
                    match throw % 8 {
                        0 | 1 => cache.set("a", value).await.unwrap(),
                        2 => cache.clear("a").await.unwrap(),
                        3 => drop(cache.clear_all().await.unwrap()),
                        4 => drop(cache.get("a").await.unwrap()),
                        _ => {
                            let compute = |_| async move {
                                tokio::task::yield_now().await;
                                Ok::<_, &str>(value)
                            };
                            cache.get_or_compute("a", compute).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        settle().await;
        let stored = without_l1(&store).get("a").await.unwrap();
        let served = cache.get("a").await.unwrap();
        assert_eq!(served, stored, "repeat with LIMITER_SEED={seed}");
    }
}

/// An answer that the store did not take is kept for no longer than L1 keeps anything: another
/// process may have cleared or set it, and the store is asked again.
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_stored_ends_with_l1() {
    for set in [false, true] {
        let store = TestStore::new();
        let config = CacheConfig::shared("op", HOUR).unwrap();
        let here: AiCache<String> = AiCache::new(store.clone(), config.with_l1_ttl(MINUTE));
        store.set_down(true);
        if set {
            here.set("a", text("old")).await.unwrap_err();
        } else {
            compute(&here, "old").await;
            settle().await;
        }
        store.set_down(false);
        cache(&store).set("a", text("new")).await.unwrap();
        tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
        assert_eq!(here.get("a").await.unwrap(), Some(text("old")));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(here.get("a").await.unwrap(), Some(text("new")));
    }
}

/// I-K3: what L1 holds before the store has it ends before the store's copy does.
#[tokio::test(start_paused = true)]
async fn a_slow_write_does_not_lengthen_l1() {
    let store = TestStore::new();
    let config = CacheConfig::shared("op", MINUTE).unwrap();
    let cache: AiCache<String> = AiCache::new(store.clone(), config);
    let gate = store.stop(Stop::BeforeSet);
    compute(&cache, "answer").await;
    gate.reached().await;
    tokio::time::advance(MINUTE / 2).await;
    gate.open();
    settle().await;
    store.remove_raw(&key("a"));
    tokio::time::advance(MINUTE / 2 - Duration::from_millis(1)).await;
    assert!(cache.has("a").await.unwrap());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!cache.has("a").await.unwrap());
}
