use super::*;
use limiter_core::Key;
use proptest::prelude::*;
use std::time::Instant as WallInstant;

proptest! {
    /// I-K3: L1 TTL <= what was left in the store, counted from before the read was sent.
    #[test]
    fn l1_never_outlives_the_store(left in 0_u64..10_000, cap in 0_u64..10_000) {
        let [left, cap] = [left, cap].map(Duration::from_millis);
        let asked = Instant::now();
        let until = l1_expiry(asked, left, cap);
        prop_assert!(until <= asked + left && until <= asked + cap);
        prop_assert!(until == asked + left || until == asked + cap);
    }
}

fn key() -> CacheKey {
    CacheKey::new(&Key::new(["cache", "op"]), "a")
}

fn answer(value: &str) -> Answer<Arc<String>> {
    Answer {
        value: Arc::new(value.to_owned()),
        origin: Origin::L2,
        created: Timestamp::default(),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn in_a_minute() -> Instant {
    Instant::now() + MINUTE
}

async fn value(l1: &L1<String>) -> Option<String> {
    l1.get(&key()).await.map(|answer| answer.value.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_value_expires_on_time() {
    let (l1, key) = (L1::new(10), key());
    let ticket = l1.ticket(&key).await;
    l1.fill(&ticket, &answer("a"), in_a_minute()).await;
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert_eq!(value(&l1).await.as_deref(), Some("a"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(value(&l1).await, None);
}

/// The memory goes too, by moka's own clock, which tests cannot move: hence a real wait.
#[tokio::test]
async fn an_expired_value_frees_its_memory() {
    let (l1, key) = (L1::new(10), key());
    let ticket = l1.ticket(&key).await;
    l1.fill(&ticket, &answer("a"), in_a_minute()).await;
    l1.held.run_pending_tasks().await;
    assert_eq!(l1.entries(), 1);
    let soon = Instant::now() + Duration::from_millis(20);
    l1.fill(&ticket, &answer("a"), soon).await;
    let deadline = WallInstant::now() + Duration::from_secs(30);
    while l1.entries() > 0 {
        assert!(WallInstant::now() < deadline);
        tokio::task::yield_now().await;
        l1.held.run_pending_tasks().await;
    }
}

#[tokio::test]
async fn the_latest_answers_stay() {
    let l1 = L1::new(2);
    for name in ["a", "b", "c"] {
        let key = CacheKey::new(&Key::new(["op"]), name);
        let ticket = l1.ticket(&key).await;
        l1.fill(&ticket, &answer(name), in_a_minute()).await;
        l1.held.run_pending_tasks().await;
        assert!(l1.get(&key).await.is_some(), "{name}");
    }
    assert_eq!(l1.entries(), 2);
    let none = L1::new(0);
    let key = key();
    let ticket = none.ticket(&key).await;
    none.fill(&ticket, &answer("a"), in_a_minute()).await;
    assert_eq!(value(&none).await, None);
}

/// A reader that was overtaken by a write, a clear or a clear of everything keeps its old value
/// to itself.
#[tokio::test]
async fn a_slow_reader_puts_nothing_back() {
    let (l1, key) = (L1::new(10), key());
    let slow = l1.ticket(&key).await;
    l1.replace(&mut l1.ticket(&key).await, &answer("new"), in_a_minute())
        .await;
    l1.fill(&slow, &answer("old"), in_a_minute()).await;
    assert_eq!(value(&l1).await.as_deref(), Some("new"));

    let slow = l1.ticket(&key).await;
    l1.remove(&mut l1.ticket(&key).await).await;
    l1.fill(&slow, &answer("old"), in_a_minute()).await;
    assert_eq!(value(&l1).await, None);

    let slow = l1.ticket(&key).await;
    l1.clear();
    l1.fill(&slow, &answer("old"), in_a_minute()).await;
    assert_eq!(value(&l1).await, None);
    l1.fill(&l1.ticket(&key).await, &answer("new"), in_a_minute())
        .await;
    assert_eq!(value(&l1).await.as_deref(), Some("new"));
}

/// I-K3: the time that a reader waits to put its value in is the value's own.
#[tokio::test(start_paused = true)]
async fn waiting_to_fill_costs_the_value_its_time() {
    let (l1, key) = (L1::new(10), key());
    let (ticket, other) = (l1.ticket(&key).await, l1.ticket(&key).await);
    let exclusive = other.hold().await;
    let value_old = answer("a");
    let until = in_a_minute();
    let fill = l1.fill(&ticket, &value_old, until);
    let release = async {
        tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
        drop(exclusive);
    };
    tokio::join!(fill, release);
    assert_eq!(value(&l1).await.as_deref(), Some("a"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(value(&l1).await, None);
}

/// Two writers that met leave nothing: which of them the store took last is not known.
#[tokio::test]
async fn writers_that_met_leave_nothing() {
    let (l1, key) = (L1::new(10), key());
    let (mut first, mut second) = (l1.ticket(&key).await, l1.ticket(&key).await);
    l1.replace(&mut second, &answer("second"), in_a_minute())
        .await;
    l1.replace(&mut first, &answer("first"), in_a_minute())
        .await;
    assert_eq!(value(&l1).await, None);
    assert!(!first.is_current().await && !second.is_current().await);
}

#[tokio::test]
async fn a_ticket_leaves_no_trace() {
    let (l1, key) = (L1::<String>::new(10), key());
    let tickets = (l1.ticket(&key).await, l1.ticket(&key).await);
    assert_eq!(l1.tickets(), 1);
    drop(tickets);
    assert_eq!(l1.tickets(), 0);
}

impl<T> L1<T> {
    fn tickets(&self) -> usize {
        self.writes.watched_keys()
    }
}
