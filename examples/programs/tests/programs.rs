//! Each program as a process: what it prints, and what it answers over HTTP and gRPC.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Response};
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// A server that is ended when it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(program: &str) -> Self {
        let process = Command::new(program)
            .env_clear()
            .env("BIND", "127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // First, so that it is ended whatever fails.
        let mut server = Self {
            process,
            url: String::new(),
        };
        let mut lines = BufReader::new(server.process.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        line.strip_prefix("listening on ")
            .unwrap()
            .clone_into(&mut server.url);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a program that ends says.
fn said(program: &str) -> Vec<String> {
    let output = Command::new(program).env_clear().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    told.lines().map(str::to_owned).collect()
}

fn client() -> Client {
    // Lost only to another test's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn users_and_tenants_are_limited_by_api_key() {
    let server = Server::start(env!("CARGO_BIN_EXE_api-keys"));
    let client = client();
    let ask = async |key: &str| {
        let request = client.get(&server.url).header("x-api-key", key);
        request.send().await.unwrap()
    };
    for key in ["", "guess"] {
        assert_eq!(ask(key).await.status(), 401);
    }
    let first = ask("key-of-alice").await;
    assert_eq!(first.status(), 200);
    assert_eq!(
        header(&first, "ratelimit-policy"),
        r#""user";q=100;w=60, "tenant";q=1000;w=60"#
    );
    for _ in 1..100 {
        assert_eq!(ask("key-of-alice").await.status(), 200);
    }
    let refused = ask("key-of-alice").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "x-ratelimit-limit"), "100");
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    let bob = ask("key-of-bob").await;
    assert_eq!(bob.status(), 200);
    let limits = header(&bob, "ratelimit").to_owned();
    let left = |name: &str| {
        let start = format!("\"{name}\";r=");
        let limit = limits
            .split(", ")
            .find_map(|limit| limit.strip_prefix(&start));
        let left = limit.unwrap().split(';').next().unwrap();
        left.parse::<u64>().unwrap()
    };
    // Alice's are charged to the tenant, too; a refused one is not.
    assert_eq!((left("user"), left("tenant")), (99, 899), "{limits}");
}

#[test]
fn a_budget_of_tokens_is_reserved_settled_and_given_back() {
    let day = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
    // A run over midnight has two budgets.
    let said = loop {
        let began = day();
        let said = said(env!("CARGO_BIN_EXE_token-budget"));
        if day() == began {
            break said;
        }
    };
    assert_eq!(
        said,
        [
            r#"good: Ok("Dear Sir or Madam"), 2500 used"#,
            r#"down: Err("the provider is down"), 2500 used"#,
            r#"breaks: Err("the stream broke"), 4000 used"#,
            r#"good: Ok("Dear Sir or Madam"), 6500 used"#,
            // 3,500 are left, and a letter may need 4,000.
            r#"good: Err("no tokens are left today"), 6500 used"#,
        ]
    );
}

#[test]
fn an_answer_is_computed_once() {
    assert_eq!(
        said(env!("CARGO_BIN_EXE_cached-call")),
        [
            r#"Acme: what the model says to {"company":"Acme"} (miss)"#,
            r#"Acme: what the model says to {"company":"Acme"} (hit)"#,
            r#"Globex: what the model says to {"company":"Globex"} (miss)"#,
            "nobody: the computation failed; see the source",
            "nobody: the computation failed; see the source",
            "asked 4 times",
        ]
    );
}

#[tokio::test]
async fn plain_hyper_is_limited_by_address() {
    let server = Server::start(env!("CARGO_BIN_EXE_with-hyper"));
    let client = client();
    let mut allowed = 0;
    let refused = loop {
        let reply = client.get(&server.url).send().await.unwrap();
        if reply.status() != 200 {
            break reply;
        }
        allowed += 1;
        assert!(allowed < 1_000, "nothing is limited");
    };
    assert!(allowed >= 100, "{allowed}");
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "retry-after"), "1");
    let body: serde_json::Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
}

/// A real client sees a gRPC status, and how long to wait.
#[tokio::test]
async fn a_tonic_client_sees_resource_exhausted_with_retry_info() {
    let server = Server::start(env!("CARGO_BIN_EXE_with-tonic"));
    let channel = Endpoint::from_shared(server.url.clone()).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut check = async |key: Option<&'static str>| {
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(key) = key {
            request
                .metadata_mut()
                .insert("x-api-key", key.parse().unwrap());
        }
        client.check(request).await
    };
    for key in [None, Some("guess")] {
        assert_eq!(check(key).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let first = check(Some("of-alice")).await.unwrap();
    assert_eq!(first.metadata().get("x-ratelimit-remaining").unwrap(), "99");
    let mut allowed = 1;
    let refused = loop {
        match check(Some("of-alice")).await {
            Ok(_) => allowed += 1,
            Err(refused) => break refused,
        }
        assert!(allowed < 1_000, "nothing is limited");
    };
    assert!(allowed >= 100, "{allowed}");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.message(),
        "api-key is limited to 100 per minute; try again in 1 minute"
    );
    let retry = refused.get_details_retry_info().expect("RetryInfo");
    assert_eq!(retry.retry_delay.unwrap().as_secs(), 1);
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
    assert!(check(Some("of-bob")).await.is_ok());
}

/// A stranger reads them on one screen.
#[test]
fn each_program_has_less_than_60_lines() {
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin");
    let mut count = 0;
    for program in std::fs::read_dir(programs).unwrap() {
        let path = program.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 60, "{}: {lines} lines", path.display());
        count += 1;
    }
    assert_eq!(count, 5);
}
