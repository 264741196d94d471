//! Runs the targets on a stable compiler: random and mutated inputs for a bounded time, without
//! knowing which code they reach. Prints the seed with which a failure repeats, and keeps its input.
//!
//! ```text
//! drive [SECONDS [TARGET]]     each target, or one, for 20 s or as long as said
//! drive --input FILE TARGET    one input again
//! ```
//!
//! `LIMITER_SEED` repeats a run.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use limiter_fuzz::{TARGETS, Target};

mod mutate;

use mutate::Mutator;

const USAGE: &str = "usage: drive [SECONDS [TARGET]] | drive --input FILE TARGET";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => all(20),
        [seconds] => all(parse(seconds)?),
        ["--input", file, name] => {
            let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            (find(name)?.run)(&input);
            Ok(())
        }
        [seconds, name] => drive(find(name)?, parse(seconds)?, seed()?),
        _ => Err(USAGE.to_owned()),
    }
}

fn all(seconds: u64) -> Result<(), String> {
    let seed = seed()?;
    TARGETS
        .iter()
        .try_for_each(|target| drive(target, seconds, seed))
}

fn drive(target: &Target, seconds: u64, seed: u64) -> Result<(), String> {
    let name = target.name;
    println!("{name}: LIMITER_SEED={seed}, {seconds} s");
    let mut mutator = Mutator::new(target.seeds, seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < until {
        let input = mutator.next();
        count += 1;
        if panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
            let kept = keep(name, seed, input)?;
            return Err(format!(
                "{name}: input {count} of LIMITER_SEED={seed} failed; again: \
                 drive --input {} {name}",
                kept.display()
            ));
        }
    }
    println!("{name}: {count} inputs, no failure");
    Ok(())
}

fn keep(name: &str, seed: u64, input: &[u8]) -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("artifacts")
        .join(name);
    let file = directory.join(format!("seed-{seed}"));
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&file, input))
        .map_err(|error| format!("{}: {error}; the input is {input:?}", file.display()))?;
    Ok(file)
}

fn find(name: &str) -> Result<&'static Target, String> {
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            format!("there is no target {name}; there are {}", names.join(", "))
        })
}

fn seed() -> Result<u64, String> {
    match env::var("LIMITER_SEED") {
        Ok(seed) => parse(&seed),
        Err(_) => Ok(fastrand::u64(..)),
    }
}

fn parse(number: &str) -> Result<u64, String> {
    number
        .parse()
        .map_err(|error| format!("{number:?}: {error}; {USAGE}"))
}
