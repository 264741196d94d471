//! C6: the audit trails of three instances under load, of which one is killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration_tests::RedisServer;
use serde_json::Value;

const DECISIONS: u64 = 50_000;
/// Calls under way on an instance: charged in Redis, and not decided here yet.
const UNDER_WAY: u64 = 64;
const BUFFER: u64 = 2_048;

struct Instance {
    name: &'static str,
    process: Child,
    trail: PathBuf,
}

impl Instance {
    fn start(name: &'static str, server: &RedisServer, directory: &Path) -> Self {
        let trail = directory.join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_audited-load"))
            .arg(name)
            .arg(&trail)
            .args([DECISIONS, BUFFER].map(|number| number.to_string()))
            .env("LOAD_REDIS_URL", server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            name,
            process,
            trail,
        }
    }

    /// Every line of the trail, the oldest first; half a line at its very end is none.
    fn lines(&self) -> Vec<Value> {
        let of = |number: usize| match number {
            0 => self.trail.clone(),
            _ => self.trail.with_extension(number.to_string()),
        };
        let files = (0..).map(of).take_while(|file| file.exists());
        let mut texts: Vec<_> = files
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect();
        assert!(texts.len() > 1, "it was rotated");
        texts.reverse();
        let text = texts.concat();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What its counter in Redis came to: a truth of its own.
    fn charged(&self, server: &RedisServer) -> u64 {
        let of = |policy: &str| {
            let key = format!("ratelimit:{policy}:{}", self.name);
            server.command::<Option<u64>>(&["GET", &key]).unwrap_or(0)
        };
        of("wide") + of("narrow")
    }
}

fn outcomes(lines: &[Value]) -> HashMap<&str, u64> {
    let mut counts = HashMap::new();
    for line in lines {
        *counts.entry(line["outcome"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_instance_loses_its_buffer_and_the_others_nothing() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = |name| Instance::start(name, &server, directory.path());
    let mut killed = start("killed");
    let others = ["first", "second"].map(start);
    // In the middle of its work.
    while killed.charged(&server) < DECISIONS / 4 {
        assert!(killed.process.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    killed.process.kill().unwrap();
    killed.process.wait().unwrap();
    let lines = killed.lines();
    let allowed = outcomes(&lines)["allowed"];
    let charged = killed.charged(&server);
    assert!(charged < DECISIONS / 2, "it had all it asked for");
    assert!(allowed <= charged);
    assert!(
        charged - allowed <= BUFFER + UNDER_WAY,
        "{} of {charged} lost",
        charged - allowed
    );
    assert_whole(&lines, "killed");

    for mut other in others {
        let output = other.process.stdout.take().unwrap();
        let counts: Value = serde_json::from_reader(output).unwrap();
        assert!(other.process.wait().unwrap().success());
        let lines = other.lines();
        assert_eq!(lines.len() as u64, DECISIONS);
        assert_whole(&lines, other.name);
        let told = outcomes(&lines);
        for outcome in ["allowed", "denied"] {
            assert_eq!(
                told[outcome],
                counts[outcome].as_u64().unwrap(),
                "{outcome}"
            );
        }
        assert_eq!(told["allowed"], other.charged(&server));
        assert!(told["denied"] > DECISIONS / 3);
    }
}

/// No line is missing between the first one and the last one.
fn assert_whole(lines: &[Value], instance: &str) {
    for (line, sequence) in lines.iter().zip(1_u64..) {
        assert_eq!(line["sequence"], sequence);
        assert_eq!(line["instance"], instance);
    }
}
