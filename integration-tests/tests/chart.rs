//! The picture and the table in docs/algorithms.md are what the algorithms do.

use std::process::Command;

#[test]
fn the_documents_show_what_the_algorithms_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_algorithm-chart"))
        .arg("--check")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}
