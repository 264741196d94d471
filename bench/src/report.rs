//! What was measured, for people and for programs.

use serde_json::{Map, Value, json};

use crate::contender::{DEADLINE, KEYS};

/// One ratio, with the values of its rounds.
struct Ratio {
    name: &'static str,
    wanted: &'static str,
    rounds: Vec<f64>,
}

#[derive(Default)]
pub(crate) struct Report {
    ratios: Vec<Ratio>,
    tables: Vec<(String, String)>,
    charts: Vec<Chart>,
}

/// Rates against a number, a line for each contender.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the number counts.
    pub(crate) counts: String,
    pub(crate) lines: Vec<Line>,
}

/// A contender, and its points.
pub(crate) type Line = (String, Vec<(f64, f64)>);

/// The middle of the values, and the least and the most of them.
pub(crate) fn median(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    (at(sorted.len() / 2), at(0), at(last))
}

impl Report {
    /// The values of a ratio, one for each round; `wanted` says what it should be.
    pub(crate) fn ratio(&mut self, name: &'static str, wanted: &'static str, rounds: Vec<f64>) {
        self.ratios.push(Ratio {
            name,
            wanted,
            rounds,
        });
    }

    /// The worst of all values that are reported under that name.
    pub(crate) fn worst(&mut self, name: &'static str, wanted: &'static str, values: &[f64]) {
        let worst = values.iter().copied().fold(0.0, f64::max);
        match self.ratios.iter_mut().find(|ratio| ratio.name == name) {
            Some(ratio) => ratio.rounds = vec![ratio.rounds[0].max(worst)],
            None => self.ratio(name, wanted, vec![worst]),
        }
    }

    /// A table in Markdown, under a heading.
    pub(crate) fn table(&mut self, heading: &str, columns: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let mut text = line(&columns);
        text.push_str(&line(&vec!["---".to_owned(); columns.len()]));
        for row in rows {
            text.push_str(&line(row));
        }
        self.tables.push((heading.to_owned(), text));
    }

    /// A picture of rates against a number.
    pub(crate) fn chart(&mut self, title: &str, counts: &str, lines: Vec<Line>) {
        self.charts.push(Chart {
            title: title.to_owned(),
            counts: counts.to_owned(),
            lines,
        });
    }

    pub(crate) fn charts(&self) -> &[Chart] {
        &self.charts
    }

    fn ratios(&self) -> String {
        let mut text = String::from("| Ratio | Median | Rounds | Wanted |\n|---|---|---|---|\n");
        for ratio in &self.ratios {
            let (median, least, most) = median(&ratio.rounds);
            text.push_str(&format!(
                "| `{}` | {median:.3} | {least:.3} to {most:.3} ({}) | {} |\n",
                ratio.name,
                ratio.rounds.len(),
                ratio.wanted
            ));
        }
        text
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.ratios();
        for (heading, table) in &self.tables {
            text.push_str(&format!("\n{heading}\n\n{table}"));
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let ratios = self.ratios.iter().map(|ratio| {
            let (median, least, most) = median(&ratio.rounds);
            let value =
                json!({ "median": median, "least": least, "most": most, "rounds": ratio.rounds });
            (ratio.name.to_owned(), value)
        });
        let ratios: Map<String, Value> = ratios.collect();
        format!("{:#}\n", Value::Object(ratios))
    }

    pub(crate) fn document(&self) -> String {
        format!(
            "# Performance\n\n\
            Written by `cargo run --release --manifest-path bench/Cargo.toml`, on a machine with {} cores that ran Redis, the\n\
            callers and nothing else. Ratios are taken within a round, in which the contenders take turns; absolute times say little\n\
            about another machine. A token bucket, {} keys, everybody admitted, a deadline of {} ms, if nothing else is said. The peer\n\
            is tower-rate-tier 0.3.1 over its connection manager, with a smaller script. GCRA is the smallest script that limits\n\
            anything: TIME, GET and SET. The ceiling is the hot script of these crates, asked by a client that does nothing else, in\n\
            calls of the size that the direct run had: it waits for ever. With a deadline for each check it sets the timer that whoever\n\
            does not needs; a check in memory is what these crates do without a server: the group, the arithmetic, the decision. What\n\
            their process takes beyond both is what is asked and read, the lanes and the breaker. The floor is PING over one connection.\n\n\
            ![Checks a second](performance.svg)\n\n\
            ## Ratios\n\n{}{}",
            std::thread::available_parallelism().map_or(0, usize::from),
            KEYS,
            DEADLINE.as_millis(),
            self.ratios(),
            self.tables
                .iter()
                .map(|(heading, table)| format!("\n## {heading}\n\n{table}"))
                .collect::<String>()
        )
    }
}
