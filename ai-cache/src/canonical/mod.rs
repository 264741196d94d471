//! Canonical JSON: one text for one value, so that a digest of the text names the value.
//!
//! The form is that of [RFC 8785] (JCS): no white space, members sorted by the UTF-16 code units of
//! their names, strings with the fewest escapes, numbers as ECMAScript prints them. Three rules go
//! beyond it, so that two values never share a text:
//!
//! - **Numbers are exact, or refused.** Whole numbers print all of their digits, from `i128::MIN` to
//!   `u128::MAX` (RFC 8785 rounds them to the nearest double: two ids above 2^53 would become one). A
//!   decimal is written as the double that it equals when that is printed; a decimal that a double
//!   changes is refused, and so is a whole double of 2^53 or more, which cannot tell itself from its
//!   neighbours. `3.10` and `3.1` are one number, and one text: [what is hashed](CanonicalJson) is what the
//!   model should be sent. Where the digits themselves matter (a version), the parameter is a string.
//! - **Sets are ordered.** The elements of a `HashSet`, whose order changes from one run to the next, are sorted by
//!   their text. A set is recognised by its type's name, also behind references and boxes. One that `json!`,
//!   `to_value`, a transparent newtype or a `Serialize` of a type's own has turned into an array is an array like any
//!   other, and misses the cache in the next process: there, take a `BTreeSet`. The order of every other array
//!   matters, so write parameters as a struct or with `json!`, not as pairs in an array.
//! - **What JSON cannot hold is refused**: NaN, infinities, two members of one name, names that are no
//!   string, boolean, integer or character, and values nested deeper than [`MAX_DEPTH`].
//!
//! The features of `serde_json` do not change the text of what is accepted. They change what it hands over, and so which
//! large numbers are refused: 2^64 in a `Value` is a whole number with `arbitrary_precision` and a double without it. `RawValue` is refused, because its text need not be canonical. Parse requests with the feature
//! `arbitrary_precision` to have decimals of more than 15 digits refused: without it, `serde_json` has rounded them
//! before this module sees them.
//!
//! It is a serializer of its own because `serde_json::Value`, on which other implementations build,
//! turns NaN to null and loses the digits of a 128-bit integer.
//!
//! [RFC 8785]: https://www.rfc-editor.org/rfc/rfc8785

mod name;
mod number;
mod object;
mod refused;
mod set;
mod value;

use std::fmt;
use std::sync::Arc;

use limiter_core::{Error, ErrorKind};
use serde::Serialize;

use refused::Refused;
use value::ValueWriter;

/// How deep a value may be nested. Each array and object is a level, and so are wrappers that leave
/// no trace in JSON, such as `Some` and newtypes, because they use the stack all the same.
pub const MAX_DEPTH: usize = 128;

/// The canonical JSON of a value: the text that a cache's key is made of, and that the model is sent.
///
/// ```
/// use ai_cache::canonical::CanonicalJson;
///
/// let params = serde_json::json!({ "lang": "en", "company": "Acme", "top": 1.0 });
/// let text = CanonicalJson::of(&params)?;
/// assert_eq!(text.as_str(), r#"{"company":"Acme","lang":"en","top":1}"#);
/// assert!(CanonicalJson::of(&f64::NAN).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
///
/// Clones share the text. `Debug` does not show it: parameters may be anybody's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalJson(Arc<str>);

impl CanonicalJson {
    /// The canonical JSON of a value.
    ///
    /// # Errors
    /// `InvalidInput` for a value without a canonical form. The message names the value's type and the
    /// rule, never the content.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let text = write(value).map_err(|refused| {
            let type_name = std::any::type_name::<T>();
            Error::new(
                ErrorKind::InvalidInput,
                "ai_cache.key",
                format!("a `{type_name}` has no canonical JSON: {refused}"),
            )
        })?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CanonicalJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalJson({} bytes)", self.0.len())
    }
}

fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, Refused> {
    let mut out = String::new();
    ValueWriter::new(&mut out).write(value)?;
    Ok(out)
}

/// Writes a string with the escapes of RFC 8785, section 3.2.2.2, and no others.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests;
