use limiter_core::limit::{Outage, Share, Unit};

use super::*;

fn parse(text: &str) -> Result<PolicySet, Error> {
    PolicySet::parse(Format::Toml, text)
}

#[test]
fn every_algorithm_has_its_name() {
    let set = parse(
        "[policies]
        a = { algorithm = 'fixed_window', limit = 5, per = 'day' }
        b = { algorithm = 'calendar_window', limit = 5, per = 'month' }
        c = { algorithm = 'sliding_window', limit = 5, per_seconds = 90 }
        d = { algorithm = 'sliding_log', quota = '5/minute' }
        e = { algorithm = 'token_bucket', limit = 5, refill = 7, per = 'minute' }
        f = { algorithm = 'concurrency', limit = 5 }
        g = { algorithm = 'token_bucket', quota = '7/min', burst = 5 }
        h = { algorithm = 'calendar_window', quota = '5/month' }
        i = { quota = '5/15 min' }",
    );
    let quotas: Vec<_> = set
        .unwrap()
        .iter()
        .map(|policy| format!("{} {}", policy.quota().algorithm(), policy.quota()))
        .collect();
    let expected = [
        "fixed_window 5 per day",
        "calendar_window 5 per calendar month",
        "sliding_window 5 per 90 seconds",
        "sliding_log 5 per minute",
        "token_bucket 5 at once, 7 per minute",
        "concurrency 5 at once",
        "token_bucket 5 at once, 7 per minute",
        "calendar_window 5 per calendar month",
        "fixed_window 5 per 15 minutes",
    ];
    assert_eq!(quotas, expected);
}

#[test]
fn every_member_is_heard() {
    let set = parse(
        "[policies.x]
        quota = '5/day'
        scope = 'api'
        outage = { local = '1/3' }
        shadow = true
        version = 2
        unit = 'tokens'",
    );
    let set = set.unwrap();
    let policy = set.get("x").unwrap();
    let share = Share::new(1, 3).unwrap();
    assert_eq!(policy.outage(), Outage::Local { share });
    assert_eq!((policy.scope(), policy.version()), ("api", 2));
    assert_eq!((policy.is_shadow(), policy.unit()), (true, Unit::Tokens));
    let missing = set.get("y").unwrap_err().to_string();
    assert!(missing.contains("no policy is named y"), "{missing}");
}

/// Each fault is where it stands, and is said once.
#[test]
fn every_fault_has_its_place() {
    let with = |line: &str| format!("[policies.x]\nquota = '5/day'\n{line}\n");
    for (text, at, hint) in [
        (
            with("refill = 3"),
            (3, 10),
            "only a token_bucket has a refill",
        ),
        (with("burst = 3"), (3, 9), "only a token_bucket has a burst"),
        (with("limit = 3"), (3, 9), "quota and limit say the same"),
        (with("scope = 'a b'"), (3, 9), "policy scope"),
        (with("scope = 7"), (3, 9), "scope is 7; it is a text"),
        (
            with("quotas = 1"),
            (3, 1),
            "a policy has no \"quotas\"; it has quota,",
        ),
        (with("quota = '6/day'"), (3, 1), "duplicate key"),
        (
            with("outage = 'maybe'"),
            (3, 10),
            "outage is \"maybe\"; it is deny, allow",
        ),
        (with("outage = 'local'"), (3, 10), "a table with a share"),
        (
            with("outage = { local = '4/3' }"),
            (3, 20),
            "4 of 3 is no share",
        ),
        (
            with("outage = { local = 'half' }"),
            (3, 20),
            "write it as 1/3",
        ),
        (with("shadow = 'yes'"), (3, 10), "it is true or false"),
        (
            with("version = 0"),
            (3, 11),
            "version is 0; it is a whole number, 1 to",
        ),
        (
            with("version = 4294967296"),
            (3, 11),
            "it is a whole number, 1 to 4294967295",
        ),
        (with("unit = 'US cents'"), (3, 8), "1 to 15 of a-z 0-9 -"),
        (with("[other]"), (3, 2), "\"other\" is unknown"),
        ("[policies.x]\nquota = '0/day'".to_owned(), (2, 9), "is 0"),
        (
            "[policies.x]\nlimit = 0\nper = 'day'".to_owned(),
            (2, 9),
            "limit is 0; it is a whole number, 1 to",
        ),
        (
            "[policies.x]\nlimit = -1\nper = 'day'".to_owned(),
            (2, 9),
            "limit is a negative number",
        ),
        (
            "[policies.x]\nlimit = '5'\nper = 'day'".to_owned(),
            (2, 9),
            "limit is \"5\"",
        ),
        (
            "[policies.x]\nlimit = 99999999999999999999\nper = 'day'".to_owned(),
            (2, 9),
            "too large",
        ),
        (
            "[policies.x]\nlimit = 9007199254740993\nper = 'day'".to_owned(),
            (2, 9),
            "limit",
        ),
        (
            "[policies.x]\nlimit = 5".to_owned(),
            (2, 9),
            "a period is missing",
        ),
        (
            "[policies.x]\nscope = 'api'".to_owned(),
            (1, 11),
            "a quota is missing",
        ),
        (
            "[policies.x]\nlimit = 5\nper = 'day'\nper_seconds = 5".to_owned(),
            (4, 15),
            "per and per_seconds say the same",
        ),
        (
            "[policies.x]\nalgorithm = 'concurrency'\nquota = '5/day'".to_owned(),
            (3, 9),
            "concurrency has no period",
        ),
        (
            "[policies.x]\nalgorithm = 'calendar_window'\nquota = '5/s'".to_owned(),
            (3, 9),
            "a calendar_window is per",
        ),
        (
            "[policies.x]\nalgorithm = 'token_bucket'\nquota = '7/min'\nburst = 9007199254740993"
                .to_owned(),
            (4, 9),
            "policy x",
        ),
        (
            "[policies.x]\nalgorithm = 'token-bucket'\nquota = '7/min'\nburst = 9".to_owned(),
            (2, 13),
            "one of fixed_window",
        ),
        (
            "[policies.x]\nalgorithm = 'token_bucket'\nlimit = 7\nrefill = 0\nper = 'day'"
                .to_owned(),
            (4, 10),
            "refill is 0",
        ),
        (
            "[policies.x]\nalgorithm = 'window'\nquota = '5/s'".to_owned(),
            (2, 13),
            "one of fixed_window",
        ),
        (
            "[policies.'a b']\nquota = '5/s'".to_owned(),
            (1, 11),
            "policy a b: ",
        ),
        ("policies = 5".to_owned(), (1, 12), "policies is a number"),
        (
            "[policies]\nx = 5".to_owned(),
            (2, 5),
            "policy x is a number; it is a table",
        ),
        (
            "[policy.x]\nquota = '5/s'".to_owned(),
            (1, 2),
            "\"policy\" is unknown",
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let (line, column) = at;
        let place = format!("line {line}, column {column}: ");
        assert!(error.message().contains(&place), "{text}\n{error}");
        assert!(error.message().contains(hint), "{text}\n{error}");
        let count = error.message().matches("line ").count();
        // A policy that is missing altogether is another fault.
        assert!(count == 1 || text.contains("[policy.x]"), "{error}");
    }
    for text in ["[1]", "5", "policies: []"] {
        assert!(PolicySet::parse(Format::Yaml, text).is_err(), "{text}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "policies:
  a: { quota: 5/hourr, scope: a b, shadow: 1 }
  b: { quota: 5/hour }
  c d: { limit: 0, per: hour, outage: { local: 1/3 }, extra: 1 }
";
    let error = PolicySet::parse(Format::Yaml, text).unwrap_err();
    let lines: Vec<_> = error.message().split("; line ").collect();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for (line, hint) in lines.iter().zip([
        "2, column 15: policy a: \"5/hourr\"",
        "2, column 31: policy a: policy scope",
        "2, column 44: policy a: shadow is 1",
        "4, column 3: policy c d: policy name",
        "4, column 17: policy c d: limit is 0",
        "4, column 55: policy c d: a policy has no \"extra\"",
    ]) {
        assert!(line.contains(hint), "{line}\n{hint}");
    }
}

/// The file that editors use is what the code says.
#[test]
fn the_schema_is_the_committed_one() {
    assert_eq!(
        schema(),
        include_str!("../../../docs/policies.schema.json"),
        "run: cargo run -q -p limiter --features config --example policy-schema > docs/policies.schema.json"
    );
}
