//! Whether we have the rights that we need, tried when a connection is made.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, ServerErrorKind};

use crate::error::server_error;

/// A script to run, and keys to run it on, when a connection is made.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) script: Script,
    pub(crate) keys: ProbeKeys,
    pub(crate) arguments: Vec<String>,
}

#[derive(Clone)]
pub(crate) enum ProbeKeys {
    These(Vec<String>),
    /// One that stands on this node of a cluster now, if there is one.
    OfNode(Arc<dyn Fn() -> Option<String> + Send + Sync>),
}

impl Probe {
    /// Runs the probe. A key that has just moved to another node of a cluster tells nothing, and the
    /// connection is as good as the last one.
    pub(super) async fn run(
        &self,
        io: &mut MultiplexedConnection,
        host: &str,
    ) -> Result<(), RedisError> {
        let mut probe = self.script.prepare_invoke();
        match &self.keys {
            ProbeKeys::These(keys) => {
                for key in keys {
                    probe.key(key);
                }
            }
            ProbeKeys::OfNode(key) => {
                // Needed while a slot moves, which is late to find out.
                redis::cmd("ASKING").exec_async(io).await?;
                match key() {
                    Some(key) => probe.key(key),
                    None => return Ok(()),
                };
            }
        }
        for argument in &self.arguments {
            probe.arg(argument);
        }
        let Err(error) = probe.invoke_async::<()>(io).await else {
            return Ok(());
        };
        if error.code() == Some("OOM") {
            // A server that is full tells nothing of our rights, and takes what is given back.
            tracing::error!(
                host,
                "Redis is out of memory: charges fail until there is room; raise maxmemory"
            );
            return Ok(());
        }
        use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
        match (&self.keys, server_error(&error)) {
            (ProbeKeys::OfNode(_), Some(Ask | ClusterDown | Moved | TryAgain)) => Ok(()),
            _ => Err(error),
        }
    }
}
