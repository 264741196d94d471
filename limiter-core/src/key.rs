//! Names of counters and cached values: segments, encoded so that no two lists of plain segments
//! share one text.

use std::cmp::Ordering;
use std::fmt;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::fingerprint::Fingerprint;

/// A segment whose encoded form is longer than this is replaced by its digest, so that a caller's
/// text cannot grow a key without bound.
const MAX_SEGMENT_BYTES: usize = 200;

/// The name of one counter: segments joined by `:`.
///
/// **What a key must hold.** One key is one counter, so it names everything that the counter is of: the policy, and whom
/// it limits. [`Policy::key`](crate::limit::Policy::key) puts the policy's name into it; two policies over one
/// hand-made key share one counter and undo each other's limits. An id that a user chose is a segment of its own, never
/// glued to another.
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
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    fingerprint: Fingerprint,
}

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
            text: self.text.as_ref().to_owned(),
            tagged: self.text.contains('{'),
        }
        .segment(segment)
        .build()
    }

    /// The encoded text, without the store's prefix.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What tells the key from others in this process, made once with the key: a table that is asked for it need
    /// not hash the text again.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.text == other.text
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By the text.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What it shows goes into logs, and a key may name a user: [`Key::as_str`] and `Display` show all of it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(masked)")
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
///
/// `Debug` masks it, as it does a key.
#[derive(Clone, Default)]
#[must_use = "call `build`"]
pub struct KeyBuilder {
    text: String,
    tagged: bool,
}

impl fmt::Debug for KeyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBuilder(masked)")
    }
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
    pub fn token(mut self, token: impl AsRef<[u8]>) -> Self {
        self.separate();
        self.text.push_str(&hex(&Sha256::digest(token.as_ref())));
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
        Key {
            fingerprint: Fingerprint::of(&self.text),
            text: self.text.into(),
        }
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

    /// The HMAC-SHA-256 of a value (64 hex digits): what stands in keys, and in whatever else is to name somebody without telling
    /// who it is.
    pub fn digest(&self, value: &str) -> String {
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
mod tests;
