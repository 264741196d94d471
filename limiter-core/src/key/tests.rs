//! Keys: what they read like, and that no two lists of segments share one.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Segments rich in the characters that other projects join on.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c:{}%/_~\\-\\x00\\x1f\\x7f]{0,6}",
        "\\PC{0,8}",
        Just("%-".to_owned()),
        Just("x".repeat(250)),
        Just("x".repeat(251)),
    ]
}

proptest! {
    /// Known fault: "ambiguous joins": equal texts only for equal segments.
    #[test]
    fn encoding_is_injective(a in vec(segment(), 1..5), b in vec(segment(), 1..5)) {
        prop_assert_eq!(a == b, Key::new(&a) == Key::new(&b));
    }

    /// The encoded text can be taken apart again, which is a stronger form of injective.
    #[test]
    fn segments_can_be_read_back(segments in vec("[a-c:{}%~\\-\\x00]{0,6}", 1..5)) {
        let key = Key::new(&segments);
        let back: Vec<String> = key.as_str().split(':').map(decode).collect();
        prop_assert_eq!(segments, back);
    }

    #[test]
    fn a_segment_never_adds_structure(text in segment()) {
        let key = Key::new(["a", text.as_str(), "b"]);
        prop_assert_eq!(key.as_str().matches(':').count(), 2);
        prop_assert_eq!(key.as_str().find(['{', '}']), None);
        prop_assert!(!key.as_str().chars().any(|c| c.is_ascii_control()));
        prop_assert!(key.as_str().len() <= 4 + MAX_SEGMENT_BYTES);
    }

    /// Known fault: "CROSSSLOT from an empty tag": what stands in the braces is never empty, and the
    /// first brace pair is the tag.
    #[test]
    fn a_tag_is_never_empty(tag in segment(), other in segment()) {
        let key = Key::builder().segment(&other).hash_tag(&tag).segment(&other).build();
        let open = key.as_str().find('{').unwrap();
        let close = key.as_str().find('}').unwrap();
        prop_assert!(close > open + 1);
        let inside = key.as_str()[open + 1..close].to_owned();
        prop_assert_eq!(inside, encode(&tag));
    }
}

/// An inverse written from the encoding's description, not from its code.
fn decode(text: &str) -> String {
    if text == "%-" {
        return String::new();
    }
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let code = u8::from_str_radix(&piece[..2], 16).unwrap();
        out.push(char::from(code));
        out.push_str(&piece[2..]);
    }
    out
}

/// As many bytes as fit stand as they are; encoded ones count as they are written.
#[test]
fn long_segments_are_digested() {
    let digested = |text: &str| Key::new([text]).as_str().starts_with("%~");
    assert!(!digested(&"x".repeat(200)) && digested(&"x".repeat(201)));
    assert!(!digested(&format!("{}:", "x".repeat(197))));
    assert!(digested(&format!("{}:", "x".repeat(198))));
    // `printf 'x%.0s' {1..201} | sha256sum`
    assert_eq!(
        Key::new(["x".repeat(201)]).as_str(),
        "%~84a0678c90937f5dcf9994d5866668da6b995109c8ad845410559b48a4ecafed"
    );
}

#[test]
fn keys_are_shown_when_asked_for_and_secrets_are_not() {
    let key = Key::new(["ratelimit", "a b"]);
    assert_eq!(key.to_string(), "ratelimit:a b");
    assert_eq!(format!("{key:?}"), "Key(masked)");
    let builder = Key::builder().hash_tag("alice").segment("api");
    assert_eq!(format!("{builder:?}"), "KeyBuilder(masked)");
    let secret = IdentitySecret::new("Jefe");
    assert_eq!(format!("{secret:?}"), "IdentitySecret(masked)");
}

#[test]
fn requirement_keys_are_exact() {
    // A5, B1, C1, E1: plain ids give exactly the required text.
    assert_eq!(
        Key::new(["ratelimit", "api", "u1"]).as_str(),
        "ratelimit:api:u1"
    );
    assert_eq!(
        Key::new(["ratelimit", "user", "u-1", "resumeAnalysis"]).as_str(),
        "ratelimit:user:u-1:resumeAnalysis"
    );
    assert_eq!(
        Key::new(["ratelimit", "acme", "webhook", "hooks", "POST", "stripe"]).as_str(),
        "ratelimit:acme:webhook:hooks:POST:stripe"
    );
    assert_eq!(
        Key::new(["rate", "s1", "search"]).as_str(),
        "rate:s1:search"
    );
}

#[test]
fn credentials_and_identities_are_digested() {
    // B2: the admin token is digested. The value is `printf demo-admin | sha256sum`.
    let key = Key::builder()
        .segment("ratelimit")
        .segment("admin")
        .token("demo-admin")
        .build();
    assert_eq!(
        key.as_str(),
        "ratelimit:admin:cce7a2cf1ae045989cfc914fb95a41526f167a838b3c7d33745143614abace7c"
    );
    // RFC 4231, test case 2.
    let secret = IdentitySecret::new("Jefe");
    let key = Key::builder()
        .identity(&secret, "what do ya want for nothing?")
        .build();
    assert_eq!(
        key.as_str(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert!(!format!("{secret:?}").contains("Jefe"));
}
