use super::store::{Stop, TestStore};
use super::*;
use crate::Origin;

/// B4: `clear_all` takes every user's answers, in both tiers, and no other operation's.
#[tokio::test]
async fn clear_all_takes_the_namespace() {
    let store = TestStore::new();
    let resumes: AiCache<String, _> =
        AiCache::new(store.clone(), CacheConfig::resume_analysis("1"));
    let other = cache(&store);
    for user in ["1", "2"] {
        resumes.user(user).set("a", text("answer")).await.unwrap();
    }
    other.set("a", text("answer")).await.unwrap();
    assert_eq!(resumes.clear_all().await.unwrap(), 2);
    for user in ["1", "2"] {
        assert_eq!(resumes.user(user).get("a").await.unwrap(), None);
    }
    assert!(other.has("a").await.unwrap());
    assert_eq!(store.keys().len(), 1);
}

/// Both ways to clear one answer, for the races below.
async fn clear(cache: &AiCache<String>, all: bool) {
    if all {
        cache.clear_all().await.unwrap();
    } else {
        cache.clear("a").await.unwrap();
    }
}

/// A reader that got the old value before a clear does not put it back into L1.
#[tokio::test]
async fn a_slow_read_does_not_undo_a_clear() {
    for all in [false, true] {
        let store = TestStore::new();
        cache(&store).set("a", text("old")).await.unwrap();
        let cache = cache(&store);
        let gate = store.stop(Stop::AfterGet);
        let read = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get("a").await.unwrap() }
        });
        gate.reached().await;
        clear(&cache, all).await;
        gate.open();
        assert_eq!(read.await.unwrap(), Some(text("old")), "asked before");
        assert_eq!(cache.get("a").await.unwrap(), None, "all: {all}");
    }
}

/// Starts a computation of `value` that waits for the returned sender.
fn computing(
    cache: &AiCache<String>,
    value: &'static str,
) -> (
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<crate::Answer<String>>,
) {
    let (go, wait) = tokio::sync::oneshot::channel();
    let cache = cache.clone();
    let task = tokio::spawn(async move {
        let compute = move |_| async move {
            wait.await?;
            Ok::<_, tokio::sync::oneshot::error::RecvError>(text(value))
        };
        cache.get_or_compute("a", compute).await.unwrap()
    });
    (go, task)
}

/// An answer whose computation began before a clear is given to those who asked for it, and kept
/// nowhere; who asks after the clear does not wait for it.
#[tokio::test]
async fn a_computation_does_not_undo_a_clear() {
    for all in [false, true] {
        let store = TestStore::new();
        let cache = cache(&store);
        let (go_old, old) = computing(&cache, "old");
        settle().await;
        clear(&cache, all).await;
        let (go_new, new) = computing(&cache, "new");
        settle().await;
        go_new.send(()).unwrap();
        assert_eq!(new.await.unwrap().value, "new");
        go_old.send(()).unwrap();
        assert_eq!(old.await.unwrap().value, "old");
        settle().await;
        assert_eq!(
            cache.get("a").await.unwrap(),
            Some(text("new")),
            "all: {all}"
        );
        assert_eq!(cache_anew(&store).await, Some(text("new")));
    }
}

/// What an instance that has just started reads.
async fn cache_anew(store: &Arc<TestStore>) -> Option<String> {
    cache(store).get("a").await.unwrap()
}

/// A clear comes while the answer is on its way to the store.
#[tokio::test]
async fn a_late_write_does_not_undo_a_clear() {
    for all in [false, true] {
        let store = TestStore::new();
        let cache = cache(&store);
        let gate = store.stop(Stop::BeforeSet);
        let (go, old) = computing(&cache, "old");
        go.send(()).unwrap();
        gate.reached().await;
        let clearing = clearing(&cache, all);
        settle().await;
        gate.open();
        clearing.await.unwrap();
        assert_eq!(old.await.unwrap().value, "old");
        assert_eq!(cache.get("a").await.unwrap(), None, "all: {all}");
        assert_eq!(cache_anew(&store).await, None, "all: {all}");
    }
}

/// A computation ends while a clear waits for the store's answer.
#[tokio::test]
async fn a_write_within_a_clear_does_not_undo_it() {
    for (all, stop) in [
        (false, Stop::BeforeRemoval),
        (false, Stop::AfterRemoval),
        (true, Stop::BeforeRemoval),
        (true, Stop::AfterRemoval),
    ] {
        let store = TestStore::new();
        let cache = cache(&store);
        let (go_before, before) = computing(&cache, "before");
        settle().await;
        let removing = store.stop(stop);
        let clearing = clearing(&cache, all);
        removing.reached().await;
        go_before.send(()).unwrap();
        assert_eq!(before.await.unwrap().value, "before");
        let (go_within, within) = computing(&cache, "within");
        go_within.send(()).unwrap();
        assert_eq!(within.await.unwrap().value, "within");
        removing.open();
        clearing.await.unwrap();
        settle().await;
        assert_eq!(cache.get("a").await.unwrap(), None, "all: {all}, {stop:?}");
        assert_eq!(cache_anew(&store).await, None, "all: {all}, {stop:?}");
    }
}

/// A read that comes while a clear is on its way may still be served, but not after the clear.
#[tokio::test]
async fn a_read_within_a_clear_does_not_undo_it() {
    for all in [false, true] {
        let store = TestStore::new();
        let cache = cache(&store);
        cache.set("a", text("old")).await.unwrap();
        let removing = store.stop(Stop::BeforeRemoval);
        let clearing = clearing(&cache, all);
        removing.reached().await;
        assert_eq!(cache.get("a").await.unwrap(), Some(text("old")));
        removing.open();
        clearing.await.unwrap();
        assert_eq!(cache.get("a").await.unwrap(), None, "all: {all}");
    }
}

fn clearing(cache: &AiCache<String>, all: bool) -> tokio::task::JoinHandle<()> {
    let cache = cache.clone();
    tokio::spawn(async move { clear(&cache, all).await })
}

/// A flight that a clear has cut off from its key, and that ends, leaves the key's next flight alone.
#[tokio::test]
async fn a_forgotten_flight_leaves_its_successor_alone() {
    let cache = cache(&TestStore::new());
    let (go_old, old) = computing(&cache, "old");
    settle().await;
    clear(&cache, false).await;
    let (go_new, new) = computing(&cache, "new");
    settle().await;
    go_old.send(()).unwrap();
    assert_eq!(old.await.unwrap().value, "old");
    let (_never, joined) = computing(&cache, "not computed");
    settle().await;
    go_new.send(()).unwrap();
    assert_eq!(new.await.unwrap().value, "new");
    assert_eq!(joined.await.unwrap().value, "new");
    assert_eq!(cache.stats().computations, 2);
}

/// An answer that is set while one is computed stays.
#[tokio::test]
async fn a_computation_does_not_undo_a_set() {
    let store = TestStore::new();
    let cache = cache(&store);
    let (go, old) = computing(&cache, "computed");
    settle().await;
    cache.set("a", text("set")).await.unwrap();
    go.send(()).unwrap();
    assert_eq!(old.await.unwrap().origin, Origin::Computed);
    assert_eq!(cache.get("a").await.unwrap(), Some(text("set")));
    assert_eq!(cache_anew(&store).await, Some(text("set")));
}

/// A `set` that is dropped half-way leaves no old value in L1.
#[tokio::test]
async fn a_dropped_set_leaves_nothing_old() {
    let store = TestStore::new();
    let writer = cache(&store);
    writer.set("a", text("old")).await.unwrap();
    let gate = store.stop(Stop::BeforeSet);
    let write = tokio::spawn({
        let writer = writer.clone();
        async move { writer.set("a", text("new")).await }
    });
    gate.reached().await;
    write.abort();
    assert!(write.await.unwrap_err().is_cancelled());
    cache(&store).set("a", text("newer")).await.unwrap();
    assert_eq!(writer.get("a").await.unwrap(), Some(text("newer")));
}
