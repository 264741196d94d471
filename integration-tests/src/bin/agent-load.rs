//! `cargo run --release -p integration-tests --bin agent-load -- [--json FILE] [--sabotage]`
//!
//! Runs the load of an AI agent (E4) on three instances over a Redis of its own, prints a table, and
//! fails if a limit was exceeded, a charge lost or a call not admitted that should have been. With
//! `--json` the numbers go to a file, too. With `--sabotage` one instance counts alone, and the run has
//! to fail.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: it prints"
)]

use std::process::ExitCode;

use integration_tests::AgentLoad;

const USAGE: &str = "usage: agent-load [--json FILE] [--sabotage]";

#[tokio::main]
async fn main() -> ExitCode {
    let (mut json, mut sabotage) = (None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sabotage" => sabotage = true,
            "--json" => {
                json = arguments.next();
                if json.is_none() {
                    eprintln!("--json needs a file\n{USAGE}");
                    return ExitCode::from(2);
                }
            }
            "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("{argument} is no option\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let load = AgentLoad::run(sabotage).await;
    print!("{}", load.table());
    if let Some(file) = json {
        let written = serde_json::to_string_pretty(&load)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&file, text + "\n"));
        if let Err(error) = written {
            eprintln!("{file} cannot be written: {error}");
            return ExitCode::from(2);
        }
    }
    if load.faults.is_empty() {
        println!("every limit held exactly");
        ExitCode::SUCCESS
    } else {
        println!("{} counters are wrong", load.faults.len());
        ExitCode::FAILURE
    }
}
