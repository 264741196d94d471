//! The other end of a connection, as request extensions tell it.

use std::net::{IpAddr, SocketAddr};

use http::Extensions;

/// The other end of the connection, as a request extension.
///
/// With axum (feature `axum`) the layer finds the `ConnectInfo` and `MockConnectInfo` of a `SocketAddr` or of a `Peer`:
/// `router.into_make_service_with_connect_info::<Peer>()` serves TCP and Unix listeners. With tonic (feature `grpc`) it finds
/// what tonic's server inserts. With plain hyper, insert one for each connection:
///
/// ```
/// # fn example(mut request: http::Request<()>, peer: std::net::SocketAddr) {
/// // let (stream, peer) = listener.accept().await?; and in the connection's service:
/// request.extensions_mut().insert(limiter_http::Peer::Tcp(peer));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "callers match on it, and servers listen on nothing else"
)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A connection over a Unix socket: from a process on this machine, such as a proxy.
    Unix,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// An address whose port is not known.
impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Tcp(SocketAddr::new(address, 0))
    }
}

impl Peer {
    /// The peer that the extensions of a request name.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let own = extensions.get::<Self>().copied();
        own.or_else(|| of_axum(extensions))
            .or_else(|| of_tonic(extensions))
    }
}

#[cfg(not(feature = "axum"))]
fn of_axum(_: &Extensions) -> Option<Peer> {
    None
}

#[cfg(feature = "axum")]
fn of_axum(extensions: &Extensions) -> Option<Peer> {
    use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};

    // The order of axum's own extractor: what is real before what is mocked.
    let address = |address: &SocketAddr| Peer::Tcp(*address);
    None.or_else(|| {
        extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| address(&info.0))
    })
    .or_else(|| extensions.get::<ConnectInfo<Peer>>().map(|info| info.0))
    .or_else(|| {
        extensions
            .get::<MockConnectInfo<SocketAddr>>()
            .map(|info| address(&info.0))
    })
    .or_else(|| extensions.get::<MockConnectInfo<Peer>>().map(|info| info.0))
}

#[cfg(feature = "axum")]
mod of_listeners {
    use axum::extract::connect_info::Connected;
    use axum::serve::IncomingStream;
    use tokio::net::TcpListener;

    use super::Peer;

    impl Connected<IncomingStream<'_, TcpListener>> for Peer {
        fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
            Self::Tcp(*stream.remote_addr())
        }
    }

    #[cfg(unix)]
    impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
        fn connect_info(_: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
            Self::Unix
        }
    }
}

#[cfg(not(feature = "grpc"))]
fn of_tonic(_: &Extensions) -> Option<Peer> {
    None
}

#[cfg(feature = "grpc")]
fn of_tonic(extensions: &Extensions) -> Option<Peer> {
    use tonic::transport::server::TcpConnectInfo;

    let tcp = extensions.get::<TcpConnectInfo>();
    let tcp = tcp.and_then(TcpConnectInfo::remote_addr).map(Peer::Tcp);
    tcp.or_else(|| of_tonic_unix(extensions))
}

#[cfg(all(feature = "grpc", not(unix)))]
fn of_tonic_unix(_: &Extensions) -> Option<Peer> {
    None
}

#[cfg(all(feature = "grpc", unix))]
fn of_tonic_unix(extensions: &Extensions) -> Option<Peer> {
    use tonic::transport::server::UdsConnectInfo;

    extensions.get::<UdsConnectInfo>().map(|_| Peer::Unix)
}
