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

#[cfg(test)]
mod tests {
    use super::{BLOCK_MILLIS, BUCKET, SHORT_BUCKET, bucket};

    fn bytes(numbers: &[(u64, usize)]) -> Vec<u8> {
        let bytes = numbers
            .iter()
            .flat_map(|(number, count)| number.to_be_bytes()[8 - count..].to_vec());
        bytes.collect()
    }

    /// 97 fractions a millisecond, 60,000 a token: a debt of 60,001 is paid off in 619 ms.
    #[test]
    fn both_forms_say_the_same() {
        const AT: u64 = 1_795_219_200_123_000;
        let numbers = [60_000, 60_001, AT, AT + 619_000, AT - 5_000];
        let long = numbers.map(|number| (number, 7));
        let mut long = bytes(&long);
        long.extend(bytes(&[(1_795_221_000_122, 7)]));
        assert_eq!(long.len(), BUCKET);
        let [token, debt, at, full_at, since] = numbers;
        assert_eq!(
            bucket(&long),
            Some([token, debt, at, full_at, since, 1_795_221_000_122])
        );

        // A gain of 97 has no room in a short one; 33 a millisecond pay 60,001 off in 1,819 ms.
        let block = 1_795_221_000_122 / BLOCK_MILLIS;
        let fields = |rate| {
            [
                (at, 7),
                (debt, 6),
                (token, 5),
                (5_000, 5),
                (rate, 1),
                (block % 65_536, 2),
            ]
        };
        let short = bytes(&fields(64 + 33));
        assert_eq!(short.len(), SHORT_BUCKET);
        let kept = block * BLOCK_MILLIS;
        assert_eq!(
            bucket(&short),
            Some([token, debt, at, AT + 1_819_000, since, kept])
        );
        for rate in [0, 64, 3 * 64 + 1] {
            assert_eq!(bucket(&bytes(&fields(rate))), None, "{rate}");
        }
        assert_eq!(bucket(&short[1..]), None);
    }

    /// The block until which a key lives is told apart from that 12 days later.
    #[test]
    fn blocks_count_from_the_state_on() {
        for at in [0, 1, 65_535, 65_536, 112_201_200] {
            for ahead in [0, 1, 65_535] {
                let micros = at * BLOCK_MILLIS * 1_000;
                let fields = [
                    (micros, 7),
                    (1, 6),
                    (1, 5),
                    (0, 5),
                    (1, 1),
                    ((at + ahead) % 65_536, 2),
                ];
                let read = bucket(&bytes(&fields)).map(|numbers| numbers[5]);
                assert_eq!(read, Some((at + ahead) * BLOCK_MILLIS));
            }
        }
    }
}
