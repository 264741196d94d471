//! Spans for collectors: the attributes that the documentation names, and nobody's key.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use integration_tests::{Fault, Faulty};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{Charge, Limiter, Outage, Period, Policy, Quota};
use limiter_memory::MemoryStore;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

type Told = BTreeMap<String, String>;

/// Keeps the attributes of each span.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Kept>>);

/// In their order, and which one an id is of by now.
#[derive(Default)]
struct Kept {
    told: Vec<Told>,
    of: HashMap<u64, usize>,
}

struct Fields<'a>(&'a mut Told);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let told = format!("{value:?}").trim_matches('"').to_owned();
        self.0.insert(field.name().to_owned(), told);
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "limiter.call" {
            let mut kept = self.0.lock().unwrap();
            let mut told = Told::new();
            attributes.record(&mut Fields(&mut told));
            let place = kept.told.len();
            kept.of.insert(id.into_u64(), place);
            kept.told.push(told);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut kept = self.0.lock().unwrap();
        if let Some(place) = kept.of.get(&id.into_u64()).copied() {
            values.record(&mut Fields(&mut kept.told[place]));
        }
    }
}

#[test]
fn a_call_is_a_span() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let quota = Quota::fixed_window(3, Period::HOUR).unwrap();
    let policy = |name| Policy::new(name, quota).unwrap();
    let (user, tenant) = (policy("user"), policy("tenant").with_outage(Outage::Allow));
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let faults = Faulty::new(MemoryStore::new());
            let limiter = Limiter::raw(Stack::new(faults.clone()).trace().build());
            let keys = [user.key(["alice"]), tenant.key(["acme"])];
            limiter.check_n(&user, &keys[0], 2).await;
            let both = [Charge::new(&user, &keys[0]), Charge::new(&tenant, &keys[1])];
            for _ in 0..2 {
                limiter.check_all(&both).await;
            }
            faults.set(Fault::Request);
            limiter.check(&user, &keys[0]).await;
            limiter.check(&tenant, &keys[1]).await;
        });
    });
    let told = &spans.0.lock().unwrap().told;
    assert_eq!(told.len(), 5);
    let of = |index: usize, name: &str| told[index].get(name).map(String::as_str);
    let outcomes: Vec<_> = (0..5)
        .map(|index| of(index, "limiter.outcome").unwrap())
        .collect();
    assert_eq!(
        outcomes,
        ["allowed", "allowed", "denied", "error", "allowed"]
    );
    assert_eq!(
        (of(0, "limiter.policies"), of(0, "limiter.cost")),
        (Some("user"), Some("2"))
    );
    assert_eq!(
        (of(0, "limiter.remaining"), of(0, "limiter.action")),
        (Some("1"), Some("charge"))
    );
    assert_eq!(of(1, "limiter.policies"), Some("user,tenant"));
    assert_eq!(
        (of(2, "limiter.policy"), of(2, "limiter.degraded")),
        (Some("user"), Some("false"))
    );
    assert!(
        of(2, "limiter.retry_after_ms")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 3_500_000
    );
    assert_eq!(of(3, "error.type"), Some("connection"));
    assert_eq!(
        (of(4, "limiter.source"), of(4, "limiter.degraded")),
        (Some("outage"), Some("true"))
    );
    let document = include_str!("../../../docs/operations.md");
    for name in told.iter().flat_map(|told| told.keys()) {
        assert!(
            document.contains(&format!("`{name}`")),
            "{name} is not in docs/operations.md"
        );
    }
    let text = format!("{told:?}");
    assert!(!text.contains("alice") && !text.contains("acme"), "{text}");
}
