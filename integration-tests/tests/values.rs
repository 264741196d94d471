//! Keys that something else wrote: counters of the service that was there before, values of other
//! types, and values that are no state.

use std::time::Duration;

use integration_tests::{RedisServer, policy, redis_limiter, state, ten_years};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{
    Calendar, Charge, Limiter, OperationId, Outage, Outcome, Period, Policy, Quota,
};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{RedisStore, describe, describe_leases};

const LIMIT: u64 = 5;
const HOUR_MILLIS: i64 = 3_600_000;

fn hourly() -> Policy {
    policy(Quota::fixed_window(LIMIT, Period::HOUR))
}

fn policies() -> [Policy; 5] {
    [
        hourly(),
        policy(Quota::sliding_window(LIMIT, ten_years())),
        policy(Quota::token_bucket(LIMIT, 1, Period::DAY)),
        policy(Quota::sliding_log(LIMIT, ten_years())),
        policy(Quota::calendar_window(LIMIT, Calendar::Month)),
    ]
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42", "coverLetter"])
}

fn pttl(server: &RedisServer) -> i64 {
    server.command(&["PTTL", key().as_str()])
}

/// B5: a service moves over in the middle of its users' windows.
#[tokio::test]
async fn a_counter_of_incr_and_expire_is_continued() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    server.command::<()>(&["INCRBY", key().as_str(), "3"]);
    server.command::<()>(&["EXPIRE", key().as_str(), "100"]);
    let looked = limiter.peek(&hourly(), &key()).await.unwrap();
    assert_eq!(looked.used, 3);
    let charged = limiter.try_check(&hourly(), &key()).await.unwrap();
    assert_eq!((charged.used, charged.remaining), (4, 1));
    let ttl = pttl(&server);
    assert!(ttl > 0 && ttl <= 100_000, "the window's end stays: {ttl}");

    // And the other way round: the old service goes on counting beside the new one.
    assert_eq!(server.command::<u64>(&["INCR", key().as_str()]), 5);
    let denied = limiter.try_check(&hourly(), &key()).await.unwrap();
    let retry_after = denied.retry_after().unwrap();
    assert_eq!(denied.used, 5);
    assert!(
        retry_after <= Duration::from_millis(100_001),
        "{retry_after:?}"
    );
    assert!(pttl(&server) <= ttl);
}

/// Known fault: "immortal keys": a counter whose EXPIRE never came does not count for ever.
#[tokio::test]
async fn a_counter_without_an_expiry_gets_one() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    // With room, without room, and above every limit.
    for (count, cost, admitted) in [(2, 1, true), (5, 1, false), (900, 1, false), (2, 6, false)] {
        server.command::<()>(&["SET", key().as_str(), &count.to_string()]);
        assert_eq!(pttl(&server), -1);
        let check = limiter.try_check_n(&hourly(), &key(), cost).await.unwrap();
        assert_eq!(check.is_allowed(), admitted, "{check:?}");
        assert_eq!(check.used, count + u64::from(admitted));
        let ttl = pttl(&server);
        assert!(ttl > HOUR_MILLIS - 60_000 && ttl <= HOUR_MILLIS, "{ttl}");
    }
}

/// A window ends when it was opened for, whoever opened it.
#[tokio::test]
async fn a_longer_window_lasts() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    for count in [2, 5] {
        server.command::<()>(&["SET", key().as_str(), &count.to_string(), "EX", "7200"]);
        let check = limiter.try_check(&hourly(), &key()).await.unwrap();
        assert_eq!(check.is_allowed(), count < LIMIT);
        let ttl = pttl(&server);
        assert!(
            ttl > 2 * HOUR_MILLIS - 60_000 && ttl <= 2 * HOUR_MILLIS,
            "{ttl}"
        );
        if let Some(retry_after) = check.retry_after() {
            assert!(retry_after > Period::HOUR.as_duration());
        }
    }
}

/// A misconfiguration is refused as such, by every policy, whatever its rule for outages.
#[tokio::test]
async fn a_foreign_key_is_left_alone() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    let limiter = Limiter::new(Stack::new(store).build());
    let (list, hash) = (
        Key::new(["ratelimit", "list"]),
        Key::new(["ratelimit", "hash"]),
    );
    server.command::<()>(&["RPUSH", list.as_str(), "a", "b"]);
    server.command::<()>(&["HSET", hash.as_str(), "f", "v"]);
    for policy in policies() {
        let policy = policy.with_outage(Outage::Allow);
        for foreign in [&list, &hash] {
            let error = limiter.try_check(&policy, foreign).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.effect()),
                (ErrorKind::Foreign, Effect::No)
            );
            // Whose key it is, who asked knows.
            let named = format!("the key of policy {} ", policy.name());
            assert!(error.message().contains(&named), "{error}");
            let kind = ErrorKind::Foreign;
            let decision = limiter.check(&policy, foreign).await;
            assert_eq!(decision.outcome, Outcome::Unavailable { kind });

            // In a group, wherever it stands, nothing of the group is charged.
            let (first, last) = (
                Key::new(["ratelimit", "first"]),
                Key::new(["ratelimit", "last"]),
            );
            let charges = [&first, foreign, &last].map(|key| Charge::new(&policy, key));
            let error = limiter.try_check_all(&charges).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.effect()),
                (ErrorKind::Foreign, Effect::No)
            );
            let others = ["EXISTS", first.as_str(), last.as_str()];
            assert_eq!(server.command::<u64>(&others), 0);
        }
    }
    let left: Vec<String> = server.command(&["LRANGE", list.as_str(), "0", "-1"]);
    assert_eq!(left, ["a", "b"]);
    assert_eq!(server.command::<String>(&["HGET", hash.as_str(), "f"]), "v");
    assert_eq!(server.command::<i64>(&["PTTL", list.as_str()]), -1);
}

/// A bucket's short value: at, debt, token, the time since it was full, gain and unit, and a block of time.
fn short_bucket(at: u64, debt: u64, token: u64, past: u64, rate: u8) -> Vec<u8> {
    let low = |number: u64, bytes: usize| number.to_be_bytes()[8 - bytes..].to_vec();
    let parts = [
        b"b\x01".to_vec(),
        low(at, 7),
        low(debt, 6),
        low(token, 5),
        low(past, 5),
        vec![rate, 0xff, 0xff],
    ];
    parts.concat()
}

/// Known fault: "a stored nan admits for ever": what is no state counts as a fresh one, once.
#[tokio::test]
async fn an_unreadable_value_is_a_fresh_state() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let values = [
        "", " ", "nan", "inf", "-inf", "0x10", "-5", "+5", "1e3", "5.0", " 5", "5 ", "abc",
        "banana", "b", "b ", "seven", "lots", "count",
    ];
    const NEVER: u64 = 9_007_199_254_740_991;
    let states = [
        state(b'b', 1, &[0, 1, 1, NEVER, 1, NEVER]),
        state(b'b', 1, &[1, 1, 1, NEVER + 1, 1, 1]),
        state(b'b', 1, &[1, 1, 1, NEVER, 1, NEVER + 1]),
        state(b'b', 1, &[1, 1, 1, 2, 1, NEVER + 1]),
        state(b'b', 1, &[1, 1, 1, NEVER, 1]),
        // No token, no gain, no such unit; full before there was a time; paid off after the last one; cut short, and too long.
        short_bucket(1, 1, 0, 0, 1),
        short_bucket(1, 1, 1, 0, 0),
        short_bucket(1, 1, 1, 0, 64),
        short_bucket(1, 1, 1, 0, 3 * 64 + 1),
        short_bucket(1, 1, 1, 2, 1),
        short_bucket(NEVER, (1 << 48) - 1, 1, 1, 2 * 64 + 1),
        short_bucket(NEVER + 1, 1, 1, 1, 1),
        short_bucket(1, NEVER, 1, 0, 1)[..27].to_vec(),
        [short_bucket(1, NEVER, 1, 0, 1), vec![0]].concat(),
        state(b's', 1, &[0, 0, 0, 0, 0]),
        state(b's', 1, &[1, 2, 3, 4]),
        state(b's', 1, &[60_000_000, 1, 0, NEVER + 1, 1]),
        state(b's', 1, &[60_000_000, 0, 0, 0, NEVER + 1]),
        state(b'l', 1, &[60_000_000, 1, NEVER, NEVER]),
        state(b'l', 1, &[0, 1, NEVER, NEVER, NEVER, 0, 0, 0, 0]),
        // An entry, or a charge's total, that is not there; entries that were never made.
        state(b'l', 1, &[60_000_000, 1, NEVER, NEVER, NEVER, 0, 0, 1, 1]),
        state(b'l', 1, &[60_000_000, 1, NEVER, NEVER, NEVER, 0, 0, 0, 1]),
        state(b'l', 1, &[60_000_000, 1, NEVER, NEVER, NEVER, 2, 0, 1, 1]),
        state(b'l', 1, &[60_000_000, 1, NEVER, NEVER, NEVER, 0, 2, 0, 1]),
        // States of which nothing is left.
        state(b'b', 1, &[1, 1, 1, 2, 1, NEVER]),
        state(b's', 1, &[1, 1, 1, 1, NEVER]),
        state(b'l', 1, &[1, 1, 1, 1, 1, 0, 0, 0, 0]),
    ];
    let values = values.map(|value| value.as_bytes().to_vec());
    let values: Vec<Vec<u8>> = values.into_iter().chain(states).collect();
    for policy in policies() {
        for value in &values {
            server.set(key().as_str(), value);
            let looked = limiter.peek(&policy, &key()).await.unwrap();
            assert_eq!(looked.used, 0, "{} {value:?}", policy.name());
            for used in 1..=LIMIT {
                let decision = limiter.try_check(&policy, &key()).await.unwrap();
                assert_eq!(decision.used, used, "{} {value:?}", policy.name());
            }
            let denied = limiter.try_check(&policy, &key()).await.unwrap();
            assert!(!denied.is_allowed(), "{} {value:?}", policy.name());
            assert!(pttl(&server) > 0, "{} {value:?}", policy.name());
        }
    }
}

/// Numbers that are readable and absurd deny, and deny no longer than the policy's own bound.
#[tokio::test]
async fn an_absurd_count_denies_within_the_policy_s_time() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let [fixed, sliding, bucket, log, calendar] = policies();
    let time: (u64, u64) = server.command(&["TIME"]);
    let now = time.0 * 1_000_000 + time.1;
    let window = ten_years().as_micros();
    let most = 9_007_199_254_740_991_u64;
    let cases = [
        (fixed, most.to_string().into_bytes()),
        (
            sliding,
            state(b's', 1, &[window, now - now % window, most, most, 1]),
        ),
        (bucket, state(b'b', 1, &[1, most, now, most, now, 1])),
        (
            log.clone(),
            state(
                b'l',
                1,
                &[window, most, now, now, now, 0, 0, 1, most, now, most, most],
            ),
        ),
        // An entry says less than the sum.
        (
            log,
            state(b'l', 1, &[window, 1, now, now, now, 0, 0, 1, 9, now, 0, 1]),
        ),
        (calendar, most.to_string().into_bytes()),
    ];
    for (policy, value) in cases {
        server.set(key().as_str(), &value);
        let denied = limiter.try_check(&policy, &key()).await.unwrap();
        let retry_after = denied.retry_after().unwrap();
        let (refill, period) = policy.quota().rate().unwrap();
        // Twice a window; a bucket owes at most twice its size.
        let longest = period.as_duration() * u32::try_from(2 * LIMIT / refill).unwrap();
        assert!(
            !retry_after.is_zero() && retry_after <= longest,
            "{policy:?}: {retry_after:?}"
        );
        assert_eq!(denied.remaining, 0);
    }
}

/// A log's totals stay exact, however much has been charged since it began.
#[tokio::test]
async fn a_log_s_totals_begin_anew_before_they_are_too_large() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let log = policy(Quota::sliding_log(LIMIT, ten_years()));
    let time: (u64, u64) = server.command(&["TIME"]);
    let now = time.0 * 1_000_000 + time.1;
    let (window, most) = (ten_years().as_micros(), 9_007_199_254_740_991_u64);
    // An entry that counts no more, and one of 2 up to the largest total.
    let head = [window, 2, now, now, now, 1, most - 2, 2, most];
    let entries = [1, 0, most - 2, now, 1, most];
    server.set(
        key().as_str(),
        &state(b'l', 1, &[&head[..], &entries].concat()),
    );
    assert_eq!(limiter.peek(&log, &key()).await.unwrap().used, 2);
    for used in 3..=LIMIT {
        assert_eq!(limiter.try_check(&log, &key()).await.unwrap().used, used);
        assert_eq!(limiter.peek(&log, &key()).await.unwrap().used, used);
    }
    assert!(!limiter.try_check(&log, &key()).await.unwrap().is_allowed());
}

/// A count that is too large to count on is all of a limit, and not nothing.
#[tokio::test]
async fn a_count_beyond_exact_numbers_denies() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let [fixed, sliding, .., calendar] = policies();
    for count in ["9007199254740992", "18446744073709551616"] {
        for policy in [&fixed, &calendar] {
            server.command::<()>(&["SET", key().as_str(), count]);
            let denied = limiter.try_check(policy, &key()).await.unwrap();
            assert!(denied.retry_after().is_some(), "{count}: {denied:?}");
            assert!(pttl(&server) > 0, "and the window ends");
        }
        server.command::<()>(&["SET", key().as_str(), count]);
        let stranger = limiter.try_check(&sliding, &key()).await.unwrap_err();
        assert_eq!(stranger.kind(), ErrorKind::Conflict, "{stranger}");
    }
}

/// What another version of the library wrote is misuse, and never a fresh state: also of the own algorithm.
#[tokio::test]
async fn a_state_of_another_version_is_a_conflict() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    for policy in policies() {
        // With kinds that only a later version knows.
        let known = b"bsl".map(|letter| (letter, vec![2, 31, b':']));
        // Leases are no string in this one.
        let others = [(b'c', vec![1, 2, 31, b':']), (b'g', vec![1, 2, 31])];
        for (letter, versions) in known.into_iter().chain(others) {
            for version in versions {
                let value = state(letter, version, &[1, 2, 3]);
                server.set(key().as_str(), &value);
                let error = limiter.try_check(&policy, &key()).await.unwrap_err();
                assert_eq!(
                    (error.kind(), error.effect()),
                    (ErrorKind::Conflict, Effect::No)
                );
                assert!(error.message().contains("another version"), "{error}");
                let kept: Vec<u8> = server.command(&["GET", key().as_str()]);
                assert_eq!(kept, value);
            }
        }
        limiter.reset(&policy, &key()).await.unwrap();
        assert_eq!(limiter.try_check(&policy, &key()).await.unwrap().used, 1);
        limiter.reset(&policy, &key()).await.unwrap();
    }
}

/// C7: a bucket fits into Redis's embedded string, 44 bytes.
#[tokio::test]
async fn a_bucket_is_small() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let quotas = [
        Quota::token_bucket(LIMIT, 1, Period::DAY),
        Quota::token_bucket(10_000_000, 7_777_777, Period::DAY),
        Quota::token_bucket(3_000_000, 3_000_000, Period::SECOND),
    ];
    for quota in quotas {
        let policy = policy(quota);
        let most = policy.quota().capacity();
        limiter.try_check_n(&policy, &key(), most).await.unwrap();
        let bytes: usize = server.command(&["STRLEN", key().as_str()]);
        assert!(bytes <= 44, "{bytes}");
        let encoding: String = server.command(&["OBJECT", "ENCODING", key().as_str()]);
        assert_eq!(encoding, "embstr");
        limiter.reset(&policy, &key()).await.unwrap();
    }
}

/// Every value can be read by people.
#[tokio::test]
async fn every_value_has_a_description() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let ttl = Duration::from_secs(60);
    let mut reservations = Vec::new();
    for policy in policies() {
        let name = policy.name().to_owned();
        let key = Key::new(["ratelimit", &name]);
        let charge = [Charge::new(&policy, &key).with_cost(3)];
        let id = OperationId::new(name);
        let once = limiter.charge_once(&id, &charge).await.unwrap();
        let reserved = limiter.reserve(&[Charge::new(&policy, &key)], ttl).await;
        reservations.push(reserved.unwrap().held().unwrap());
        once.1.unwrap().refund().await.unwrap();
    }
    let streams = policy(Quota::concurrency(3));
    let key = streams.key(["all"]);
    let stream = [Charge::new(&streams, &key).with_cost(2)];
    let lease = limiter.acquire(&stream, ttl).await.unwrap().held().unwrap();
    let other = limiter.acquire(&[Charge::new(&streams, &key)], ttl).await;
    other.unwrap().held().unwrap().release().await.unwrap();
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    let mut said = Vec::new();
    for key in keys.iter().filter(|key| !key.contains("%probe")) {
        if server.command::<String>(&["TYPE", key]) == "zset" {
            let set: Vec<(Vec<u8>, f64)> =
                server.command(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
            said.push(describe_leases(&set));
            continue;
        }
        let value: Vec<u8> = server.command(&["GET", key]);
        let text = describe(&value);
        assert!(!text.contains("no state"), "{key}: {text}");
        // Cut short, or longer, it is none. (Behind a log may stand what is left of former charges.)
        let (first, all) = (value[0], value.len());
        let cut = if first == b'l' { 60 } else { all - 1 };
        if !first.is_ascii_digit() {
            assert_eq!(describe(&value[..cut]), "no state of a limit");
        }
        if !first.is_ascii_digit() && first != b'l' {
            let longer = [&value[..], &[0]].concat();
            assert_eq!(describe(&longer), "no state of a limit");
        }
        said.push(text);
    }
    said.sort();
    let all = said.join("\n");
    for part in [
        "window: count=1",
        "sliding window counter: window_us=",
        "token bucket: token=",
        "sliding log: window_us=",
        "\n  charge: date_us=",
        "leases: cost=2\n  lease: id=",
        " cost=2 expires_us=",
        "operation: fingerprint=",
        "\n  step: charged=3 at_us=",
        "released lease: held cost=1 actual=0 charged=1 at_us=",
        "released lease: refunded cost=3 actual=0 charged=0 at_us=",
        "released lease: cancelled cost=0",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    lease.release().await.unwrap();
}
