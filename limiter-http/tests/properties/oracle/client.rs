//! Whose address counts, worked out again from the definition: all addresses as 128 bits, IPv4 ones
//! in their mapped form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HeaderMap, HeaderValue};
use limiter_http::ClientAddress;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const MOST_ENTRIES: usize = 32;

/// A network as it is written into a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) address: IpAddr,
    /// Reduced to the address's number of bits.
    pub(crate) prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix())
    }
}

impl Network {
    fn prefix(&self) -> u8 {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        self.prefix % (bits + 1)
    }

    /// The prefix over 128 bits.
    fn length(&self) -> u32 {
        u32::from(self.prefix()) + if self.address.is_ipv4() { 96 } else { 0 }
    }

    fn is_of_ipv4(&self) -> bool {
        is_ipv4(wide(self.address)) && self.length() >= 96
    }

    /// A network of all clients is refused.
    fn is_everything(&self) -> bool {
        self.length() == if self.is_of_ipv4() { 96 } else { 0 }
    }

    fn contains(&self, address: u128) -> bool {
        let shift = 128 - self.length();
        let differing = (address ^ wide(self.address)).checked_shr(shift);
        self.is_of_ipv4() == is_ipv4(address) && differing.unwrap_or(0) == 0
    }
}

/// Resolves the client of a request with these `X-Forwarded-For` lines from `peer` and judges the
/// answer. A line that no header can hold is left out.
pub(crate) fn check(trusted: &[Network], peer: IpAddr, lines: &[Vec<u8>]) {
    let setting = ClientAddress::default().trusted_proxies(trusted.iter().map(Network::to_string));
    if trusted.iter().any(Network::is_everything) {
        assert!(setting.is_err(), "{trusted:?} trusts everybody");
        return;
    }
    let setting = setting.unwrap();
    let lines: Vec<_> = lines
        .iter()
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let mut headers = HeaderMap::new();
    for line in &lines {
        headers.append(X_FORWARDED_FOR, line.clone());
    }
    let client = setting.resolve(peer, &headers).to_string();

    let trusts = |address: u128| trusted.iter().any(|network| network.contains(address));
    let (expected, ended) = expected(trusts, wide(peer), &lines);
    assert_eq!(
        client,
        shown(expected),
        "{peer} with {lines:?}, trusting {trusted:?}"
    );

    // What stands to the left of where the search ended is anybody's to write.
    if ended {
        let mut forged = HeaderMap::new();
        forged.append(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.66"));
        for line in &lines {
            forged.append(X_FORWARDED_FOR, line.clone());
        }
        assert_eq!(setting.resolve(peer, &forged).to_string(), client);
    }
    check_forwarded(&setting, peer, &lines, &client, trusts(wide(peer)));
    // Only the header that proxies are known to append to is read.
    headers.insert("forwarded", HeaderValue::from_static("for=198.51.100.66"));
    headers.insert("x-real-ip", HeaderValue::from_static("198.51.100.66"));
    assert_eq!(setting.resolve(peer, &headers).to_string(), client);
}

/// The same chain as `Forwarded` writes it has the same client; and whatever bytes stand there, a stranger stays who it is.
fn check_forwarded(
    setting: &ClientAddress,
    peer: IpAddr,
    lines: &[HeaderValue],
    client: &str,
    is_trusted: bool,
) {
    let setting = setting.clone().forwarded();
    let mut headers = HeaderMap::new();
    for (number, line) in lines.iter().enumerate() {
        let elements = line.as_bytes().split(|byte| *byte == b',');
        let elements: Vec<String> = elements.map(|entry| element(entry, number)).collect();
        let line = HeaderValue::try_from(elements.join(",")).unwrap();
        headers.append("forwarded", line);
    }
    let found = setting.resolve(peer, &headers).to_string();
    assert_eq!(found, client, "{peer} with {headers:?}");
    let mut any = HeaderMap::new();
    for line in lines {
        any.append("forwarded", line.clone());
    }
    let found = setting.resolve(peer, &any).to_string();
    if !is_trusted {
        assert_eq!(found, shown(wide(peer)));
    }
}

/// An entry of `X-Forwarded-For` as an element of `Forwarded`, in one of its forms.
fn element(entry: &[u8], form: usize) -> String {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    if entry.iter().all(blank) {
        return " ".to_owned();
    }
    let Some(address) = address(entry) else {
        return "for=unknown".to_owned();
    };
    let address = Ipv6Addr::from(address);
    let text = match address.to_ipv4_mapped() {
        Some(address) if form.is_multiple_of(2) => format!("for={address}"),
        Some(address) => format!("for=\"{address}:80\""),
        None => format!("for=\"[{address}]\""),
    };
    match form % 3 {
        0 => text,
        1 => format!("by=\"a,b;for=1.1.1.1\"; {text};proto=https"),
        _ => format!("Proto=http;FOR{}", &text[3..]),
    }
}

/// The client, and whether the search ended before the entries did.
fn expected(trusts: impl Fn(u128) -> bool, peer: u128, lines: &[HeaderValue]) -> (u128, bool) {
    let chain = lines
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b',');
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut entries: Vec<&[u8]> = chain.split(|byte| *byte == b',').collect();
    entries.retain(|entry| !entry.iter().all(blank));
    let mut client = peer;
    let mut read = 0;
    while trusts(client) {
        if read == MOST_ENTRIES {
            return (client, true);
        }
        let Some(entry) = entries.pop() else {
            return (client, false);
        };
        read += 1;
        match address(entry) {
            Some(address) => client = address,
            None => return (client, true),
        }
    }
    (client, true)
}

fn address(entry: &[u8]) -> Option<u128> {
    let text = String::from_utf8(entry.to_vec()).ok()?;
    let text = text.trim();
    let bare = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    bare.or_else(with_port).or_else(in_brackets).map(wide)
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) | 0xffff << 32,
        IpAddr::V6(address) => u128::from(address),
    }
}

fn is_ipv4(wide: u128) -> bool {
    wide >> 32 == 0xffff
}

/// The segment of a key: an IPv4 address, the first address of a /64, or one address where operators choose the form.
fn shown(wide: u128) -> String {
    let nat64 = 0x0064_ff9b_u128 << 64;
    let translated = 0xffff_u128 << 16;
    if is_ipv4(wide) || [nat64, translated].contains(&(wide >> 32)) {
        let octets = wide.to_be_bytes();
        return Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]).to_string();
    }
    if wide >> 80 == 0x0064_ff9b_0001 {
        return format!("{}/128", Ipv6Addr::from(wide));
    }
    let network = wide & !u128::from(u64::MAX);
    format!("{}/64", Ipv6Addr::from(network))
}
