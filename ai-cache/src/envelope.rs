//! The stored form of an answer: a header that says what it is, and the answer as JSON.
//!
//! | bytes | what |
//! |---|---|
//! | 0..3 | `AIC` |
//! | 3 | version of the format: 1 |
//! | 4..12 | when the answer was made: microseconds since the Unix epoch, big-endian |
//! | 12..44 | SHA-256 of the key's length (8 bytes, big-endian), the key, bytes 0..12 and the body |
//! | 44.. | the body: the answer as JSON |
//!
//! The digest covers the key, so that a value that came under another key is never decoded (I-K1).
//! Nothing here keeps or prints a message of `serde_json`: it may quote the answer.

use bytes::Bytes;
use limiter_core::cache::CacheKey;
use limiter_core::clock::Timestamp;
use limiter_core::{Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 3] = *b"AIC";
const VERSION: u8 = 1;
const HEADER: usize = 12;
const DIGEST: usize = 32;

/// Why stored bytes give no answer. Each is a miss; only [`Corrupt`](Self::Corrupt) ones are
/// removed, because the others are good answers to another build of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Written by a newer build.
    Version(u8),
    /// Cut short, changed, no envelope at all, or stored for another key.
    Corrupt,
    /// An intact answer of another shape: the type changed with a deploy.
    Shape,
}

/// The stored form of `value`.
///
/// # Errors
/// `InvalidInput` for a value that JSON cannot hold, or that does not read back from its JSON: it
/// would be stored, and paid for again on every call.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(
    key: &CacheKey,
    created: Timestamp,
    value: &T,
) -> Result<Bytes, Error> {
    let mut stored = Vec::with_capacity(1024);
    stored.extend(MAGIC);
    stored.push(VERSION);
    stored.extend(created.as_micros().to_be_bytes());
    stored.extend([0; DIGEST]);
    serde_json::to_writer(&mut stored, value).map_err(|_| refused::<T>("has no JSON form"))?;
    let (header, body) = (&stored[..HEADER], &stored[HEADER + DIGEST..]);
    serde_json::from_slice::<T>(body).map_err(|_| refused::<T>("does not read back from JSON"))?;
    let digest = digest(key, header, body);
    stored[HEADER..HEADER + DIGEST].copy_from_slice(&digest);
    Ok(stored.into())
}

/// The answer in `stored`, and when it was made.
pub(crate) fn decode<T: DeserializeOwned>(
    key: &CacheKey,
    stored: &[u8],
) -> Result<(T, Timestamp), Unreadable> {
    let rest = stored.strip_prefix(&MAGIC).ok_or(Unreadable::Corrupt)?;
    match rest.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(Unreadable::Version(other)),
        None => return Err(Unreadable::Corrupt),
    }
    let (header, rest) = stored
        .split_first_chunk::<HEADER>()
        .ok_or(Unreadable::Corrupt)?;
    let (claimed, body) = rest
        .split_first_chunk::<DIGEST>()
        .ok_or(Unreadable::Corrupt)?;
    if *claimed != digest(key, header, body) {
        return Err(Unreadable::Corrupt);
    }
    let value = serde_json::from_slice(body).map_err(|_| Unreadable::Shape)?;
    let [_, _, _, _, created @ ..] = *header;
    Ok((value, Timestamp::from_micros(u64::from_be_bytes(created))))
}

fn digest(key: &CacheKey, header: &[u8], body: &[u8]) -> [u8; DIGEST] {
    let key = key.as_str().as_bytes();
    Sha256::new()
        // The length, so that no byte can move between the key and what follows it.
        .chain_update((key.len() as u64).to_be_bytes())
        .chain_update(key)
        .chain_update(header)
        .chain_update(body)
        .finalize()
        .into()
}

fn refused<T>(why: &str) -> Error {
    let type_name = std::any::type_name::<T>();
    Error::new(
        ErrorKind::InvalidInput,
        "ai_cache.set",
        format!("a `{type_name}` {why}; it is not cached"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheRequest;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(name: &str) -> CacheKey {
        CacheRequest::new("op", name).key().unwrap()
    }

    const CREATED: Timestamp = Timestamp::from_micros(1_700_000_000_000_001);

    fn stored(value: &str) -> Vec<u8> {
        encode(&key("a"), CREATED, &value.to_owned())
            .unwrap()
            .to_vec()
    }

    proptest! {
        /// B8: what was stored comes back, with its time, under its own key alone (I-K1).
        #[test]
        fn answers_come_back(value in "\\PC{0,40}", scores in proptest::collection::vec(any::<u64>(), 0..4), other in "[b-z]{1,3}") {
            let answer = (value, scores);
            let stored = encode(&key("a"), CREATED, &answer).unwrap();
            prop_assert_eq!(decode(&key("a"), &stored), Ok((answer, CREATED)));
            prop_assert_eq!(decode::<(String, Vec<u64>)>(&key(&other), &stored), Err(Unreadable::Corrupt));
        }

        /// B8: to the last bit.
        #[test]
        fn floats_come_back_exactly(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let stored = encode(&key("a"), CREATED, &value).unwrap();
            prop_assert_eq!(decode(&key("a"), &stored), Ok((value, CREATED)));
        }

        /// I-K5: no changed bit and no cut gives an answer.
        #[test]
        fn changed_bytes_never_decode(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut stored = stored("an answer");
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            let result = decode::<String>(&key("a"), &stored);
            // A flipped version is another version; it stays until it expires.
            let expected = if at == MAGIC.len() {
                Unreadable::Version(stored[at])
            } else {
                Unreadable::Corrupt
            };
            prop_assert_eq!(result, Err(expected));
        }

        #[test]
        fn random_bytes_never_decode(stored in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(decode::<String>(&key("a"), &stored).is_err());
        }
    }

    /// I-K5.
    #[test]
    fn a_cut_value_is_corrupt() {
        let stored = stored("an answer");
        for length in 0..stored.len() {
            assert_eq!(
                decode::<String>(&key("a"), &stored[..length]),
                Err(Unreadable::Corrupt)
            );
        }
    }

    /// Known fault: "Removing what is merely unknown makes old and new instances delete each other's
    /// entries": both cases are told from corruption.
    #[test]
    fn unknown_is_not_corrupt() {
        let mut newer = stored("an answer");
        newer[MAGIC.len()] = VERSION + 1;
        assert_eq!(
            decode::<String>(&key("a"), &newer),
            Err(Unreadable::Version(2))
        );
        assert_eq!(
            decode::<u64>(&key("a"), &stored("text")),
            Err(Unreadable::Shape)
        );
    }

    /// Known fault: "Null mistaken for a miss".
    #[test]
    fn null_is_an_answer() {
        let stored = encode(&key("a"), CREATED, &None::<String>).unwrap();
        assert_eq!(
            decode::<Option<String>>(&key("a"), &stored),
            Ok((None, CREATED))
        );
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        let no_name = HashMap::from([((1, 2), "secret".to_owned())]);
        let error = encode(&key("a"), CREATED, &no_name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error:?}").contains("secret"));
        // NaN becomes null, which is no number.
        let error = encode(&key("a"), CREATED, &f64::NAN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
