//! Holds one lease until it is killed: `LEASE_REDIS_URL=... lease-holder LIMIT TTL_MILLIS KEY`. Prints
//! `held` or `denied`. For the test that kills it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's second process: its failures are panics"
)]

use std::time::Duration;

use limiter_core::Key;
use limiter_core::limit::{Acquired, Charge, Limiter, Quota};
use limiter_redis::{RedisConfig, RedisStore};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let config = RedisConfig::new(&std::env::var("LEASE_REDIS_URL").unwrap()).unwrap();
    // A busy machine is no outage.
    let config = config.with_check_deadline(Duration::from_secs(20));
    let limiter = Limiter::new(RedisStore::new(&config).unwrap());
    let policy = integration_tests::policy(Quota::concurrency(arguments[1].parse().unwrap()));
    let ttl = Duration::from_millis(arguments[2].parse().unwrap());
    let key = Key::new(["ratelimit", &arguments[3]]);
    match limiter
        .acquire(&[Charge::new(&policy, &key)], ttl)
        .await
        .unwrap()
    {
        Acquired::Held(mut lease) => {
            println!("held");
            lease.lost().await;
            println!("lost");
        }
        Acquired::Denied(_) => println!("denied"),
    }
}
