//! The script's own contract: many groups in one call, and arguments that are no numbers.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use integration_tests::RedisServer;
use limiter_redis::limit_script;
use redis::Value;

const A: &str = "ratelimit:batch:a";
const B: &str = "ratelimit:batch:b";
const LIST: &str = "ratelimit:batch:list";

const CHARGE: u8 = 0;
const PEEK: u8 = 1;
const RESET: u8 = 2;
const RESERVE: u8 = 4;
const SETTLE: u8 = 5;
const ACQUIRE: u8 = 7;
const RELEASE: u8 = 9;

/// A step on a fixed window of 5 a minute, without an operation.
#[derive(Clone, Copy)]
struct Step {
    key: u16,
    action: u8,
    algorithm: u8,
    record: u16,
    quota: [u64; 4],
    cost: u64,
    x: u64,
}

fn step(key: u16, action: u8, cost: u64) -> Step {
    Step {
        key,
        action,
        algorithm: 1,
        record: 0,
        quota: [5, 60_000, 0, 0],
        cost,
        x: 0,
    }
}

fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes()[1..]);
}

impl Step {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.key.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, self.action, 0, self.algorithm, 0, 0]);
        bytes.extend_from_slice(&self.record.to_be_bytes());
        for part in self.quota.into_iter().chain([self.cost, self.x, 0]) {
            number(&mut bytes, part);
        }
        bytes.extend_from_slice(&[7; 16]);
        bytes
    }
}

/// A group without an operation id.
fn group<const N: usize>(steps: [Step; N]) -> Vec<u8> {
    once(0, [0; 16], steps)
}

fn once<const N: usize>(operation: u16, fingerprint: [u8; 16], steps: [Step; N]) -> Vec<u8> {
    let mut bytes = u16::try_from(N).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&operation.to_be_bytes());
    number(&mut bytes, 60_000_000);
    bytes.extend_from_slice(&fingerprint);
    bytes.extend(steps.into_iter().flat_map(Step::bytes));
    bytes
}

fn call(server: &RedisServer, keys: &[&str], groups: &[Vec<u8>]) -> redis::RedisResult<Value> {
    command(keys, groups).query(&mut server.admin())
}

fn command(keys: &[&str], groups: &[Vec<u8>]) -> redis::Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(limit_script()).arg(keys.len()).arg(keys);
    let mut floor = Vec::new();
    number(&mut floor, 1_800_000);
    command.arg(floor).arg(groups);
    command
}

/// What is replied to a step.
struct Seen {
    verdict: u8,
    used: u64,
    charged: u64,
}

fn steps(reply: &Value) -> Vec<Seen> {
    let bytes: Vec<u8> = redis::from_redis_value(reply.clone()).unwrap();
    let bytes = &bytes[1..];
    let seen = |step: &[u8]| {
        let number = |place: usize| {
            let bytes = &step[2 + 7 * place..][..7];
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Seen {
            verdict: step[0],
            used: number(0),
            charged: number(3),
        }
    };
    assert_eq!(bytes.len() % 51, 0);
    bytes.chunks(51).map(seen).collect()
}

/// How many values of a group were taken for none.
fn unreadable(reply: &Value) -> u8 {
    redis::from_redis_value::<Vec<u8>>(reply.clone()).unwrap()[0]
}

/// The error of Redis that ended a group.
fn ended(reply: &Value) -> String {
    let (code, error): (i64, String) = redis::from_redis_value(reply.clone()).unwrap();
    assert_eq!(code, 0);
    error
}

fn numbers(reply: &Value) -> Vec<i64> {
    redis::from_redis_value(reply.clone()).unwrap()
}

/// Group k sees what the groups before it did; each has its own result or error; all is written once.
#[test]
fn groups_of_one_call_run_one_after_the_other() {
    let server = RedisServer::start();
    server.command::<i64>(&["RPUSH", LIST, "x"]);
    let groups = [
        group([step(1, CHARGE, 3)]),
        // The first group left 2.
        group([step(1, CHARGE, 3), step(2, CHARGE, 1)]),
        // A key of another type fails its own group only, and all of that.
        group([step(2, CHARGE, 4), step(3, CHARGE, 1)]),
        group([step(1, CHARGE, 2), step(2, CHARGE, 1)]),
        group([step(1, PEEK, 1)]),
        group([step(2, RESET, 0)]),
        group([step(2, CHARGE, 5)]),
    ];
    let Value::Array(replies) = call(&server, &[A, B, LIST], &groups).unwrap() else {
        panic!("not an array");
    };
    assert_eq!(unreadable(&replies[0]), 0, "nothing was unreadable");
    let verdicts = |group: &Value| -> Vec<(u8, u64)> {
        let seen = |step: &Seen| (step.verdict, step.used);
        steps(group).iter().map(seen).collect()
    };
    let (admit, deny) = (0, 1);
    assert_eq!(verdicts(&replies[0]), [(admit, 3)]);
    assert_eq!(verdicts(&replies[1]), [(deny, 3), (admit, 0)]);
    assert_eq!(
        numbers(&replies[2]),
        [1, 1],
        "step 1 of the group is the obstacle"
    );
    assert_eq!(verdicts(&replies[3]), [(admit, 5), (admit, 1)]);
    assert_eq!(verdicts(&replies[4]), [(deny, 5)]);
    assert_eq!(verdicts(&replies[5]), [(admit, 0)]);
    assert_eq!(verdicts(&replies[6]), [(admit, 5)]);
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
    let fingerprint = *b"0123456789abcdef";
    let charge = |cost, fingerprint| once(3, fingerprint, [step(1, CHARGE, cost)]);
    let reserved = |action, cost| Step {
        record: 2,
        x: 60_000_000,
        ..step(1, action, cost)
    };
    let groups = [
        group([reserved(RESERVE, 4)]),
        group([reserved(SETTLE, 1)]),
        group([reserved(SETTLE, 1)]),
        charge(2, fingerprint),
        charge(2, fingerprint),
        group([reserved(SETTLE, 2)]),
        charge(2, *b"0123456789abcdee"),
    ];
    let Value::Array(replies) = call(&server, &[A, record, operation], &groups).unwrap() else {
        panic!("not an array");
    };
    let used_and_charged = |group: &Value| {
        let step = &steps(group)[0];
        (step.used, step.charged)
    };
    let answers: Vec<_> = replies[..5].iter().map(used_and_charged).collect();
    assert_eq!(answers, [(4, 4), (1, 1), (1, 1), (3, 2), (3, 2)]);
    assert_eq!(numbers(&replies[5]), [3, 0], "settled to another amount");
    assert_eq!(numbers(&replies[6]), [4], "another group under the id");
    assert_eq!(server.command::<String>(&["GET", A]), "3");
}

/// Known fault: cost -5 mints credit, `nan` admits for ever. Nothing of a group that is not as it must be is done, and the others
/// are none the worse for it.
#[test]
fn arguments_that_are_not_right_are_refused() {
    let server = RedisServer::start();
    let refused = |keys: &[&str], groups: &[Vec<u8>], what: &str| {
        let Value::Array(replies) = call(&server, keys, groups).unwrap() else {
            panic!("not an array");
        };
        let (last, others) = replies.split_last().unwrap();
        assert!(ended(last).starts_with("BADARG "), "{what}: {last:?}");
        for other in others {
            assert_eq!(steps(other)[0].charged, 1, "{what}");
        }
        let charged = server.command::<Option<usize>>(&["GETDEL", A]);
        assert_eq!(charged.unwrap_or(0), others.len(), "{what}");
        assert!(!server.command::<bool>(&["EXISTS", B]), "{what}");
    };
    let good = step(1, CHARGE, 1);
    let bad = |step: Step, what: &str| refused(&[A], &[group([good]), group([step])], what);
    let (cut, long) = (group([good]), [group([good]), vec![0]].concat());
    for length in [0, 1, 26, 27, cut.len() - 1] {
        refused(&[A], &[cut.clone(), cut[..length].to_vec()], "cut short");
    }
    refused(&[A], &[cut.clone(), long], "longer than its steps");
    let error = call(&server, &[A], &vec![cut; 129]).unwrap_err();
    assert_eq!(error.code(), Some("BADARG"), "too many groups: {error}");
    assert!(!server.command::<bool>(&["EXISTS", A]));
    let beyond = 1 << 53;
    bad(step(1, CHARGE, beyond), "a cost");
    bad(Step { x: beyond, ..good }, "a time");
    for place in 0..4 {
        let mut step = good;
        step.quota[place] = beyond;
        bad(step, "a quota's number");
    }
    let quota = [0, 60_000, 0, 0];
    bad(Step { quota, ..good }, "a quota of nothing");
    bad(step(0, CHARGE, 1), "no key");
    bad(step(2, CHARGE, 1), "a key that is not there");
    bad(step(1, 11, 1), "no action");
    for algorithm in [0, 7, 8, 9, 255] {
        bad(Step { algorithm, ..good }, "no algorithm");
    }
    bad(step(1, RESERVE, 1), "a reservation without a record");
    let record = 2;
    bad(
        Step {
            record,
            ..step(1, RESERVE, 1)
        },
        "a record that is not there",
    );
    refused(
        &[A, B],
        &[group([Step {
            record,
            ..step(1, RELEASE, 1)
        }])],
        "a lease on a window",
    );
}

/// A command that the user may not use, and a value that is no state: each is its own group's.
#[test]
fn what_one_group_cannot_do_the_others_do() {
    let server = RedisServer::start();
    let (garbage, leases, record) = ("ratelimit:batch:garbage", "leases", "record");
    server.command::<()>(&["SET", garbage, "no state"]);
    let rights = ["~*", "+@all", "-zadd", "-zcount"];
    let user = ["ACL", "SETUSER", "narrow", "on", ">narrow"];
    server.command::<()>(&[&user[..], &rights[..]].concat());
    server.command::<i64>(&[
        "ZADD",
        "held",
        "-1e15",
        "c\u{1}",
        "1e15",
        "0123456789abcdef",
    ]);
    let mut narrow = server.connect_as("narrow", "narrow");
    let concurrency = |key, record, action| Step {
        algorithm: 5,
        quota: [5, 0, 0, 0],
        record,
        x: 60_000_000,
        ..step(key, action, 1)
    };
    let groups = [
        group([step(1, CHARGE, 1)]),
        // Reads what it may not.
        group([step(1, CHARGE, 1), concurrency(6, 0, PEEK)]),
        // Has changed one of its keys when it finds that it may not write the other.
        group([step(2, CHARGE, 1), concurrency(4, 5, ACQUIRE)]),
        group([step(3, CHARGE, 1)]),
        group([step(3, CHARGE, 1)]),
        group([step(1, CHARGE, 1)]),
    ];
    let keys = [A, B, garbage, leases, record, "held"];
    let Value::Array(replies) = command(&keys, &groups).query(&mut narrow).unwrap() else {
        panic!("not an array");
    };
    for forbidden in [1, 2] {
        let error = ended(&replies[forbidden]);
        assert!(
            ["can't run this command", "NOPERM", "no permissions"]
                .iter()
                .any(|said| error.contains(said)),
            "{error}"
        );
    }
    let of_garbage = [unreadable(&replies[3]), unreadable(&replies[4])];
    assert_eq!(of_garbage, [1, 0], "told of the first group that met it");
    for (group, used) in [(0, 1), (3, 1), (4, 2), (5, 2)] {
        assert_eq!(steps(&replies[group])[0].used, used, "{group}");
    }
    assert_eq!(server.command::<String>(&["GET", A]), "2");
    assert!(!server.command::<bool>(&["EXISTS", B]), "withdrawn");
}

/// Only who would write is told, and what nobody would be told of is not written.
#[test]
fn a_full_redis_refuses_what_writes_and_answers_the_rest() {
    let server = RedisServer::start();
    server.command::<()>(&["SET", B, "4", "PX", "60000"]);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let groups = [
        group([step(1, CHARGE, 1)]),
        group([step(2, PEEK, 1)]),
        group([step(2, CHARGE, 2)]),
        group([step(1, PEEK, 1), step(2, PEEK, 1)]),
    ];
    let Value::Array(replies) = call(&server, &[A, B], &groups).unwrap() else {
        panic!("not an array");
    };
    assert!(ended(&replies[0]).starts_with("OOM "));
    assert_eq!(
        (steps(&replies[1])[0].verdict, steps(&replies[1])[0].used),
        (0, 4)
    );
    assert_eq!(
        (steps(&replies[2])[0].verdict, steps(&replies[2])[0].used),
        (1, 4)
    );
    // It would speak of what the first one was to write.
    assert!(ended(&replies[3]).starts_with("OOM "));
    assert!(!server.command::<bool>(&["EXISTS", A]));
}
