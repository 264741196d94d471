//! Plain charges and looks go to a script of their own, which hands over what it does not know: many groups in one call, values that
//! it must not take for its own, servers that refuse.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use integration_tests::{Bench, RedisServer, policy, random, redis_limiter, state};
use limiter_core::limit::{
    Action, Calendar, Capabilities, Charge, Group, LimitStore, Limiter, OPERATION_TTL, Observed,
    OperationId, Period, Policy, Quota, Source, Step, Verdict,
};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_memory::MemoryStore;
use limiter_redis::{RedisConfig, RedisStore};
use proptest::collection::vec;
use proptest::prelude::*;

fn key(name: &str) -> Key {
    Key::new(["ratelimit", "hot", name])
}

fn hourly(limit: u64) -> Policy {
    policy(Quota::fixed_window(limit, Period::HOUR))
}

/// Of which policy, of which key, how much, whether it only looks, and whether it is a shadow.
type Drawn = (usize, usize, u64, bool, bool);

const KEYS: usize = 2;

fn quotas() -> impl Strategy<Value = [Quota; 4]> {
    // Some that one call uses up, and some that last for several.
    let limit = || prop_oneof![1u64..8, 20u64..200];
    let refill = prop_oneof![1u64..4, Just(97), Just(121)];
    (limit(), limit(), refill, 0u64..100).prop_map(|(few, more, refill, length)| {
        let period = Period::new(Duration::from_millis(700 + length)).unwrap();
        [
            // One with a short value, or one whose rate has no room in it.
            Quota::token_bucket(few, refill, period).unwrap(),
            Quota::sliding_window(more, period).unwrap(),
            Quota::fixed_window(few, period).unwrap(),
            Quota::calendar_window(more, Calendar::Minute).unwrap(),
        ]
    })
}

/// I-H5: a call with many groups is what one group after the other is, in memory, where they share keys and where they do not.
#[test]
fn many_groups_in_a_call_are_what_one_after_the_other_is() {
    let config = random::config(300);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new());
    let store = RedisStore::with_virtual_clock(&bench.server.virtual_config()).unwrap();
    runtime.block_on(store.warm_up()).unwrap();
    let step = (0..4usize, 0..KEYS, 0u64..6, any::<bool>(), any::<bool>());
    let round = (vec(vec(step, 1..5), 1..25), 0u64..900_000);
    let values = (quotas(), vec(round, 1..5));
    let (number, groups, together) = (Cell::new(0), Cell::new(0), Cell::new(0));
    random::check(&config, &values, |(quotas, rounds)| {
        number.set(number.get() + 1);
        let names: Vec<_> = (0..4 * KEYS)
            .map(|index| key(&format!("{}-{index}", number.get())))
            .collect();
        let of = |quota: &Quota, is_shadow| {
            let policy = Policy::new("hot", *quota).unwrap();
            policy.with_shadow(is_shadow)
        };
        let policies: Vec<_> = quotas
            .iter()
            .map(|quota| [of(quota, false), of(quota, true)])
            .collect();
        for (drawn, micros) in &rounds {
            let all: Vec<Vec<Step<'_>>> = drawn
                .iter()
                .map(|drawn| steps(drawn, &policies, &names))
                .collect();
            let before = bench.server.calls("evalsha");
            let told = runtime.block_on(join_all(all.iter().map(|steps| tell(&store, steps))));
            together.set(together.get() + bench.server.calls("evalsha") - before);
            groups.set(groups.get() + all.len());
            for (steps, told) in all.iter().zip(told) {
                let wanted = runtime.block_on(tell(&bench.memory, steps));
                prop_assert_eq!(&told, &wanted, "{:?}", steps);
            }
            for name in &names {
                let left: i64 = bench.server.command(&["PTTL", name.as_str()]);
                prop_assert_ne!(left, -1, "a key lives for ever");
            }
            let by = Duration::from_micros(*micros);
            runtime.block_on(bench.set(bench.now().saturating_add(by)));
        }
        Ok(())
    });
    // Most of them in one call, or it says nothing of calls with many.
    assert!(
        groups.get() as u64 > 5 * together.get(),
        "{} calls of {} groups",
        together.get(),
        groups.get()
    );
}

/// A group of these steps, of which none names a key again.
fn steps<'a>(drawn: &[Drawn], policies: &'a [[Policy; 2]], names: &'a [Key]) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'a>> = vec![];
    for (policy, key, cost, looks, is_shadow) in drawn {
        let key = &names[policy * KEYS + key];
        if steps.iter().any(|step| step.key() == key) {
            continue;
        }
        let cost = *cost;
        let action = match looks {
            true => Action::Peek { cost },
            false => Action::Charge { cost },
        };
        steps.push(Step::new(
            &policies[*policy][usize::from(*is_shadow)],
            key,
            action,
        ));
    }
    steps
}

async fn tell(store: &dyn LimitStore, steps: &[Step<'_>]) -> Vec<Observed> {
    let group = Group::new(steps, &store.capabilities()).unwrap();
    let mut observed = vec![Observed::default(); steps.len()];
    if let Some(told) = store.try_apply_now(&group, &mut observed) {
        told.unwrap();
    } else {
        store.apply(&group, &mut observed).await.unwrap();
    }
    for observed in &mut observed {
        observed.issuer = None;
        observed.source = Source::Store;
    }
    observed
}

/// Counts that INCRBY refuses are charged all the same, each once, and cost the others in their call nothing.
#[tokio::test]
async fn a_count_with_zeros_in_front_is_charged() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let policy = hourly(100);
    let names = ["a", "y", "z"].map(key);
    let [a, y, z] = &names;
    for zeros in ["05", "007", "00", "0"] {
        server.command::<()>(&["FLUSHALL"]);
        let count: u64 = zeros.parse().unwrap();
        server.command::<()>(&["SET", z.as_str(), zeros, "PX", "100000"]);
        let get = |key: &Key| server.command::<u64>(&["GET", key.as_str()]);
        let told = limiter.try_check(&policy, z).await.unwrap();
        assert_eq!((told.used, get(z)), (count + 1, count + 1), "{zeros}");

        server.command::<()>(&["SET", z.as_str(), zeros, "PX", "100000"]);
        let charges = [a, z].map(|key| Charge::new(&policy, key));
        limiter.try_check_all(&charges).await.unwrap();
        assert_eq!((get(a), get(z)), (1, count + 1), "{zeros}");

        server.command::<()>(&["SET", z.as_str(), zeros, "PX", "100000"]);
        let checks = [a, y, y, z, z].map(|key| limiter.try_check(&policy, key));
        let told = join_all(checks).await;
        assert!(told.iter().all(Result::is_ok), "{zeros}: {told:?}");
        assert_eq!((get(a), get(y), get(z)), (2, 2, count + 2), "{zeros}");
    }
}

/// What is no count is told as by the script that knows all, and left as that leaves it, whether it would be written or only looked
/// at: numbers to Lua, but not to INCRBY.
#[tokio::test]
async fn what_lua_alone_takes_for_a_number_is_no_count() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    let (roomy, full) = (hourly(1_000), hourly(1));
    let one = key("number");
    let other = key("other");
    let charge = |cost| Action::Charge { cost };
    let cases = [
        vec![Step::new(&roomy, &one, charge(1))],
        vec![Step::new(&roomy, &one, charge(0))],
        vec![Step::new(&roomy, &one, charge(1_001))],
        vec![Step::new(&roomy, &one, Action::Peek { cost: 1 })],
        vec![Step::new(&full, &one, charge(1))],
        vec![
            Step::new(&roomy, &other, charge(1)),
            Step::new(&roomy, &one, charge(1)),
        ],
    ];
    for value in [
        "7", "1e2", "12e1", "0x10", "+5", "-5", "-0", " 5", "5 ", "5.0", "5.", "nan", "inf",
        "1e400", "", "five", "5\0", "05",
    ] {
        for steps in &cases {
            let tell = async |operation: Option<&OperationId>| {
                server.command::<()>(&["DEL", other.as_str()]);
                server.command::<()>(&["SET", one.as_str(), value, "PX", "100000"]);
                let group = Group::new(steps, &Capabilities::ALL).unwrap();
                let group = match operation {
                    Some(id) => group.with_operation(id, OPERATION_TTL, &Capabilities::ALL),
                    None => Ok(group),
                };
                let mut observed = vec![Observed::default(); steps.len()];
                let told = store.apply(&group.unwrap(), &mut observed).await;
                let told = told.map(|()| {
                    let told = observed.iter().map(|told| (told.is_admitted(), told.used));
                    told.collect::<Vec<_>>()
                });
                let left: String = server.command(&["GET", one.as_str()]);
                (told.map_err(|error| error.kind()), left)
            };
            let hot = tell(None).await;
            // An operation's id is nothing for the hot script.
            let full = tell(Some(&OperationId::random())).await;
            assert_eq!(hot, full, "{value:?}: {steps:?}");
        }
    }
}

/// What a call promised to write, and could not, nobody is told of.
#[tokio::test]
async fn a_full_redis_tells_nobody_of_what_it_has_not_written() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let limiter = Limiter::raw(std::sync::Arc::new(store));
    let quotas = [
        Quota::token_bucket(1, 1, Period::HOUR),
        Quota::sliding_window(1, Period::HOUR),
        Quota::fixed_window(1, Period::HOUR),
    ];
    for (number, quota) in quotas.into_iter().enumerate() {
        let (policy, key) = (policy(quota), key(&number.to_string()));
        server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        let charges = join_all([0, 1].map(|_| limiter.try_check(&policy, &key)));
        let (charged, looked) = tokio::join!(charges, limiter.peek(&policy, &key));
        for charged in charged {
            let error = charged.unwrap_err();
            let said = (error.kind(), error.effect());
            assert_eq!(said, (ErrorKind::Server, Effect::No), "{error}");
        }
        assert_eq!(looked.unwrap().used, 0, "{policy:?}");
        server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        assert!(limiter.try_check(&policy, &key).await.unwrap().is_allowed());
    }
}

/// Two instances keep states for different times: whoever charges, the state lives as long as it counts.
#[tokio::test]
async fn instances_with_different_times_to_live_share_a_key() {
    let server = RedisServer::start();
    let store = |seconds| {
        let config: RedisConfig = server.config();
        let config = config.with_state_ttl(Duration::from_secs(seconds));
        Limiter::new(RedisStore::new(&config).unwrap())
    };
    let limiters = [store(1), store(3_600), store(60)];
    for quota in [
        Quota::token_bucket(1_000, 1, Period::SECOND),
        Ok(*odd().quota()),
        Quota::sliding_window(1_000, Period::MINUTE),
    ] {
        let policy = policy(quota);
        let key = policy.key(["shared"]);
        for turn in 0..60 {
            let limiter = &limiters[turn * turn % 7 % 3];
            let told = limiter.try_check_n(&policy, &key, 7).await.unwrap();
            let left: i64 = server.command(&["PTTL", key.as_str()]);
            let left = Duration::from_millis(left.unsigned_abs());
            let slack = Duration::from_secs(2);
            assert!(
                left + slack >= told.reset_after,
                "{policy:?}: {left:?} of {:?}",
                told.reset_after
            );
            assert!(left <= Duration::from_secs(3_600) + slack, "{left:?}");
        }
    }
}

/// A right that is taken away from a connection is the error of the group that needs it, and of no other.
#[tokio::test]
async fn a_right_that_is_taken_away_is_its_own_groups_error() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let (window, bucket) = (hourly(5), policy(Quota::token_bucket(5, 1, Period::HOUR)));
    let (counted, filled) = (key("window"), key("bucket"));
    limiter.try_check(&window, &counted).await.unwrap();
    server.command::<()>(&["ACL", "SETUSER", "limiter", "-pttl"]);
    let (first, second) = tokio::join!(
        limiter.try_check(&bucket, &filled),
        limiter.try_check(&window, &counted)
    );
    assert!(first.unwrap().is_allowed());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(server.command::<u64>(&["GET", counted.as_str()]), 1);
}

/// 97 a minute: a rate that has no room in a short value.
fn odd() -> Policy {
    policy(Quota::token_bucket(1_000, 97, Period::MINUTE))
}

/// The key gets an expiry, whatever its value says.
#[tokio::test]
async fn a_value_that_claims_to_live_for_ever_does_not() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let time: (u64, u64) = server.command(&["TIME"]);
    let now = time.0 * 1_000_000 + time.1;
    let token = 60_000_000;
    let debt = 10 * token;
    let full_at = now + u64::div_ceil(debt, 97);
    let kept = 9_007_199_254_740_991;
    let value = state(b'b', 1, &[token, debt, now, full_at, now, kept]);
    let key = key("for ever");
    server.set(key.as_str(), &value);
    let told = limiter.try_check(&odd(), &key).await.unwrap();
    assert_eq!(told.used, 11);
    let left: i64 = server.command(&["PTTL", key.as_str()]);
    assert!((1..=1_800_000).contains(&left), "{left}");
}

/// It is no short value of a rate that has no room in one.
#[tokio::test]
async fn a_gain_of_nothing_is_no_value() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let time: (u64, u64) = server.command(&["TIME"]);
    let number = |number: u64, bytes: usize| number.to_be_bytes()[8 - bytes..].to_vec();
    let value = [
        b"b\x01".to_vec(),
        number((time.0 - 1) * 1_000_000, 7),
        number(1_000 * 60_000_000, 6),
        number(60_000_000, 5),
        number(0, 5),
        number(0, 1),
        number(0, 2),
    ];
    let key = key("nothing");
    server.set(key.as_str(), &value.concat());
    let told = limiter.try_check(&odd(), &key).await.unwrap();
    assert_eq!((told.is_allowed(), told.used), (true, 1));
}

/// So is one without which a group ended half way: it may be charged in part, and that is what its error says.
#[tokio::test]
async fn a_group_that_ends_half_way_may_have_charged() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let policy = hourly(9);
    let (fresh, counted) = (key("fresh"), key("counted"));
    limiter.try_check(&policy, &counted).await.unwrap();
    server.command::<()>(&["ACL", "SETUSER", "limiter", "-incrby"]);
    // The later one's write is refused; and then the first one's, of which nothing is done: the other script does all.
    let charge = |key| Charge::new(&policy, key);
    let charges = [charge(&fresh), charge(&counted)];
    let error = limiter.try_check_all(&charges).await.unwrap_err();
    let said = (error.kind(), error.effect());
    assert_eq!(said, (ErrorKind::Unauthorized, Effect::Unknown), "{error}");
    let counts = |keys: [&Key; 2]| keys.map(|key| server.command::<u64>(&["GET", key.as_str()]));
    assert_eq!(counts([&fresh, &counted]), [1, 1]);
    let charges = [charge(&counted), charge(&fresh)];
    assert!(limiter.try_check_all(&charges).await.unwrap().is_allowed());
    assert_eq!(counts([&fresh, &counted]), [2, 2]);
}

/// What it hands over costs a second call and no more, and nothing is charged twice.
#[tokio::test]
async fn what_is_handed_over_is_done_once() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let limiter = Limiter::new(store);
    let (month, key) = (
        policy(Quota::calendar_window(9, Calendar::Month)),
        key("month"),
    );
    for (used, wanted) in [(1, 2), (2, 1), (3, 1)] {
        let before = server.calls("evalsha");
        let told = limiter.try_check(&month, &key).await.unwrap();
        assert_eq!(
            (told.used, server.calls("evalsha") - before),
            (used, wanted)
        );
    }
}

/// A quota that has changed is handed over once: from then on the value is the new one's.
#[tokio::test]
async fn a_changed_quota_is_handed_over_once() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let memory = MemoryStore::new();
    let name = key("changed");
    for (capacity, wanted) in [(10, 1), (10, 1), (20, 1), (4, 1)] {
        // Only the rate is written into a value, not the capacity.
        let policy = policy(Quota::token_bucket(capacity, 1, Period::HOUR));
        let steps = [Step::new(&policy, &name, Action::Charge { cost: 1 })];
        let before = server.calls("evalsha");
        let told = tell(&store, &steps).await;
        assert_eq!(server.calls("evalsha") - before, wanted, "{capacity}");
        let in_memory = tell(&memory, &steps).await;
        assert_eq!(told[0].used, in_memory[0].used);
        assert_eq!(
            told[0].verdict == Verdict::Admit,
            in_memory[0].verdict == Verdict::Admit
        );
    }
    for (refill, wanted) in [(2, 2), (2, 1), (1, 2), (1, 1)] {
        let policy = policy(Quota::token_bucket(20, refill, Period::HOUR));
        let steps = [Step::new(&policy, &name, Action::Charge { cost: 1 })];
        let before = server.calls("evalsha");
        let told = tell(&store, &steps).await;
        assert_eq!(server.calls("evalsha") - before, wanted, "{refill}");
        assert_eq!(told[0].used, tell(&memory, &steps).await[0].used);
    }
}
