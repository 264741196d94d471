//! The service as a process, driven over real HTTP.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support, of which each test uses a part; a failure is a panic"
)]

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use sha2::Sha256;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The demo's limits without one for addresses, of which a test that sends many requests has one.
pub(crate) fn limits_of_many() -> String {
    let limits = include_str!("../../limits.toml");
    let many = limits.replacen("1_200/minute", "1_000_000/second", 1);
    assert_ne!(many, limits);
    many
}

/// A running instance on a free port; killed when dropped.
pub(crate) struct Service {
    process: Child,
    lines: Receiver<String>,
    /// What it logged before it listened, which is read no more.
    pub(crate) start_log: String,
    pub(crate) caller: Caller,
}

/// Who calls an instance.
#[derive(Clone)]
pub(crate) struct Caller {
    base: String,
    client: Client,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) elapsed: Duration,
}

/// A webhook's message: its headers.
pub(crate) struct Hook {
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
}

impl Hook {
    /// Signed now, as a provider signs.
    pub(crate) fn new(secret: &str, provider: &str, id: &str, body: &str) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        Self::at(now, secret, provider, id, body)
    }

    /// Signed at a moment.
    pub(crate) fn at(seconds: u64, secret: &str, provider: &str, id: &str, body: &str) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{seconds}.{provider}.{id}.{body}").as_bytes());
        let digest = mac.finalize().into_bytes();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: id.to_owned(),
            timestamp: seconds.to_string(),
            signature: format!("sha256={hex}"),
        }
    }

    pub(crate) fn headers(&self) -> [(&str, &str); 3] {
        [
            ("x-webhook-id", &self.id),
            ("x-webhook-timestamp", &self.timestamp),
            ("x-signature", &self.signature),
        ]
    }
}

/// The command that starts the service, with nothing of this process's own settings.
pub(crate) fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ai-service"));
    command
        .env_clear()
        .env("BIND", "127.0.0.1:0")
        // A busy machine is no outage.
        .env("REDIS_DEADLINE_MILLIS", "20000")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The log of a start that fails, which it must.
pub(crate) fn failing_start(variables: &[(&str, &str)]) -> String {
    let output = command(variables).output().unwrap();
    assert!(!output.status.success(), "{variables:?} should not start");
    String::from_utf8(output.stderr).unwrap()
}

impl Service {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let mut process = command(variables).spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut seen = Vec::new();
        let base = loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                // Nothing is left behind, also by a test that fails.
                let _ = process.kill();
                let _ = process.wait();
                panic!("the service did not start: {seen:#?}");
            };
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.trim().to_owned();
            }
            seen.push(line);
        };
        // Lost only to a test that has installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            process,
            lines,
            start_log: seen.join("\n"),
            caller: Caller {
                base,
                client: Client::builder().timeout(PATIENCE).build().unwrap(),
            },
        }
    }

    pub(crate) fn on_redis(url: &str) -> Self {
        Self::start(&[("REDIS_URL", url)])
    }

    pub(crate) fn address(&self) -> &str {
        self.caller.base.trim_start_matches("http://")
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks the process to stop, as a container platform does.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the service does not stop");
            std::thread::yield_now();
        }
    }

    /// What the service has logged since it listens.
    pub(crate) fn log(&self) -> String {
        self.lines.try_iter().collect::<Vec<_>>().join("\n")
    }
}

/// Who has an instance can call it.
impl Deref for Service {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Caller {
    pub(crate) async fn post(&self, path: &str, key: &str, body: impl Into<String>) -> Reply {
        let key = format!("Bearer {key}");
        self.send(Method::POST, path, &[("authorization", &key)], body)
            .await
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Reply {
        let key = format!("Bearer {key}");
        self.send(Method::GET, path, &[("authorization", &key)], "")
            .await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> Reply {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let start = Instant::now();
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        Reply {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
            elapsed: start.elapsed(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name} in {self:?}"))
            .to_str()
            .unwrap()
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.header(name).parse().unwrap()
    }

    /// A problem body of this status, as every refusal has one.
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.body["status"], Value::from(status), "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].is_string(), "{member}: {self:?}");
        }
    }

    /// A 429 with everything that A3 and B3 ask for.
    pub(crate) fn assert_limited(&self, operation: &str, limit: u64) {
        self.assert_problem(429);
        let retry_after = self.number("retry-after");
        assert!(retry_after >= 1);
        assert_eq!(self.number("x-ratelimit-limit"), limit);
        self.number("x-ratelimit-remaining");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(self.number("x-ratelimit-reset") + 1 >= now);
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(operation), "{detail}");
        assert!(detail.contains(&limit.to_string()), "{detail}");
        let minutes = retry_after.div_ceil(60);
        let unit = if minutes == 1 { "minute" } else { "minutes" };
        assert!(detail.ends_with(&format!("{minutes} {unit}")), "{detail}");
    }
}
