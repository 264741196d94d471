//! Numbers: whole ones with all their digits, others as ECMAScript prints them.

use std::fmt::{Display, Write as _};

use super::refused::Refused;

/// From here on ECMAScript prints a whole number with an exponent.
const EXPONENT_FROM: f64 = 1e21;

pub(super) fn write_integer(out: &mut String, value: impl Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

pub(super) fn write_float(out: &mut String, value: f64) -> Result<(), Refused> {
    if !value.is_finite() {
        return Err(Refused::NonFinite);
    }
    if value.fract() == 0.0 && value.abs() < EXPONENT_FROM {
        // Without decimals Rust prints every digit of the value, where ECMAScript prints the
        // shortest digits and zeros: 2^60 would get the text of another integer. Adding zero
        // makes -0 to 0.
        write_integer(out, format_args!("{:.0}", value + 0.0));
    } else {
        out.push_str(ryu_js::Buffer::new().format_finite(value));
    }
    Ok(())
}

/// A number as text, from `serde_json` with the feature `arbitrary_precision`.
pub(super) fn write_text(out: &mut String, text: &str) -> Result<(), Refused> {
    if text.contains(['.', 'e', 'E']) {
        let value = text.parse().map_err(|_| Refused::Number)?;
        return write_float(out, value);
    }
    if let Ok(value) = text.parse::<i128>() {
        write_integer(out, value);
    } else {
        let value = text.parse::<u128>().map_err(|_| Refused::Number)?;
        write_integer(out, value);
    }
    Ok(())
}
