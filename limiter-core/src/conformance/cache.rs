//! Cases of a cache store.

use std::time::{Duration, Instant};

use super::CacheHarness;
use crate::cache::{CacheKey, MAX_TTL, NewEntry};
use crate::error::ErrorKind;
use crate::key::Key;

const LONG: Duration = Duration::from_secs(600);

fn key(test: &str, name: &str) -> CacheKey {
    CacheKey::new(&Key::new(["cache", "conformance", test]), name)
}

pub(super) async fn keeps_bytes(harness: &dyn CacheHarness) {
    let store = harness.store();
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (name, value) in [
        ("empty", vec![]),
        ("binary", all_bytes),
        ("number", b"42".to_vec()),
    ] {
        let key = key("bytes", name);
        assert_eq!(store.get(&key).await.unwrap(), None);
        store
            .set(&key, NewEntry::new(value.clone(), LONG))
            .await
            .unwrap();
        let entry = store.get(&key).await.unwrap().unwrap();
        assert_eq!(entry.value, value, "{name}");
        assert!(
            entry.ttl <= LONG && entry.ttl > LONG - Duration::from_secs(60),
            "{entry:?}"
        );
    }
    let (first, second) = (key("bytes", "empty"), key("bytes", "number"));
    let missing = key("bytes", "missing");
    let many = store
        .get_many(&[second.clone(), missing, first])
        .await
        .unwrap();
    let values: Vec<_> = many
        .into_iter()
        .map(|entry| entry.map(|e| e.value))
        .collect();
    assert_eq!(values, [Some("42".into()), None, Some("".into())]);
    assert_eq!(store.get_many(&[]).await.unwrap(), []);

    store.set(&second, NewEntry::new("43", LONG)).await.unwrap();
    assert_eq!(store.get(&second).await.unwrap().unwrap().value, "43");
    assert!(store.delete(&second).await.unwrap());
    assert!(!store.delete(&second).await.unwrap());
    assert_eq!(store.get(&second).await.unwrap(), None);
}

pub(super) async fn expires(harness: &dyn CacheHarness) {
    let store = harness.store();
    let (short, long) = (key("expiry", "short"), key("expiry", "long"));
    store.set(&long, NewEntry::new("b", LONG)).await.unwrap();
    let ttl = Duration::from_millis(300);
    // Once more if the machine paused for longer than that.
    loop {
        let begun = Instant::now();
        store.set(&short, NewEntry::new("a", ttl)).await.unwrap();
        let found = store.get(&short).await.unwrap();
        if begun.elapsed() < ttl / 2 {
            assert!(found.is_some());
            break;
        }
    }
    gone(harness, &short).await;
    assert!(store.get(&long).await.unwrap().is_some());
    // A new value has a new time.
    store.set(&short, NewEntry::new("c", LONG)).await.unwrap();
    assert!(store.get(&short).await.unwrap().unwrap().ttl > Duration::from_secs(300));
}

/// E2.
pub(super) async fn increments(harness: &dyn CacheHarness) {
    let store = harness.store();
    let counter = key("increment", "counter");
    let ttl = Duration::from_millis(500);
    // Once more if the machine paused for longer than that.
    loop {
        let begun = Instant::now();
        let first = store.increment(&counter, 3, ttl).await.unwrap();
        let second = store.increment(&counter, -5, LONG).await.unwrap();
        let entry = store.get(&counter).await.unwrap();
        if begun.elapsed() < ttl / 2 {
            let entry = entry.unwrap();
            assert!(entry.ttl <= ttl, "the first call's time goes on: {entry:?}");
            assert_eq!((first, second, entry.value), (3, -2, "-2".into()));
            break;
        }
        store.delete(&counter).await.unwrap();
    }
    gone(harness, &counter).await;
    assert_eq!(store.increment(&counter, 1, LONG).await.unwrap(), 1);

    let text = key("increment", "text");
    store.set(&text, NewEntry::new("abc", LONG)).await.unwrap();
    let foreign = store.increment(&text, 1, LONG).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::Foreign, "{foreign}");
    let most = key("increment", "most");
    store.increment(&most, i64::MAX, LONG).await.unwrap();
    let over = store.increment(&most, 1, LONG).await.unwrap_err();
    assert_eq!(over.kind(), ErrorKind::InvalidInput, "{over}");
    assert_eq!(
        store.get(&most).await.unwrap().unwrap().value,
        i64::MAX.to_string()
    );

    let shared = key("increment", "concurrent");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, key) = (harness.store(), shared.clone());
            tokio::spawn(async move {
                for _ in 0..10 {
                    store.increment(&key, 1, LONG).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.increment(&shared, 0, LONG).await.unwrap(), 80);
}

pub(super) async fn clears_one_namespace(harness: &dyn CacheHarness) {
    let store = harness.store();
    let mine: Vec<_> = (0..300).map(|i| key("clear", &i.to_string())).collect();
    // Names that a pattern would match too.
    let others = [key("clear2", "0"), key("clear*", "0"), key("clea", "r:0")];
    for key in mine.iter().chain(&others) {
        store.set(key, NewEntry::new("x", LONG)).await.unwrap();
    }
    store.delete(&mine[0]).await.unwrap();
    let namespace = mine[0].namespace().clone();
    assert_eq!(store.clear(&namespace).await.unwrap(), 299);
    assert_eq!(store.clear(&namespace).await.unwrap(), 0);
    let left = store.get_many(&mine).await.unwrap();
    assert!(left.iter().all(Option::is_none));
    for key in &others {
        assert!(store.get(key).await.unwrap().is_some(), "{key}");
    }
    let star = others[1].namespace().clone();
    assert_eq!(store.clear(&star).await.unwrap(), 1, "a star is a star");
    assert!(store.get(&others[0]).await.unwrap().is_some());
}

pub(super) async fn refuses_bad_input(harness: &dyn CacheHarness) {
    let store = harness.store();
    let key = key("bad", "input");
    for ttl in [
        Duration::ZERO,
        Duration::from_micros(999),
        MAX_TTL + Duration::from_millis(1),
    ] {
        let set = store.set(&key, NewEntry::new("x", ttl)).await.unwrap_err();
        assert_eq!(set.kind(), ErrorKind::InvalidInput, "{ttl:?}");
        let increment = store.increment(&key, 1, ttl).await.unwrap_err();
        assert_eq!(increment.kind(), ErrorKind::InvalidInput, "{ttl:?}");
    }
    if !store.capabilities().tags {
        let tags = [Key::new(["tag"])];
        let mut entry = NewEntry::new("x", LONG);
        entry.tags = &tags;
        let refused = store.set(&key, entry).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// Moves time on until a value is gone; at most a minute of it.
async fn gone(harness: &dyn CacheHarness, key: &CacheKey) {
    for _ in 0..600 {
        if harness.store().get(key).await.unwrap().is_none() {
            return;
        }
        harness.advance(Duration::from_millis(100)).await;
    }
    panic!("{key} outlives its time");
}
