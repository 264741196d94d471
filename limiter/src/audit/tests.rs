use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use limiter_core::limit::{Charge, Limiter, OperationId, Period, Policy, Quota};
use serde_json::Value;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the lines, and fails or waits when it is told to.
#[derive(Clone, Default)]
struct Kept(Arc<State>);

#[derive(Default)]
struct State {
    lines: Mutex<Vec<u8>>,
    fails: std::sync::atomic::AtomicBool,
    gate: Mutex<()>,
}

impl AuditSink for Kept {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        drop(self.0.gate.lock().unwrap());
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lines.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

impl Kept {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lines.lock().unwrap().clone()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn config() -> AuditConfig {
    AuditConfig::new(IdentitySecret::new("hush-hush")).with_instance("here")
}

async fn audited(config: AuditConfig) -> (Limiter, Audit, Kept) {
    let kept = Kept::default();
    let audit = Audit::start(config, kept.clone()).unwrap();
    let builder = crate::Builder::new().observe(audit.clone());
    let limiter = builder.connect("memory:").await.unwrap().limiter;
    (limiter, audit, kept)
}

fn hourly(limit: u64) -> Policy {
    Policy::new("hourly", Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
}

/// C6: what a line says, for each kind of call.
#[tokio::test]
async fn every_call_is_a_line() {
    let (limiter, audit, kept) = audited(config()).await;
    let policy = hourly(4).with_scope("api").unwrap();
    let other = hourly(1).with_shadow(true);
    let (key, shadowed) = (policy.key(["alice"]), other.key(["shadow"]));
    let key2 = policy.key(["waiting"]);
    let ttl = Duration::from_secs(60);
    limiter.check(&policy, &key).await;
    limiter.check_n(&policy, &key, 4).await;
    limiter.check_n(&policy, &key, 5).await;
    let charge = [Charge::new(&policy, &key)];
    let reserved = limiter.reserve(&charge, ttl).await.unwrap().held().unwrap();
    reserved.settle(&[2]).await.unwrap();
    let id = OperationId::new("operation-of-alice");
    for _ in 0..2 {
        limiter.charge_once(&id, &charge).await.unwrap();
    }
    limiter.reset(&policy, &key).await.unwrap();
    let both = [charge[0], Charge::new(&other, &shadowed).with_cost(2)];
    limiter.check_all(&both).await;
    // No group: two policies over one key.
    let misused = [charge[0], Charge::new(&other, &key)];
    limiter.check_all(&misused).await;
    // Its turn did not come: the store was not asked to charge it.
    let full = hourly(1);
    limiter.check(&full, &key2).await;
    let first = limiter.until_ready(&full, &key2, 1, Duration::from_secs(60));
    let second = limiter.until_ready(&full, &key2, 1, Duration::ZERO);
    let (_, late) = tokio::join!(
        tokio::time::timeout(Duration::from_millis(20), first),
        second
    );
    assert!(!late.unwrap().is_allowed());
    // What only looks is no decision.
    limiter.peek(&policy, &key).await.unwrap();
    limiter.check_n(&policy, &key, 0).await;
    assert!(audit.flush(PATIENCE));

    let lines = kept.lines();
    let outcomes: Vec<_> = lines
        .iter()
        .map(|line| line["outcome"].as_str().unwrap())
        .collect();
    let expected = [
        "allowed", "denied", "never", "allowed", "done", "allowed", "allowed", "done", "allowed",
        "refused", "allowed", "denied", "denied",
    ];
    assert_eq!(outcomes, expected);
    for (line, sequence) in lines.iter().zip(1..) {
        assert_eq!(line["sequence"], sequence);
        assert_eq!(line["instance"], "here");
        let time = line["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        for limit in line["limits"].as_array().unwrap() {
            let hash = limit["key"].as_str().unwrap();
            let known = [&key, &shadowed, &key2].map(|key| audit.hash(key.as_str()));
            assert!(known.contains(&hash.to_owned()) && hash.len() == 32);
        }
    }
    let limit = |line: usize| &lines[line]["limits"][0];
    assert_eq!(limit(0)["policy"], "hourly");
    assert_eq!(
        (&limit(0)["scope"], &limit(0)["used"]),
        (&"api".into(), &1.into())
    );
    assert_eq!(limit(0).get("degraded"), None);
    assert!(limit(1)["retry_after_ms"].as_u64().unwrap() <= 3_600_000);
    assert_eq!(
        (&limit(1)["cost"], &limit(1)["limit"]),
        (&4.into(), &4.into())
    );
    assert_eq!(
        (&limit(4)["action"], &limit(4)["outcome"]),
        (&"settle".into(), &"done".into())
    );
    assert_eq!(limit(5).get("replayed"), None);
    assert_eq!(limit(6)["replayed"], true);
    assert_eq!(lines[5]["operation"], lines[6]["operation"]);
    assert_eq!(lines[8]["limits"][1]["outcome"], "shadow_never");
    assert_eq!(lines[8]["limits"][1]["shadow"], true);
    assert_eq!(
        (&lines[9]["error"], &lines[9]["effect"]),
        (&"invalid_input".into(), &"no".into())
    );
    let text = format!("{lines:?}");
    for secret in ["alice", "ratelimit", "hush"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Losses are counted, shown as gaps and told in the trail; what could be written is whole.
#[test]
fn losses_are_counted_and_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let quick = config()
        .with_buffer(10)
        .with_patience(Duration::from_millis(5));
    let (limiter, audit, kept) = runtime.block_on(audited(quick));
    let policy = hourly(1_000_000);
    let key = policy.key(["a"]);
    let check = |count: usize| {
        for _ in 0..count {
            runtime.block_on(limiter.check(&policy, &key));
        }
    };
    check(1);
    assert!(audit.flush(PATIENCE));
    {
        let _gate = kept.0.gate.lock().unwrap();
        check(100);
    }
    assert!(!audit.flush(PATIENCE), "some were lost");
    let dropped = audit.stats();
    assert!(
        dropped.lost >= 80 && dropped.written + dropped.lost == 101,
        "{dropped:?}"
    );
    kept.0.fails.store(true, Ordering::SeqCst);
    check(5);
    audit.flush(PATIENCE);
    kept.0.fails.store(false, Ordering::SeqCst);
    check(1);
    audit.flush(PATIENCE);

    let stats = audit.stats();
    assert_eq!((stats.lost, stats.waiting), (dropped.lost + 5, 0));
    assert_eq!(stats.written + stats.lost, 107);
    let lines = kept.lines();
    let told = lines.iter().filter_map(|line| line["lost"].as_u64());
    assert_eq!(told.sum::<u64>(), stats.lost);
    let written: HashSet<_> = lines
        .iter()
        .filter_map(|line| line["sequence"].as_u64())
        .collect();
    assert_eq!(written.len() as u64, stats.written);
    assert!(written.contains(&107));
}

/// Losses after which nothing comes are told when the trail ends.
#[test]
fn the_last_losses_are_told_too() {
    /// Fails once.
    struct Once(Kept, bool);
    impl AuditSink for Once {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            drop(self.0.0.gate.lock().unwrap());
            if !std::mem::replace(&mut self.1, true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(lines)
        }
    }
    let kept = Kept::default();
    let audit = Audit::start(config(), Once(kept.clone(), false)).unwrap();
    let gate = kept.0.gate.lock().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let builder = crate::Builder::new().observe(audit.clone());
        let limiter = builder.connect("memory:").await.unwrap().limiter;
        let policy = hourly(1_000);
        limiter.check(&policy, &policy.key(["a"])).await;
    });
    // It ends while its last batch is being written.
    drop((audit, gate));
    let deadline = Instant::now() + PATIENCE;
    while kept.lines().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(kept.lines()[0]["lost"], 1);
}

/// Complete by default: who finds no room waits until there is some.
#[test]
fn a_sink_that_is_slow_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let patient = config().with_buffer(4).with_patience(PATIENCE);
    let (limiter, audit, kept) = runtime.block_on(audited(patient));
    let gate = kept.0.gate.lock().unwrap();
    let caller = std::thread::spawn(move || {
        let policy = hourly(1_000);
        for _ in 0..200 {
            runtime.block_on(limiter.check(&policy, &policy.key(["a"])));
        }
    });
    // It is full, and nobody has lost anything.
    let deadline = Instant::now() + PATIENCE;
    while audit.stats().waiting < 4 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    drop(gate);
    caller.join().unwrap();
    assert!(audit.flush(PATIENCE));
    let stats = audit.stats();
    assert_eq!((stats.written, stats.lost), (200, 0));
    assert_eq!(kept.lines().len(), 200);
}

#[tokio::test]
async fn a_sample_leaves_out_only_what_was_allowed() {
    let sample = Share::new(1, 10).unwrap();
    let (limiter, audit, kept) = audited(config().with_sample(sample)).await;
    let policy = hourly(1_000);
    let key = policy.key(["a"]);
    for _ in 0..1_100 {
        limiter.check(&policy, &key).await;
    }
    limiter.reset(&policy, &key).await.unwrap();
    assert!(audit.flush(PATIENCE));
    let of = |outcome: &str| {
        let lines = kept.lines();
        lines
            .iter()
            .filter(|line| line["outcome"] == outcome)
            .count()
    };
    assert_eq!((of("denied"), of("done")), (100, 1));
    assert!((100..=101).contains(&of("allowed")), "{}", of("allowed"));
    assert_eq!(kept.lines()[0]["sample"], "1/10");
    assert_eq!(audit.stats().left_out, 1_000 - of("allowed") as u64);
}

/// The thread ends with the last clone, after it has written what waits.
#[tokio::test]
async fn what_waits_is_written_at_the_end() {
    struct Ended(mpsc::Sender<usize>, usize);
    impl AuditSink for Ended {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            self.1 += lines.split(|byte| *byte == b'\n').count() - 1;
            Ok(())
        }
    }
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let (send, ended) = mpsc::channel();
    let audit = Audit::start(config(), Ended(send, 0)).unwrap();
    let builder = crate::Builder::new().observe(audit.clone());
    let limiter = builder.connect("memory:").await.unwrap().limiter;
    let policy = hourly(10);
    for _ in 0..100 {
        limiter.check(&policy, &policy.key(["a"])).await;
    }
    assert!(!format!("{audit:?}").contains("hush"));
    drop((audit, limiter));
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), 100);
}
