//! `compat run OTHER` has this build and another one (`OTHER` is its `compat` program) take turns on one Redis, as the old and
//! the new instances of a deploy do: each counts on from what the other left, replays its operations, settles its
//! reservations and releases its leases. `scripts/check-compat.sh` runs it against the previous commit.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's second process: its failures are panics"
)]

use std::process::Command;
use std::time::Duration;

use integration_tests::{RedisServer, policy};
use limiter_core::limit::{
    Action, Calendar, Capabilities, Charge, Group, LimitStore, Limiter, Observed, OperationId,
    Period, Policy, Quota, Step,
};
use limiter_redis::{RedisConfig, RedisStore};

const TURNS: u64 = 6;
const TTL: Duration = Duration::from_secs(3_600);

fn policies() -> [Policy; 5] {
    [
        policy(Quota::fixed_window(1_000, Period::DAY)),
        policy(Quota::calendar_window(1_000, Calendar::Month)),
        policy(Quota::sliding_window(1_000, Period::MONTH)),
        policy(Quota::sliding_log(1_000, Period::DAY)),
        policy(Quota::token_bucket(1_000, 1, Period::DAY)),
    ]
}

/// Of each turn: a charge of 1 and a reservation of 10, of which the next turn settles 3.
async fn turn(number: u64, url: &str) {
    let config = RedisConfig::new(url)
        .unwrap()
        .with_check_deadline(Duration::from_secs(20))
        .with_issuer("compat");
    let store = RedisStore::new(&config).unwrap();
    let limiter = Limiter::new(store.clone());
    let id = |kind: &str, number| OperationId::new(format!("{kind} {number}"));
    for policy in policies() {
        let key = policy.key(["42"]);
        let used = async || limiter.peek(&policy, &key).await.unwrap().used;
        let settled = 4 * number.saturating_sub(1);
        let held = if number > 0 { 11 } else { 0 };
        assert_eq!(
            used().await,
            settled + held,
            "{} at {number}",
            policy.name()
        );
        let estimate = [Charge::new(&policy, &key).with_cost(10)];
        let charge = [Charge::new(&policy, &key)];
        if let Some(last) = number.checked_sub(1) {
            let replay = limiter.charge_once(&id("charge", last), &charge).await;
            assert!(replay.unwrap().0.is_replay());
            let reserved = limiter.reserve_as(id("job", last), &estimate, TTL).await;
            let reservation = reserved.unwrap().held().unwrap();
            assert!(reservation.is_replay());
            reservation.settle(&[3]).await.unwrap();
        }
        let once = limiter.charge_once(&id("charge", number), &charge).await;
        assert!(!once.unwrap().0.is_replay());
        let reserved = limiter.reserve_as(id("job", number), &estimate, TTL).await;
        drop(reserved.unwrap().held().unwrap());
    }
    let streams = policy(Quota::concurrency(1));
    let key = streams.key(["all"]);
    let act = async |action: Action<'_>| {
        let steps = [Step::new(&streams, &key, action)];
        let group = Group::new(&steps, &Capabilities::ALL).unwrap();
        let mut observed = [Observed::default()];
        store.apply(&group, &mut observed).await.unwrap();
        observed[0]
    };
    let mine = id("lease", number);
    let acquire = Action::Acquire {
        lease: &mine,
        cost: 1,
        ttl: TTL,
    };
    if let Some(last) = number.checked_sub(1) {
        assert!(
            !act(acquire.clone()).await.is_admitted(),
            "the other holds it"
        );
        let lease = &id("lease", last);
        act(Action::Renew { lease, ttl: TTL }).await;
        act(Action::Release { lease, ttl: TTL }).await;
    }
    assert!(act(acquire).await.is_admitted());
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [turns, number, url] if turns == "turn" => turn(number.parse().unwrap(), url).await,
        [run, other] if run == "run" => {
            let server = RedisServer::start();
            for number in 0..TURNS {
                let program = if number % 2 == 0 {
                    other
                } else {
                    &arguments[0]
                };
                let turn = Command::new(program)
                    .args(["turn", &number.to_string(), &server.url()])
                    .status();
                assert!(turn.unwrap().success(), "turn {number} of {program}");
            }
            println!("{TURNS} turns of two builds on one Redis: each went on where the other was");
        }
        _ => panic!("usage: compat run OTHER"),
    }
}
