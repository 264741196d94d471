//! The script's own contract: many groups in one call, and arguments that are no numbers.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use integration_tests::RedisServer;
use limiter_redis::limit_script;
use redis::Value;

const A: &str = "ratelimit:batch:a";
const B: &str = "ratelimit:batch:b";
const LIST: &str = "ratelimit:batch:list";

/// A step on a fixed window of 5 per minute: the key's number, the action's, and what the action takes.
fn step(key: u32, action: u32, more: &str) -> String {
    format!("{key} 0 {action} 1 5 60000 0 0 {more}")
}

/// A group without an operation id.
fn group<const N: usize>(steps: [String; N]) -> String {
    format!("{N} 0 {}", steps.join(" "))
}

fn call(server: &RedisServer, keys: &[&str], groups: &[String]) -> redis::RedisResult<Value> {
    let mut command = redis::cmd("EVAL");
    command.arg(limit_script()).arg(keys.len()).arg(keys);
    command.arg("1800000").arg(groups.len());
    for argument in groups.iter().flat_map(|group| group.split(' ')) {
        command.arg(argument);
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
        group([step(1, charge, "3")]),
        // The first group left 2.
        group([step(1, charge, "3"), step(2, charge, "1")]),
        // A key of another type fails its own group only, and all of that.
        group([step(2, charge, "4"), step(3, charge, "1")]),
        group([step(1, charge, "2"), step(2, charge, "1")]),
        group([step(1, peek, "1")]),
        group([step(2, reset, "")]).trim_end().to_owned(),
        group([step(2, charge, "5")]),
    ];
    let Value::Array(replies) = call(&server, &[A, B, LIST], &groups).unwrap() else {
        panic!("not an array");
    };
    assert_eq!(replies[0], Value::Int(0), "nothing was unreadable");
    let verdicts = |group: &Value| -> Vec<(i64, i64)> {
        let numbers = numbers(group);
        assert_eq!(numbers[0], 0);
        numbers[1..]
            .chunks(9)
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

/// A reservation, its settlement and a retry under an operation id, all in one call.
#[test]
fn records_are_seen_by_the_groups_after_them() {
    let server = RedisServer::start();
    let (record, operation) = ("ratelimit:%reservation:{b}1", "ratelimit:%operation:{b}2");
    let (reserve, settle, charge) = (4, 5, 0);
    let fingerprint = "0123456789abcdef";
    let once = |cost| {
        format!(
            "1 3 {fingerprint} 60000000 {}",
            step(1, charge, &format!("0 0 {cost}"))
        )
    };
    let groups = [
        group([step(1, reserve, "2 4 60000000")]),
        group([step(1, settle, "2 1")]),
        group([step(1, settle, "2 1")]),
        once("2"),
        once("2"),
        group([step(1, settle, "2 2")]),
        once("2").replace(fingerprint, "0123456789abcdee"),
    ];
    let Value::Array(replies) = call(&server, &[A, record, operation], &groups).unwrap() else {
        panic!("not an array");
    };
    let used_and_charged = |group: &Value| {
        let numbers = numbers(group);
        (numbers[0], numbers[2], numbers[5])
    };
    let answers: Vec<_> = replies[1..6].iter().map(used_and_charged).collect();
    assert_eq!(
        answers,
        [(0, 4, 4), (0, 1, 1), (0, 1, 1), (0, 3, 2), (0, 3, 2)]
    );
    assert_eq!(numbers(&replies[6]), [3, 0], "settled to another amount");
    assert_eq!(numbers(&replies[7]), [4], "another group under the id");
    assert_eq!(server.command::<String>(&["GET", A]), "3");
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
        let groups = [group([step(1, 0, "1")]), group([step(1, 0, bad)])];
        let error = call(&server, &[A], &groups).unwrap_err();
        assert_eq!(error.code(), Some("BADARG"), "{bad}: {error}");
        assert!(!server.command::<bool>(&["EXISTS", A]), "{bad}");
    }
    let beyond = [group([step(2, 0, "1")])];
    assert_eq!(
        call(&server, &[A], &beyond).unwrap_err().code(),
        Some("BADARG")
    );
    // The key of a reservation's record, and a lease's name, are checked as well.
    for bad in [
        step(1, 4, "2 1 1000"),
        step(1, 4, "0 1 1000"),
        step(1, 11, "1"),
    ] {
        let error = call(&server, &[A], &[group([bad])]).unwrap_err();
        assert_eq!(error.code(), Some("BADARG"), "{error}");
    }
    for lease in ["", "a", &"a".repeat(15), &"a".repeat(17), &"a".repeat(32)] {
        let release = format!("1 0 1 0 9 5 5 0 0 0 {lease} 1 1000");
        let error = call(&server, &[A], &[release]).unwrap_err();
        assert_eq!(error.code(), Some("BADARG"), "{lease}: {error}");
    }
    let too_many = vec![group([step(1, 0, "1")]); 129];
    assert_eq!(
        call(&server, &[A], &too_many).unwrap_err().code(),
        Some("BADARG")
    );
}
