//! How the service starts and stops.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use support::{Service, failing_start};

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

/// Known fault: an empty key let everybody in whose header was empty, and an error named neither file nor line.
#[test]
fn users_that_cannot_be_used_are_named_by_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.json");
    let named = path.display().to_string();
    let good = r#"{"key": "secret-a", "user": "alice", "tenant": "t"}"#;
    for (text, what) in [
        ("[]", "line 1: the list of users is empty"),
        ("{}", "line 1, column 0: this is no JSON array"),
        (
            &format!("[\n{good},\n  {{\"key\": \"\", \"user\": \"b\", \"tenant\": \"t\"}}]"),
            "line 3: the key is empty",
        ),
        (
            &format!("[\n{good},\n\n{{\n\"key\": \"secret-b\", \"user\": \"b\"\n}}]"),
            "line 6: a member",
        ),
        (
            &format!("[{good},\n{good}]"),
            "line 2: this user id is there twice",
        ),
        (&format!("[{good},\n{{]"), "line 2, column 2"),
    ] {
        std::fs::write(&path, text).unwrap();
        let log = failing_start(&[("USERS_FILE", &named)]);
        let expected = format!("USERS_FILE names {named}, which cannot be used: {what}");
        assert!(log.contains(&expected), "{expected}: {log}");
        assert!(!log.contains("secret-"), "{log}");
    }
    std::fs::write(&path, b"[\n\xff").unwrap();
    let log = failing_start(&[("USERS_FILE", &named)]);
    assert!(log.contains("line 2: it is no UTF-8"), "{log}");
    // As some editors save it.
    std::fs::write(&path, format!("\u{feff}[{good}]")).unwrap();
    let service = Service::start(&[("USERS_FILE", &named)]);
    assert!(
        !service.start_log.contains("demo users"),
        "{}",
        service.start_log
    );
}

/// Known fault: every request of an operation whose policy was of concurrency was an error.
#[test]
fn an_operation_is_no_concurrency() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let named = path.display().to_string();
    let limits = include_str!("../limits.toml");
    let letters = "[policies.coverLetter]\nquota = \"20/hour\"";
    let streams = "[policies.coverLetter]\nalgorithm = \"concurrency\"\nlimit = 3";
    std::fs::write(
        &path,
        format!("\u{feff}{}", limits.replace(letters, streams)),
    )
    .unwrap();
    let log = failing_start(&[("LIMITS_FILE", &named)]);
    let line = 1 + limits[..limits.find(letters).unwrap()]
        .matches('\n')
        .count();
    for told in [
        format!("LIMITS_FILE names {named}, which cannot be used: line {line}, column "),
        "policy coverLetter is of concurrency".to_owned(),
    ] {
        assert!(log.contains(&told), "{told}: {log}");
    }
}

#[test]
fn proxies_that_cannot_be_are_named() {
    for (variables, what) in [
        (
            &[("TRUSTED_PROXIES", "10.0.0.0/40")][..],
            "TRUSTED_PROXIES: \"10.0.0.0/40\" is no network",
        ),
        (
            &[("TRUSTED_PROXIES", "0.0.0.0/0")],
            "would trust every client",
        ),
        (
            &[("TRUSTED_PROXIES", "10.0.0.1"), ("PROXY_HOPS", "1")],
            "set one of them",
        ),
        (&[("PROXY_HOPS", "33")], "PROXY_HOPS: 33 proxies"),
        (&[("PROXY_HOPS", "0")], "PROXY_HOPS is a whole number"),
        (
            &[("CLIENT_ADDRESS_HEADER", "X-Real-IP")],
            "set TRUSTED_PROXIES or PROXY_HOPS too",
        ),
        (
            &[("CLIENT_ADDRESS_HEADER", "a b"), ("PROXY_HOPS", "1")],
            "is no name of a header",
        ),
        (
            &[("CLIENT_IPV6_PREFIX", "32")],
            "CLIENT_IPV6_PREFIX: /32 names no client",
        ),
        (
            &[("MAX_CONNECTIONS", "0")],
            "MAX_CONNECTIONS is a whole number",
        ),
    ] {
        let log = failing_start(variables);
        assert!(log.contains(what), "{what}: {log}");
    }
}
