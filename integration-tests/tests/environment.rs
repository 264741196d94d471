//! The environment: what the code reads, `.env.example` and the documents name the same variables.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use limiter_redis::RedisEnv;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// The variables of `.env.example`, those included that it only suggests.
fn example() -> BTreeSet<String> {
    let text = read(".env.example");
    let names = text.lines().filter_map(|line| {
        let (name, _) = line.trim_start_matches("# ").split_once('=')?;
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        name.chars().all(is_name).then(|| name.to_owned())
    });
    names.collect()
}

/// The variables that stand in the first column of a table of a document.
fn documented() -> BTreeSet<String> {
    let text = read("README.md") + &read("docs/redis-setup.md");
    let columns = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    columns
        .flat_map(|column| column.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_variable_of_the_example_is_explained() {
    let (example, documented) = (example(), documented());
    assert!(example.len() > 15, "{example:?}");
    let missing: Vec<_> = example.difference(&documented).collect();
    assert!(missing.is_empty(), "in no table of a document: {missing:?}");
}

#[test]
fn the_example_has_every_variable_that_is_read() {
    let asked = RefCell::new(BTreeSet::new());
    for set in [
        "",
        "REDIS_URL",
        "UPSTASH_REDIS_URL",
        "UPSTASH_REDIS_REST_URL",
        "KV_REST_API_URL",
    ] {
        let environment = RedisEnv::from_lookup(|name| {
            asked.borrow_mut().insert(name.to_owned());
            (name == set).then(|| "rediss://localhost".to_owned())
        });
        environment.unwrap();
    }
    let settings = read("examples/ai-service/src/settings.rs");
    for call in ["get(\"", "file(\"", "config(\"", "number(\"", "given(\""] {
        let names = settings.split(call).skip(1);
        asked
            .borrow_mut()
            .extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    let (asked, example) = (asked.into_inner(), example());
    assert!(
        asked.contains("KV_REST_API_TOKEN") && asked.contains("BIND"),
        "{asked:?}"
    );
    let missing: Vec<_> = asked.difference(&example).collect();
    assert!(missing.is_empty(), "not in .env.example: {missing:?}");
}
