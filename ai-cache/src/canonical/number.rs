//! Numbers: exact, or refused. Whole ones print all their digits, others as ECMAScript prints them.

use std::fmt::{Display, Write as _};

use super::refused::Refused;

/// From here on (2^53) a double has neighbours that are whole numbers too, and cannot tell which one was meant.
const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;

pub(super) fn write_integer(out: &mut String, value: impl Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

pub(super) fn write_float(out: &mut String, value: f64) -> Result<(), Refused> {
    if !value.is_finite() {
        return Err(Refused::NonFinite);
    }
    if value.fract() != 0.0 {
        out.push_str(ryu_js::Buffer::new().format_finite(value));
    } else if value.abs() < WHOLE_BELOW {
        // Adding zero makes -0 to 0.
        write_integer(out, format_args!("{:.0}", value + 0.0));
    } else {
        return Err(Refused::Number);
    }
    Ok(())
}

/// A number as text, from `serde_json` with the feature `arbitrary_precision`. It gets the canonical text that the
/// number has without that feature, or is refused if a double would be another number.
pub(super) fn write_text(out: &mut String, text: &str) -> Result<(), Refused> {
    if let Ok(value) = text.parse::<i128>() {
        write_integer(out, value);
        return Ok(());
    }
    if let Ok(value) = text.parse::<u128>() {
        write_integer(out, value);
        return Ok(());
    }
    let exact = Decimal::parse(text).ok_or(Refused::Number)?;
    let value: f64 = text.parse().map_err(|_| Refused::Number)?;
    let from = out.len();
    write_float(out, value).map_err(|_| Refused::Number)?;
    // A double prints the shortest digits that lead back to it, so the text is that of this number alone.
    if Decimal::parse(&out[from..]) != Some(exact) {
        out.truncate(from);
        return Err(Refused::Number);
    }
    Ok(())
}

/// A decimal number, exactly: `digits * 10^exponent`, where the digits begin and end with none of zero. Zero has none.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// What JSON calls a number, or `None`.
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        let mut digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let mut exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
        let significant = digits.trim_end_matches('0').len();
        exponent += i64::try_from(digits.len() - significant).ok()?;
        digits.truncate(significant);
        let digits = digits.trim_start_matches('0').to_owned();
        Some(if digits.is_empty() {
            Self {
                negative: false,
                digits,
                exponent: 0,
            }
        } else {
            Self {
                negative,
                digits,
                exponent,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> Option<String> {
        let mut out = String::new();
        write_text(&mut out, text).map(|()| out).ok()
    }

    /// Known fault: "two ids, one key", however the number is written.
    #[test]
    fn texts_that_a_double_would_merge_are_refused() {
        for (given, canonical) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("1.5e1", "15"),
            ("3.10", "3.1"),
            ("31e-1", "3.1"),
            ("0.1", "0.1"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("-0.0", "0"),
            ("-0e5", "0"),
            ("9007199254740991.0", "9007199254740991"),
            ("9007199254740993", "9007199254740993"),
            ("5e-324", "5e-324"),
        ] {
            assert_eq!(write(given).as_deref(), Some(canonical), "{given}");
        }
        for merged in [
            // The double is 0.1.
            "0.10000000000000001",
            "0.1000000000000000055511151231257827",
            "1.0000000000000000000000001",
            // Doubles from 2^53 on are two apart.
            "9007199254740993.0",
            "9007199254740993e0",
            "1e22",
            "1e999",
            "1e-999",
            "1e99999999999",
            "1.",
            ".5",
            "",
            "-",
            "1e",
        ] {
            assert_eq!(write(merged), None, "{merged}");
        }
    }
}
