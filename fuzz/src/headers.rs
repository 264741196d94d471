//! The headers of any decisions, in every style.

use std::time::Duration;

use limiter_core::clock::Timestamp;
use limiter_core::limit::{Decision, Observed, Period, Policy, Quota, Source, Unit, Verdict};
use limiter_core::{Error, ErrorKind};

use crate::bytes::Bytes;
use crate::oracle::headers::check;

/// Two moments, and decisions for as long as there are bytes.
pub const SEEDS: &[&[u8]] = &[
    &[0; 64],
    &[0xff; 200],
    b"\x33\x06\x0a\x24\x18\x1e\x40\x00\x00\x33\x06\x0a\x24\x18\x1e\x6d\x00\x00\x00\x05\x14\x20\
      \x36\xee\x80\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x09\x2d\x00\x00\x00\x00\x00\x00\x00",
];

const KINDS: [ErrorKind; 5] = [
    ErrorKind::Timeout,
    ErrorKind::Connection,
    ErrorKind::Capacity,
    ErrorKind::Config,
    ErrorKind::Foreign,
];

/// Writes the headers and has the oracle judge them.
pub fn target(data: &[u8]) {
    let mut bytes = Bytes(data);
    let decided = Timestamp::from_micros(bytes.integer());
    let now = match bytes.byte() % 2 {
        0 => decided.saturating_add(duration(&mut bytes)),
        _ => Timestamp::from_micros(bytes.integer()),
    };
    let mut decisions = Vec::new();
    while !bytes.0.is_empty() && decisions.len() < 6 {
        decisions.extend(decision(&mut bytes));
    }
    check(decisions, decided, now);
}

/// `None` for a quota that cannot be.
fn decision(bytes: &mut Bytes<'_>) -> Option<Decision> {
    let flags = bytes.byte();
    let period = Period::new(Duration::from_micros(bytes.integer())).ok()?;
    let capacity = bytes.integer();
    let quota = match flags & 3 {
        0 | 1 => Quota::fixed_window(capacity, period),
        2 => Quota::sliding_window(capacity, period),
        _ => Quota::token_bucket(capacity, bytes.integer(), period),
    };
    let name = format!("policy-{flags}.{capacity}");
    let policy = Policy::new(&name, quota.ok()?)
        .expect("a name of letters and digits")
        .with_shadow(flags & 4 != 0)
        .with_unit(match flags & 24 {
            0 => Unit::Requests,
            8 => Unit::Tokens,
            _ => Unit::named("pages").expect("a name of letters"),
        });
    let verdict = match bytes.byte() % 5 {
        0 | 1 => Verdict::Admit,
        2 => Verdict::Never,
        3 => Verdict::Deny {
            retry_after: duration(bytes),
        },
        _ => {
            let kind = KINDS[usize::from(bytes.byte()) % KINDS.len()];
            let error = Error::new(kind, "limit.apply", "no answer");
            return Some(Decision::unavailable(&policy, &error));
        }
    };
    let (used, reset) = (bytes.integer(), duration(bytes));
    let observed = Observed::new(verdict, used, reset, Source::Store);
    Some(Decision::new(&policy, &observed))
}

fn duration(bytes: &mut Bytes<'_>) -> Duration {
    match bytes.byte() % 3 {
        0 => Duration::from_micros(bytes.integer()),
        1 => Duration::from_nanos(bytes.integer()),
        _ => {
            let nanos = u32::from_be_bytes(bytes.array()) % 1_000_000_000;
            Duration::new(bytes.integer(), nanos)
        }
    }
}
