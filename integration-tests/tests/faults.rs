//! The deliberate faults of scripts/faults still fit the code, and docs/reliability.md names them all with
//! the test that catches each. That it does is what scripts/check-faults.sh checks.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FAULTS: usize = 10;
/// The hot script's: it knows no refunds and no leases.
const HOT: usize = 8;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The faults' files: name, language, text.
fn faults() -> Vec<(String, String, String)> {
    let directory = fs::read_dir(root().join("scripts/faults")).unwrap();
    let mut faults: Vec<_> = directory
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let stem = file.strip_suffix(".patch").unwrap();
            let (name, language) = stem.split_once('.').unwrap();
            let text = fs::read_to_string(&path).unwrap();
            (name.to_owned(), language.to_owned(), text)
        })
        .collect();
    faults.sort();
    faults
}

#[test]
fn each_fault_fits_the_code() {
    for (name, language, text) in faults() {
        let mut file = String::new();
        for part in text.split("\n--- ").skip(1) {
            let path = part.lines().next().unwrap().strip_prefix("a/").unwrap();
            file = fs::read_to_string(root().join(path)).unwrap();
            for hunk in part.split("\n@@ ").skip(1) {
                let lines = hunk.lines().skip(1);
                let before = lines.filter_map(|line| line.strip_prefix([' ', '-']));
                let before: Vec<_> = before.collect();
                let before = before.join("\n");
                assert_eq!(
                    file.matches(&before).count(),
                    1,
                    "{name}.{language}:\n{before}"
                );
            }
        }
        assert!(!file.is_empty(), "{name}.{language} changes nothing");
    }
}

#[test]
fn the_document_names_every_fault() {
    let document = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let mut names = BTreeSet::new();
    for (name, language, text) in faults() {
        let caught_by = text.lines().next().unwrap();
        let caught_by = caught_by.strip_prefix("Caught by: ").unwrap();
        let (test, case) = caught_by.split_once(' ').unwrap();
        let row = document.lines().find(|line| {
            line.contains(&format!("| `{name}`: ")) && line.contains(&format!("`{test}` `{case}`"))
        });
        assert!(row.is_some(), "no row of {name}.{language}: {caught_by}");
        names.insert((name, language));
    }
    let of = |language: &str| names.iter().filter(|(_, l)| l == language).count();
    assert_eq!((of("rust"), of("lua"), of("hot")), (FAULTS, FAULTS, HOT));
}
