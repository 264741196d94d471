//! A real redis-server for one test.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use limiter_redis::RedisConfig;
use tempfile::TempDir;

use crate::launch::{arguments, free_node_port, free_port, program, spawn};

/// A `redis-server` (or `valkey-server`) process in a directory of its own, without persistence.
/// Stopped when dropped.
#[derive(Debug)]
pub struct RedisServer {
    process: Child,
    address: Address,
    directory: TempDir,
    arguments: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix,
    Tcp(u16),
    Tls(u16),
    /// TLS with a certificate that is too old.
    Expired(u16),
    /// A node of a cluster.
    Node(u16),
}

impl RedisServer {
    /// On a unix socket.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// On a unix socket, with further arguments, such as `--maxmemory 1mb`.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::launch(Address::Unix, arguments).expect("redis-server runs")
    }

    /// On a free loopback port.
    pub fn start_tcp() -> Self {
        Self::start_tcp_with(&[])
    }

    /// On a free loopback port, where it speaks TLS only, with a certificate for `localhost` that only
    /// [`ca_pem`](Self::ca_pem) vouches for.
    pub fn start_tls() -> Self {
        Self::start_tls_with(&[])
    }

    /// Whether the server program speaks TLS.
    pub fn has_tls() -> bool {
        // It ends at once: for want of a certificate, or of TLS.
        let ended = program().args(["--port", "0", "--tls-port", "1"]).output();
        let ended = ended.expect("the server program runs");
        let said = [ended.stdout, ended.stderr].concat();
        String::from_utf8_lossy(&said).contains("tls-cert-file configured")
    }

    /// Whether the server program has a setting.
    pub fn knows(setting: &str) -> bool {
        let known: Vec<String> = Self::start().command(&["CONFIG", "GET", setting]);
        !known.is_empty()
    }

    /// The same, with further arguments.
    pub fn start_tls_with(arguments: &[&str]) -> Self {
        Self::start_at(|| Some(Address::Tls(free_port())), arguments)
    }

    /// The same, with a certificate that was valid until 2020.
    pub fn start_tls_expired() -> Self {
        Self::start_at(|| Some(Address::Expired(free_port())), &[])
    }

    /// On a free loopback port, with further arguments.
    pub fn start_tcp_with(arguments: &[&str]) -> Self {
        Self::start_at(|| Some(Address::Tcp(free_port())), arguments)
    }

    /// A node of a cluster that is still to be set up, on a free loopback port, with further arguments.
    pub(crate) fn start_node(more: &[String]) -> Self {
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "10000",
            "--cluster-require-full-coverage",
            "no",
            // A master whose last slot leaves stays one.
            "--cluster-allow-replica-migration",
            "no",
        ];
        arguments.extend(more.iter().map(String::as_str));
        Self::start_at(|| free_node_port().map(Address::Node), &arguments)
    }

    /// On a free port; on another one if somebody else took it in between.
    fn start_at(address: impl Fn() -> Option<Address>, extra: &[&str]) -> Self {
        let mut tries = (0..50).filter_map(|_| Self::launch(address()?, extra));
        tries.next().expect("a free port")
    }

    /// The loopback port; 0 on a unix socket.
    pub fn port(&self) -> u16 {
        match self.address {
            Address::Unix => 0,
            Address::Tcp(port)
            | Address::Tls(port)
            | Address::Expired(port)
            | Address::Node(port) => port,
        }
    }

    /// The URL of the least-privilege user.
    pub fn url(&self) -> String {
        self.url_of("limiter", "limiter-secret")
    }

    /// The URL of a user who may do everything: for what a test does behind the limiter's back.
    pub fn admin_url(&self) -> String {
        self.url_of("admin", "admin-secret")
    }

    /// The URL of any user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        match self.address {
            Address::Unix => self.unix_url(user, password),
            Address::Tcp(port) | Address::Node(port) => {
                format!("redis://{user}:{password}@127.0.0.1:{port}")
            }
            Address::Tls(port) | Address::Expired(port) => {
                format!("rediss://{user}:{password}@localhost:{port}")
            }
        }
    }

    /// The least-privilege user's URL at another loopback port: a proxy's in front of this server.
    pub fn url_at(&self, port: u16) -> String {
        match self.address {
            Address::Tls(_) | Address::Expired(_) => {
                format!("rediss://limiter:limiter-secret@localhost:{port}")
            }
            _ => format!("redis://limiter:limiter-secret@127.0.0.1:{port}"),
        }
    }

    /// The ids of the least-privilege user's connections that have said who they are, as the server knows them.
    pub fn connections(&self) -> Vec<String> {
        let list: String = self.command(&["CLIENT", "LIST"]);
        let mine = list.lines().filter(|line| line.contains(" user=limiter "));
        mine.filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect()
    }

    /// Settings with a deadline that a busy test machine keeps.
    pub fn config(&self) -> RedisConfig {
        RedisConfig::new(&self.url())
            .unwrap()
            .with_check_deadline(Duration::from_secs(20))
            .with_cache_deadline(Duration::from_secs(20))
    }

    /// Settings for a store on the virtual clock, whose script needs a hash besides.
    pub fn virtual_config(&self) -> RedisConfig {
        RedisConfig::new(&self.url_of("virtual", "virtual-secret"))
            .unwrap()
            .with_check_deadline(Duration::from_secs(20))
    }

    /// A plain connection with every right.
    pub fn admin(&self) -> redis::Connection {
        self.connect_as("admin", "admin-secret")
    }

    /// A plain connection with a user's rights.
    pub fn connect_as(&self, user: &str, password: &str) -> redis::Connection {
        let client = redis::Client::open(self.plain_url(user, password));
        client.unwrap().get_connection().unwrap()
    }

    /// Without TLS, which is what tests are about and not made with: the Redis library would ask the process for a provider.
    fn plain_url(&self, user: &str, password: &str) -> String {
        match self.address {
            Address::Tls(_) | Address::Expired(_) => self.unix_url(user, password),
            _ => self.url_of(user, password),
        }
    }

    fn unix_url(&self, user: &str, password: &str) -> String {
        let socket = self.socket();
        format!(
            "redis+unix://{}?user={user}&pass={password}",
            socket.display()
        )
    }

    /// Runs one command with every right.
    pub fn command<T: redis::FromRedisValue>(&self, line: &[&str]) -> T {
        let mut command = redis::cmd(line[0]);
        for argument in &line[1..] {
            command.arg(argument);
        }
        command.query(&mut self.admin()).unwrap()
    }

    /// How often a command was called, also by scripts, since the start or the last `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        self.commandstat(command, "calls")
    }

    /// How long all of these calls took (us), by the server's own count.
    pub fn micros(&self, command: &str) -> u64 {
        self.commandstat(command, "usec")
    }

    /// A number of `INFO commandstats`; 0 if the command was never called.
    fn commandstat(&self, command: &str, name: &str) -> u64 {
        let stats: String = self.command(&["INFO", "commandstats"]);
        let mut lines = stats.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
        let mut fields = line.unwrap_or_default().split(',');
        let field = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        field.map_or(0, |number| number.parse().unwrap())
    }

    /// Runs one command with every right; `None` if it fails, as where the server is away or about to change.
    pub fn try_command<T: redis::FromRedisValue>(&self, line: &[&str]) -> Option<T> {
        let client = redis::Client::open(self.plain_url("admin", "admin-secret")).ok()?;
        let mut admin = client.get_connection().ok()?;
        let (name, arguments) = line.split_first()?;
        redis::cmd(name).arg(arguments).query(&mut admin).ok()
    }

    /// Sets a key to bytes, with every right.
    pub fn set(&self, key: &str, value: &[u8]) {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value);
        command.exec(&mut self.admin()).unwrap();
    }

    /// Another one that speaks TLS, with this one's certificate: whoever trusts one trusts both.
    pub(crate) fn start_tls_beside(&self, arguments: &[&str]) -> Self {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let (certificate, key) = (path("cert.pem"), path("key.pem"));
        let same = [
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &certificate,
        ];
        let beside = Self::start_tls_with(&[&same[..], arguments].concat());
        fs::write(beside.directory.path().join("cert.pem"), self.ca_pem()).unwrap();
        beside
    }

    /// Where its certificate and key are.
    pub(crate) fn tls_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The certificate that clients of [`start_tls`](Self::start_tls) have to trust.
    pub fn ca_pem(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("cert.pem")).unwrap()
    }

    /// The private key of that certificate.
    pub fn key_pem(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("key.pem")).unwrap()
    }

    /// Kills the process and starts it again at the same address, empty.
    pub fn restart(&mut self) {
        self.stop();
        self.process = spawn(&self.arguments);
        assert!(self.is_ready(), "somebody else took the port");
    }

    /// Kills the process and starts it again from what it has saved, loading each key so slowly.
    pub fn restart_loading(&mut self, micros_a_key: u64) {
        // How often it answers meanwhile. Older ones do so every two megabytes.
        const OFTEN: &str = "loading-process-events-interval-bytes";
        let known: Vec<String> = self.command(&["CONFIG", "GET", OFTEN]);
        self.stop();
        let mut arguments = self.arguments.clone();
        arguments.extend(["--key-load-delay".to_owned(), micros_a_key.to_string()]);
        if !known.is_empty() {
            arguments.extend([format!("--{OFTEN}"), "1024".to_owned()]);
        }
        self.process = spawn(&arguments);
        assert!(self.is_ready(), "somebody else took the port");
    }

    /// Whether the process runs.
    pub fn is_running(&self) -> bool {
        self.answering() == Some(self.process.id())
    }

    /// From now on nothing can be saved, or again: a directory stands where the file should.
    pub fn block_saves(&self, block: bool) {
        let path = self.directory.path().join("dump.rdb");
        if block {
            let _ = fs::remove_file(&path);
            fs::create_dir(&path).unwrap();
        } else {
            fs::remove_dir(&path).unwrap();
        }
    }

    /// Kills the process.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Keeps the process from running until the guard is dropped: connections stay open, the kernel
    /// accepts new ones, and nothing is answered.
    pub fn stall(&self) -> Stalled<'_> {
        let stalled = Stalled(self);
        self.signal("-STOP");
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.runs() {
            assert!(Instant::now() < deadline, "redis-server goes on");
            std::thread::yield_now();
        }
        stalled
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success(), "kill {signal}");
    }

    /// Whether the process is not stopped; where that cannot be seen, the signal is trusted.
    fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        stat.is_ok_and(|stat| !stat.contains(") T "))
    }

    /// `None` if the server ends at once, or another one answers: somebody else took the port.
    fn launch(address: Address, extra: &[&str]) -> Option<Self> {
        let directory = tempfile::Builder::new()
            .prefix("limiter-")
            .tempdir()
            .unwrap();
        let arguments = arguments(&address, directory.path(), extra);
        let mut server = Self {
            process: spawn(&arguments),
            address,
            directory,
            arguments,
        };
        server.is_ready().then_some(server)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Waits until the server answers; whether it does, and not another one at its port.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.process.try_wait().unwrap().is_none() {
            if let Some(process) = self.answering() {
                return process == self.process.id();
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::yield_now();
        }
        false
    }

    /// The id of the process that answers at the address.
    fn answering(&self) -> Option<u32> {
        let client = redis::Client::open(self.plain_url("admin", "admin-secret")).ok()?;
        let mut admin = client.get_connection().ok()?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut admin).ok()?;
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok())
    }
}

/// A server that does not run; dropped, it goes on.
#[derive(Debug)]
#[must_use = "dropped, the server goes on"]
pub struct Stalled<'a>(&'a RedisServer);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.signal("-CONT");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_at_the_port_is_not_taken_for_ours() {
        let other = RedisServer::start_tcp();
        assert!(RedisServer::launch(Address::Tcp(other.port()), &[]).is_none());
    }
}
