//! Values out of a fuzzer's bytes.

/// Takes values from the front; zeros once the bytes are used up.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    /// Of every order of magnitude: the first byte says how many bits there are at most.
    pub(crate) fn integer(&mut self) -> u64 {
        let bits = u32::from(self.byte()) % 65;
        let value = u64::from_be_bytes(self.array());
        value.checked_shr(64 - bits).unwrap_or(0)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
