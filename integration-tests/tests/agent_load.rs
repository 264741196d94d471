//! E4: the limits of an agent's tools hold over several instances, and the load test finds out if they
//! do not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: its failures are panics, and say what the command said"
)]

use std::process::{Command, Output};

use serde_json::Value;

/// Runs the command; what it says, and the numbers that it writes.
#[expect(clippy::print_stdout, reason = "shown if the test fails")]
fn run(options: &[&str]) -> (Output, Value) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("load.json");
    let output = Command::new(env!("CARGO_BIN_EXE_agent-load"))
        .args(["--json", file.to_str().unwrap()])
        .args(options)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let numbers = std::fs::read_to_string(file).unwrap();
    (output, serde_json::from_str(&numbers).unwrap())
}

#[test]
fn three_instances_count_together() {
    let (output, load) = run(&[]);
    assert!(output.status.success(), "{load}");
    let shape =
        ["instances", "sessions", "turns", "tools"].map(|name| load[name].as_u64().unwrap());
    assert_eq!(shape, [3, 50, 10, 5]);
    assert_eq!(load["admitted"], load["expected"]);
    for name in ["lost", "exceeded", "unavailable"] {
        assert_eq!(load[name], 0, "{name}");
    }
    assert_eq!(load["faults"].as_array().unwrap().len(), 0);
    // Both limits were reached, or nothing was tested.
    for name in ["denied_by_turn", "denied_by_session"] {
        assert!(load[name].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn an_instance_that_counts_alone_is_found_out() {
    let (output, load) = run(&["--sabotage"]);
    assert_eq!(output.status.code(), Some(1), "{load}");
    for name in ["lost", "exceeded"] {
        assert!(load[name].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn unknown_options_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-load"))
        .arg("--sabotge")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--sabotge is no option"));
}
