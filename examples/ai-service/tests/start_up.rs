//! How the service starts and stops.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use support::{Service, command};

/// The log of a start that fails, which it must.
fn failing_start(variables: &[(&str, &str)]) -> String {
    let output = command(variables).output().unwrap();
    assert!(!output.status.success(), "{variables:?} should not start");
    String::from_utf8(output.stderr).unwrap()
}

/// Colours are for terminals; a file or a log collector gets plain text.
#[test]
fn logs_are_plain_text_where_nobody_looks() {
    let service = Service::start(&[]);
    let failed = failing_start(&[("REDIS_URL", "nope")]);
    for log in [&service.start_log, &failed] {
        assert!(!log.is_empty() && !log.contains('\u{1b}'), "{log:?}");
    }
}

/// One clear line, and no password in it.
#[test]
fn a_malformed_redis_url_stops_the_start() {
    for url in [
        "redis://user:hunter2@host:port",
        "user:hunter2@host",
        "redis://user:hunter2@",
    ] {
        let log = failing_start(&[("REDIS_URL", url)]);
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(
            log.contains("REDIS_URL") && log.contains("redis://["),
            "{log}"
        );
        assert!(!log.contains("hunter2"), "{log}");
    }
}

/// D2: without anybody to trust, no server is.
#[test]
fn tls_without_authorities_stops_the_start() {
    let none = "/nonexistent";
    let log = failing_start(&[
        ("REDIS_URL", "rediss://user:hunter2@localhost:1"),
        ("SSL_CERT_FILE", none),
        ("SSL_CERT_DIR", none),
    ]);
    assert!(log.contains("REDIS_TLS_CA_FILE"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

/// Demo keys are no secret: that they work is said once, without them.
#[test]
fn active_demo_users_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let demo = include_str!("../users.json");
    let copied = file(
        "copied.json",
        &demo.replace("alice\", \"tenant", "eve\", \"tenant"),
    );
    let own = file(
        "own.json",
        r#"[{"key": "my own", "user": "alice", "tenant": "demo"}]"#,
    );
    for (users, warnings) in [("", 1), (&copied, 1), (&own, 0)] {
        let service = Service::start(&[("USERS_FILE", users)]);
        let log = &service.start_log;
        assert_eq!(log.matches("demo users are active").count(), warnings);
        assert!(!log.contains("demo-"), "{log}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let service = Service::start(&[]);
    let log = failing_start(&[("BIND", service.address())]);
    assert!(
        log.contains(service.address()) && log.contains("set BIND"),
        "{log}"
    );
}

#[test]
fn files_and_variables_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = directory.path().join("file.json");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let log = failing_start(&[("USERS_FILE", "/does/not/exist.json")]);
    assert!(log.contains("USERS_FILE"), "{log}");
    let log = failing_start(&[("LIMITS_FILE", &file("{\"policies\": {}}"))]);
    for word in [
        "LIMITS_FILE names",
        "companyResearch, resumeAnalysis",
        "agent-user",
    ] {
        assert!(log.contains(word), "{log}");
    }
    let limits = file("{\"policies\": {\n  \"a\": {\"quota\": \"1/hourr\"},\n  \"b\": {}}}");
    let log = failing_start(&[("LIMITS_FILE", &limits)]);
    let named = format!("LIMITS_FILE names {limits}, which cannot be used: line 2, column 18: ");
    assert!(
        log.contains(&named) && log.contains("line 3, column 3: "),
        "{log}"
    );
    let log = failing_start(&[("LIMITS_FILE", "limits.ini")]);
    assert!(
        log.contains("LIMITS_FILE") && log.contains(".toml"),
        "{log}"
    );
    let log = failing_start(&[("SWITCH_FILE", &file("{\"limits\": \"on\"}"))]);
    assert!(
        log.contains("SWITCH_FILE") && log.contains("store, local or off"),
        "{log}"
    );
    let log = failing_start(&[("AUDIT_FILE", "/does/not/exist/audit.jsonl")]);
    assert!(
        log.contains("AUDIT_FILE") && log.contains("cannot be written"),
        "{log}"
    );
    let log = failing_start(&[("AUDIT_FILES", "0")]);
    assert!(log.contains("AUDIT_FILES"), "{log}");
    let log = failing_start(&[("AI_MODEL", "gpt")]);
    assert!(log.contains("AI_BASE_URL"), "{log}");
    let log = failing_start(&[("KEY_PREFIX", "a{b}"), ("REDIS_URL", "redis://127.0.0.1:1")]);
    assert!(log.contains("key prefix"), "{log}");
}
