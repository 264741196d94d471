//! What a counter's or a record's value in Redis says, for people. The values themselves are read and written by the scripts
//! alone (`lua/*.lua`).

use std::fmt::Write as _;

/// The first version of every form, and the only one so far.
const VERSION: u8 = 1;

/// The names of a value's numbers, and of those that each entry of it has.
struct Form {
    kind: &'static str,
    numbers: &'static [&'static str],
    entry: Option<Entry>,
}

struct Entry {
    name: &'static str,
    /// Whether 16 bytes of an id stand in front of its numbers.
    has_id: bool,
    numbers: &'static [&'static str],
}

fn form(letter: u8) -> Option<Form> {
    let form = |kind, numbers, entry| Form {
        kind,
        numbers,
        entry,
    };
    Some(match letter {
        b's' => form(
            "sliding window counter",
            &["window_us", "start_us", "previous", "current"],
            None,
        ),
        b'b' => form(
            "token bucket",
            &["token", "debt", "at_us", "full_at_us", "full_since_us"],
            None,
        ),
        b'l' => form(
            "sliding log",
            &["window_us", "next", "last_us", "dated_us", "sum"],
            Some(Entry {
                name: "charge",
                has_id: false,
                numbers: &["date_us", "number", "cost"],
            }),
        ),
        b'c' => form(
            "leases",
            &["held"],
            Some(Entry {
                name: "lease",
                has_id: true,
                numbers: &["cost", "expires_us"],
            }),
        ),
        b'r' => form(
            "record of a reservation, a refund or a released lease",
            &["cost", "actual", "charged", "at_us", "number", "expires_us"],
            None,
        ),
        _ => return None,
    })
}

/// Describes the bytes that Redis holds under a key of a limit, a line for each entry. Times are microseconds since the
/// Unix epoch.
///
/// ```
/// assert_eq!(limiter_redis::describe(b"17"), "window: count=17");
/// assert_eq!(limiter_redis::describe(b"c\x01\0\0\0\0\0\0\x02"), "leases: held=2");
/// assert_eq!(limiter_redis::describe(b"c\x02..."), "of version 2, which this build does not know");
/// assert_eq!(limiter_redis::describe(b"banana"), "no state of a limit");
/// ```
pub fn describe(value: &[u8]) -> String {
    let said = match value {
        [b'0'..=b'9', ..] if value.iter().all(u8::is_ascii_digit) => {
            Some(format!("window: count={}", String::from_utf8_lossy(value)))
        }
        [b'a'..=b'z', VERSION, rest @ ..] => describe_form(value[0], rest),
        [b'a'..=b'z', version @ 2..=31, ..] => Some(format!(
            "of version {version}, which this build does not know"
        )),
        _ => None,
    };
    said.unwrap_or_else(|| "no state of a limit".to_owned())
}

fn describe_form(letter: u8, value: &[u8]) -> Option<String> {
    let unpacked;
    let mut bytes = value;
    if letter == b'o' {
        let (fingerprint, rest) = bytes.split_at_checked(16)?;
        let mut said = format!("operation: fingerprint={}", hex(fingerprint));
        bytes = rest;
        numbers(&mut bytes, &["expires_us"], &mut said)?;
        while !bytes.is_empty() {
            said.push_str("\n  step:");
            numbers(&mut bytes, &["charged", "at_us", "number"], &mut said)?;
        }
        return Some(said);
    }
    let form = form(letter)?;
    let mut said = format!("{}:", form.kind);
    if letter == b'r' {
        // The highest three bits are the status.
        let (first, rest) = bytes.split_first()?;
        let status = ["held", "settled", "cancelled", "refunded"].get(usize::from(first >> 5))?;
        let _ = write!(said, " {status}");
        unpacked = [&[first & 31], rest].concat();
        bytes = &unpacked;
    }
    numbers(&mut bytes, form.numbers, &mut said)?;
    while !bytes.is_empty() {
        let entry = form.entry.as_ref()?;
        let _ = write!(said, "\n  {}:", entry.name);
        if entry.has_id {
            let (id, rest) = bytes.split_at_checked(16)?;
            let _ = write!(said, " id={}", hex(id));
            bytes = rest;
        }
        numbers(&mut bytes, entry.numbers, &mut said)?;
    }
    Some(said)
}

/// Takes the named numbers of 7 bytes off the front.
fn numbers(bytes: &mut &[u8], names: &[&str], said: &mut String) -> Option<()> {
    for name in names {
        let (number, rest) = bytes.split_at_checked(7)?;
        let number = number
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let _ = write!(said, " {name}={number}");
        *bytes = rest;
    }
    Some(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
