//! What operators change and read while the service runs: the policies' file, the switch, the audit trail.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration_tests::{RedisServer, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Reply, Service};

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// A file of limits in a directory of its own.
struct Limits {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Limits {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        Self { directory, path }
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        std::fs::write(&self.path, text).unwrap();
    }

    /// The demo's, with another quota of letters.
    fn letters(quota: &str) -> String {
        Self::with(&[("coverLetter", quota)])
    }

    /// The demo's, with other quotas.
    fn with(quotas: &[(&str, &str)]) -> String {
        let mut text = include_str!("../limits.toml").to_owned();
        for (policy, quota) in quotas {
            let head = format!("[policies.{policy}]\nquota = \"");
            let begin = text.find(&head).unwrap() + head.len();
            let end = begin + text[begin..].find('"').unwrap();
            text.replace_range(begin..end, quota);
        }
        text
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

async fn letter(service: &Service) -> Reply {
    service.post("/api/coverLetter", ALICE, "{}").await
}

async fn health(service: &Service) -> Value {
    service.get("/health", ALICE).await.body
}

/// C6: a file that changes under load. The new limit holds from one decision to the next, what was counted goes on, and no request
/// fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_under_load_loses_nothing() {
    const CALLERS: usize = 8;
    let limits = Limits::new("limits.toml");
    let write = |turn: &str| {
        let large = "1_000_000_000/day";
        let quotas = [
            ("agent-turn", turn),
            ("agent-session", large),
            ("agent-user", large),
        ];
        limits.write(Limits::with(&quotas));
    };
    write("1_000_000/day");
    let service = Service::start(&[("LIMITS_FILE", limits.path())]);
    let is_over = AtomicBool::new(false);
    let count = AtomicU64::new(0);
    // The limit, and what is used of it by now.
    let ask = async || {
        let path = "/agent/s1/turns/1/tools/search";
        let reply = service.post(path, ALICE, r#"{"cost": 1}"#).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        count.fetch_add(1, Ordering::Relaxed);
        let turn = &reply.body["limits"][0];
        assert_eq!(turn["policy"], "agent-turn");
        [&turn["limit"], &turn["used"]].map(|number| number.as_u64().unwrap())
    };
    let call = async |_: usize| {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            seen.push(ask().await);
        }
        seen
    };
    let change = async {
        for turn in [
            "500_000/day",
            "1_000_000/day",
            "100_000/day",
            "1_000_000/day",
        ] {
            write(turn);
            let wanted = turn.trim_end_matches("/day").replace('_', "");
            let wanted: u64 = wanted.parse().unwrap();
            eventually("the new limit", async || {
                let [limit, _] = ask().await;
                (limit == wanted).then_some(())
            })
            .await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let start = Instant::now();
    let callers = futures_util::future::join_all((0..CALLERS).map(call));
    let (seen, ()) = tokio::join!(callers, change);
    let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} requests a second");
    for caller in &seen {
        let changes = caller.windows(2).filter(|pair| pair[0][0] != pair[1][0]);
        assert!(changes.count() <= 4, "each change happens once");
        assert!(
            caller.is_sorted_by(|a, b| a[1] < b[1]),
            "no counter is lost"
        );
    }
    let [_, used] = ask().await;
    assert_eq!(
        used,
        count.load(Ordering::Relaxed),
        "every call was counted"
    );
}

/// C6: ten files that cannot be used, each of which keeps the old limits and says where it is wrong.
#[tokio::test]
async fn a_broken_file_keeps_the_old_limits() {
    let good = Limits::letters("30/hour");
    let line = 1 + good
        .lines()
        .position(|line| line.contains("30/hour"))
        .unwrap();
    let with = |quota: &str| good.replace("quota = \"30/hour\"", quota);
    let half = &good[..good.find("30/hour").unwrap()];
    let twice = with("quota = \"5/hourr\"").replace("5/minute", "5/m");
    let second = 1 + twice
        .lines()
        .position(|line| line.contains("5/m\""))
        .unwrap();
    const KEPT: &str = "what held before still holds";
    type Broken = (&'static str, String, Vec<(usize, usize)>);
    let broken: [Broken; 10] = [
        ("typo", with("quota = \"5/huor\""), vec![(line, 9)]),
        (
            "wrong type",
            with("limit = \"five\"\nper = \"hour\""),
            vec![(line, 9)],
        ),
        (
            "unknown field",
            with("quota = \"5/hour\"\nlimmit = 5"),
            vec![(line + 1, 1)],
        ),
        (
            "duplicate",
            with("quota = \"5/hour\"\nquota = \"6/hour\""),
            vec![(line + 1, 1)],
        ),
        ("zero", with("quota = \"0/hour\""), vec![(line, 9)]),
        (
            "overflow",
            with("limit = 99999999999999999999\nper = \"hour\""),
            vec![(line, 9)],
        ),
        // One in front is read, as below; one within a text is not.
        (
            "byte order mark",
            with("\u{feff}quota = \"5/hour\""),
            vec![(line, 1)],
        ),
        ("empty", String::new(), vec![(1, 1)]),
        ("two errors", twice, vec![(line, 9), (second, 9)]),
        ("half written", half.to_owned(), vec![(line, 10)]),
    ];
    let all = broken.map(|(what, text, places)| {
        let good = good.clone();
        async move {
            let limits = Limits::new("limits.toml");
            limits.write(&good);
            let service = Service::start(&[("LIMITS_FILE", limits.path())]);
            limits.write(&text);
            let error = eventually(what, async || {
                let told = health(&service).await["limits_file_error"].clone();
                Some(told.as_str()?.to_owned())
            })
            .await;
            let file = limits.path();
            assert!(
                error.starts_with(&format!("LIMITS_FILE names {file}, ")),
                "{what}: {error}"
            );
            for (line, column) in places {
                let place = format!("line {line}, column {column}: ");
                assert!(error.contains(&place), "{what}: {place} in {error}");
            }
            let mut log = String::new();
            eventually("the log", async || {
                log += &service.log();
                log.contains(KEPT).then_some(())
            })
            .await;
            let reply = letter(&service).await;
            assert_eq!(reply.number("x-ratelimit-limit"), 30, "{what}");
            limits.write(&good);
            eventually("the good file again", async || {
                health(&service).await["limits_file_error"]
                    .is_null()
                    .then_some(())
            })
            .await;
            let reply = letter(&service).await;
            assert_eq!(
                reply.number("x-ratelimit-remaining"),
                28,
                "{what}: no count was lost"
            );
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn files_come_in_other_ways_too() {
    let limits = Limits::new("limits.toml");
    limits.write(Limits::letters("30/hour"));
    let service = Service::start(&[("LIMITS_FILE", limits.path())]);
    let reads = async |what: &str, limit: u64| {
        eventually(what, async || {
            (letter(&service).await.number("x-ratelimit-limit") == limit).then_some(())
        })
        .await;
    };
    // With a byte order mark in front it is as good as without.
    limits.write(format!("\u{feff}{}", Limits::letters("31/hour")));
    reads("the new limit", 31).await;
    // As files are replaced by editors and by Kubernetes: by a rename.
    let next = limits.directory.path().join("next");
    std::fs::write(&next, Limits::letters("32/hour")).unwrap();
    std::fs::rename(&next, &limits.path).unwrap();
    reads("the renamed file", 32).await;
}

async fn throw(service: &Service, body: Value) -> Reply {
    let key = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*key)];
    service
        .send(Method::PUT, "/api/admin/switch", &headers, body.to_string())
        .await
}

/// C6: an operator's word reaches every instance within 5 s, and is taken back by itself or by another one.
#[tokio::test]
async fn a_switch_reaches_every_instance() {
    let redis = RedisServer::start_tcp();
    let url = redis.url();
    let start = |name| Service::start(&[("REDIS_URL", &*url), ("INSTANCE", name)]);
    let services = ["first", "second"].map(start);
    let used = async || {
        redis
            .command::<Option<u64>>(&["GET", "ratelimit:user:alice:coverLetter"])
            .unwrap_or(0)
    };
    for service in &services {
        assert_eq!(letter(service).await.status, 200);
    }
    assert_eq!(used().await, 2);
    let reply = throw(&services[0], json!({ "limits": "off", "minutes": 5 })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.body["reaches"],
        json!({ "instances": "all", "within_seconds": 5 })
    );
    let told = Instant::now();
    eventually("the second instance", async || {
        let reply = letter(&services[1]).await;
        (!reply.headers.contains_key("x-ratelimit-remaining")).then_some(())
    })
    .await;
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    let before = used().await;
    for service in &services {
        for _ in 0..30 {
            let reply = letter(service).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(
                !reply.headers.contains_key("x-ratelimit-limit"),
                "{reply:?}"
            );
        }
        let switch = health(service).await["switch"].clone();
        assert_eq!(
            (&switch["words"], &switch["set_by"]),
            (&json!("off"), &json!("override"))
        );
        assert!(switch["seconds_left"].as_u64().unwrap() > 200, "{switch}");
    }
    assert_eq!(used().await, before, "nobody counts");
    // By the other one.
    let key = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*key)];
    let reply = services[1]
        .send(Method::DELETE, "/api/admin/switch", &headers, "")
        .await;
    assert_eq!(reply.body["set_by"], "default", "{reply:?}");
    eventually("counted again", async || {
        let reply = letter(&services[0]).await;
        reply
            .headers
            .contains_key("x-ratelimit-remaining")
            .then_some(())
    })
    .await;
    // One that starts later hears of it, too.
    throw(&services[0], json!({ "limits": "local", "share": "1/2" })).await;
    let third = start("third");
    eventually("the third instance", async || {
        (letter(&third).await.number("x-ratelimit-limit") == 10).then_some(())
    })
    .await;
}

/// An operator is told whom the change did not reach.
#[tokio::test]
async fn a_switch_says_that_it_reaches_this_instance_only() {
    let redis = RedisServer::start_tcp();
    let mut caches = RedisServer::start_tcp();
    let (url, of_caches) = (redis.url(), caches.url());
    let off = json!({ "limits": "off" });
    for (variables, why) in [
        (vec![], "in this process"),
        (
            vec![("REDIS_URL", &*url), ("SWITCH_FOLLOW", "false")],
            "do not follow",
        ),
        (
            vec![
                ("REDIS_URL", &*url),
                ("CACHE_REDIS_URL", &*of_caches),
                ("CACHE_REDIS_DEADLINE_MILLIS", "500"),
            ],
            "Redis at",
        ),
    ] {
        let service = Service::start(&variables);
        if why == "Redis at" {
            caches.stop();
        }
        let mut reply = throw(&service, off.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let reaches = &reply.body["reaches"];
        assert_eq!(reaches["instances"], "this one only", "{reply:?}");
        assert!(reaches["why"].as_str().unwrap().contains(why), "{reply:?}");
        reply = letter(&service).await;
        assert!(
            !reply.headers.contains_key("x-ratelimit-remaining"),
            "{reply:?}"
        );
        let wrong = throw(&service, json!({ "limits": "on", "keys": "200%" })).await;
        wrong.assert_problem(400);
        for word in ["store, local or off", "200%"] {
            assert!(wrong.text.contains(word), "{wrong:?}");
        }
    }
}

/// C6: a file throws it without anybody's call, also while Redis is away.
#[tokio::test]
async fn a_file_throws_the_switch() {
    let limits = Limits::new("switch.yaml");
    limits.write("limits: store");
    let mut redis = RedisServer::start_tcp();
    let url = redis.url();
    let service = Service::start(&[
        ("REDIS_URL", &*url),
        ("SWITCH_FILE", limits.path()),
        ("REDIS_DEADLINE_MILLIS", "500"),
    ]);
    assert_eq!(letter(&service).await.number("x-ratelimit-remaining"), 19);
    redis.stop();
    limits.write("limits: local");
    let reply = eventually("counted here", async || {
        let reply = letter(&service).await;
        let is_local = reply.headers.contains_key("x-ratelimit-remaining")
            && !reply.headers.contains_key("x-ratelimit-degraded");
        is_local.then_some(reply)
    })
    .await;
    assert_eq!(
        reply.number("x-ratelimit-remaining"),
        19,
        "it is what was asked for, and no fault"
    );
    assert_eq!(health(&service).await["switch"]["set_by"], "file");
    limits.write("limits: nowhere");
    eventually("what is wrong", async || {
        let error = health(&service).await["switch"]["error"].clone();
        error.as_str()?.contains("line 1, column 9").then_some(())
    })
    .await;
    assert_eq!(letter(&service).await.number("x-ratelimit-remaining"), 18);
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// B10: who was denied most, by the service itself and after a restart; an admin's token in no form.
#[tokio::test]
async fn admins_see_who_is_denied_most() {
    let redis = RedisServer::start_tcp();
    let url = redis.url();
    // A file that gives the admins' policy no scope.
    let limits = Limits::new("limits.toml");
    limits.write(Limits::with(&[("agent-turn", "3/hour")]).replace("scope = \"admin\"", ""));
    let start = || Service::start(&[("REDIS_URL", &*url), ("LIMITS_FILE", limits.path())]);
    let mut service = start();
    for _ in 0..10 {
        service
            .post("/agent/s1/turns/1/tools/search", ALICE, r#"{"cost": 1}"#)
            .await;
        service.get("/api/admin/users", ADMIN).await;
    }
    service.terminate();
    assert!(service.wait().success());
    let service = start();
    let reply = service.get("/api/admin/offenders", ADMIN).await;
    let offenders = reply.body["offenders"].as_array().unwrap();
    let of = |policy: &str| offenders.iter().find(|it| it["policy"] == policy).unwrap();
    let turn = of("agent-turn");
    assert_eq!((&turn["denied"], &turn["days_ago"]), (&json!(7), &json!(0)));
    assert_eq!(turn["key"], "rate:{alice}:s1:1:search");
    assert_eq!(
        (&of("admin")["denied"], &of("admin")["key"]),
        (&json!(5), &Value::Null)
    );
    let digest: String = Sha256::digest(ADMIN)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        !reply.text.contains(&digest) && !reply.text.contains(ADMIN),
        "{reply:?}"
    );
}

/// C6: what was decided is in the file when the process ends, on whatever day somebody asks; and no token, nor a digest that a token
/// could be guessed by.
#[tokio::test]
async fn the_trail_is_complete_when_the_service_stops() {
    let files = Limits::new("audit.jsonl");
    let start = || {
        Service::start(&[
            ("AUDIT_FILE", files.path()),
            ("AUDIT_SECRET", "of the trail"),
            ("INSTANCE", "here"),
        ])
    };
    let mut service = start();
    for _ in 0..25 {
        letter(&service).await;
    }
    let told = service.get("/api/admin/audit", ADMIN).await;
    assert_eq!(
        (&told.body["lost"], &told.body["waiting"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(told.body["written"], 26);
    let usage = service.get("/api/admin/usage", ADMIN).await;
    let usage = usage.body["usage"].as_array().unwrap().clone();
    let of_alice = usage
        .iter()
        .find(|it| it["user"] == "alice" && it["operation"] == "coverLetter");
    let hash = of_alice.unwrap()["audit_key"].clone();
    service.terminate();
    assert!(service.wait().success());
    let trail = lines(&files.path);
    let letters = trail.iter().filter(|line| line["limits"][0]["key"] == hash);
    let denied = letters
        .clone()
        .filter(|line| line["outcome"] == "denied")
        .count();
    assert_eq!((letters.count(), denied), (25, 5));
    let mut again = start();
    letter(&again).await;
    again.terminate();
    again.wait();
    let trail = lines(&files.path);
    let last = trail.last().unwrap();
    assert_eq!(
        (&last["limits"][0]["key"], &last["instance"]),
        (&hash, &json!("here"))
    );
    assert_eq!(last["sequence"], 1);

    let digest: String = Sha256::digest(ADMIN)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = format!("{trail:?} {}", told.text);
    assert!(text.contains("\"admin\""));
    for secret in [ADMIN, &digest, &digest[..32], "alice", "of the trail"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
