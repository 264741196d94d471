//! Who the client is behind any proxies, for any lines of `X-Forwarded-For`.

use std::net::IpAddr;

use crate::bytes::Bytes;
use crate::oracle::client::{Network, check};

/// How many networks are trusted, a kind for each; a kind of peer; and lines.
pub const SEEDS: &[&[u8]] = &[
    b"\x01\x00\x001.1.1.1, 203.0.113.9, 10.0.0.7",
    b"\x02\x00\x01\x011.1.1.1\n[2001:db8::7]:443,10.1.2.3:80\n::ffff:10.0.0.9",
    b"\x01\x02\x00unknown, [::ffff:10.0.0.1], _x, 2001:db8:0:1:a:b:c:d",
    b"\x01\x00\x0010.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,\
      10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,\
      10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,\
      10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1",
];

/// Resolves a client and compares it with the oracle's.
pub fn target(data: &[u8]) {
    let mut bytes = Bytes(data);
    let networks = bytes.byte() % 4;
    let trusted: Vec<_> = (0..networks).map(|_| network(&mut bytes)).collect();
    let peer = match bytes.byte() % 4 {
        0 => IpAddr::from([10, 0, 0, 2]),
        1 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]),
        2 => IpAddr::from(bytes.array::<4>()),
        _ => IpAddr::from(bytes.array::<16>()),
    };
    let lines: Vec<_> = bytes
        .rest()
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    check(&trusted, peer, &lines);
}

fn network(bytes: &mut Bytes<'_>) -> Network {
    let (address, prefix) = match bytes.byte() % 5 {
        0 => (IpAddr::from([10, 0, 0, 0]), 8),
        1 => (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 32),
        2 => (IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0]), 104),
        3 => (IpAddr::from(bytes.array::<4>()), bytes.byte()),
        _ => (IpAddr::from(bytes.array::<16>()), bytes.byte()),
    };
    Network { address, prefix }
}
