//! One connection: made, its role and rights tried, and looked at before it is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8::ManageConnection;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connect::Connector;
use crate::error::{breaks, server_error};

/// How often a connection in use is asked for its role again.
const ROLE_PERIOD: Duration = Duration::from_secs(30);

/// A connection that was idle for longer is asked first: the server or the network between may have
/// ended it, and a charge should not be what finds out.
const IDLE: Duration = Duration::from_secs(1);

/// How long a failed attempt to connect answers for the next ones, so that a server that comes back
/// is not met by a storm.
const CONNECT_GAP: Duration = Duration::from_millis(50);

/// The last failed attempt to connect, and when it was.
pub(crate) type Failure = Option<(Instant, RedisError)>;

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

pub(crate) struct Manager {
    pub(crate) connector: Connector,
    pub(crate) host: String,
    pub(crate) probe: Probe,
    pub(crate) failed: watch::Sender<Failure>,
    /// Counted up by the I/O itself when it finds a connection broken (an error, a server that became
    /// a replica); connections of an older generation are not used again.
    pub(crate) generation: Arc<AtomicU64>,
}

pub(crate) struct Connection {
    pub(crate) io: MultiplexedConnection,
    pub(crate) generation: u64,
    /// A call on it was given up before there was an answer.
    pub(crate) broken: bool,
    pub(crate) used: Instant,
    role_checked: Instant,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Connection, RedisError> {
        let last = self.failed.borrow().clone();
        if let Some((at, error)) = last.filter(|(at, _)| at.elapsed() < CONNECT_GAP) {
            self.failed.send_replace(Some((at, error.clone())));
            return Err(error);
        }
        let result = self.open().await;
        match &result {
            Ok(_) => tracing::info!(host = %self.host, "connected to Redis"),
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "cannot connect to Redis");
                let failure = (Instant::now(), error.clone());
                self.failed.send_replace(Some(failure));
            }
        }
        result
    }

    /// No PING per checkout: on a connection in use, what a PING finds, the call itself finds.
    async fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        if self.is_stale(connection) {
            return Err((
                redis::ErrorKind::Io,
                "the connection is of an older generation",
            )
                .into());
        }
        let idle = connection.used.elapsed() > IDLE;
        if !idle && connection.role_checked.elapsed() < ROLE_PERIOD {
            return Ok(());
        }
        // The pool takes the connection back if this future is dropped before there is an answer.
        connection.broken = true;
        check_role(&mut connection.io).await?;
        connection.broken = false;
        connection.role_checked = Instant::now();
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || self.is_stale(connection)
    }
}

impl Manager {
    fn is_stale(&self, connection: &Connection) -> bool {
        connection.generation != self.generation.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<Connection, RedisError> {
        let generation = self.generation.load(Ordering::Relaxed);
        let mut io = self.connector.connect().await?;
        check_role(&mut io).await?;
        self.try_rights(&mut io).await?;
        Ok(Connection {
            io,
            generation,
            broken: false,
            used: Instant::now(),
            role_checked: Instant::now(),
        })
    }

    /// Runs the probe. A key that has just moved to another node of a cluster tells nothing, and the
    /// connection is as good as the last one.
    async fn try_rights(&self, io: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut probe = self.probe.script.prepare_invoke();
        match &self.probe.keys {
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
        for argument in &self.probe.arguments {
            probe.arg(argument);
        }
        let Err(error) = probe.invoke_async::<()>(io).await else {
            return Ok(());
        };
        if error.code() == Some("OOM") {
            // A server that is full tells nothing of our rights, and takes what is given back.
            tracing::error!(host = %self.host, "Redis is out of memory: charges fail until there is room; raise maxmemory");
            return Ok(());
        }
        use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
        match (&self.probe.keys, server_error(&error)) {
            (ProbeKeys::OfNode(_), Some((Ask | ClusterDown | Moved | TryAgain, _))) => Ok(()),
            _ => Err(error),
        }
    }
}

/// Refuses a replica: it answers reads and fails every charge.
async fn check_role(io: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let reply: Value = match redis::cmd("ROLE").query_async(io).await {
        Ok(reply) => reply,
        // A hosted Redis may not offer ROLE. Then the first write tells.
        Err(error) if !breaks(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let role = match &reply {
        Value::Array(parts) => parts.first().cloned(),
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role == b"slave" => {
            let kind = redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly);
            Err((kind, "the server is a replica").into())
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
