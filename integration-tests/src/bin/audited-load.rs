//! One instance of a load whose audit trail is a file: `LOAD_REDIS_URL=... audited-load INSTANCE FILE DECISIONS BUFFER`. Half of what
//! it asks for is of a limit that is soon used up. Prints what was decided, as `{"allowed":1,"denied":2}`. For the test that kills
//! one.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's second process: its failures are panics"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use limiter::audit::{Audit, AuditConfig, AuditFile};
use limiter_core::IdentitySecret;
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_redis::{RedisConfig, RedisStore};

const CALLERS: u64 = 64;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |place: usize| arguments[place].parse::<u64>().unwrap();
    let (instance, decisions) = (arguments[1].clone(), number(3));
    let config = AuditConfig::new(IdentitySecret::new("of the test"))
        .with_instance(&instance)
        .with_buffer(usize::try_from(number(4)).unwrap());
    let file = AuditFile::open(&arguments[2], 512 << 10, 1_000).unwrap();
    let audit = Audit::start(config, file).unwrap();
    let redis = RedisConfig::new(&std::env::var("LOAD_REDIS_URL").unwrap()).unwrap();
    // A busy machine is no outage.
    let redis = redis.with_check_deadline(Duration::from_secs(20));
    let stack = Stack::new(RedisStore::new(&redis).unwrap()).observe(audit.clone());
    let limiter = Limiter::raw(stack.build());
    let policy = |name: &str, limit| {
        let quota = Quota::fixed_window(limit, Period::DAY).unwrap();
        Arc::new(Policy::new(name, quota).unwrap())
    };
    let (wide, narrow) = (policy("wide", 1_000_000_000), policy("narrow", 100));
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (limiter, counts) = (limiter.clone(), counts.clone());
            let keys = [
                (wide.clone(), wide.key([&instance])),
                (narrow.clone(), narrow.key([&instance])),
            ];
            tokio::spawn(async move {
                for turn in (caller..decisions).step_by(usize::try_from(CALLERS).unwrap()) {
                    let (policy, key) = &keys[usize::from(turn / CALLERS % 2 == 1)];
                    let decision = limiter.try_check(policy, key).await.unwrap();
                    counts[usize::from(!decision.is_allowed())].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(audit.flush(Duration::from_secs(30)), "{audit:?}");
    let [allowed, denied] = [0, 1].map(|which| counts[which].load(Ordering::Relaxed));
    println!("{{\"allowed\":{allowed},\"denied\":{denied}}}");
}
