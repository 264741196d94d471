//! The runs: a healthy one, and one for each fault.

use std::time::{Duration, Instant};

use integration_tests::{Fault, Faulty, Proxy, RedisServer};
use limiter::limiter_core::limit::wrap::Stack;
use limiter::limiter_core::limit::{Charge, Limiter, OperationId, Period, Policy, Quota};
use limiter::memory::MemoryStore;
use limiter::metrics::{BUCKETS, Metrics};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use reqwest::Method;

use crate::record::{FAULT, Run, SCRAPES};
use crate::support::Service;

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// What users do, without a wait for the model.
async fn ask(service: &Service, at: usize) {
    let tool = format!("/agent/s{}/turns/{}/tools/search", at / 24, at / 12);
    service.post(&tool, ALICE, r#"{"cost": 1}"#).await;
    // Somebody else's, of whom each is new.
    let other = format!("/agent/other-{at}/turns/1/tools/search");
    service.post(&other, "demo-bob", r#"{"cost": 1}"#).await;
}

/// Scrapes a service that is used, and does something to it on the way.
async fn record(name: &'static str, service: &Service, mut fault: impl AsyncFnMut(usize)) -> Run {
    let mut run = Run::new(name);
    for at in 0..SCRAPES {
        fault(at).await;
        ask(service, at).await;
        run.add(service.get("/metrics", ALICE).await.text);
    }
    run
}

async fn letters(service: &Service) {
    let one = || service.post("/api/coverLetter", ALICE, "{}");
    futures_util::future::join_all((0..3).map(|_| one())).await;
}

/// What nobody is to be woken for: use, denials, cache hits and misses, an admin.
/// Also how long the machine takes for a command of Redis itself: what is slow then is no fault.
pub(crate) async fn healthy() -> (Run, Duration) {
    let redis = RedisServer::start_tcp();
    let directory = tempfile::tempdir().unwrap();
    let trail = directory.path().join("audit.jsonl");
    let service = Service::start(&[
        ("REDIS_URL", &redis.url()),
        ("AUDIT_FILE", trail.to_str().unwrap()),
        ("REDIS_QUOTA_COMMANDS_PER_DAY", "1000000"),
        ("REDIS_QUOTA_MEGABYTES", "1000"),
    ]);
    let mut control = Duration::ZERO;
    let run = record("healthy", &service, async |at| {
        let begun = Instant::now();
        redis.command::<String>(&["PING"]);
        control = control.max(begun.elapsed());
        if at % 12 == 5 {
            let body = format!(r#"{{"company": "{}"}}"#, at / 24);
            service.post("/api/companyResearch", ALICE, body).await;
            service.get("/api/admin/usage", ADMIN).await;
        }
    });
    let run = run.await;
    (run, control)
}

pub(crate) async fn all() -> Vec<Run> {
    let (away, slow, stalled) = tokio::join!(away(), slow(), stalled());
    let (off, disk, table) = tokio::join!(off(), full_disk(), full_table());
    let (evicting, quota) = tokio::join!(evicting(), quota());
    let library = tokio::task::spawn_blocking(library).await.unwrap();
    vec![
        away, slow, stalled, off, disk, table, evicting, quota, library,
    ]
}

async fn away() -> Run {
    let mut redis = RedisServer::start_tcp();
    let service = Service::start(&[
        ("REDIS_URL", &redis.url()),
        ("REDIS_DEADLINE_MILLIS", "1000"),
    ]);
    let run = record("away", &service, async |at| {
        if at == FAULT {
            redis.stop();
        }
        if at % 6 == 3 {
            letters(&service).await;
        }
    });
    run.await
}

async fn slow() -> Run {
    let redis = RedisServer::start_tcp();
    let proxy = Proxy::start(redis.port()).await;
    let service = Service::start(&[("REDIS_URL", &redis.url_at(proxy.port()))]);
    let run = record("slow", &service, async |at| {
        if at == FAULT {
            proxy.delay(Duration::from_millis(25));
        }
    });
    run.await
}

async fn stalled() -> Run {
    let redis = RedisServer::start_tcp();
    let service = Service::start(&[
        ("REDIS_URL", &redis.url()),
        ("REDIS_DEADLINE_MILLIS", "300"),
    ]);
    let mut stall = None;
    let run = record("stalled", &service, async |at| {
        if at == SCRAPES - 12 {
            stall = Some(redis.stall());
        }
    });
    run.await
}

async fn off() -> Run {
    let service = Service::start(&[]);
    let run = record("off", &service, async |at| {
        if at == FAULT {
            let key = format!("Bearer {ADMIN}");
            let headers = [("authorization", &*key)];
            let body = r#"{"limits": "off", "keys": "50%"}"#;
            let reply = service
                .send(Method::PUT, "/api/admin/switch", &headers, body)
                .await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    });
    run.await
}

async fn full_disk() -> Run {
    let service = Service::start(&[("AUDIT_FILE", "/dev/full")]);
    record("full disk", &service, async |_| {}).await
}

async fn full_table() -> Run {
    let service = Service::start(&[("MEMORY_KEYS", "40")]);
    record("full table", &service, async |_| {}).await
}

/// One that evicts, and is full, when the service starts.
async fn evicting() -> Run {
    let settings = ["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"];
    let redis = RedisServer::start_tcp_with(&settings);
    for key in 0..400 {
        redis.set(&format!("other:{key}"), &[b'x'; 20_000]);
    }
    let service = Service::start(&[("REDIS_URL", &redis.url())]);
    record("evicting", &service, async |_| {}).await
}

async fn quota() -> Run {
    let redis = RedisServer::start_tcp();
    // It has its memory before the service asks for it.
    redis.set("other", &[b'x'; 900_000]);
    let service = Service::start(&[
        ("REDIS_URL", &redis.url()),
        ("REDIS_QUOTA_COMMANDS_PER_DAY", "50"),
        ("REDIS_QUOTA_MEGABYTES", "1"),
    ]);
    record("quota", &service, async |_| {}).await
}

/// What the service does not do itself: records, and give-backs that find no room.
fn library() -> Run {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in BUCKETS {
        let name = Matcher::Full(name.to_owned());
        builder = builder.set_buckets_for_metric(name, buckets).unwrap();
    }
    let recorder = builder.build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let mut run = Run::new("library");
    metrics::with_local_recorder(&recorder, || {
        let store = Faulty::new(MemoryStore::new());
        let stack = Stack::new(store.clone()).observe(Metrics::new());
        let limiter = Limiter::raw(stack.build()).with_give_backs(0);
        let quota = Quota::fixed_window(1_000_000, Period::DAY).unwrap();
        let policy = Policy::new("calls", quota).unwrap();
        let key = policy.key(["a"]);
        let charge = [Charge::new(&policy, &key)];
        for at in 0..SCRAPES {
            runtime.block_on(async {
                let id = OperationId::random();
                limiter.charge_once(&id, &charge).await.unwrap();
                let ttl = Duration::from_secs(60);
                let reserved = limiter.reserve(&charge, ttl).await.unwrap().held().unwrap();
                if at >= SCRAPES - 12 {
                    store.set(Fault::Request);
                    assert!(reserved.cancel().await.is_err());
                    store.set(Fault::None);
                }
            });
            limiter::metrics::report(&limiter);
            run.add(recorder.handle().render());
        }
    });
    run
}
