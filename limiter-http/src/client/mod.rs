//! Whose request it is, by network address.

mod forwarded;
mod peer;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use http::header::{FORWARDED, HeaderMap, HeaderName};
use http::request::Parts;
use ipnet::{IpNet, Ipv4Net};
use limiter_core::{Error, ErrorKind};

pub use self::peer::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How Unix sockets are written among the trusted proxies.
const UNIX: &str = "unix:";

/// A client as limits see it: an IPv4 address, an IPv6 network, or the processes behind a Unix socket.
///
/// Who has an IPv6 network has 2^64 addresses and more to rotate through, so a network is one client: a /64 unless
/// [`ClientAddress::ipv6_prefix`] says otherwise. An IPv6 address that stands for an IPv4 one is that IPv4 address: mapped
/// (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`, RFC 6052) and SIIT (`::ffff:0:0:0/96`, RFC 2765); else all of IPv4 would be one
/// client behind such a translator. In `64:ff9b:1::/48` (RFC 8215) nobody can tell where the IPv4 address stands, so each
/// address there is a client. `Display` gives the segment of a key:
///
/// ```
/// use limiter_http::Client;
/// use std::net::IpAddr;
///
/// let client = |text: &str| Client::from(text.parse::<IpAddr>().unwrap()).to_string();
/// assert_eq!(client("203.0.113.9"), "203.0.113.9");
/// assert_eq!(client("::ffff:203.0.113.9"), "203.0.113.9");
/// assert_eq!(client("64:ff9b::203.0.113.9"), "203.0.113.9");
/// assert_eq!(client("2001:db8:0:1:a:b:c:d"), "2001:db8:0:1::/64");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(Network);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    V6 {
        /// Without the bits of hosts.
        first: Ipv6Addr,
        prefix: u8,
    },
    Unix,
}

/// What one subscriber gets at least (RFC 6177).
const IPV6_PREFIX: u8 = 64;

/// The local-use prefix of translators, within which operators choose where the IPv4 address stands.
const LOCAL_NAT64: [u16; 3] = [0x64, 0xff9b, 1];

impl Client {
    fn new(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => return Self(Network::V4(address)),
            IpAddr::V6(address) => address,
        };
        if let Some(inside) = ipv4_inside(address) {
            return Self(Network::V4(inside));
        }
        let prefix = if address.segments().starts_with(&LOCAL_NAT64) {
            128
        } else {
            prefix
        };
        // A prefix of 0 would shift everything out; settings begin at 48.
        let hosts = 128 - u32::from(prefix.clamp(1, 128));
        let first = Ipv6Addr::from_bits(address.to_bits() >> hosts << hosts);
        Self(Network::V6 { first, prefix })
    }
}

/// The IPv4 address that an IPv6 one stands for.
fn ipv4_inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let is_in = |prefix: [u16; 6]| {
        let [a, b, c, d, e, f] = prefix;
        bits >> 32 == Ipv6Addr::new(a, b, c, d, e, f, 0, 0).to_bits() >> 32
    };
    let mapped = [0, 0, 0, 0, 0, 0xffff];
    let translated = [0, 0, 0, 0, 0xffff, 0];
    let nat64 = [0x64, 0xff9b, 0, 0, 0, 0];
    [mapped, translated, nat64].into_iter().any(is_in).then(|| {
        let [.., a, b, c, d] = address.octets();
        Ipv4Addr::new(a, b, c, d)
    })
}

/// With a /64 for IPv6.
impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self::new(address, IPV6_PREFIX)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Network::V4(address) => write!(f, "{address}"),
            Network::V6 { first, prefix } => write!(f, "{first}/{prefix}"),
            Network::Unix => f.write_str("unix"),
        }
    }
}

/// How a client's address is found.
///
/// The default is the connection's peer, and every header is ignored: whoever sends a request can write any address into
/// it. Behind proxies, say which of them are believed ([`trusted_proxies`](Self::trusted_proxies)) or how many there are
/// ([`hops`](Self::hops)), and where they write the address:
///
/// | | Header | |
/// |---|---|---|
/// | default | `X-Forwarded-For` | a list, to which each proxy appends the address that it saw |
/// | [`forwarded`](Self::forwarded) | `Forwarded` | the same as RFC 7239 writes it |
/// | [`header`](Self::header) | `X-Real-IP`, `CF-Connecting-IP`, ... | one address, which the proxy sets itself |
///
/// A list is read from the right, which is the end that proxies append to, and the first address that is no trusted proxy is
/// the client. The leftmost address is never believed for its place. Empty elements are skipped. A malformed entry ends the
/// search, and so does the 32nd: the client is then the last address that a trusted proxy vouched for. Entries may have
/// ports.
///
/// ```
/// use http::HeaderMap;
/// use limiter_http::ClientAddress;
/// use std::net::IpAddr;
///
/// let client = ClientAddress::default().trusted_proxies(["10.0.0.0/8"])?;
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7".parse().unwrap());
/// let peer: IpAddr = "10.0.0.2".parse().unwrap();
/// assert_eq!(client.resolve(peer, &headers).to_string(), "203.0.113.9");
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientAddress {
    trusted: Arc<[IpNet]>,
    trusts_unix: bool,
    hops: Option<NonZeroUsize>,
    written: Written,
    prefix: u8,
}

/// Where proxies write the address.
#[derive(Clone, Debug)]
enum Written {
    XForwardedFor,
    Forwarded,
    Header(HeaderName),
}

impl Default for ClientAddress {
    fn default() -> Self {
        Self {
            trusted: Arc::default(),
            trusts_unix: false,
            hops: None,
            written: Written::XForwardedFor,
            prefix: IPV6_PREFIX,
        }
    }
}

impl ClientAddress {
    /// The networks of the proxies that are believed, in CIDR notation (`10.0.0.0/8`, `2001:db8::/32`), as single
    /// addresses, or `unix:` for whoever connects over a Unix socket; in place of those set before.
    ///
    /// # Errors
    /// `Config` for what is neither, and for a network of all addresses: then every client would be a
    /// trusted proxy, and could name itself.
    pub fn trusted_proxies<S: AsRef<str>>(
        self,
        networks: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let mut trusted = Vec::new();
        let mut trusts_unix = false;
        for text in networks {
            match text.as_ref().trim() {
                UNIX => trusts_unix = true,
                text => trusted.push(parse_network(text)?),
            }
        }
        Ok(Self {
            trusted: trusted.into(),
            trusts_unix,
            ..self
        })
    }

    /// How many proxies stand in front of this service, each of which appends one entry to the list: the client is the entry
    /// of this number from the right, whoever the peer is; the leftmost if there are fewer. For proxies whose addresses are
    /// not known, such as a cloud's load balancer.
    ///
    /// The number must be exact, and nobody must reach the service around a proxy: with a larger one, or over a shorter way,
    /// a client chooses its own address. A single-address [`header`](Self::header) is then believed from any peer. Where trusted
    /// proxies are set as well, the header counts only if the peer is one of them.
    ///
    /// # Errors
    /// `Config` unless it is 1 to 32.
    pub fn hops(self, proxies: usize) -> Result<Self, Error> {
        let hops = NonZeroUsize::new(proxies).filter(|hops| hops.get() <= forwarded::MAX_ENTRIES);
        let hops = hops.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "http.hops",
                format!(
                    "{proxies} proxies cannot be counted; give 1 to {}",
                    forwarded::MAX_ENTRIES
                ),
            )
        })?;
        Ok(Self {
            hops: Some(hops),
            ..self
        })
    }

    /// Proxies write `Forwarded` (RFC 7239), and `X-Forwarded-For` is ignored. `unknown`, a hidden name and an element
    /// without `for` end the search.
    #[must_use]
    pub fn forwarded(self) -> Self {
        Self {
            written: Written::Forwarded,
            ..self
        }
    }

    /// The proxy in front writes the client's address, and nothing else, into this header; lists are ignored. Only for a
    /// header that this proxy always sets: one that it passes on is the client's to write. Sent twice, or malformed, it says
    /// nothing.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        Self {
            written: Written::Header(name),
            ..self
        }
    }

    /// How many bits of an IPv6 address name a client: 48 to 128, 64 unless this says otherwise.
    ///
    /// A /64 is one network of a subscriber. Many providers delegate a /56 or a /48 to each (RFC 6177), which is 256 or 65,536
    /// such networks: who wants to count subscribers chooses 56 or 48, and counts several subscribers of other providers
    /// together.
    ///
    /// # Errors
    /// `Config` unless it is 48 to 128.
    pub fn ipv6_prefix(self, bits: u8) -> Result<Self, Error> {
        if !(48..=128).contains(&bits) {
            return Err(Error::new(
                ErrorKind::Config,
                "http.ipv6_prefix",
                format!("/{bits} names no client; give 48 to 128 bits, such as 56 or 64"),
            ));
        }
        Ok(Self {
            prefix: bits,
            ..self
        })
    }

    /// The client of a request; `None` if the request carries no peer (see [`Peer`]).
    pub fn of(&self, request: &Parts) -> Option<Client> {
        let peer = Peer::of(&request.extensions)?;
        Some(self.resolve(peer, &request.headers))
    }

    /// The client behind a peer, given the headers that the peer sent.
    pub fn resolve(&self, peer: impl Into<Peer>, headers: &HeaderMap) -> Client {
        let peer = match peer.into() {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        };
        let trusts_nobody = self.trusted.is_empty() && !self.trusts_unix;
        let is_believed = match self.hops {
            Some(_) if trusts_nobody => true,
            _ => peer.map_or(self.trusts_unix, |address| self.trusts(address)),
        };
        let found = if is_believed {
            self.told(headers)
        } else {
            None
        };
        match found.or(peer) {
            Some(address) => Client::new(address, self.prefix),
            None => Client(Network::Unix),
        }
    }

    /// What a peer that is believed says.
    fn told(&self, headers: &HeaderMap) -> Option<IpAddr> {
        match &self.written {
            Written::XForwardedFor => self.farthest(
                forwarded::from_the_right(headers, &X_FORWARDED_FOR).map(forwarded::address),
            ),
            Written::Forwarded => self.farthest(
                forwarded::from_the_right(headers, &FORWARDED).map(forwarded::forwarded_for),
            ),
            Written::Header(name) => {
                let mut values = headers.get_all(name).iter();
                let only = values.next().filter(|_| values.next().is_none())?;
                forwarded::address(only.as_bytes())
            }
        }
    }

    /// The last address that was vouched for, of those from the right.
    fn farthest(&self, addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let vouched = addresses.map_while(|address| address);
        if let Some(hops) = self.hops {
            return vouched.take(hops.get()).last();
        }
        let mut nearest = None;
        for address in vouched {
            nearest = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        nearest
    }

    /// `address` is canonical, as are the networks.
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

fn parse_network(text: &str) -> Result<IpNet, Error> {
    let refused = |why: &str| {
        Error::new(
            ErrorKind::Config,
            "http.trusted_proxies",
            format!("{text:?} {why}; give a network such as 10.0.0.0/8, one address, or unix:"),
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
