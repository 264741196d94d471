//! The console in a real browser, light and dark, 360 px wide, by keyboard; axe-core finds nothing in it.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use std::path::Path;
use std::process::Command;

use integration_tests::RedisServer;
use support::{Service, limits_of_many};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn browser() -> &'static str {
    let is_there = |name: &&str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .output();
        found.is_ok_and(|found| found.status.success())
    };
    let known = ["chromium", "chromium-browser", "google-chrome"];
    known.into_iter().find(is_there).unwrap()
}

/// Does in both themes what the scenario's function in console.mjs does.
fn run(scenario: &str, service: &Service) {
    let tools = format!("{ROOT}/target/tools/browser");
    let packages = Path::new(&tools).join("node_modules");
    assert!(packages.is_dir(), "run ./scripts/install-browser.sh first");
    let which = Command::new("sh")
        .args(["-c", &format!("command -v {}", browser())])
        .output();
    let browser = String::from_utf8(which.unwrap().stdout).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/console.mjs");
    let output = Command::new("node")
        .args([script, scenario, &format!("http://{}", service.address())])
        .env("TOOLS", tools)
        .env("BROWSER", browser.trim())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{}", service.log());
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.matches(": good").count(), 2, "{told}");
}

#[test]
fn a_limit_is_used_up_and_reset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let letters = "[policies.coverLetter]\nquota = \"";
    let limits =
        limits_of_many().replace(&format!("{letters}20/hour"), &format!("{letters}3/hour"));
    std::fs::write(&path, limits).unwrap();
    let service = Service::start(&[("LIMITS_FILE", path.to_str().unwrap())]);
    run("usesUpALimit", &service);
}

#[test]
fn what_is_degraded_is_shown() {
    let mut redis = RedisServer::start();
    let service = Service::start(&[
        ("REDIS_URL", &redis.url()),
        ("REDIS_DEADLINE_MILLIS", "1000"),
    ]);
    redis.stop();
    run("isDegraded", &service);
}
