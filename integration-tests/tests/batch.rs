//! The script's own contract: many groups in one call, and arguments that are no numbers.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use integration_tests::RedisServer;
use redis::Value;

/// The library as limiter-redis joins it.
const LIBRARY: &str = concat!(
    include_str!("../../limiter-redis/src/lua/command.lua"),
    include_str!("../../limiter-redis/src/lua/number.lua"),
    include_str!("../../limiter-redis/src/lua/clock.lua"),
    include_str!("../../limiter-redis/src/lua/fixed_window.lua"),
    include_str!("../../limiter-redis/src/lua/sliding_window.lua"),
    include_str!("../../limiter-redis/src/lua/token_bucket.lua"),
    include_str!("../../limiter-redis/src/lua/main.lua"),
);

const A: &str = "ratelimit:batch:a";
const B: &str = "ratelimit:batch:b";
const LIST: &str = "ratelimit:batch:list";

/// A step on a fixed window of 5 per minute: the key's number, the action's, the cost.
fn step(key: u32, action: u32, cost: &str) -> String {
    format!("{key} 0 {action} 1 5 60000 0 0 {cost}")
}

fn call(server: &RedisServer, keys: &[&str], groups: &[Vec<String>]) -> redis::RedisResult<Value> {
    let mut command = redis::cmd("EVAL");
    command.arg(LIBRARY).arg(keys.len()).arg(keys);
    command.arg("1800000").arg(groups.len());
    for group in groups {
        command.arg(group.len());
        for argument in group.iter().flat_map(|step| step.split(' ')) {
            command.arg(argument);
        }
    }
    command.query(&mut server.admin())
}

fn numbers(reply: &Value) -> Vec<i64> {
    redis::from_redis_value(reply.clone()).unwrap()
}

/// Group k sees what the groups before it did; each has its own result or error; all is written once.
#[test]
fn groups_of_one_call_run_one_after_the_other() {
    let server = RedisServer::start();
    server.command::<i64>(&["RPUSH", LIST, "x"]);
    let (charge, peek, reset) = (0, 1, 2);
    let groups = [
        vec![step(1, charge, "3")],
        // The first group left 2.
        vec![step(1, charge, "3"), step(2, charge, "1")],
        // A key of another type fails its own group only, and all of that.
        vec![step(2, charge, "4"), step(3, charge, "1")],
        vec![step(1, charge, "2"), step(2, charge, "1")],
        vec![step(1, peek, "1")],
        vec![step(2, reset, "0")],
        vec![step(2, charge, "5")],
    ];
    let Value::Array(replies) = call(&server, &[A, B, LIST], &groups).unwrap() else {
        panic!("not an array");
    };
    assert_eq!(replies[0], Value::Int(0), "nothing was unreadable");
    let verdicts = |group: &Value| -> Vec<(i64, i64)> {
        let numbers = numbers(group);
        assert_eq!(numbers[0], 0);
        numbers[1..]
            .chunks(4)
            .map(|step| (step[0], step[1]))
            .collect()
    };
    let (admit, deny) = (0, 1);
    assert_eq!(verdicts(&replies[1]), [(admit, 3)]);
    assert_eq!(verdicts(&replies[2]), [(deny, 3), (admit, 0)]);
    assert_eq!(
        numbers(&replies[3]),
        [1, 1],
        "step 1 of the group is the obstacle"
    );
    assert_eq!(verdicts(&replies[4]), [(admit, 5), (admit, 1)]);
    assert_eq!(verdicts(&replies[5]), [(deny, 5)]);
    assert_eq!(verdicts(&replies[6]), [(admit, 0)]);
    assert_eq!(verdicts(&replies[7]), [(admit, 5)]);
    for key in [A, B] {
        assert_eq!(server.command::<String>(&["GET", key]), "5", "{key}");
        let ttl = server.command::<i64>(&["PTTL", key]);
        assert!(ttl > 0 && ttl < 60_000, "{key} lives {ttl} ms");
    }
    assert_eq!(
        server.command::<Vec<String>>(&["LRANGE", LIST, "0", "-1"]),
        ["x"]
    );
}

/// LESSONS: cost -5 mints credit, `nan` admits for ever. Nothing of such a call is done.
#[test]
fn arguments_that_are_no_integers_are_refused() {
    let server = RedisServer::start();
    for bad in [
        "-5",
        "nan",
        "inf",
        "0x10",
        "1e3",
        "1.5",
        "9007199254740992",
        "",
        "five",
    ] {
        let groups = [vec![step(1, 0, "1")], vec![step(1, 0, bad)]];
        let error = call(&server, &[A], &groups).unwrap_err();
        assert_eq!(error.code(), Some("BADARG"), "{bad}: {error}");
        assert!(!server.command::<bool>(&["EXISTS", A]), "{bad}");
    }
    let beyond = [vec![step(2, 0, "1")]];
    assert_eq!(
        call(&server, &[A], &beyond).unwrap_err().code(),
        Some("BADARG")
    );
    let too_many = vec![vec![step(1, 0, "1")]; 129];
    assert_eq!(
        call(&server, &[A], &too_many).unwrap_err().code(),
        Some("BADARG")
    );
}
