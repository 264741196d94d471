//! Quotas as people write them: `20/hour`.

use std::time::Duration;

use limiter_core::limit::{Calendar, Period};

/// A number and a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) number: u64,
    pub(super) per: Per,
}

/// So many of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Per {
    pub(super) count: u64,
    pub(super) unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Unit {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "s" | "sec" | "second" | "seconds" => Self::Second,
            "min" | "minute" | "minutes" => Self::Minute,
            "h" | "hour" | "hours" => Self::Hour,
            "d" | "day" | "days" => Self::Day,
            "week" | "weeks" => Self::Week,
            "month" | "months" => Self::Month,
            _ => return None,
        })
    }

    /// A month is thirty days.
    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
        }
    }
}

impl Per {
    pub(super) fn period(self) -> Result<Period, String> {
        let seconds = self.unit.seconds().saturating_mul(self.count);
        let period = Period::new(Duration::from_secs(seconds));
        period.map_err(|error| error.message().to_owned())
    }

    pub(super) fn calendar(self) -> Result<Calendar, String> {
        match (self.count, self.unit) {
            (1, Unit::Minute) => Ok(Calendar::Minute),
            (1, Unit::Hour) => Ok(Calendar::Hour),
            (1, Unit::Day) => Ok(Calendar::Day),
            (1, Unit::Month) => Ok(Calendar::Month),
            _ => Err("a calendar_window is per minute, hour, day or month".to_owned()),
        }
    }
}

/// `20/hour`, `20 per hour`, `1_000/15 minutes`, `5/s`.
pub(super) fn parse(text: &str) -> Result<Rate, String> {
    const FORM: &str = "write it as 20/hour, 5 per second or 1_000/15 minutes";
    let wrong = |why: &str| format!("{text:?} is no quota: {why}; {FORM}");
    let (number, period) = text
        .split_once('/')
        .or_else(|| text.split_once(" per "))
        .ok_or_else(|| wrong("it has no period"))?;
    let number = whole(number.trim()).map_err(wrong)?;
    let period = period.trim();
    let unit_at = period.find(|c: char| !c.is_ascii_digit() && c != '_');
    let (count, word) = period.split_at(unit_at.unwrap_or(period.len()));
    let count = if count.is_empty() {
        1
    } else {
        whole(count).map_err(wrong)?
    };
    let word = word.trim();
    let unit = Unit::parse(word).ok_or_else(|| match word {
        "m" => wrong("m may be a minute or a month, min or month is one of them"),
        "" => wrong("its period has no unit"),
        _ => wrong("its period is none of s, min, h, d, week and month"),
    })?;
    Ok(Rate {
        number,
        per: Per { count, unit },
    })
}

/// A whole number of at least 1, with _ between its digits if wanted.
fn whole(text: &str) -> Result<u64, &'static str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.bytes().all(is_digit) {
        return Err("its number is not a whole one");
    }
    match text.replace('_', "").parse() {
        Ok(0) => Err("its number is 0, and nothing would ever be admitted"),
        Ok(number) => Ok(number),
        Err(_) => Err("its number is too large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_people_write_them() {
        for (text, number, count, unit) in [
            ("20/hour", 20, 1, Unit::Hour),
            ("20 per hour", 20, 1, Unit::Hour),
            ("5/s", 5, 1, Unit::Second),
            ("1_000/15 minutes", 1_000, 15, Unit::Minute),
            ("1/30s", 1, 30, Unit::Second),
            (" 7 / 2 weeks ", 7, 2, Unit::Week),
            ("100/month", 100, 1, Unit::Month),
            ("3/d", 3, 1, Unit::Day),
        ] {
            let per = Per { count, unit };
            assert_eq!(parse(text), Ok(Rate { number, per }), "{text}");
        }
        for (text, hint) in [
            ("20", "no period"),
            ("20/", "no unit"),
            ("0/hour", "is 0"),
            ("20/0 hours", "is 0"),
            ("-5/hour", "not a whole one"),
            ("1.5/hour", "not a whole one"),
            ("/hour", "not a whole one"),
            ("_1/hour", "not a whole one"),
            ("99999999999999999999/hour", "too large"),
            ("5/m", "a minute or a month"),
            ("5/fortnight", "none of"),
            ("5/h/d", "none of"),
            ("5/HOUR", "none of"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(
                refused.contains(hint) && refused.contains("20/hour"),
                "{refused}"
            );
        }
    }
}
