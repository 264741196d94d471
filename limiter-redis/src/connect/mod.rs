//! How a server is reached: its addresses, the socket, TLS.
//!
//! The Redis library would read the system's certificates from disk for each connection, also where one file names the
//! authority, and leaves the socket's own timeouts unset.

mod reach;
mod sentinel;
mod tls;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::select_ok;
use limiter_core::Error;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ProtocolVersion, RedisConnectionInfo, RedisError,
    Value,
};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use self::sentinel::Sentinels;
use crate::cluster::Address;
use crate::config::{RedisConfig, config_error};

pub(crate) use reach::{AddressMap, Reach, tls_name};
pub use reach::{Credentials, CredentialsProvider, PasswordFile, Resolver};
pub(crate) use sentinel::{SentinelUrl, Watched};
pub(crate) use tls::Trust;

/// A network that drops a flow tells nobody: an idle connection is asked after so long, then so often, and is given up
/// after three questions without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// What was sent and is not acknowledged for so long ends the connection.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// The longest answer to the first command that is read.
const LONGEST_LINE: usize = 1_024;

/// Moves a connection's bytes, for as long as it lives.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes connections to one server.
pub(crate) struct Connector {
    place: Place,
    redis: RedisConnectionInfo,
    reach: Reach,
}

enum Place {
    Tcp(String, u16),
    Tls(String, u16, TlsConnector, ServerName<'static>),
    Unix(PathBuf),
    /// Where its sentinels say that it is; over TLS, perhaps.
    Watched(Sentinels, Option<TlsConnector>),
}

/// A connection that has said who it is, and what drives it.
pub(crate) struct Connected {
    pub(crate) io: MultiplexedConnection,
    pub(crate) driver: Driver,
    /// The server that it is to, if sentinels said so.
    pub(crate) primary: Option<Address>,
}

impl Connector {
    /// # Errors
    /// `Config` if TLS is asked for and nobody is trusted.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, Error> {
        let tls = || {
            let client = config.trust.client().ok_or_else(|| {
                config_error(
                    "no certificate authority was found on this system to check the certificate of a rediss:// server with; install the system's (ca-certificates), or name one with REDIS_TLS_CA_FILE"
                        .to_owned(),
                )
            })?;
            Ok::<_, Error>(TlsConnector::from(client))
        };
        if let Some(watched) = &config.watched {
            let tls = config.uses_tls().then(tls).transpose()?;
            let sentinels = Sentinels::new(watched, tls.clone());
            return Ok(Self {
                place: Place::Watched(sentinels, tls),
                redis: config.connection.redis_settings().clone(),
                reach: config.reach.clone(),
            });
        }
        let place = match config.connection.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => {
                let name = match &config.reach.tls_name {
                    Some(name) => name.clone(),
                    None => tls_name(host)?,
                };
                Place::Tls(host.clone(), *port, tls()?, name)
            }
            ConnectionAddr::Tcp(host, port) => Place::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            other => return Err(config_error(format!("{other} is no address known here"))),
        };
        Ok(Self {
            place,
            redis: config.connection.redis_settings().clone(),
            reach: config.reach.clone(),
        })
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self) -> Result<Connected, RedisError> {
        let credentials = self.credentials()?;
        let credentials = credentials.as_ref();
        let mut named = None;
        let (io, driver) = match &self.place {
            Place::Tcp(host, port) => over(self.tcp(host, *port).await?, credentials).await?,
            Place::Tls(host, port, tls, name) => {
                let stream = self.tcp(host, *port).await?;
                over(tls.connect(name.clone(), stream).await?, credentials).await?
            }
            Place::Unix(path) => over(UnixStream::connect(path).await?, credentials).await?,
            Place::Watched(sentinels, tls) => {
                let primary = named.insert(sentinels.find(self).await?);
                let stream = self.tcp(&primary.host, primary.port).await?;
                match tls {
                    None => over(stream, credentials).await?,
                    Some(tls) => {
                        let name = self.name_of(&primary.host)?;
                        over(tls.connect(name, stream).await?, credentials).await?
                    }
                }
            }
        };
        Ok(Connected {
            io,
            driver,
            primary: named,
        })
    }

    /// Whether the server may be another one from one day to the next.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self.place, Place::Watched(..))
    }

    /// The server that the sentinels name now, if there are some that answer.
    pub(crate) async fn primary(&self) -> Option<Address> {
        match &self.place {
            Place::Watched(sentinels, _) => sentinels.find(self).await.ok(),
            _ => None,
        }
    }

    /// The name that a host's certificate has to have.
    fn name_of(&self, host: &str) -> Result<ServerName<'static>, RedisError> {
        if let Some(name) = &self.reach.tls_name {
            return Ok(name.clone());
        }
        tls_name(host).map_err(|error| {
            let kind = redis::ErrorKind::InvalidClientConfig;
            RedisError::from((
                kind,
                "no name for a certificate",
                error.message().to_owned(),
            ))
        })
    }

    /// As whom connections are made.
    fn credentials(&self) -> Result<Option<Credentials>, RedisError> {
        let url = self.redis.username().map(str::to_owned);
        let credentials = match &self.reach.credentials {
            None => self.redis.password().map(Credentials::of_password),
            Some(provider) => Some(provider.credentials().map_err(|error| {
                let kind = redis::ErrorKind::AuthenticationFailed;
                RedisError::from((kind, "no credentials", error.message().to_owned()))
            })?),
        };
        Ok(credentials.map(|credentials| Credentials {
            user: credentials.user.or(url),
            ..credentials
        }))
    }

    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let resolver = self.reach.resolver.as_ref();
        match resolver.and_then(|resolver| resolver.resolve(host, port)) {
            Some((host, port)) => tcp(&host, port).await,
            None => tcp(host, port).await,
        }
    }

    /// The rest of the greeting, in one round trip: the reply to ROLE, or the error if the server does not offer it.
    pub(crate) async fn greet(&self, io: &MultiplexedConnection) -> Result<Value, RedisError> {
        let mut commands = Vec::new();
        if !matches!(self.redis.protocol(), ProtocolVersion::RESP2) {
            let mut hello = redis::cmd("HELLO");
            hello.arg(3);
            commands.push(hello);
        }
        if self.redis.db() != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(self.redis.db());
            commands.push(select);
        }
        commands.push(redis::cmd("ROLE"));
        let mut replies = send_all(&mut io.clone(), commands).await?;
        let role = replies.pop().unwrap_or(Value::Nil);
        for reply in replies {
            reply.extract_error()?;
        }
        Ok(role)
    }
}

/// Sends several commands in one write: their replies, errors among them.
pub(crate) async fn send_all(
    connection: &mut MultiplexedConnection,
    commands: impl IntoIterator<Item = Cmd>,
) -> Result<Vec<Value>, RedisError> {
    let mut pipeline = redis::pipe();
    for command in commands {
        pipeline.add_command(command);
    }
    connection
        .send_packed_commands(&pipeline, 0, pipeline.len())
        .await
}

/// Says who we are, or that we are here. The library reads nothing before it has sent something, and would miss why a server
/// hangs up at once.
async fn introduce(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credentials: Option<&Credentials>,
) -> Result<(), RedisError> {
    let command = match credentials {
        None => redis::cmd("PING"),
        Some(credentials) => {
            let mut auth = redis::cmd("AUTH");
            auth.arg(credentials.user.as_deref());
            auth.arg(credentials.password.expose_secret());
            auth
        }
    };
    let sent = stream.write_all(&command.get_packed_command()).await;
    let mut line = Vec::new();
    // Its answer is one line, and nothing follows.
    while !line.ends_with(b"\r\n") && line.len() < LONGEST_LINE {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            // What was sent last says more than that nothing more can be.
            Err(error) => return Err(sent.err().unwrap_or(error).into()),
        }
    }
    redis::parse_redis_value(&line)?.extract_error().map(drop)
}

/// A connection over a stream, as somebody.
async fn over<S>(
    mut stream: S,
    credentials: Option<&Credentials>,
) -> Result<(MultiplexedConnection, Driver), RedisError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    introduce(&mut stream, credentials).await?;
    let redis = RedisConnectionInfo::default().set_skip_set_lib_name();
    // How long a reply is waited for is not the connection's to say.
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&redis, stream, settings);
    let (connection, driver) = made.await?;
    Ok((connection, Box::pin(driver)))
}

/// To whichever of the host's addresses answers first.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let attempts: Vec<_> = addresses
        .map(|address| Box::pin(TcpStream::connect(address)))
        .collect();
    if attempts.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the host has no address",
        ));
    }
    let (stream, _others) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle);
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(retries))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}
