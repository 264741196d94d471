//! What a check in Redis costs: beside tower-rate-tier, which asks with a script of its own over one connection; beside a plain
//! GCRA script; beside what the hot script can do at most; and beside a floor, which sends PING. Starts its own servers. Prints named ratios, each the median over interleaved rounds, with
//! its spread; writes `docs/performance.md` and `.svg`.
//!
//! ```text
//! cargo run --release --manifest-path bench/Cargo.toml -- [--json FILE] [--only NAME] [--quick]
//! ```
//!
//! - `load`: callers in a loop, and calls at a rate. `contender`: whom they ask; `ceiling`: one of them, of the hot script alone.
//! - `measures`: what is measured. `report`: how it is told; `chart`: in pictures.

mod ceiling;
mod chart;
mod contender;
mod load;
mod measures;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use report::Report;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// How long each contender runs in a round.
    slice: Duration,
}

impl Effort {
    fn is_whole(self) -> bool {
        self.rounds >= WHOLE.rounds
    }
}

const WHOLE: Effort = Effort {
    rounds: 5,
    slice: Duration::from_millis(1_500),
};
const QUICK: Effort = Effort {
    rounds: 1,
    slice: Duration::from_millis(100),
};

struct Arguments {
    json: Option<PathBuf>,
    only: Option<String>,
    is_quick: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = std::env::args().skip(1);
    let mut read = Arguments {
        json: None,
        only: None,
        is_quick: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => read.json = Some(value()?.into()),
            "--only" => read.only = Some(value()?),
            "--quick" => read.is_quick = true,
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    let names: Vec<&str> = measures::ALL.iter().map(|(name, _)| *name).collect();
    match &read.only {
        Some(only) if !names.contains(&only.as_str()) => {
            Err(format!("--only takes one of {}", names.join(", ")))
        }
        _ => Ok(read),
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\nusage: limiter-bench [--json FILE] [--only NAME] [--quick]");
            return ExitCode::FAILURE;
        }
    };
    let effort = if arguments.is_quick { QUICK } else { WHOLE };
    let mut report = Report::default();
    for (name, measure) in measures::ALL {
        if arguments.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        eprintln!("{name} ...");
        measure(effort, &mut report);
    }
    println!("{}", report.text());
    if let Some(path) = arguments.json {
        std::fs::write(&path, report.json()).expect("the file can be written");
    }
    if arguments.only.is_none() && !arguments.is_quick {
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        for (file, text) in [
            ("performance.md", report.document()),
            ("performance.svg", chart::picture(report.charts())),
        ] {
            std::fs::write(docs.join(file), text).expect("the documents can be written");
        }
    }
    ExitCode::SUCCESS
}
