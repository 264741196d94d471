//! What operators change and read while the service runs: the policies' file, the switch, the audit trail.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod limits_file;
#[path = "../support/mod.rs"]
mod support;
mod switch;
mod trail;

use std::path::PathBuf;

use serde_json::Value;
use support::{Reply, Service, limits_of_many};

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// A file of limits in a directory of its own.
struct Limits {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Limits {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        Self { directory, path }
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        std::fs::write(&self.path, text).unwrap();
    }

    /// The demo's, with another quota of letters.
    fn letters(quota: &str) -> String {
        Self::with(&[("coverLetter", quota)])
    }

    /// The demo's, with other quotas.
    fn with(quotas: &[(&str, &str)]) -> String {
        let mut text = limits_of_many();
        for (policy, quota) in quotas {
            let head = format!("[policies.{policy}]\nquota = \"");
            let begin = text.find(&head).unwrap() + head.len();
            let end = begin + text[begin..].find('"').unwrap();
            text.replace_range(begin..end, quota);
        }
        text
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

async fn letter(service: &Service) -> Reply {
    service.post("/api/coverLetter", ALICE, "{}").await
}

async fn health(service: &Service) -> Value {
    service.get("/health", ALICE).await.body
}
