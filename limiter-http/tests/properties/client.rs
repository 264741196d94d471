//! Any `X-Forwarded-For`; `oracle::client::check` asserts, for the fuzz target too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::client::{Network, check};

/// Few enough that chains of trusted proxies come up.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (0u8..3, 0u8..3).prop_map(|(b, d)| IpAddr::from([10, b, 0, d])),
        2 => (0u16..3, 0u16..3)
            .prop_map(|(c, h)| IpAddr::from([0x2001, 0xdb8, c, 0, 0, 0, 0, h])),
        1 => (0u8..3).prop_map(|d| {
            IpAddr::V6(Ipv4Addr::new(10, 0, 0, d).to_ipv6_mapped())
        }),
        1 => select(vec![[0x64, 0xff9b, 0], [0x64, 0xff9b, 1], [0, 0, 0]])
            .prop_flat_map(|[a, b, c]| (any::<u16>(), any::<u16>(), select(vec![0, 0xffff]))
                .prop_map(move |(g, h, e)| IpAddr::from([a, b, c, 0, e, 0, g, h]))),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn network() -> impl Strategy<Value = Network> {
    let prefix = prop_oneof![
        any::<u8>(),
        select(vec![8, 16, 24, 32, 48, 64, 96, 104, 128])
    ];
    (address(), prefix).prop_map(|(address, prefix)| Network { address, prefix })
}

/// An entry of the list, mostly one that proxies write.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let port = prop_oneof![Just(80u32), 0u32..70_000];
    let text = prop_oneof![
        8 => address().prop_map(|address| address.to_string()),
        2 => (address(), port).prop_map(|(address, port)| match address {
            IpAddr::V4(address) => format!("{address}:{port}"),
            IpAddr::V6(address) => format!("[{address}]:{port}"),
        }),
        1 => address().prop_map(|address| format!("[{address}]")),
        1 => address().prop_map(|address| format!("\t {address} ")),
        1 => "[0-9a-f:.%\\[\\] ]{0,20}",
        1 => select(vec!["", "unknown", "_hidden", "for=1.1.1.1", "\u{a0}10.0.0.1\u{2003}"])
            .prop_map(str::to_owned),
    ];
    prop_oneof![
        15 => text.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(entry(), 0..6).prop_map(|entries| entries.join(&b',')),
        // Around the most entries that are read.
        1 => vec(0u8..9, 25..40).prop_map(|hosts| {
            let hops: Vec<_> = hosts.iter().map(|host| format!("10.0.0.{host}")).collect();
            hops.join(", ").into_bytes()
        }),
        1 => vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Known fault: "the leftmost X-Forwarded-For is the attacker's": over any bytes and any chain.
    #[test]
    fn the_client_is_the_first_stranger_from_the_right(
        trusted in vec(network(), 0..4), peer in address(), lines in vec(line(), 0..4),
    ) {
        check(&trusted, peer, &lines);
    }

    /// The same with networks that most of the chain lies in, so that the search goes far.
    #[test]
    fn long_chains_of_trusted_proxies_are_followed(
        peer in address(), lines in vec(line(), 0..6),
    ) {
        let trusted = |address, prefix| Network { address, prefix };
        let trusted = [
            trusted(IpAddr::from([10, 0, 0, 0]), 15),
            trusted(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 47),
        ];
        check(&trusted, peer, &lines);
    }
}
