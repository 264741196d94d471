//! What a counter's or a record's value in Redis says, for people. The values themselves are read and written by the scripts
//! alone (`lua/*.lua`).

use std::fmt::Write as _;

use crate::script::value;

/// The first version of every form, and the only one so far.
const VERSION: u8 = 1;

/// A kind's name, and the names of its numbers.
fn form(letter: u8) -> Option<(&'static str, &'static [&'static str])> {
    Some(match letter {
        b's' => (
            "sliding window counter",
            &[
                "window_us",
                "start_us",
                "previous",
                "current",
                "kept_until_ms",
            ],
        ),
        b'r' => (
            "record of a reservation, a refund or a released lease",
            &["cost", "actual", "charged", "at_us", "number", "expires_us"],
        ),
        _ => return None,
    })
}

/// Describes the string that Redis holds under a key of a limit, or of a record, a line for each entry. Times are microseconds
/// since the Unix epoch. Leases are no string but a sorted set: [`describe_leases`].
///
/// ```
/// assert_eq!(limiter_redis::describe(b"17"), "window: count=17");
/// assert_eq!(limiter_redis::describe(b"b\x02..."), "of version 2, which this build does not know");
/// assert_eq!(limiter_redis::describe(b"banana"), "no state of a limit");
/// ```
pub fn describe(value: &[u8]) -> String {
    let said = match value {
        [b'0'..=b'9', ..] if value.iter().all(u8::is_ascii_digit) => {
            Some(format!("window: count={}", String::from_utf8_lossy(value)))
        }
        [b'a'..=b'z', VERSION, rest @ ..] => describe_form(value[0], rest),
        [b'a'..=b'z', version @ 2..=31, ..] => Some(of_version(*version)),
        _ => None,
    };
    said.unwrap_or_else(no_state)
}

/// Describes the members, with their scores, of the sorted set that Redis holds under a key of a concurrency limit, a line for each
/// lease.
///
/// ```
/// let id = vec![7; 16];
/// let end = 1_700_000_000_000_000.0;
/// let set = [(b"c\x01".to_vec(), -end), (id, end)];
/// assert_eq!(
///     limiter_redis::describe_leases(&set),
///     "leases: cost=1\n  lease: id=07070707070707070707070707070707 cost=1 expires_us=1700000000000000"
/// );
/// ```
pub fn describe_leases(set: &[(Vec<u8>, f64)]) -> String {
    let score = |member: &[u8]| {
        set.iter()
            .find(|(known, _)| known == member)
            .map(|(_, score)| *score)
    };
    if score(&[b'c', VERSION]).is_none() {
        let other = set.iter().find_map(|(member, _)| match member[..] {
            [b'c', version @ 0..=31] => Some(version),
            _ => None,
        });
        return other.map_or_else(no_state, of_version);
    }
    let (mut sum, mut leases) = (0.0, String::new());
    for (id, expires) in set.iter().filter(|(member, _)| member.len() == 16) {
        let cost = score(&[id, &b"c"[..]].concat()).map_or(1.0, |cost| -cost);
        sum += cost;
        let id = hex(id);
        let _ = write!(
            leases,
            "\n  lease: id={id} cost={cost} expires_us={expires}"
        );
    }
    format!("leases: cost={sum}{leases}")
}

fn no_state() -> String {
    "no state of a limit".to_owned()
}

fn of_version(version: u8) -> String {
    format!("of version {version}, which this build does not know")
}

fn describe_form(letter: u8, value: &[u8]) -> Option<String> {
    let unpacked;
    let mut bytes = value;
    match letter {
        b'o' => return describe_operation(bytes),
        b'l' => return describe_log(bytes),
        b'b' => return describe_bucket(bytes),
        _ => {}
    }
    let (kind, names) = form(letter)?;
    let mut said = format!("{kind}:");
    if letter == b'r' {
        // The highest three bits are the status.
        let (first, rest) = bytes.split_first()?;
        let status = ["held", "settled", "cancelled", "refunded"].get(usize::from(first >> 5))?;
        let _ = write!(said, " {status}");
        unpacked = [&[first & 31], rest].concat();
        bytes = &unpacked;
    }
    numbers(&mut bytes, names, &mut said)?;
    bytes.is_empty().then_some(said)
}

fn describe_bucket(value: &[u8]) -> Option<String> {
    let [token, debt, at, full_at, since, kept] = value::bucket(value)?;
    Some(format!(
        "token bucket: token={token} debt={debt} at_us={at} full_at_us={full_at} full_since_us={since} kept_until_ms={kept}"
    ))
}

fn describe_operation(value: &[u8]) -> Option<String> {
    let (fingerprint, mut bytes) = value.split_at_checked(16)?;
    let mut said = format!("operation: fingerprint={}", hex(fingerprint));
    numbers(&mut bytes, &["expires_us"], &mut said)?;
    while !bytes.is_empty() {
        said.push_str("\n  step:");
        numbers(&mut bytes, &["charged", "at_us", "number"], &mut said)?;
    }
    Some(said)
}

/// The charges that count, with what each cost; the value has what all up to each cost, and may have older ones in front and
/// what is left of former ones behind.
fn describe_log(mut bytes: &[u8]) -> Option<String> {
    let mut said = "sliding log:".to_owned();
    let head = ["window_us", "next", "last_us", "dated_us"];
    numbers(&mut bytes, &head, &mut said)?;
    let mut next = || number(&mut bytes);
    let (_newest, first, mut before, count, total) = (next()?, next()?, next()?, next()?, next()?);
    let _ = write!(said, " sum={}", total.checked_sub(before)?);
    for index in 0..count {
        let (date, number, total) = (next()?, next()?, next()?);
        if index >= first {
            let cost = total.checked_sub(before)?;
            let _ = write!(
                said,
                "\n  charge: date_us={date} number={number} cost={cost}"
            );
            before = total;
        }
    }
    Some(said)
}

/// Takes a number of 7 bytes off the front.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_at_checked(7)?;
    *bytes = rest;
    Some(
        number
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

/// Takes the named numbers of 7 bytes off the front.
fn numbers(bytes: &mut &[u8], names: &[&str], said: &mut String) -> Option<()> {
    for name in names {
        let _ = write!(said, " {name}={}", number(bytes)?);
    }
    Some(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
