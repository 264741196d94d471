//! A run: what was scraped, one scrape after the other.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_parse::{Scrape, Value};

/// How many scrapes a run has, and how long one counts.
pub(crate) const SCRAPES: usize = 48;
pub(crate) const STEP: u64 = 15;
/// When a fault begins: there is a normal before it.
pub(crate) const FAULT: usize = 12;

/// What was scraped of one service, of these crates' metrics.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    /// As text.
    pub(crate) last: String,
    /// By the name with all labels, at each scrape.
    pub(crate) series: BTreeMap<String, Vec<Option<f64>>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    names: BTreeSet<String>,
    scrapes: usize,
}

impl Run {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            last: String::new(),
            series: BTreeMap::new(),
            labels: BTreeMap::new(),
            names: BTreeSet::new(),
            scrapes: 0,
        }
    }

    /// One more scrape, by a parser that is not ours.
    pub(crate) fn add(&mut self, text: String) {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).unwrap();
        for sample in scrape.samples {
            let labels: BTreeMap<String, String> = sample
                .labels
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                    self.note(&sample.metric, &labels, value);
                }
                Value::Histogram(buckets) => {
                    for bucket in buckets {
                        let mut labels = labels.clone();
                        let le = bucket.less_than;
                        let le = if le.is_infinite() {
                            "+Inf".to_owned()
                        } else {
                            le.to_string()
                        };
                        labels.insert("le".to_owned(), le);
                        self.note(&format!("{}_bucket", sample.metric), &labels, bucket.count);
                    }
                }
                Value::Summary(_) => panic!(
                    "{} is a summary: those of instances do not add up",
                    sample.metric
                ),
            }
        }
        self.last = text;
        self.scrapes += 1;
        for values in self.series.values_mut() {
            values.resize(self.scrapes, None);
        }
    }

    fn note(&mut self, name: &str, labels: &BTreeMap<String, String>, value: f64) {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let base = base.unwrap_or(name).to_owned();
        let told = labels
            .iter()
            .map(|(label, value)| format!("{label}={value:?}"));
        let full = format!("{name}{{{}}}", told.collect::<Vec<_>>().join(","));
        self.names.insert(base);
        self.labels.insert(full.clone(), labels.clone());
        let values = self.series.entry(full).or_default();
        values.resize(self.scrapes, None);
        values.push(Some(value));
    }

    /// The metrics that there were.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Each series' metric, and its labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>)> {
        self.labels.iter().map(|(full, labels)| {
            let name = full.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            (base.unwrap_or(name), labels)
        })
    }
}
