use std::net::SocketAddr;

use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.2";
const CLIENT: &str = "203.0.113.9";

fn behind_proxies() -> ClientAddress {
    ClientAddress::default()
        .trusted_proxies(["10.0.0.0/8", "2001:db8:ffff::/48"])
        .unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The client for a peer and lines of `X-Forwarded-For`.
fn resolve(peer: &str, lines: &[&str]) -> String {
    let mut headers = HeaderMap::new();
    for line in lines {
        let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
        headers.append(X_FORWARDED_FOR, value);
    }
    behind_proxies().resolve(ip(peer), &headers).to_string()
}

#[test]
fn the_header_of_a_stranger_is_ignored() {
    assert_eq!(resolve(CLIENT, &["1.1.1.1"]), CLIENT);
    let by_default = ClientAddress::default();
    let mut headers = HeaderMap::new();
    headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
    let client = by_default.resolve(ip(PROXY), &headers);
    assert_eq!(client.to_string(), PROXY);
}

#[test]
fn the_first_untrusted_address_from_the_right_is_the_client() {
    for lines in [
        &[CLIENT][..],
        &["1.1.1.1, 203.0.113.9"],
        &["1.1.1.1,203.0.113.9 ,10.1.2.3,\t10.0.0.9"],
        &["1.1.1.1", "203.0.113.9", "10.1.2.3"],
        &["203.0.113.9, 10.1.2.3", "[2001:db8:ffff::1]:443"],
        &["203.0.113.9:50000"],
        &["::ffff:203.0.113.9"],
        &["[::ffff:203.0.113.9]:50000, ::ffff:10.0.0.9"],
    ] {
        assert_eq!(resolve(PROXY, lines), CLIENT, "{lines:?}");
    }
    assert_eq!(resolve("::ffff:10.0.0.2", &[CLIENT]), CLIENT);
    assert_eq!(resolve(PROXY, &["[2001:db8::1]"]), "2001:db8::/64");
}

#[test]
fn a_malformed_entry_ends_the_search_at_the_nearest_hop() {
    for (lines, expected) in [
        (&["1.1.1.1, unknown"][..], PROXY),
        (&["1.1.1.1, unknown, 10.0.0.9"], "10.0.0.9"),
        (&["1.1.1.1, 2.2.2.2:99999"], PROXY),
        (&["1.1.1.1, [2.2.2.2]"], PROXY),
        (&["1.1.1.1, \u{fe}"], PROXY),
        (&[""], PROXY),
        (&[], PROXY),
    ] {
        assert_eq!(resolve(PROXY, lines), expected, "{lines:?}");
    }
}

/// Known fault: an empty element ended the search, and every client behind that proxy was one.
#[test]
fn empty_elements_are_skipped() {
    for lines in [
        &["1.1.1.1, 203.0.113.9, "][..],
        &["1.1.1.1, 203.0.113.9,,  , 10.0.0.7,"],
        &["203.0.113.9", "", " ,10.0.0.7"],
    ] {
        assert_eq!(resolve(PROXY, lines), CLIENT, "{lines:?}");
    }
    let padding = ",".repeat(5_000);
    assert_eq!(resolve(PROXY, &[&format!("{CLIENT}{padding}")]), CLIENT);
}

/// Known fault: NAT64 put all of IPv4 into one /64 (jellyfin-plugin-sso#194).
#[test]
fn an_address_that_stands_for_an_ipv4_one_is_that_one() {
    for text in [
        "::ffff:203.0.113.9",
        "64:ff9b::203.0.113.9",
        "64:ff9b::cb00:7109",
        "::ffff:0:203.0.113.9",
    ] {
        assert_eq!(resolve(text, &[]), CLIENT, "{text}");
        assert_eq!(resolve(PROXY, &[text]), CLIENT, "{text}");
    }
    // A trusted network is not reached through a translator.
    assert_eq!(resolve("64:ff9b::10.0.0.2", &["1.1.1.1"]), "10.0.0.2");
    // Each is its own where nobody can tell the IPv4 address inside.
    assert_eq!(resolve("64:ff9b:1::1", &[]), "64:ff9b:1::1/128");
    assert_eq!(resolve("64:ff9b:2::1", &[]), "64:ff9b:2::/64");
    assert_eq!(resolve("::1", &[]), "::/64");
}

#[test]
fn the_prefix_of_ipv6_is_a_setting() {
    let client = |prefix| {
        let setting = ClientAddress::default().ipv6_prefix(prefix).unwrap();
        let headers = HeaderMap::new();
        setting
            .resolve(ip("2001:db8:aa:bbcc:d:e:f:9"), &headers)
            .to_string()
    };
    assert_eq!(client(48), "2001:db8:aa::/48");
    assert_eq!(client(56), "2001:db8:aa:bb00::/56");
    assert_eq!(client(64), "2001:db8:aa:bbcc::/64");
    assert_eq!(client(128), "2001:db8:aa:bbcc:d:e:f:9/128");
    for wrong in [0, 32, 47, 129, 255] {
        let error = ClientAddress::default().ipv6_prefix(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
}

#[test]
fn the_entry_of_a_hop_count_is_the_client() {
    let client = |hops, peer: &str, line: &str| {
        let setting = ClientAddress::default().hops(hops).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, line.parse().unwrap());
        setting.resolve(ip(peer), &headers).to_string()
    };
    let line = "1.1.1.1, 203.0.113.9, 198.51.100.7";
    // The load balancer's address is nobody's to know.
    assert_eq!(client(1, "192.0.2.1", line), "198.51.100.7");
    assert_eq!(client(2, "192.0.2.1", line), CLIENT);
    assert_eq!(client(3, "192.0.2.1", line), "1.1.1.1");
    assert_eq!(
        client(9, "192.0.2.1", line),
        "1.1.1.1",
        "fewer than counted"
    );
    assert_eq!(client(1, "192.0.2.1", ""), "192.0.2.1");
    assert_eq!(
        client(2, "192.0.2.1", "1.1.1.1, unknown, 198.51.100.7"),
        "198.51.100.7"
    );
    // Counted behind a proxy that is known, and not behind a stranger.
    let both = || behind_proxies().hops(2).unwrap();
    let lines = [("x-forwarded-for", line)];
    assert_eq!(resolve_named(both(), PROXY, &lines), CLIENT);
    assert_eq!(resolve_named(both(), "192.0.2.1", &lines), "192.0.2.1");
    for wrong in [0, 33] {
        let error = ClientAddress::default().hops(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
}

/// The client behind the trusted proxies for headers of any names.
fn resolve_named(setting: ClientAddress, peer: &str, lines: &[(&'static str, &str)]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    setting.resolve(ip(peer), &headers).to_string()
}

#[test]
fn forwarded_is_read_where_it_is_chosen() {
    let client = |peer: &str, lines: &[(&'static str, &str)]| {
        resolve_named(behind_proxies().forwarded(), peer, lines)
    };
    let line = r#"for=1.1.1.1, for=203.0.113.9;proto=https, by=x;for="[2001:db8:ffff::1]:443""#;
    assert_eq!(client(PROXY, &[("forwarded", line)]), CLIENT);
    assert_eq!(client(CLIENT, &[("forwarded", "for=1.1.1.1")]), CLIENT);
    let other = [("x-forwarded-for", "1.1.1.1")];
    assert_eq!(
        client(PROXY, &other),
        PROXY,
        "the other header is a client's to write"
    );
    assert_eq!(
        client(PROXY, &[("forwarded", "for=1.1.1.1, for=unknown")]),
        PROXY
    );
    let open = "for=\"1.1.1.1, for=203.0.113.9";
    assert_eq!(
        client(PROXY, &[("forwarded", open)]),
        CLIENT,
        "a quote that a client left open"
    );
    assert_eq!(
        resolve_named(behind_proxies(), PROXY, &[("forwarded", "for=1.1.1.1")]),
        PROXY
    );
}

#[test]
fn a_header_with_one_address_is_believed_of_a_proxy_alone() {
    for name in ["x-real-ip", "cf-connecting-ip"] {
        let setting = || behind_proxies().header(HeaderName::from_static(name));
        let client =
            |peer: &str, lines: &[(&'static str, &str)]| resolve_named(setting(), peer, lines);
        assert_eq!(client(PROXY, &[(name, CLIENT)]), CLIENT);
        assert_eq!(client(PROXY, &[(name, "2001:db8:1::9")]), "2001:db8:1::/64");
        assert_eq!(client("198.51.100.7", &[(name, CLIENT)]), "198.51.100.7");
        assert_eq!(client(PROXY, &[(name, CLIENT), (name, "1.1.1.1")]), PROXY);
        assert_eq!(client(PROXY, &[(name, "1.1.1.1, 203.0.113.9")]), PROXY);
        assert_eq!(client(PROXY, &[("x-forwarded-for", "1.1.1.1")]), PROXY);
    }
}

#[test]
fn a_unix_socket_is_a_proxy_where_it_is_trusted() {
    let mut headers = HeaderMap::new();
    headers.insert(
        X_FORWARDED_FOR,
        HeaderValue::from_static("1.1.1.1, 203.0.113.9"),
    );
    let behind = |setting: ClientAddress| setting.resolve(Peer::Unix, &headers).to_string();
    assert_eq!(behind(ClientAddress::default()), "unix");
    let trusting = ClientAddress::default()
        .trusted_proxies(["unix:", "10.0.0.0/8"])
        .unwrap();
    assert_eq!(behind(trusting.clone()), CLIENT);
    assert_eq!(
        trusting.resolve(Peer::Unix, &HeaderMap::new()).to_string(),
        "unix"
    );
    assert_eq!(behind(ClientAddress::default().hops(2).unwrap()), "1.1.1.1");
}

#[test]
fn a_chain_of_trusted_proxies_only_ends_at_its_far_end() {
    assert_eq!(resolve(PROXY, &["10.0.0.7, 10.0.0.8"]), "10.0.0.7");
}

#[test]
fn the_number_of_entries_is_bounded() {
    let chain = |hops: usize| {
        let hops: Vec<_> = (0..hops).map(|hop| format!("10.1.0.{hop}")).collect();
        resolve(PROXY, &[&format!("{CLIENT},{}", hops.join(","))])
    };
    assert_eq!(chain(31), CLIENT);
    assert_eq!(chain(32), "10.1.0.0");
    assert_eq!(chain(40), "10.1.0.8");
}

#[test]
fn networks_are_checked_when_they_are_set() {
    let set = |text: &str| ClientAddress::default().trusted_proxies([text]);
    for text in [
        "10.0.0.0/33",
        "proxy.internal",
        "",
        "0.0.0.0/0",
        "::/0",
        "::ffff:0:0/96",
    ] {
        let error = set(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.message().contains(&format!("{text:?}")), "{error}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(X_FORWARDED_FOR, HeaderValue::from_static(CLIENT));
    for text in [
        "10.0.0.2",
        "10.0.0.0/8",
        " 10.0.0.2/31 ",
        "::ffff:10.0.0.0/104",
    ] {
        let client = set(text).unwrap().resolve(ip(PROXY), &headers);
        assert_eq!(client.to_string(), CLIENT, "{text}");
    }
}

#[test]
fn the_peer_comes_from_the_request() {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    assert_eq!(ClientAddress::default().of(&parts), None);
    let peer: SocketAddr = "203.0.113.9:50000".parse().unwrap();
    parts.extensions.insert(Peer::Tcp(peer));
    let client = ClientAddress::default().of(&parts).unwrap();
    assert_eq!(client.to_string(), CLIENT);
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn resolve_bytes(peer: IpAddr, lines: &[Vec<u8>]) -> Client {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
    }
    behind_proxies().resolve(peer, &headers)
}

/// Whatever a header line can hold, and what an attacker would write.
fn forged() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(prop_oneof![0x20u8..0x7f, 0x80u8..], 0..40),
        vec(address(), 0..5).prop_map(|addresses| {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            addresses.join(", ").into_bytes()
        }),
        "(10\\.0\\.0\\.[0-9], ){0,40}1\\.1\\.1\\.1".prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Known fault: "the leftmost X-Forwarded-For is the attacker's".
    #[test]
    fn a_stranger_cannot_choose_its_address(
        peer in address(), lines in vec(forged(), 0..4),
    ) {
        prop_assume!(!behind_proxies().trusts(peer.to_canonical()));
        prop_assert_eq!(resolve_bytes(peer, &lines), Client::from(peer));
    }

    /// What stands left of what the trusted proxies wrote never matters.
    #[test]
    fn a_client_behind_proxies_cannot_choose_its_address(
        client in address(), lines in vec(forged(), 0..4), same_line in forged(), hops in 0usize..20,
    ) {
        prop_assume!(!behind_proxies().trusts(client.to_canonical()));
        let mut last = same_line;
        last.extend_from_slice(format!(",{client}{}", ", 10.0.0.9".repeat(hops)).as_bytes());
        let lines: Vec<_> = lines.into_iter().chain([last]).collect();
        prop_assert_eq!(resolve_bytes(ip(PROXY), &lines), Client::from(client));
    }

    /// Known fault: "IPv6 needs a /64".
    #[test]
    fn a_64_is_one_client_and_two_are_two(network: u64, other: u64, host: u64, host2: u64) {
        let client = |network: u64, host: u64| {
            let bits = u128::from(network) << 64 | u128::from(host);
            Client::from(IpAddr::V6(Ipv6Addr::from_bits(bits))).to_string()
        };
        // These hold addresses that stand for IPv4 ones, which are not of one client.
        let translates = |network: u64| network == 0 || network == 0x0064_ff9b_0000_0000
            || network >> 16 == 0x0064_ff9b_0001;
        prop_assume!(!translates(network) && !translates(other));
        prop_assert_eq!(client(network, host), client(network, host2));
        prop_assert_eq!(network == other, client(network, host) == client(other, host2));
        let shown: IpNet = client(network, host).parse().unwrap();
        prop_assert_eq!(shown.prefix_len(), 64);
    }

    /// Known fault: "mapped v4 its v4".
    #[test]
    fn a_mapped_address_is_its_ipv4(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let mapped = IpAddr::V6(v4.to_ipv6_mapped());
        prop_assert_eq!(Client::from(mapped), Client::from(IpAddr::V4(v4)));
        prop_assert_eq!(Client::from(mapped).to_string(), v4.to_string());
    }
}
