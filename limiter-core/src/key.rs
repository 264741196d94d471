//! Names of counters and cached values: segments, encoded so that no two lists of plain segments
//! share one text.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A segment whose encoded form is longer than this is replaced by its digest, so that a caller's
/// text cannot grow a key without bound.
const MAX_SEGMENT_BYTES: usize = 200;

/// The name of one counter: segments joined by `:`.
///
/// Encoding is injective. In a segment `:`, `{`, `}`, `%` and control bytes are percent-encoded, so
/// a user's text never changes the key's structure; an empty segment is `%-`; one whose encoded
/// form passes 200 bytes is `%~` and its SHA-256. Plain ids stay as they are:
///
/// ```
/// use limiter_core::Key;
///
/// let key = Key::new(["ratelimit", "user", "42", "coverLetter"]);
/// assert_eq!(key.as_str(), "ratelimit:user:42:coverLetter");
/// assert_eq!(Key::new(["a:b", ""]).as_str(), "a%3Ab:%-");
/// ```
///
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// A key of plain segments.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Self {
        segments
            .into_iter()
            .fold(KeyBuilder::default(), |key, segment| {
                key.segment(segment.as_ref())
            })
            .build()
    }

    /// Starts a key that also has digested segments or a hash tag.
    pub fn builder() -> KeyBuilder {
        KeyBuilder::default()
    }

    /// This key with one more segment.
    #[must_use]
    pub fn join(&self, segment: &str) -> Self {
        KeyBuilder {
            text: self.0.as_ref().to_owned(),
            tagged: self.0.contains('{'),
        }
        .segment(segment)
        .build()
    }

    /// The encoded text, without the store's prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// Builds a [`Key`] segment by segment.
///
/// ```
/// use limiter_core::Key;
///
/// // Redis Cluster keeps keys with one hash tag in one slot.
/// let key = Key::builder().segment("ratelimit").hash_tag("acme").segment("api").build();
/// assert_eq!(key.as_str(), "ratelimit:{acme}:api");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "call `build`"]
pub struct KeyBuilder {
    text: String,
    tagged: bool,
}

impl KeyBuilder {
    /// Adds a segment.
    pub fn segment(mut self, segment: &str) -> Self {
        self.separate();
        self.text.push_str(&encode(segment));
        self
    }

    /// Adds a segment in braces: keys whose first tag is equal live in one slot of a Redis Cluster.
    /// Only the first tag counts; a later one is an ordinary segment. Never empty, because Redis
    /// ignores an empty tag: the empty segment's form `%-` stands in it.
    pub fn hash_tag(mut self, segment: &str) -> Self {
        if self.tagged {
            return self.segment(segment);
        }
        self.tagged = true;
        self.separate();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{{{}}}", encode(segment));
        self
    }

    /// Adds the SHA-256 of a token (64 hex digits), so that a credential never stands in a key. Give a
    /// position of a key always the same kind: a plain segment may read like a digest.
    pub fn token(mut self, token: &str) -> Self {
        self.separate();
        self.text.push_str(&hex(&Sha256::digest(token.as_bytes())));
        self
    }

    /// Adds the HMAC-SHA-256 of an identifying value (64 hex digits), so that a key does not tell
    /// who it belongs to without the secret.
    pub fn identity(mut self, secret: &IdentitySecret, value: &str) -> Self {
        self.separate();
        self.text.push_str(&secret.digest(value));
        self
    }

    /// The key.
    pub fn build(self) -> Key {
        Key(self.text.into())
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push(':');
        }
    }
}

/// The secret under which identities are digested. Clones share it; `Debug` masks it.
#[derive(Clone)]
pub struct IdentitySecret(SecretString);

impl IdentitySecret {
    /// A secret of any length; 32 random bytes are enough.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(SecretString::from(secret.into()))
    }

    fn digest(&self, value: &str) -> String {
        #[expect(
            clippy::expect_used,
            reason = "HMAC accepts a key of any length (RFC 2104, section 3)"
        )]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret().as_bytes())
            .expect("HMAC accepts a key of any length");
        mac.update(value.as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

impl fmt::Debug for IdentitySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentitySecret(masked)")
    }
}

/// The encoded form of one segment; never empty.
fn encode(segment: &str) -> String {
    if segment.is_empty() {
        return "%-".to_owned();
    }
    let mut encoded = String::with_capacity(segment.len());
    for c in segment.chars() {
        if c.is_ascii_control() || matches!(c, ':' | '{' | '}' | '%') {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{:02X}", u32::from(c));
        } else {
            encoded.push(c);
        }
    }
    if encoded.len() > MAX_SEGMENT_BYTES {
        return format!("%~{}", hex(&Sha256::digest(segment.as_bytes())));
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
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
        /// LESSONS "ambiguous joins": equal texts only for equal segments.
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

        /// LESSONS "CROSSSLOT from an empty tag": what stands in the braces is never empty, and the
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
    fn keys_are_shown_and_secrets_are_not() {
        let key = Key::new(["ratelimit", "a b"]);
        assert_eq!(key.to_string(), "ratelimit:a b");
        assert_eq!(format!("{key:?}"), "Key(ratelimit:a b)");
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
}
