//! How the values of buckets are read; the scripts write them. See `lua/algorithm/token_bucket.lua`.

use limiter_core::clock::MAX_INTEGER;

/// Of the short value: how many gains a byte tells apart beside the units, and how long a block of time is (ms).
const GAINS: u64 = 64;
const UNITS: [u64; 3] = [1, 1_000, 1_000_000];
const BLOCK_MILLIS: u64 = 16_000;
const BLOCKS: u64 = 65_536;

/// How many bytes the numbers take in each form, behind the letter and the version.
pub(crate) const SHORT_BUCKET: usize = 26;
pub(crate) const BUCKET: usize = 42;

/// A bucket's numbers: token, debt, at, full at, full since (us), and until when the key lives (ms).
pub(crate) fn bucket(value: &[u8]) -> Option<[u64; 6]> {
    match value.len() {
        BUCKET => {
            let mut numbers = [0; 6];
            for (number, bytes) in numbers.iter_mut().zip(value.chunks_exact(7)) {
                *number = read(bytes)?;
            }
            Some(numbers)
        }
        SHORT_BUCKET => short_bucket(value),
        _ => None,
    }
}

fn short_bucket(value: &[u8]) -> Option<[u64; 6]> {
    let mut rest = value;
    let mut next = |bytes: usize| {
        let (number, after) = rest.split_at_checked(bytes)?;
        rest = after;
        read(number)
    };
    let (at, debt, token, past) = (next(7)?, next(6)?, next(5)?, next(5)?);
    let (rate, block) = (next(1)?, next(2)?);
    let unit = UNITS.get(usize::try_from(rate / GAINS).ok()?)?;
    let gain = rate % GAINS;
    if gain == 0 {
        return None;
    }
    let full_at = debt.div_ceil(gain).checked_mul(*unit)?.checked_add(at)?;
    let first = at / (BLOCK_MILLIS * 1_000);
    let blocks = (block + BLOCKS - first % BLOCKS) % BLOCKS;
    let kept = (first + blocks) * BLOCK_MILLIS;
    (full_at <= MAX_INTEGER).then_some([token, debt, at, full_at, at.checked_sub(past)?, kept])
}

/// A number, whose highest byte is the first. `None` if it is above the largest.
pub(crate) fn read(bytes: &[u8]) -> Option<u64> {
    let number = bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (number <= MAX_INTEGER).then_some(number)
}
