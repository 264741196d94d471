//! How a server program is started: its settings, its users, its certificate, its port.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::server::Address;

/// The setup guide, whose least-privilege user the whole suite runs as.
const GUIDE: &str = include_str!("../../docs/redis-setup.md");

pub(crate) fn spawn(arguments: &[String]) -> Child {
    let spawned = program().args(arguments).stdout(Stdio::null()).spawn();
    spawned.expect("the server program runs")
}

/// The server program: that of `REDIS_SERVER`, else this machine's.
pub(crate) fn program() -> Command {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let runs = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if let Ok(chosen) = std::env::var("REDIS_SERVER") {
            assert!(
                runs(&chosen),
                "REDIS_SERVER names no program that runs: {chosen}"
            );
            return chosen;
        }
        let mut names = ["redis-server", "valkey-server"].into_iter();
        names
            .find(|name| runs(name))
            .expect("no redis-server on PATH: run ./scripts/test.sh, which installs one")
            .to_owned()
    });
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

pub(crate) fn arguments(address: &Address, directory: &Path, extra: &[&str]) -> Vec<String> {
    let acl = directory.join("users.acl");
    fs::write(&acl, users(matches!(address, Address::Node(_)))).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let mut arguments = vec![
        "--dir".to_owned(),
        directory.display().to_string(),
        "--save".to_owned(),
        String::new(),
        "--aclfile".to_owned(),
        acl.display().to_string(),
        "--bind".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let own: Vec<String> = match address {
        Address::Unix => vec![
            "--port".into(),
            "0".into(),
            "--unixsocket".into(),
            path("redis.sock"),
        ],
        Address::Tcp(port) | Address::Node(port) => vec!["--port".into(), port.to_string()],
        Address::Tls(port) | Address::Expired(port) => {
            let until = match address {
                Address::Expired(_) => 2020,
                _ => 4000,
            };
            certify_until(directory, until);
            let mut own: Vec<String> = ["--port", "0", "--unixsocket"].map(Into::into).into();
            own.push(path("redis.sock"));
            own.extend(tls_arguments(directory, *port));
            own
        }
    };
    arguments.extend(own);
    arguments.extend(extra.iter().map(|argument| (*argument).to_owned()));
    arguments
}

/// A certificate for `localhost` and its key, for servers and those who trust them.
pub(crate) fn certify(directory: &Path) {
    certify_until(directory, 4000);
}

/// The same, valid until that year.
fn certify_until(directory: &Path, year: i32) {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Speaks TLS at a port, with the certificate in a directory.
pub(crate) fn tls_arguments(directory: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| directory.join(name).display().to_string();
    [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("cert.pem")),
        ("--tls-key-file", path("key.pem")),
        ("--tls-ca-cert-file", path("cert.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

/// The guide's user, with what it adds for a cluster, one with the virtual clock's commands besides, and
/// one for the tests' own use.
fn users(cluster: bool) -> String {
    let line = |start| {
        let mut lines = GUIDE.lines();
        lines
            .find(|line| line.starts_with(start))
            .expect("the guide shows the user")
    };
    let more = if cluster { line("+cluster|slots") } else { "" };
    let documented = format!("{} {more}", line("user limiter "));
    let limiter = documented.replace("PASSWORD", "limiter-secret");
    let r#virtual = documented
        .replace("user limiter ", "user virtual ")
        .replace("PASSWORD", "virtual-secret");
    format!(
        "user default off\n{limiter}\n{virtual} +hget +hset +hdel\nuser admin on >admin-secret ~* &* +@all\n"
    )
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A port whose 10,000th successor, the cluster's bus, is free too.
pub(crate) fn free_node_port() -> Option<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let bus = port.checked_add(10_000)?;
    TcpListener::bind(("127.0.0.1", bus)).ok().map(|_| port)
}
