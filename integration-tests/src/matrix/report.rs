//! How the cells are told: for people, for programs, and in docs/reliability.md.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::checker::Verdict;

/// Between these lines of the document stands the table.
const MARKS: [&str; 2] = ["<!-- fault-matrix -->", "<!-- /fault-matrix -->"];

/// All cells of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

impl Report {
    /// Adds a cell.
    pub fn add(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    /// Whether everything was as it has to be.
    pub fn is_whole(&self) -> bool {
        !self.verdicts.is_empty()
            && self
                .verdicts
                .iter()
                .all(|verdict| verdict.broken.is_empty())
    }

    /// Whether something is broken in those words.
    pub fn says(&self, finding: &str) -> bool {
        let mut broken = self.verdicts.iter().flat_map(|verdict| &verdict.broken);
        broken.any(|broken| broken.contains(finding))
    }

    /// For programs.
    pub fn json(&self, seed: u64) -> Value {
        let cells = self.verdicts.iter().map(|cell| {
            json!({
                "fault": cell.fault.name(),
                "decisions": cell.decisions,
                "worst_latency_ms": millis(cell.worst_latency),
                "lateness_p99_ms": millis(cell.lateness),
                "recovery_ms": cell.recovery.map(millis),
                "admitted_of_bound": cell.admitted_of_bound,
                "uncharged": cell.uncharged,
                "broken": cell.broken,
            })
        });
        json!({ "seed": seed, "cells": cells.collect::<Vec<_>>() })
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| Fault | Decisions | Worst latency, ms | Recovery, ms | Admitted / bound | Uncharged |\n|---|---|---|---|---|---|\n",
        );
        for cell in &self.verdicts {
            let recovery = cell
                .recovery
                .map_or("none".to_owned(), |took| format!("{:.0}", millis(took)));
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {recovery} | {:.2} | {} |",
                cell.fault.name(),
                cell.decisions,
                millis(cell.worst_latency),
                cell.admitted_of_bound,
                cell.uncharged
            );
        }
        text
    }

    /// A document with this table in the place of its own.
    ///
    /// # Errors
    /// If it has none.
    pub fn written_into(&self, document: &str) -> Result<String, String> {
        let missing = || format!("the document lacks {} and {}", MARKS[0], MARKS[1]);
        let (before, rest) = document.split_once(MARKS[0]).ok_or_else(missing)?;
        let (_, after) = rest.split_once(MARKS[1]).ok_or_else(missing)?;
        let table = self.table();
        Ok(format!(
            "{before}{}\n\n{table}\n{}{after}",
            MARKS[0], MARKS[1]
        ))
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
