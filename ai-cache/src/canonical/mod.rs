//! Canonical JSON: one text for one value, so that a digest of the text names the value.
//!
//! The form is that of [RFC 8785] (JCS): no white space, members sorted by the UTF-16 code units of
//! their names, strings with the fewest escapes, numbers as ECMAScript prints them. Two rules go
//! beyond it, so that two values never share a text:
//!
//! - A whole number prints all of its digits (RFC 8785 rounds it to the nearest double: two ids
//!   above 2^53 would become one). Integers are exact from `i128::MIN` to `u128::MAX`; a float with
//!   a whole value below 10^21 prints as the integer that it equals, a larger one as RFC 8785 has it
//!   (`1e+21`).
//! - What JSON cannot hold is refused: NaN, infinities, two members of one name, names that are no
//!   string, boolean, integer or character, and values nested deeper than [`MAX_DEPTH`].
//!
//! Values take the JSON form that `serde_json` gives them. Its numbers with the feature
//! `arbitrary_precision` are recognised: whole ones are exact or refused, others are read as `f64`,
//! as RFC 8785 does. `RawValue` is refused, because its text need not be canonical.
//!
//! It is a serializer of its own because `serde_json::Value`, on which other implementations build,
//! turns NaN to null and loses the digits of a 128-bit integer.
//!
//! [RFC 8785]: https://www.rfc-editor.org/rfc/rfc8785

mod name;
mod number;
mod object;
mod refused;
mod value;

use limiter_core::{Error, ErrorKind};
use serde::Serialize;

use refused::Refused;
use value::ValueWriter;

/// How deep a value may be nested. Each array and object is a level, and so are wrappers that leave
/// no trace in JSON, such as `Some` and newtypes, because they use the stack all the same.
pub const MAX_DEPTH: usize = 128;

/// The canonical JSON of a value.
///
/// ```
/// use ai_cache::canonical;
///
/// let params = serde_json::json!({ "lang": "en", "company": "Acme", "top": 1.0 });
/// assert_eq!(canonical::to_string(&params)?, r#"{"company":"Acme","lang":"en","top":1}"#);
/// assert!(canonical::to_string(&f64::NAN).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for a value without a canonical form. The message names the value's type and the
/// rule, never the content.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    write(value).map_err(|refused| {
        let type_name = std::any::type_name::<T>();
        Error::new(
            ErrorKind::InvalidInput,
            "ai_cache.key",
            format!("a `{type_name}` has no canonical JSON: {refused}"),
        )
    })
}

fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, Refused> {
    let mut out = String::new();
    value.serialize(ValueWriter::new(&mut out))?;
    Ok(out)
}

/// Writes a string with the escapes of RFC 8785, section 3.2.2.2, and no others.
fn write_string(out: &mut String, text: &str) {
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
