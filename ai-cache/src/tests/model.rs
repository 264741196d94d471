use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::store::TestStore;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    SetFor(u8, u8, u64),
    Compute(u8, u8),
    Clear(u8),
    ClearAll,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0_u8..3;
    prop_oneof![
        (key(), any::<u8>()).prop_map(|(key, value)| Step::Set(key, value)),
        (key(), any::<u8>(), 1_u64..7_200)
            .prop_map(|(key, value, ttl)| Step::SetFor(key, value, ttl)),
        (key(), any::<u8>()).prop_map(|(key, value)| Step::Compute(key, value)),
        key().prop_map(Step::Clear),
        Just(Step::ClearAll),
        (1_u64..4_000).prop_map(Step::Wait),
    ]
}

/// A map with expiry, in seconds.
#[derive(Default)]
struct Model {
    values: HashMap<u8, (u8, u64)>,
    now: u64,
}

impl Model {
    fn get(&self, key: u8) -> Option<u8> {
        let (value, expires) = self.values.get(&key)?;
        (self.now < *expires).then_some(*value)
    }

    fn set(&mut self, key: u8, value: u8, ttl: u64) {
        self.values.insert(key, (value, self.now + ttl));
    }
}

proptest! {
    /// B4, B8: after any history, the cache, and an instance that has just started, answer as a map
    /// with expiry does.
    #[test]
    fn a_cache_is_a_map_with_expiry(steps in vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(steps))?;
    }
}

async fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let store = TestStore::new();
    let instance =
        || -> AiCache<u8> { AiCache::new(store.clone(), CacheConfig::shared("op", HOUR).unwrap()) };
    let (cache, mut model) = (instance(), Model::default());
    for step in steps {
        match step {
            Step::Set(key, value) => {
                cache.set(&key, value).await.unwrap();
                model.set(key, value, HOUR.as_secs());
            }
            Step::SetFor(key, value, ttl) => {
                let time = Duration::from_secs(ttl);
                cache.set_with_ttl(&key, value, time).await.unwrap();
                model.set(key, value, ttl);
            }
            Step::Compute(key, value) => {
                let compute = move |_| async move { Ok::<_, &str>(value) };
                let answer = cache.get_or_compute(&key, compute).await.unwrap();
                let known = model.get(key);
                prop_assert_eq!(answer.origin.is_hit(), known.is_some());
                prop_assert_eq!(answer.value, known.unwrap_or(value));
                if known.is_none() {
                    settle().await;
                    model.set(key, value, HOUR.as_secs());
                }
            }
            Step::Clear(key) => {
                cache.clear(&key).await.unwrap();
                model.values.remove(&key);
            }
            Step::ClearAll => {
                cache.clear_all().await.unwrap();
                model.values.clear();
            }
            Step::Wait(seconds) => {
                tokio::time::advance(Duration::from_secs(seconds)).await;
                model.now += seconds;
            }
        }
        let restarted = instance();
        for key in 0..3 {
            prop_assert_eq!(restarted.get(&key).await.unwrap(), model.get(key));
            prop_assert_eq!(cache.get(&key).await.unwrap(), model.get(key));
        }
    }
    Ok(())
}
