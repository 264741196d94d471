//! Debian's promtool and prometheus.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use integration_tests::eventually;
use serde_json::Value;

use crate::record::{Run, SCRAPES, STEP};

/// A program of scripts/install-prometheus.sh, or of PATH.
fn program(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fetched = root.join("target/tools/prometheus/usr/bin").join(name);
    Command::new(if fetched.exists() {
        fetched
    } else {
        PathBuf::from(name)
    })
}

/// promtool takes the exposition, and has nothing to say of names, kinds and help.
pub(crate) fn check_exposition(run: &Run) {
    let mut promtool = program("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run scripts/install-prometheus.sh");
    // Read to its end before it says anything.
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(run.last.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        run.name
    );
}

/// The alerts that fire at the end of a run; in a healthy one, at any time of it.
pub(crate) fn firing(run: &Run) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/prometheus/alerts.yaml");
    let mut test = format!(
        "rule_files: [{:?}]\nevaluation_interval: {STEP}s\ntests:\n- interval: {STEP}s\n  input_series:\n",
        rules.canonicalize().unwrap()
    );
    for (series, values) in &run.series {
        let values = values
            .iter()
            .map(|value| value.map_or("_".to_owned(), |value| value.to_string()));
        let values: Vec<_> = values.collect();
        // In YAML a text in single quotes has no escapes.
        let _ = writeln!(
            test,
            "  - series: '{}'\n    values: '{}'",
            series.replace('\'', "''"),
            values.join(" ")
        );
    }
    test.push_str("  promql_expr_test:\n");
    let ends = if run.name == "healthy" {
        (1..SCRAPES).collect()
    } else {
        vec![SCRAPES - 1]
    };
    for end in ends {
        let at = STEP * end as u64;
        // What it finds in place of nothing, it tells.
        let _ = writeln!(
            test,
            "  - expr: 'count by (alertname) (ALERTS{{alertstate=\"firing\"}})'\n    eval_time: {at}s\n    exp_samples: []"
        );
    }
    let file = directory.path().join("test.yaml");
    std::fs::write(&file, test).unwrap();
    let output = program("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let told = said
        .split("alertname=\\\"")
        .skip(1)
        .map(|rest| rest.split('\\').next().unwrap());
    let told: BTreeSet<String> = told
        .chain(
            said.split("alertname=\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap()),
        )
        .map(str::to_owned)
        .collect();
    assert_eq!(
        told.is_empty(),
        output.status.success(),
        "{}: {said}",
        run.name
    );
    told
}

/// A prometheus over what was recorded; ended when dropped.
pub(crate) struct Prometheus {
    process: Child,
    base: String,
    begin: u64,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) async fn over(runs: &[Run]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        // In one block of two hours that has ended.
        let begin = (now / 7_200 - 2) * 7_200;
        let mut text = String::new();
        let mut all: Vec<(&str, &str, &Vec<Option<f64>>)> = Vec::new();
        for run in runs {
            all.extend(
                run.series
                    .iter()
                    .map(|(series, values)| (series.as_str(), run.name, values)),
            );
        }
        // A metric's series stand together.
        all.sort_by(|a, b| a.0.split('{').next().cmp(&b.0.split('{').next()));
        for (series, run, values) in all {
            let (name, labels) = series.split_once('{').unwrap();
            let labels = labels.trim_end_matches('}');
            let comma = if labels.is_empty() { "" } else { "," };
            for (at, value) in values.iter().enumerate() {
                if let Some(value) = value {
                    let at = begin + STEP * at as u64;
                    let _ = writeln!(
                        text,
                        "{name}{{{labels}{comma}instance={run:?}}} {value} {at}"
                    );
                }
            }
        }
        text.push_str("# EOF\n");
        let file = directory.path().join("recorded.txt");
        std::fs::write(&file, text).unwrap();
        let data = directory.path().join("data");
        let made = program("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&file, &data])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, "scrape_configs: []\n").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let process = program("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=10y", "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            process,
            base: format!("http://{address}"),
            begin,
            _directory: directory,
        };
        eventually("prometheus is ready", async || {
            // The pause of a poll: it needs the core that polling without one would take.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let ready = reqwest::get(format!("{}/-/ready", prometheus.base))
                .await
                .ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    /// How many series a query has over the time of the runs.
    pub(crate) async fn query(&self, query: &str) -> usize {
        let url = format!("{}/api/v1/query_range", self.base);
        let url = reqwest::Url::parse_with_params(
            &url,
            [
                ("query", query),
                ("start", &self.begin.to_string()),
                ("end", &(self.begin + STEP * SCRAPES as u64).to_string()),
                ("step", &STEP.to_string()),
            ],
        );
        let reply = reqwest::get(url.unwrap())
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["status"], "success", "{query}: {reply}");
        let series = reply["data"]["result"].as_array().unwrap();
        // 0 / 0 is an answer to nobody.
        let is_told = |series: &&Value| {
            let values = series["values"].as_array().unwrap();
            values.iter().any(|value| value[1] != "NaN")
        };
        series.iter().filter(is_told).count()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
