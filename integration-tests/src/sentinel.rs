//! A primary, its replica and their sentinels, for one test.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use limiter_redis::RedisConfig;
use tempfile::TempDir;

use crate::cluster::{is_master, wait};
use crate::launch::{free_port, spawn, tls_arguments};
use crate::server::RedisServer;

/// The primary's name.
const NAME: &str = "mine";

/// As whom they follow each other.
const LOGIN: [&str; 4] = ["--masteruser", "admin", "--masterauth", "admin-secret"];

fn follows(port: &str) -> [&str; 5] {
    [
        "--replicaof",
        "127.0.0.1",
        port,
        "--repl-diskless-sync-delay",
        "0",
    ]
}

/// A primary and a replica that has all of its keys, watched by three sentinels with a password of their own, two of which have to
/// agree. Stopped when dropped.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The primary first, and the replica. A failover swaps their roles, not their places.
    pub servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
    /// What to trust, if all speak TLS.
    ca: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Sentinel {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl RedisSentinels {
    /// Starts all, and waits until each sentinel knows the replica and the other sentinels.
    pub fn start() -> Self {
        Self::start_behind(RedisServer::port)
    }

    /// The same, where the replica and the sentinels, and whoever asks them, reach the primary at another port: a proxy's in front
    /// of it.
    pub fn start_behind(reached_at: impl FnOnce(&RedisServer) -> u16) -> Self {
        let primary = RedisServer::start_tcp_with(&LOGIN);
        let port = reached_at(&primary).to_string();
        let replica = RedisServer::start_tcp_with(&[&LOGIN[..], &follows(&port)].concat());
        Self::watch(primary, replica, &port, None)
    }

    /// The same, where all speak TLS and nothing else, also to each other.
    pub fn start_tls() -> Self {
        let login = [&LOGIN[..], &["--tls-replication", "yes"]].concat();
        let primary = RedisServer::start_tls_with(&login);
        let port = primary.port().to_string();
        let replica = primary.start_tls_beside(&[&login[..], &follows(&port)].concat());
        let ca = primary.ca_pem();
        Self::watch(primary, replica, &port, Some(ca))
    }

    fn watch(primary: RedisServer, replica: RedisServer, port: &str, ca: Option<Vec<u8>>) -> Self {
        wait("the replica is not in step", || {
            let info: String = replica.command(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
        let tls = ca.as_ref().map(|_| primary.tls_directory());
        let sentinels = (0..3).map(|_| Sentinel::start(port, tls)).collect();
        let it = Self {
            servers: [primary, replica],
            sentinels,
            ca,
        };
        wait("the sentinels do not know each other", || {
            it.sentinels.iter().all(Sentinel::knows_all)
        });
        it
    }

    /// The URL of the least-privilege user.
    pub fn url(&self) -> String {
        let ports: Vec<u16> = self.ports().collect();
        self.url_at(&ports)
    }

    /// The sentinels' ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port)
    }

    /// The URL with other ports for the sentinels: proxies' in front of them.
    pub fn url_at(&self, ports: &[u16]) -> String {
        let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let scheme = match self.ca {
            None => "redis",
            Some(_) => "rediss",
        };
        format!("{scheme}+sentinel://limiter:limiter-secret@{hosts}/{NAME}")
    }

    /// The sentinels' own password.
    pub fn password(&self) -> &'static str {
        "sentinel-secret"
    }

    /// Settings with a deadline that a busy test machine keeps.
    pub fn config(&self) -> RedisConfig {
        self.config_of(&self.url())
    }

    /// The same of another URL.
    pub fn config_of(&self, url: &str) -> RedisConfig {
        let credentials = limiter_redis::Credentials::of_password(self.password());
        let mut config = RedisConfig::new(url).unwrap();
        if let Some(ca) = &self.ca {
            // Sentinels name addresses, and the certificate a host.
            config = config.with_tls_ca(ca.clone()).unwrap();
            config = config.with_tls_server_name("localhost").unwrap();
        }
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
    fn start(primary: &str, tls: Option<&Path>) -> Self {
        let directory = TempDir::with_prefix("limiter-").unwrap();
        let port = free_port();
        let file = directory.path().join("sentinel.conf");
        let path = directory.path().display();
        let ports = match tls {
            None => format!("port {port}"),
            Some(tls) => {
                let own = tls_arguments(tls, port);
                let own = own.chunks(2).map(|pair| pair.join(" "));
                let own: Vec<String> = own.map(|line| line[2..].to_owned()).collect();
                format!("port 0\ntls-replication yes\n{}", own.join("\n"))
            }
        };
        let text = format!(
            "{ports}\nbind 127.0.0.1\nunixsocket {path}/sentinel.sock\ndir {path}\nrequirepass sentinel-secret\n\
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
            directory,
        }
    }

    fn knows_all(&self) -> bool {
        let told = || -> Option<Vec<String>> {
            let path = self.directory.path().display();
            let url = format!("redis+unix://{path}/sentinel.sock?pass=sentinel-secret");
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
