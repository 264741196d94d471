use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::store::TestStore;
use super::*;
use crate::{Answer, ComputeError, Origin};

/// A provider that counts its calls and answers when it is told to.
#[derive(Debug)]
struct Provider {
    calls: AtomicUsize,
    answers: Semaphore,
}

impl Provider {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            answers: Semaphore::new(0),
        })
    }

    async fn ask(&self) -> std::io::Result<String> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.answers.acquire().await.unwrap().forget();
        if call == 1 {
            return Ok(text("answer"));
        }
        Err(std::io::Error::other(format!("call {call}")))
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

type Asked = JoinHandle<Result<Answer<String>, ComputeError>>;

fn ask(cache: &AiCache<String>, provider: &Arc<Provider>) -> Asked {
    let (cache, provider) = (cache.clone(), provider.clone());
    tokio::spawn(async move {
        cache
            .get_or_compute("a", move |_| async move { provider.ask().await })
            .await
    })
}

/// I-K4: callers of one key share one computation and its answer.
#[tokio::test]
async fn callers_share_one_computation() {
    let (cache, provider) = (cache(&TestStore::new()), Provider::new());
    let asked: Vec<_> = (0..50).map(|_| ask(&cache, &provider)).collect();
    settle().await;
    provider.answers.add_permits(1);
    let mut answers = Vec::new();
    for task in asked {
        answers.push(task.await.unwrap().unwrap());
    }
    assert_eq!(provider.calls(), 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(
        (&*answers[0].value, answers[0].origin),
        ("answer", Origin::Computed)
    );
    let stats = cache.stats();
    assert_eq!((stats.computations, stats.misses), (1, 50));
    assert_eq!(
        ask(&cache, &provider).await.unwrap().unwrap().origin,
        Origin::L1
    );
}

/// Known fault: "Leader cancelled, everybody pays" (moka#59): not even when all callers go away.
#[tokio::test]
async fn a_dropped_caller_cancels_nothing() {
    for leave in [1, 3] {
        let (cache, provider) = (cache(&TestStore::new()), Provider::new());
        let mut asked: Vec<_> = (0..3).map(|_| ask(&cache, &provider)).collect();
        settle().await;
        for task in asked.drain(..leave) {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        provider.answers.add_permits(1);
        for task in asked {
            assert_eq!(task.await.unwrap().unwrap().value, "answer");
        }
        settle().await;
        assert_eq!(cache.get("a").await.unwrap(), Some(text("answer")));
        assert_eq!(provider.calls(), 1);
    }
}

/// I-K2: an error reaches everybody who waited, and is not stored.
#[tokio::test]
async fn errors_are_shared_and_not_stored() {
    let (store, provider) = (TestStore::new(), Provider::new());
    let cache = cache(&store);
    // The provider answers its first call only.
    provider.calls.store(1, Ordering::SeqCst);
    for call in [2, 3] {
        let asked = [ask(&cache, &provider), ask(&cache, &provider)];
        settle().await;
        provider.answers.add_permits(1);
        for task in asked {
            let error = task.await.unwrap().unwrap_err();
            let io: &std::io::Error = error.downcast_ref().unwrap();
            assert_eq!(io.to_string(), format!("call {call}"));
        }
        assert_eq!(provider.calls(), call);
    }
    assert_eq!(store.keys(), Vec::<String>::new());
    assert_eq!(cache.get("a").await.unwrap(), None);
}

/// A panic, in the computation or before its first await, frees the key and all who wait.
#[tokio::test]
async fn a_panic_frees_the_key() {
    let cache = cache(&TestStore::new());
    let early = |_| -> std::future::Ready<Result<String, &str>> { panic!("on purpose") };
    let result = cache.get_or_compute("a", early).await;
    assert!(matches!(result, Err(ComputeError::Aborted)));
    let late = |_| async {
        tokio::task::yield_now().await;
        if true {
            panic!("on purpose");
        }
        Ok::<_, &str>(text("never"))
    };
    let (first, second) = tokio::join!(
        cache.get_or_compute("a", late),
        cache.get_or_compute("a", late)
    );
    assert!(matches!(first, Err(ComputeError::Aborted)));
    assert!(matches!(second, Err(ComputeError::Aborted)));
    let answer = cache
        .get_or_compute("a", |_| async { Ok::<_, &str>(text("answer")) })
        .await;
    assert_eq!(answer.unwrap().value, "answer");
}

/// A runtime that shuts down under a computation frees the waiters in other runtimes.
#[test]
fn a_shutdown_frees_those_who_wait() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let (here, there) = (runtime(), runtime());
    let cache = cache(&TestStore::new());
    let provider = Provider::new();
    there.block_on(async {
        let _detached = ask(&cache, &provider);
        settle().await;
    });
    assert_eq!(provider.calls(), 1);
    let waiting = {
        let _context = here.enter();
        ask(&cache, &provider)
    };
    here.block_on(settle());
    drop(there);
    let result = here.block_on(waiting).unwrap();
    assert!(matches!(result, Err(ComputeError::Aborted)));
    assert_eq!(provider.calls(), 1);
}

/// I-K4: no gap between the end of a computation and the stored answer lets a second one start,
/// with and without L1, and with the store away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_is_no_gap_between_computing_and_storing() {
    for round in 0..300 {
        let store = TestStore::new();
        let cache = if round % 3 == 0 {
            without_l1(&store)
        } else {
            cache(&store)
        };
        store.set_down(round % 3 == 1);
        let calls = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (cache, calls) = (cache.clone(), calls.clone());
                tokio::spawn(async move {
                    for _ in 0..caller {
                        tokio::task::yield_now().await;
                    }
                    let compute = move |_| async move {
                        calls.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, &str>(text("answer"))
                    };
                    cache.get_or_compute("a", compute).await.unwrap()
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().value, "answer");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "round {round}");
    }
}

/// A computation may ask the cache for other parameters.
#[tokio::test]
async fn computations_may_nest() {
    let cache = cache(&TestStore::new());
    let inner = cache.clone();
    let answer = cache
        .get_or_compute("outer", move |_| async move {
            let part = inner
                .get_or_compute("inner", |_| async { Ok::<_, &str>(text("part")) })
                .await?;
            Ok::<_, ComputeError>(part.value + " and whole")
        })
        .await
        .unwrap();
    assert_eq!(answer.value, "part and whole");
    assert!(cache.has("inner").await.unwrap());
}

/// Each caller that finds nothing asks for itself whether it may compute, and what it holds for that is dropped at once if another
/// one's computation is under way.
#[tokio::test]
async fn each_caller_is_admitted_for_itself() {
    /// Counts how many are held.
    struct Held(Arc<AtomicUsize>);
    impl Held {
        fn new(held: &Arc<AtomicUsize>) -> Self {
            held.fetch_add(1, Ordering::SeqCst);
            Self(held.clone())
        }
    }
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (cache, provider) = (cache(&TestStore::new()), Provider::new());
    let held = Arc::new(AtomicUsize::new(0));
    let admitted = Arc::new(AtomicUsize::new(0));
    let ask = |may: bool| {
        let (cache, provider) = (cache.clone(), provider.clone());
        let (held, admitted) = (held.clone(), admitted.clone());
        tokio::spawn(async move {
            // What the caller has is borrowed, and what the computation uses is its own.
            let admit = async || {
                admitted.fetch_add(1, Ordering::SeqCst);
                if !may {
                    return Err("not you");
                }
                let (provider, held) = (provider.clone(), Held::new(&held));
                Ok(move |_| async move {
                    let answer = provider.ask().await;
                    drop(held);
                    answer
                })
            };
            cache.get_or_admit("a", admit).await
        })
    };
    let first = ask(true);
    settle().await;
    let (second, refused) = (ask(true), ask(false));
    settle().await;
    assert_eq!(refused.await.unwrap().unwrap_err(), "not you");
    assert_eq!(held.load(Ordering::SeqCst), 1, "who waits holds nothing");
    provider.answers.add_permits(1);
    for waiting in [first, second] {
        let answer = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(
            (&*answer.value, answer.origin),
            ("answer", Origin::Computed)
        );
    }
    assert_eq!((provider.calls(), held.load(Ordering::SeqCst)), (1, 0));
    // A hit asks nobody.
    let asked = admitted.load(Ordering::SeqCst);
    assert!(ask(false).await.unwrap().unwrap().unwrap().origin.is_hit());
    assert_eq!(admitted.load(Ordering::SeqCst), asked);
    let stats = cache.stats();
    assert_eq!((stats.computations, stats.misses), (1, 2));
}
