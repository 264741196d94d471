//! What a quota counts.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// What a quota counts, for headers and for [`ModelCall`](super::ModelCall).
///
/// ```
/// use limiter_core::limit::Unit;
///
/// assert_eq!(Unit::Tokens.as_str(), "tokens");
/// assert_eq!(Unit::named("content-bytes")?.as_str(), "content-bytes");
/// assert!(Unit::named("two words").is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests. The default.
    #[default]
    Requests,
    /// Tokens of an AI model.
    Tokens,
    /// Something else: bytes, pages, credits. Made by [`Unit::named`].
    Named(UnitName),
}

/// The name of a unit: 1 to 15 of `a-z 0-9 -`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitName {
    text: [u8; UNIT_BYTES],
    length: u8,
}

/// Short, because every decision carries it.
const UNIT_BYTES: usize = 15;

impl Unit {
    /// The unit of this name, in lower case and plural as in "pages". `requests` and `tokens` are the units that have
    /// variants of their own.
    ///
    /// # Errors
    /// `InvalidInput` unless the name is 1 to 15 of `a-z 0-9 -`, because it stands unescaped in headers; and for `request` and
    /// `token`.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "requests" => return Ok(Self::Requests),
            "tokens" => return Ok(Self::Tokens),
            // Names that mean these two, and would count as something else.
            "request" | "token" => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "policy",
                    format!("unit {name:?} is written {name}s"),
                ));
            }
            _ => {}
        }
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let bytes = name.as_bytes();
        let mut text = [0; UNIT_BYTES];
        match (u8::try_from(bytes.len()), text.get_mut(..bytes.len())) {
            (Ok(length @ 1..), Some(place)) if bytes.iter().all(|byte| allowed(*byte)) => {
                place.copy_from_slice(bytes);
                Ok(Self::Named(UnitName { text, length }))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "policy",
                format!("unit {name:?} must be 1 to {UNIT_BYTES} of a-z 0-9 -"),
            )),
        }
    }

    /// Lower case, plural: "requests", "tokens", "pages".
    pub fn as_str(&self) -> &str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Named(name) => name.as_str(),
        }
    }
}

impl UnitName {
    /// The text.
    pub fn as_str(&self) -> &str {
        // It was made of ASCII.
        let text = self.text.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_header_are_refused() {
        for name in [
            "",
            "token",
            "request",
            "Pages",
            "two words",
            "a\"b",
            "ü",
            "x;q=1",
            &"x".repeat(16),
        ] {
            let error = Unit::named(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        let longest = "x".repeat(15);
        assert_eq!(Unit::named(&longest).unwrap().as_str(), longest);
        assert_eq!(Unit::named("tokens").unwrap(), Unit::Tokens);
        assert_eq!(Unit::named("requests").unwrap(), Unit::Requests);
        let pages = Unit::named("pages").unwrap();
        assert_eq!(format!("{pages:?}"), "Named(\"pages\")");
        assert_ne!(pages, Unit::named("page").unwrap());
    }
}
