//! Runs every fault with the three rules for outages side by side, and says whether what came of it is as it has to be. Starts its
//! own servers. Writes the table of `docs/reliability.md`. Ends with 1 if something is broken; with 2 if a sabotage was found, and
//! with 0 if it was not.
//!
//! ```text
//! cargo run --release -p integration-tests --bin fault-matrix -- \
//!     [--seed N] [--json FILE] [--quick] [--only FAULT] [--sabotage NAME]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    reason = "a program for people"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use integration_tests::matrix::{self, Fault, Lengths, Report, Sabotage};

const WHOLE: Lengths = Lengths {
    before: Duration::from_millis(3_000),
    fault: Duration::from_millis(10_000),
    after: Duration::from_millis(4_000),
};
const QUICK: Lengths = Lengths {
    before: Duration::from_millis(800),
    fault: Duration::from_millis(2_000),
    after: Duration::from_millis(1_000),
};

#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    json: Option<PathBuf>,
    only: Option<Fault>,
    sabotage: Option<Sabotage>,
    is_quick: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = std::env::args().skip(1);
    let mut read = Arguments::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--seed" => {
                let seed = value()?;
                let seed = seed.parse().map_err(|_| format!("{seed:?} is no seed"))?;
                read.seed = Some(seed);
            }
            "--json" => read.json = Some(value()?.into()),
            "--quick" => read.is_quick = true,
            "--only" => {
                let name = value()?;
                let mut all = Fault::ALL.into_iter();
                let found = all.find(|fault| fault.name() == name);
                let names = Fault::ALL.map(Fault::name).join(", ");
                read.only = Some(found.ok_or(format!("--only takes one of {names}"))?);
            }
            "--sabotage" => {
                let name = value()?;
                let mut all = Sabotage::ALL.into_iter();
                let found = all.find(|sabotage| sabotage.name() == name);
                let names = Sabotage::ALL.map(Sabotage::name).join("\", \"");
                read.sabotage = Some(found.ok_or(format!("--sabotage takes one of \"{names}\""))?);
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(read)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!(
                "{error}\nusage: fault-matrix [--seed N] [--json FILE] [--quick] [--only FAULT] [--sabotage NAME]"
            );
            return ExitCode::FAILURE;
        }
    };
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed();
        since.map_or(1, |since| u64::from(since.subsec_micros()))
    });
    eprintln!("--seed {seed}");
    let lengths = if arguments.is_quick { QUICK } else { WHOLE };
    let faults = match (arguments.only, arguments.sabotage) {
        (Some(only), _) => vec![only],
        (None, Some(sabotage)) if arguments.is_quick => sabotage.faults()[..1].to_vec(),
        (None, Some(sabotage)) => sabotage.faults().to_vec(),
        (None, None) => {
            let all = Fault::ALL.into_iter();
            all.filter(|fault| !(arguments.is_quick && fault.is_variant()))
                .collect()
        }
    };
    let mut report = Report::default();
    let (possible, others): (Vec<Fault>, Vec<Fault>) = { faults }
        .into_iter()
        .partition(|fault| fault.is_possible());
    for fault in others {
        let name = fault.name();
        eprintln!("{name} ... left out: the server program speaks no TLS");
    }
    // A cell mostly waits; what is written down is measured alone.
    let at_once = if arguments.is_quick { 2 } else { 1 };
    let mut done = 0;
    let (busy, idle): (Vec<Fault>, Vec<Fault>) = possible.iter().partition(|fault| fault.is_busy());
    for few in busy.chunks(1).chain(idle.chunks(at_once)) {
        let cells: Vec<_> = few
            .iter()
            .map(|fault| tokio::spawn(matrix::cell(*fault, lengths, seed, arguments.sabotage)))
            .collect();
        for (fault, cell) in few.iter().zip(cells) {
            let verdict = cell.await.expect("a cell ends");
            done += 1;
            let said = match verdict.broken.is_empty() {
                true => "as it has to be",
                false => "BROKEN",
            };
            eprintln!("[{done}/{}] {} ... {said}", possible.len(), fault.name());
            for broken in verdict.broken.iter().take(10) {
                eprintln!("    {broken}");
            }
            report.add(verdict);
        }
    }
    println!("{}", report.table());
    if let Some(path) = arguments.json {
        let json = format!("{:#}\n", report.json(seed));
        std::fs::write(&path, json).expect("the file can be written");
    }
    let is_all = arguments.only.is_none() && arguments.sabotage.is_none();
    if is_all && !arguments.is_quick && report.is_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");
        let document = std::fs::read_to_string(path).expect("the document can be read");
        let document = report.written_into(&document).expect("its table is marked");
        std::fs::write(path, document).expect("the document can be written");
    }
    if let Some(sabotage) = arguments.sabotage {
        let is_found = report.says(sabotage.finding());
        let found = if is_found { "found" } else { "NOT FOUND" };
        eprintln!("{:?} is {found}", sabotage.name());
        return ExitCode::from(if is_found { 2 } else { 0 });
    }
    match report.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
