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
    // A whole number that was written with decimals is that whole number, to the last digit.
    let text = match text.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    };
    if text.contains(['.', 'e', 'E']) {
        let value: f64 = text.parse().map_err(|_| Refused::Number)?;
        let digits = significant_digits(text);
        let whole = value.fract() == 0.0 && value.abs() < EXPONENT_FROM;
        // What a float cannot tell from another number would share that number's key.
        if digits.len() > 17 || (whole && digits != significant_digits(&format!("{value:e}"))) {
            return Err(Refused::Number);
        }
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

/// The digits of a decimal text that carry its value: none before the exponent's mark are lost but
/// zeros at either end.
fn significant_digits(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LESSONS "two ids, one key", however the number is written.
    #[test]
    fn texts_that_a_float_would_merge_are_kept_apart_or_refused() {
        let write = |text: &str| {
            let mut out = String::new();
            write_text(&mut out, text).map(|()| out).ok()
        };
        assert_eq!(
            write("9007199254740993.0").as_deref(),
            Some("9007199254740993")
        );
        assert_eq!(write("1.0").as_deref(), Some("1"));
        assert_eq!(write("1e3").as_deref(), Some("1000"));
        assert_eq!(write("1.5e1").as_deref(), Some("15"));
        assert_eq!(write("0.1").as_deref(), Some("0.1"));
        assert_eq!(write("-0.0").as_deref(), write("0").as_deref());
        for merged in ["9007199254740993e0", "1.0000000000000000000000001", "1e999"] {
            assert_eq!(write(merged), None, "{merged}");
        }
    }
}
