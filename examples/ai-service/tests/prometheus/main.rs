//! What `/metrics` says in a healthy run and in each fault, read by Debian's Prometheus: the exposition is right, the documents name
//! what there is, every query of the dashboard has an answer, and each alert fires in its fault and in no healthy run.
//!
//! A run is recorded from the real service; a scrape of it counts as one every 15 s.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

mod faults;
mod record;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::collections::BTreeSet;
use std::time::Duration;

use limiter::metrics::{ALL, Kind};
use serde_json::Value;

use crate::record::Run;
use crate::tools::{Prometheus, check_exposition, firing};

/// In the order of docs/prometheus/alerts.yaml: each alert, and the run in which it has to fire.
const ALERTS: [(&str, &str); 13] = [
    ("LimiterRedisErrors", "away"),
    ("LimiterRedisSlow", "slow"),
    ("LimiterBreakerOpen", "away"),
    ("LimiterFailOpen", "away"),
    ("LimiterLimitsOff", "off"),
    ("LimiterUnknownCharges", "stalled"),
    ("LimiterGiveBacksDropped", "library"),
    ("LimiterAuditLoss", "full disk"),
    ("LimiterTableFull", "full table"),
    ("LimiterRedisMemory", "evicting"),
    ("LimiterRedisEvicts", "evicting"),
    ("LimiterQuotaCommands", "quota"),
    ("LimiterQuotaStorage", "quota"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_happens() {
    // Alone: what is measured of it is no fault.
    let (healthy, control) = faults::healthy().await;
    let mut runs = vec![healthy];
    runs.extend(faults::all().await);
    the_exposition_is_right(&runs);
    the_documents_name_what_there_is(&runs);
    each_alert_fires_in_its_fault(&runs, control);
    every_query_of_the_dashboard_has_an_answer(&runs).await;
}

fn the_exposition_is_right(runs: &[Run]) {
    for run in runs {
        check_exposition(run);
    }
}

fn the_documents_name_what_there_is(runs: &[Run]) {
    let seen: BTreeSet<&str> = runs.iter().flat_map(Run::names).collect();
    let known: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(seen, known, "what was scraped, and limiter::metrics::ALL");
    let rows = ALL.iter().map(|metric| {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = if labels.is_empty() {
            "none".to_owned()
        } else {
            labels.join(", ")
        };
        let (name, kind) = (metric.name, metric.kind.as_str());
        format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help)
    });
    let table: String = rows.collect();
    let document = include_str!("../../../../docs/operations.md");
    assert!(
        document.contains(&table),
        "docs/operations.md has to have this table:\n{table}"
    );
    for run in runs {
        for (name, labels) in run.labels() {
            let metric = ALL.iter().find(|metric| metric.name == name).unwrap();
            let mut expected: BTreeSet<&str> = metric.labels.iter().copied().collect();
            if metric.kind == Kind::Histogram {
                expected.extend(labels.get("le").map(|_| "le"));
            }
            let labels: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
            // The breaker of a store that is not Redis has no pool.
            assert!(labels == expected, "{name}: {labels:?}, {expected:?}");
        }
    }
}

fn each_alert_fires_in_its_fault(runs: &[Run], control: Duration) {
    let named = |name: &str| runs.iter().find(|run| run.name == name).unwrap();
    let rules = include_str!("../../../../docs/prometheus/alerts.yaml");
    let in_file: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(in_file, ALERTS.map(|(alert, _)| alert));
    let document = include_str!("../../../../docs/operations.md");
    for (alert, _) in ALERTS {
        assert!(
            document.contains(&format!("| `{alert}` |")),
            "what to do about {alert}"
        );
    }
    let mut healthy = firing(named("healthy"));
    if control > Duration::from_millis(10) {
        // On a machine that takes so long for a PING, that is true.
        healthy.remove("LimiterRedisSlow");
    }
    assert_eq!(healthy, BTreeSet::new(), "in a healthy run");
    for run in runs {
        let fired = firing(run);
        for (alert, fault) in ALERTS {
            assert!(
                fault != run.name || fired.contains(alert),
                "{alert} in {fault}: {fired:?}"
            );
        }
    }
}

async fn every_query_of_the_dashboard_has_an_answer(runs: &[Run]) {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../../docs/grafana/limiter.json")).unwrap();
    let prometheus = Prometheus::over(runs).await;
    let mut queries = 0;
    let mut asked = String::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let series = prometheus.query(query).await;
            assert!(series > 0, "{}: {query} has no answer", panel["title"]);
            queries += 1;
            asked += query;
        }
    }
    assert!(queries > 40, "{queries}");
    // Every metric is on it.
    for metric in ALL {
        assert!(asked.contains(metric.name), "{}", metric.name);
    }
}
