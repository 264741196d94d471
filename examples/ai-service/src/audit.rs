//! The audit trail (C6): a file, if there is one, and the last decisions for `/api/admin/audit`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use limiter::IdentitySecret;
use limiter::audit::{Audit, AuditConfig, AuditFile, AuditSink};
use limiter::limiter_core::limit::OperationId;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::settings::AuditSettings;

/// How many decisions are remembered.
const LENGTH: usize = 200;

/// What this instance decided last, as it stands in the trail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<Value>>>);

/// Where the trail goes.
struct Trail {
    recent: Recent,
    file: Option<AuditFile>,
}

/// Starts the trail.
pub(crate) fn start(settings: &AuditSettings, instance: &str) -> Result<(Audit, Recent), String> {
    let secret = settings.secret.as_ref().map_or_else(
        || {
            if settings.file.is_some() {
                tracing::warn!("AUDIT_SECRET is not set: keys in the audit trail have other hashes after a restart, and on each instance");
            }
            OperationId::random().as_str().to_owned()
        },
        |secret| secret.expose_secret().to_owned(),
    );
    let open = |path: &String| AuditFile::open(path, settings.file_bytes, settings.files);
    let file = settings.file.as_ref().map(open).transpose();
    let recent = Recent::default();
    let trail = Trail {
        recent: recent.clone(),
        file: file.map_err(|error| format!("AUDIT_FILE: {}", error.message()))?,
    };
    let config = AuditConfig::new(IdentitySecret::new(secret)).with_instance(instance);
    let audit = Audit::start(config, trail).map_err(|error| error.message().to_owned())?;
    Ok((audit, recent))
}

impl Recent {
    /// The last decisions, the newest first.
    pub(crate) fn latest(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().cloned().collect()
    }
}

impl AuditSink for Trail {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write(lines)?;
        }
        let mut recent = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            if recent.len() == LENGTH {
                recent.pop_front();
            }
            recent.push_back(serde_json::from_slice(line)?);
        }
        Ok(())
    }
}
