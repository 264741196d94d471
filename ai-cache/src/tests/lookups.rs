use limiter_core::ErrorKind;
use limiter_core::cache::CacheKey;
use serde_json::json;

use super::store::{Stop, TestStore};
use super::*;
use crate::Origin;

/// B4, W4: get, set, has, clear; and the key, whatever the order of the parameters.
#[tokio::test]
async fn answers_are_kept_under_the_required_key() {
    let store = TestStore::new();
    let research: AiCache<String> = AiCache::new(store.clone(), CacheConfig::company_research("1"));
    let params = json!({"company": "Acme", "lang": "en"});
    assert_eq!(research.get(&params).await.unwrap(), None);
    assert!(!research.has(&params).await.unwrap());

    research.set(&params, text("anvils")).await.unwrap();
    let reordered = json!({"lang": "en", "company": "Acme"});
    assert_eq!(
        research.get(&reordered).await.unwrap(),
        Some(text("anvils"))
    );
    assert!(research.has(&reordered).await.unwrap());
    let [key] = &store.keys()[..] else {
        panic!("one key")
    };
    let hash = key.strip_prefix("cache:companyResearch:").unwrap();
    assert_eq!(hash.len(), 64);
    assert!(hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));

    research.clear(&reordered).await.unwrap();
    assert_eq!(research.get(&params).await.unwrap(), None);
    assert_eq!(store.keys(), Vec::<String>::new());
}

/// B4: an answer has its own time to live if it is given one.
#[tokio::test(start_paused = true)]
async fn answers_expire() {
    let store = TestStore::new();
    let cache = cache(&store);
    cache.set("default", text("a")).await.unwrap();
    cache.set_with_ttl("own", text("b"), MINUTE).await.unwrap();
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert!(cache.has("own").await.unwrap());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!cache.has("own").await.unwrap());
    assert!(cache.has("default").await.unwrap());
    tokio::time::advance(HOUR - MINUTE).await;
    assert!(!cache.has("default").await.unwrap());
    let error = cache.set_with_ttl("own", text("b"), Duration::ZERO).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// B8: an answer outlives the process, and is shared by all instances.
#[tokio::test]
async fn another_instance_has_the_answer() {
    let store = TestStore::new();
    cache(&store).set("a", text("answer")).await.unwrap();
    let other = cache(&store);
    for origin in [Origin::L2, Origin::L1] {
        let answer = other
            .get_or_compute("a", |_| async { Err::<String, _>("not needed") })
            .await
            .unwrap();
        assert_eq!((&*answer.value, answer.origin), ("answer", origin));
        assert_eq!(answer.origin.x_cache(), "hit");
    }
    assert_eq!(store.reads(), 1);
}

/// I-K3: an answer whose reading took 10 s stays 10 s less in this process.
#[tokio::test(start_paused = true)]
async fn l1_ends_with_the_store() {
    let store = TestStore::new();
    let (writer, reader) = (cache(&store), cache(&store));
    writer
        .set_with_ttl("a", text("answer"), MINUTE)
        .await
        .unwrap();
    let gate = store.stop(Stop::AfterGet);
    let slow = tokio::spawn({
        let reader = reader.clone();
        async move { reader.get("a").await.unwrap() }
    });
    gate.reached().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    gate.open();
    assert!(slow.await.unwrap().is_some());
    store.remove_raw(&key("a"));
    tokio::time::advance(Duration::from_millis(49_999)).await;
    assert!(reader.has("a").await.unwrap());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!reader.has("a").await.unwrap());
}

/// What another instance changed is seen when L1's own time is over.
#[tokio::test(start_paused = true)]
async fn l1_reads_again_after_its_own_time() {
    let store = TestStore::new();
    let config = CacheConfig::shared("op", HOUR).unwrap().with_l1_ttl(MINUTE);
    let reader: AiCache<String> = AiCache::new(store.clone(), config);
    reader.set("a", text("old")).await.unwrap();
    cache(&store).set("a", text("new")).await.unwrap();
    assert_eq!(reader.get("a").await.unwrap(), Some(text("old")));
    tokio::time::advance(MINUTE).await;
    assert_eq!(reader.get("a").await.unwrap(), Some(text("new")));
}

/// I-K1. Known fault: "One user's resume advice served to another".
#[tokio::test]
async fn users_never_share() {
    let store = TestStore::new();
    let resumes: AiCache<String, _> =
        AiCache::new(store.clone(), CacheConfig::resume_analysis("1"));
    let params = json!({"resume": "r"});
    resumes
        .user("42")
        .set(&params, text("yours"))
        .await
        .unwrap();
    assert_eq!(resumes.user("43").get(&params).await.unwrap(), None);
    assert_eq!(
        resumes.user("42").get(&params).await.unwrap(),
        Some(text("yours"))
    );

    // A shared cache of the same operation cannot reach it, whatever its parameters say.
    let config = CacheConfig::shared("resumeAnalysis", HOUR).unwrap();
    let shared: AiCache<String> = AiCache::new(store.clone(), config);
    for params in [
        json!({"resume": "r"}),
        json!({"resume": "r", "scope": "42"}),
    ] {
        assert_eq!(shared.get(&params).await.unwrap(), None);
    }

    // Nor do stored bytes that come under another user's key, and they are removed (I-K5).
    let key_of = |user| {
        let request = CacheRequest::new("resumeAnalysis", &params)
            .scope(user)
            .prompt_version("1");
        request.key().unwrap()
    };
    store.put_raw(&key_of("43"), store.raw(&key_of("42")).unwrap());
    assert_eq!(resumes.user("43").get(&params).await.unwrap(), None);
    assert_eq!(store.raw(&key_of("43")), None);

    let error = resumes.user("").get(&params).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{:?}", resumes.user("42")).contains("42"));
}

#[tokio::test]
async fn model_and_versions_separate_answers() {
    let store = TestStore::new();
    let config = || CacheConfig::shared("op", HOUR).unwrap();
    let configs = [
        config(),
        config().with_model("m"),
        config().with_prompt_version("m"),
        config().with_schema_version("m"),
    ];
    for (count, config) in configs.into_iter().enumerate() {
        let cache: AiCache<usize> = AiCache::new(store.clone(), config);
        assert_eq!(cache.get("a").await.unwrap(), None);
        cache.set("a", count).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap(), Some(count));
    }
}

/// Known fault: "Null mistaken for a miss".
#[tokio::test]
async fn a_cached_null_is_a_hit() {
    let store = TestStore::new();
    for _instance in 0..2 {
        let config = CacheConfig::shared("op", HOUR).unwrap();
        let cache: AiCache<Option<String>> = AiCache::new(store.clone(), config);
        let found = cache
            .get_or_compute("a", |_| async { Ok::<_, &str>(None) })
            .await
            .unwrap();
        assert_eq!(found.value, None);
        assert_eq!(cache.get("a").await.unwrap(), Some(None));
        assert!(cache.has("a").await.unwrap());
        assert_eq!(cache.stats().computations, 1 - cache.stats().l2_hits);
    }
}

/// I-K5, and a known fault: "remove only on a failed checksum".
#[tokio::test]
async fn unreadable_values_are_misses() {
    let store = TestStore::new();
    let writer = cache(&store);
    writer.set("a", text("an answer")).await.unwrap();
    let good = store.raw(&key("a")).unwrap().to_vec();

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for corrupt in [flipped, good[..20].to_vec(), b"plain text".to_vec(), vec![]] {
        store.put_raw(&key("a"), corrupt);
        let reader = cache(&store);
        assert_eq!(reader.get("a").await.unwrap(), None);
        assert_eq!(store.raw(&key("a")), None, "removed");
        assert_eq!(reader.stats().unreadable, 1);
    }

    let mut newer = good.clone();
    newer[3] += 1;
    store.put_raw(&key("a"), newer);
    assert_eq!(cache(&store).get("a").await.unwrap(), None);
    assert!(store.raw(&key("a")).is_some(), "kept for the newer build");

    store.put_raw(&key("a"), good);
    let config = CacheConfig::shared("op", HOUR).unwrap();
    let other_shape: AiCache<Vec<u64>> = AiCache::new(store.clone(), config);
    assert_eq!(other_shape.get("a").await.unwrap(), None);
    assert_eq!(
        cache(&store).get("a").await.unwrap(),
        Some(text("an answer")),
        "kept"
    );
}

/// Parameters that name no key are an error of every method, and compute nothing.
#[tokio::test]
async fn bad_parameters_are_refused() {
    let cache = cache(&TestStore::new());
    let nan = f64::NAN;
    let errors = [
        cache.get(&nan).await.unwrap_err(),
        cache.has(&nan).await.unwrap_err(),
        cache.set(&nan, text("a")).await.unwrap_err(),
        cache.clear(&nan).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|e| e.kind() == ErrorKind::InvalidInput));
    let result = cache
        .get_or_compute(&nan, |_| async { Ok::<_, &str>(text("a")) })
        .await;
    assert!(matches!(result, Err(crate::ComputeError::Input(_))));
    assert_eq!(cache.stats().computations, 0);
}

/// A value that cannot be stored is an error of `set`; whoever computed it has it all the same.
#[tokio::test]
async fn a_value_that_json_cannot_hold_is_not_cached() {
    let config = CacheConfig::shared("op", HOUR).unwrap();
    let cache: AiCache<f64> = AiCache::new(TestStore::new(), config);
    let error = cache.set("a", f64::NAN).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let answer = cache
        .get_or_compute("a", |_| async { Ok::<_, &str>(f64::NAN) })
        .await
        .unwrap();
    assert!(answer.value.is_nan());
    assert!(!cache.has("a").await.unwrap());
}

#[tokio::test]
async fn lookups_are_counted() {
    let store = TestStore::new();
    cache(&store).set("a", text("answer")).await.unwrap();
    let cache = cache(&store);
    for params in ["a", "a", "b"] {
        cache.get(params).await.unwrap();
    }
    let compute = |_| async { Ok::<_, &str>(text("c")) };
    for params in ["a", "c", "c"] {
        cache.clone().get_or_compute(params, compute).await.unwrap();
    }
    let stats = cache.stats();
    assert_eq!((stats.l1_hits, stats.l2_hits, stats.misses), (3, 1, 2));
    assert_eq!((stats.computations, stats.store_errors), (1, 0));
    let json = serde_json::to_value(stats).unwrap();
    assert_eq!(json["l1_hits"], 3);
}

/// The key that tests use is the one that the cache uses.
#[tokio::test]
async fn a_request_names_the_key() {
    let store = TestStore::new();
    cache(&store).set("a", text("answer")).await.unwrap();
    assert_eq!(store.keys(), [CacheKey::as_str(&key("a"))]);
}
