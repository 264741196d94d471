//! Whose request it is, by network address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::HeaderMap;
use http::request::Parts;
use ipnet::{IpNet, Ipv4Net};
use limiter_core::{Error, ErrorKind};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The most `X-Forwarded-For` entries that are read: a longer chain of trusted proxies is no real one,
/// and a client must not choose how much work its request makes.
const MAX_ENTRIES: usize = 32;

/// The address of the connection's other end, as a request extension.
///
/// axum inserts its own with `into_make_service_with_connect_info::<SocketAddr>()` (feature `axum`).
/// With plain hyper, insert this one for each connection:
///
/// ```
/// # fn example(mut request: http::Request<()>, peer: std::net::SocketAddr) {
/// // let (stream, peer) = listener.accept().await?; and in the connection's service:
/// request.extensions_mut().insert(limiter_http::PeerAddr(peer));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// A client as limits see it: an IPv4 address, or the /64 network of an IPv6 address.
///
/// A /64 is what one subscriber gets, and who has one has 2^64 addresses to rotate through. An
/// IPv4-mapped IPv6 address is its IPv4 address. `Display` gives the segment of a key:
///
/// ```
/// use limiter_http::Client;
/// use std::net::IpAddr;
///
/// let client = |text: &str| Client::from(text.parse::<IpAddr>().unwrap()).to_string();
/// assert_eq!(client("203.0.113.9"), "203.0.113.9");
/// assert_eq!(client("::ffff:203.0.113.9"), "203.0.113.9");
/// assert_eq!(client("2001:db8:0:1:a:b:c:d"), "2001:db8:0:1::/64");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(Network);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    /// The first address of the /64.
    V6(Ipv6Addr),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => Network::V4(address),
            IpAddr::V6(address) => Network::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Network::V4(address) => write!(f, "{address}"),
            Network::V6(first) => write!(f, "{first}/64"),
        }
    }
}

/// How a client's address is found.
///
/// The default is the connection's peer, and `X-Forwarded-For` is ignored: whoever sends a request
/// can write any address into it. Behind proxies, name them: if the peer is one of them, the header is
/// read from the right, which is the end that proxies append to, and the first address that is no
/// trusted proxy is the client. The leftmost address is never believed for its place.
///
/// A malformed entry ends the search, and so does the 32nd: the client is then the last address that
/// a trusted proxy vouched for. Entries may have ports.
///
/// ```
/// use http::HeaderMap;
/// use limiter_http::{Client, ClientAddress};
/// use std::net::IpAddr;
///
/// let client = ClientAddress::default().trusted_proxies(["10.0.0.0/8"])?;
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7".parse().unwrap());
/// let peer: IpAddr = "10.0.0.2".parse().unwrap();
/// assert_eq!(client.resolve(peer, &headers).to_string(), "203.0.113.9");
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientAddress {
    trusted: Arc<[IpNet]>,
}

impl ClientAddress {
    /// The networks of the proxies whose `X-Forwarded-For` is believed, in CIDR notation
    /// (`10.0.0.0/8`, `2001:db8::/32`) or as single addresses, in place of those set before.
    ///
    /// # Errors
    /// `Config` for what is neither, and for a network of all addresses: then every client would be a
    /// trusted proxy, and could name itself.
    pub fn trusted_proxies<S: AsRef<str>>(
        self,
        networks: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let trusted = networks
            .into_iter()
            .map(|text| parse_network(text.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self { trusted })
    }

    /// The client of a request; `None` if the request carries no peer address (see [`PeerAddr`]).
    pub fn of(&self, request: &Parts) -> Option<Client> {
        let peer = peer(request)?;
        Some(self.resolve(peer.ip(), &request.headers))
    }

    /// The client behind a peer, given the headers that the peer sent.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let mut nearest = peer.to_canonical();
        if self.trusts(nearest) {
            for entry in entries_from_the_right(headers).take(MAX_ENTRIES) {
                let Some(address) = parse_entry(entry) else {
                    break;
                };
                nearest = address;
                if !self.trusts(nearest) {
                    break;
                }
            }
        }
        Client::from(nearest)
    }

    /// `address` is canonical, as are the networks.
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

#[cfg(not(feature = "axum"))]
fn peer(request: &Parts) -> Option<SocketAddr> {
    request.extensions.get::<PeerAddr>().map(|peer| peer.0)
}

#[cfg(feature = "axum")]
fn peer(request: &Parts) -> Option<SocketAddr> {
    use axum::extract::ConnectInfo;

    let own = request.extensions.get::<PeerAddr>().map(|peer| peer.0);
    own.or_else(|| {
        let axum = request.extensions.get::<ConnectInfo<SocketAddr>>();
        axum.map(|peer| peer.0)
    })
}

/// Several lines of one name are one list (RFC 9110, section 5.3).
fn entries_from_the_right(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`; canonical.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match in_brackets {
        Some(text) => IpAddr::V6(text.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

fn parse_network(text: &str) -> Result<IpNet, Error> {
    let text = text.trim();
    let refused = |why: &str| {
        Error::new(
            ErrorKind::Config,
            "http.trusted_proxies",
            format!("{text:?} {why}; give a network such as 10.0.0.0/8 or one address"),
        )
    };
    let net = text
        .parse()
        .or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)))
        .map_err(|error| refused("is no network").with_source(error))?;
    let net = canonical(net);
    if net.prefix_len() == 0 {
        return Err(refused("would trust every client"));
    }
    Ok(net)
}

/// A network of IPv4-mapped addresses as the IPv4 network that it is.
fn canonical(net: IpNet) -> IpNet {
    let prefix = net.prefix_len().checked_sub(96);
    match (net.addr().to_canonical(), prefix) {
        (IpAddr::V4(address), Some(prefix)) if net.addr().is_ipv6() => {
            Ipv4Net::new(address, prefix).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

#[cfg(test)]
mod tests;
