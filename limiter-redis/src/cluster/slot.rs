//! The slot of a key, as the cluster specification has it.

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a Redis Cluster in which a key stands, 0 to 16,383: CRC16 of its hash tag, or of its
/// whole name (with the prefix) without one. A group is one atomic step if its keys share a slot.
///
/// ```
/// use limiter_redis::slot_of;
///
/// assert_eq!(slot_of("ratelimit:{acme}:user"), slot_of("ratelimit:{acme}:all"));
/// assert_ne!(slot_of("ratelimit:acme:user"), slot_of("ratelimit:acme:all"));
/// ```
pub fn slot_of(key: &str) -> u16 {
    slot_of_bytes(key.as_bytes())
}

pub(crate) fn slot_of_bytes(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
}

/// What stands between the first `{` and the first `}` after it, if anything does; else everything.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ CRC16[usize::from(high ^ byte)]
    })
}

/// What each high byte comes to.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    let mut high: u16 = 0;
    while byte < table.len() {
        let mut crc = high;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
        high = high.wrapping_add(0x100);
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own examples; `cluster_slots.rs` asks a real server about any key.
    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(
            slot_of("{user1000}.following"),
            slot_of("{user1000}.followers")
        );
        for (key, hashed) in [
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo}{bar", "foo}{bar"),
            ("a}b{c}", "c"),
        ] {
            assert_eq!(hashed_part(key.as_bytes()), hashed.as_bytes(), "{key}");
        }
    }
}
