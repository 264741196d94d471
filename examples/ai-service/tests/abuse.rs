//! 10,000 abusive clients from 1,000 addresses: the service stays small, honest clients stay quick, and nothing is charged that was
//! refused.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use support::{Hook, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

const ADDRESSES: usize = 1_000;
const CLIENTS: usize = 10_000;

/// Files that each side has open: its connections, and some.
const FILES: &str = "16000";

/// The most memory that the service may ever have taken.
const MEGABYTES: u64 = 200;

/// How often the model was asked for something huge.
static HUGE: AtomicUsize = AtomicUsize::new(0);

/// A model that never ends where it is asked for something huge.
async fn model() -> String {
    let complete = async |Json(request): Json<Value>| {
        let is_huge = request.to_string().contains("huge");
        HUGE.fetch_add(usize::from(is_huge), Ordering::SeqCst);
        if !is_huge {
            let choice = json!({ "message": { "content": "an answer" }, "finish_reason": "stop" });
            return Body::from(json!({ "choices": [choice] }).to_string());
        }
        let part = Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 1 << 16]));
        Body::from_stream(futures_util::stream::iter(std::iter::repeat_n(part, 4_800)))
    };
    let router = Router::new().route("/v1/chat/completions", post(complete));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// A connection from the address of a number.
async fn connect(server: SocketAddr, client: usize) -> Option<TcpStream> {
    let address = client % ADDRESSES;
    let [high, low] = u16::try_from(address).unwrap().to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind((Ipv4Addr::new(127, 1, high, low), 0).into())
        .unwrap();
    // Who reads slowly has little room for what was not read.
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(server).await.ok()
}

/// Sends a part at once and the rest a byte at a time, until the server has enough of it or the abuse ends.
async fn trickle(mut stream: TcpStream, part: &[u8], rest: &[u8], end: &Notify) {
    if stream.write_all(part).await.is_err() {
        return;
    }
    for byte in rest.iter().cycle() {
        // Of real time: the pace of a slow sender is what is tested.
        if timeout(Duration::from_secs(2), end.notified())
            .await
            .is_ok()
            || stream.write_all(&[*byte]).await.is_err()
        {
            return;
        }
    }
}

/// Sends requests and reads nothing of their answers, until the abuse ends.
async fn read_nothing(mut stream: TcpStream, end: &Notify) {
    let request = b"GET /console.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(30);
    let _ = stream.write_all(&request).await;
    end.notified().await;
}

/// Sends a request; reads the status, or leaves before there is one.
async fn ask(mut stream: TcpStream, request: &str, reads: bool) -> Option<u16> {
    stream.write_all(request.as_bytes()).await.ok()?;
    if !reads {
        return None;
    }
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

fn post_of(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// What one abusive client does.
async fn abuse(server: SocketAddr, client: usize, replayed: Arc<str>, end: Arc<Notify>) {
    let Some(stream) = connect(server, client).await else {
        return;
    };
    let bob = "Authorization: Bearer demo-bob\r\n";
    match client / ADDRESSES {
        0 | 1 => {
            trickle(
                stream,
                b"POST /api/coverLetter HTTP/1.1\r\nHost: a\r\nX-",
                b"x",
                &end,
            )
            .await
        }
        2 | 3 => {
            // Of many sizes, and large enough that all of them together would be more than the service may hold.
            let body = format!("{{\"a\": \"{}", "x".repeat(3_000 + client * 7 % 50_000));
            let head = format!(
                "POST /api/coverLetter HTTP/1.1\r\nHost: a\r\n{bob}Content-Length: 60000\r\n\r\n{body}"
            );
            trickle(stream, head.as_bytes(), b"x", &end).await;
        }
        4 => {
            // Nobody has signed it, and that shows when it has arrived.
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
            let signature = "0".repeat(64);
            let head = format!(
                "POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nX-Webhook-Id: {client}\r\nX-Webhook-Timestamp: {now}\r\nX-Signature: sha256={signature}\r\nContent-Length: 60000\r\n\r\n{}",
                "x".repeat(20_000)
            );
            trickle(stream, head.as_bytes(), b"x", &end).await;
        }
        5 | 6 => read_nothing(stream, &end).await,
        7 => {
            // Guesses keys, and leaves before it is answered.
            let guess = format!("Authorization: Bearer guess{client}\r\n");
            let _ = ask(stream, &post_of("/api/coverLetter", &guess, "{}"), false).await;
        }
        8 => {
            let carol = "Authorization: Bearer demo-carol\r\n";
            let body = format!(r#"{{"company": "huge {client}"}}"#);
            let _ = ask(stream, &post_of("/api/companyResearch", carol, &body), true).await;
        }
        _ => {
            let status = ask(stream, &replayed, true).await;
            assert_eq!(status, Some(202));
        }
    }
}

/// The times of an honest client's requests, each over a connection of its own, and their 99th percentile.
async fn honest(service: &Service, sent: &AtomicUsize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let stream = TcpStream::connect(service.address()).await.unwrap();
        let alice = "Authorization: Bearer demo-alice\r\nConnection: close\r\n";
        // As long as a job's description is.
        let body = format!(r#"{{"job": "{}"}}"#, "honest ".repeat(1_000));
        let request = post_of("/api/jobExtraction", alice, &body);
        assert_eq!(ask(stream, &request, true).await, Some(200));
        sent.fetch_add(1, Ordering::Relaxed);
        times.push(start.elapsed());
        // Of real time: the pace of somebody who is no load.
        sleep(Duration::from_millis(10)).await;
    }
    times.sort();
    eprintln!("honest: median {:?}, p99 {:?}", times[100], times[198]);
    times[198]
}

fn open_files(service: &Service) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", service.id()));
    files.unwrap().count()
}

fn peak_megabytes(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes / 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abusive_clients_hurt_nobody() {
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &own, &format!("--nofile={FILES}")])
        .status();
    assert!(raised.unwrap().success(), "this test opens {FILES} files");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let letters = |operation: &str| format!("[policies.{operation}]\nquota = \"20/hour\"");
    let many = letters("jobExtraction").replace("20/hour", "1_000_000/hour");
    // The limit of addresses is the service's own, but for the honest client, who measures more than anybody asks.
    let limits = include_str!("../limits.toml").replacen("1_200/minute", "12_000/minute", 1);
    // This test looks often.
    let limits = limits.replacen("5/minute", "5_000/minute", 1);
    std::fs::write(&path, limits.replace(&letters("jobExtraction"), &many)).unwrap();
    let base = model().await;
    // The service has the limit of files of this process.
    let service = Service::start(&[
        ("LIMITS_FILE", path.to_str().unwrap()),
        ("AI_BASE_URL", &base),
        ("AI_API_KEY", "none"),
        ("AI_MODEL", "a-model"),
    ]);
    let server: SocketAddr = service.address().parse().unwrap();
    let body = r#"{"event": "paid"}"#;
    let hook = Hook::new("demo-webhook-secret", "stripe", "evt_1", body);
    let headers: String = hook
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let replayed: Arc<str> = post_of("/webhooks/stripe", &headers, body).into();

    let sent = AtomicUsize::new(0);
    let mut alone = [
        honest(&service, &sent).await,
        honest(&service, &sent).await,
        Duration::ZERO,
    ];
    eprintln!("alone: {} MB", peak_megabytes(&service));
    let end = Arc::new(Notify::new());
    let mut clients = JoinSet::new();
    let start = Instant::now();
    for client in 0..CLIENTS {
        clients.spawn(abuse(server, client, replayed.clone(), end.clone()));
        // Of real time: they come over some seconds.
        if client % 20 == 19 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    eprintln!(
        "all are there after {:?}; {} MB",
        start.elapsed(),
        peak_megabytes(&service)
    );
    let open = open_files(&service);
    assert!(open > CLIENTS / 2, "{open} are connected");
    let mut abused = [Duration::ZERO; 3];
    for round in &mut abused {
        *round = honest(&service, &sent).await;
    }
    let megabytes = peak_megabytes(&service);
    eprintln!(
        "with them: {megabytes} MB, {open} connected, then {}",
        open_files(&service)
    );
    end.notify_waiters();
    clients.abort_all();
    while let Some(ended) = clients.join_next().await {
        assert!(
            ended.as_ref().is_ok() || ended.as_ref().is_err_and(JoinError::is_cancelled),
            "{ended:?}"
        );
    }
    alone[2] = honest(&service, &sent).await;
    assert!(megabytes < MEGABYTES, "{megabytes} MB");
    // The median of each, because a machine does other things, too.
    for rounds in [&mut alone, &mut abused] {
        rounds.sort();
    }
    // What a few turns of a scheduler take is nobody's slowness.
    let floor = Duration::from_millis(20);
    assert!(
        abused[1] <= (alone[1] * 2).max(floor),
        "{abused:?}, and {alone:?} alone"
    );

    // Nothing is charged that was refused. What the model was asked for is paid, though its answers were too large: nobody knows
    // what they cost.
    let asked = HUGE.load(Ordering::SeqCst);
    assert!(asked > 0, "none reached the model");
    let expected = |user: &str, operation: &str| match (user, operation) {
        ("alice", "jobExtraction") => sent.load(Ordering::SeqCst),
        // The one that was computed.
        ("alice", "model-calls") => 1,
        ("carol", "model-calls") => asked,
        _ => 0,
    };
    integration_tests::eventually("all is given back", async || {
        let usage = service.get("/api/admin/usage", "demo-admin").await.body;
        let is_expected = |line: &Value| {
            let (user, operation) = (line["user"].as_str(), line["operation"].as_str());
            let operation = operation.unwrap();
            operation == "model-tokens" || line["used"] == expected(user.unwrap(), operation)
        };
        let lines = usage["usage"].as_array()?;
        // Those that `expected` names, so that a list which lacks one does not pass.
        let used = lines
            .iter()
            .filter(|line| line["operation"] != "model-tokens" && line["used"] != 0);
        (used.count() == 3 && lines.iter().all(is_expected)).then_some(())
    })
    .await;
    let next = Hook::new("demo-webhook-secret", "stripe", "evt_2", body);
    let next = service
        .send(
            reqwest::Method::POST,
            "/webhooks/stripe",
            &next.headers(),
            body,
        )
        .await;
    // Two messages, one of them a thousand times; and what the bucket has gained meanwhile.
    let left = next.number("x-ratelimit-remaining");
    assert!(left >= 98, "{left}");
}
