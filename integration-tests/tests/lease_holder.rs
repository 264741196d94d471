//! N6: a lease held by another process, over a real Redis and its own clock.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::{RedisServer, eventually, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::limit::Quota;

const TTL: Duration = Duration::from_secs(4);

/// A process that holds the lease; killed when dropped.
struct Holder(Child);

impl Holder {
    fn start(server: &RedisServer) -> (Self, String) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lease-holder"))
            .args(["1", &TTL.as_millis().to_string(), "stream"])
            .env("LEASE_REDIS_URL", server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        (Self(process), said.trim().to_owned())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stream of three lease lengths stays counted; the lease of a killed holder is free within one.
#[tokio::test]
async fn a_lease_lives_as_long_as_its_process() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let policy = policy(Quota::concurrency(1));
    let key = Key::new(["ratelimit", "stream"]);
    let (mut holder, said) = Holder::start(&server);
    assert_eq!(said, "held");
    let end = Instant::now() + 3 * TTL;
    let mut looks = 0;
    while Instant::now() < end {
        let seen = limiter.peek(&policy, &key).await.unwrap();
        assert_eq!((seen.used, seen.is_allowed()), (1, false), "look {looks}");
        assert!(seen.reset_after <= TTL, "{seen:?}");
        looks += 1;
        // The lease is timed by Redis's clock, which cannot be moved, so the loop takes real time. The pause of its poll: the holder's process needs the core that polling without one would take.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (second, said) = Holder::start(&server);
    assert_eq!(said, "denied", "another process sees it");
    drop(second);

    holder.kill();
    let killed = Instant::now();
    let left = limiter.peek(&policy, &key).await.unwrap().reset_after;
    assert!(left <= TTL, "nobody renews it any more: {left:?}");
    eventually("the killed holder's lease is free", async || {
        let seen = limiter.peek(&policy, &key).await.unwrap();
        (seen.used == 0).then_some(())
    })
    .await;
    // Not before its time either.
    assert!(
        killed.elapsed() + Duration::from_millis(1) >= left,
        "{left:?}"
    );
    let (_third, said) = Holder::start(&server);
    assert_eq!(said, "held");
}
