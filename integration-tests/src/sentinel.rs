//! A primary, its replica and their sentinels, for one test.

use std::fs;
use std::process::Child;
use std::time::Duration;

use limiter_redis::RedisConfig;
use tempfile::TempDir;

use crate::cluster::{is_master, wait};
use crate::server::{RedisServer, free_port, spawn};

/// The primary's name.
const NAME: &str = "mine";

/// A primary and a replica that has all of its keys, watched by three sentinels with a password of their own, two of which have to
/// agree. Stopped when dropped.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The primary first, and the replica. A failover swaps their roles, not their places.
    pub servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl RedisSentinels {
    /// Starts all, and waits until each sentinel knows the replica and the other sentinels.
    pub fn start() -> Self {
        Self::start_behind(RedisServer::port)
    }

    /// The same, where the replica and the sentinels, and whoever asks them, reach the primary at another port: a proxy's in front
    /// of it.
    pub fn start_behind(reached_at: impl FnOnce(&RedisServer) -> u16) -> Self {
        let login = ["--masteruser", "admin", "--masterauth", "admin-secret"];
        let primary = RedisServer::start_tcp_with(&login);
        let port = reached_at(&primary).to_string();
        let follows = format!("127.0.0.1 {port}");
        let more = ["--replicaof", &follows, "--repl-diskless-sync-delay", "0"];
        let replica = RedisServer::start_tcp_with(&[&login[..], &more].concat());
        wait("the replica is not in step", || {
            let info: String = replica.command(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
        let sentinels = (0..3).map(|_| Sentinel::start(&port)).collect();
        let it = Self {
            servers: [primary, replica],
            sentinels,
        };
        wait("the sentinels do not know each other", || {
            it.sentinels.iter().all(Sentinel::knows_all)
        });
        it
    }

    /// The URL of the least-privilege user.
    pub fn url(&self) -> String {
        let ports = self.sentinels.iter().map(|sentinel| sentinel.port);
        let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!(
            "redis+sentinel://limiter:limiter-secret@{}/{NAME}",
            hosts.join(",")
        )
    }

    /// The sentinels' own password.
    pub fn password(&self) -> &'static str {
        "sentinel-secret"
    }

    /// Settings with a deadline that a busy test machine keeps.
    pub fn config(&self) -> RedisConfig {
        let credentials = limiter_redis::Credentials::of_password(self.password());
        let config = RedisConfig::new(&self.url()).unwrap();
        config
            .with_sentinel_credentials(credentials)
            .unwrap()
            .with_check_deadline(Duration::from_secs(10))
    }

    /// Whether a server says that it is a primary.
    pub fn is_primary(&self, server: usize) -> bool {
        is_master(&self.servers[server])
    }

    /// Waits until the sentinels have made the replica the primary.
    pub fn wait_for_failover(&self) {
        wait("the replica is no primary", || self.is_primary(1));
    }
}

impl Sentinel {
    fn start(primary: &str) -> Self {
        let directory = TempDir::with_prefix("limiter-").unwrap();
        let port = free_port();
        let file = directory.path().join("sentinel.conf");
        let path = directory.path().display();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {path}\nrequirepass sentinel-secret\n\
             sentinel sentinel-pass sentinel-secret\n\
             sentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel auth-user {NAME} admin\nsentinel auth-pass {NAME} admin-secret\n\
             sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 3000\n"
        );
        fs::write(&file, text).unwrap();
        let arguments = [file.display().to_string(), "--sentinel".to_owned()];
        Self {
            process: spawn(&arguments),
            port,
            _directory: directory,
        }
    }

    fn knows_all(&self) -> bool {
        let told = || -> Option<Vec<String>> {
            let url = format!("redis://:sentinel-secret@127.0.0.1:{}", self.port);
            let client = redis::Client::open(url).ok()?;
            let mut connection = client.get_connection().ok()?;
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("MASTER").arg(NAME).query(&mut connection).ok()
        };
        let field = |fields: &[String], name: &str| {
            let at = fields.iter().position(|field| field == name)?;
            fields.get(at + 1).cloned()
        };
        told().is_some_and(|fields| {
            field(&fields, "num-slaves").as_deref() == Some("1")
                && field(&fields, "num-other-sentinels").as_deref() == Some("2")
                && field(&fields, "flags").as_deref() == Some("master")
        })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
