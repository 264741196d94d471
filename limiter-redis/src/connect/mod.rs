//! How a server is reached: its addresses, the socket, TLS.
//!
//! The Redis library would read the system's certificates from disk for each connection, also where one file names the
//! authority, and leaves the socket's own timeouts unset.

mod tls;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::select_ok;
use limiter_core::Error;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::{RedisConfig, config_error};

pub(crate) use tls::Trust;

/// A network that drops a flow tells nobody: an idle connection is asked after so long, then so often, and is given up
/// after three questions without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// What was sent and is not acknowledged for so long ends the connection.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Moves a connection's bytes, for as long as it lives.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes connections to one server.
pub(crate) struct Connector {
    place: Place,
    redis: RedisConnectionInfo,
}

enum Place {
    Tcp(String, u16),
    Tls(String, u16, TlsConnector, ServerName<'static>),
    Unix(PathBuf),
}

impl Connector {
    /// # Errors
    /// `Config` if TLS is asked for and nobody is trusted.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, Error> {
        let place = match config.connection.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => {
                let client = config.trust.client().ok_or_else(|| {
                    config_error(
                        "no certificate authority was found on this system to check the certificate of a rediss:// server with; install the system's (ca-certificates), or name one with REDIS_TLS_CA_FILE"
                            .to_owned(),
                    )
                })?;
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    config_error(format!("{host:?} is no name that a certificate can have"))
                })?;
                Place::Tls(host.clone(), *port, TlsConnector::from(client), name)
            }
            ConnectionAddr::Tcp(host, port) => Place::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            other => return Err(config_error(format!("{other} is no address known here"))),
        };
        Ok(Self {
            place,
            // The server's first answer, that it is full perhaps, would be lost with the library's name.
            redis: config
                .connection
                .redis_settings()
                .clone()
                .set_skip_set_lib_name(),
        })
    }

    /// A connection that has said who it is, and what drives it.
    pub(crate) async fn connect(&self) -> Result<(MultiplexedConnection, Driver), RedisError> {
        match &self.place {
            Place::Tcp(host, port) => self.over(tcp(host, *port).await?).await,
            Place::Tls(host, port, tls, name) => {
                let stream = tcp(host, *port).await?;
                self.over(tls.connect(name.clone(), stream).await?).await
            }
            Place::Unix(path) => self.over(UnixStream::connect(path).await?).await,
        }
    }

    async fn over<S>(&self, stream: S) -> Result<(MultiplexedConnection, Driver), RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // How long a reply is waited for is not the connection's to say.
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&self.redis, stream, settings);
        let (connection, driver) = made.await?;
        Ok((connection, Box::pin(driver)))
    }
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
