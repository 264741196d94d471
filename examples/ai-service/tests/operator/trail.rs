//! C6, B10: what was decided, and who was denied most.

use std::path::Path;

use integration_tests::RedisServer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::Service;
use crate::{ADMIN, ALICE, Limits, letter};

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
    // For each letter a line of its own limit; of the twenty that were asked also what the model reserved and what it settled to.
    // And one of this question. Addresses are not in the trail.
    let written = 25 + 20 * 2 + 1;
    let told = service.get("/api/admin/audit", ADMIN).await;
    assert_eq!(
        (&told.body["lost"], &told.body["waiting"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(told.body["written"], written);
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
    let last = trail.iter().rfind(|line| line["limits"][0]["key"] == hash);
    let last = last.unwrap();
    assert_eq!(last["instance"], "here");
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
