//! A short hash for tables whose keys come from the operator or the gateway. Strangers may look up what they like in them, and cannot
//! choose keys that meet.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`Short`].
pub type BuildShort = BuildHasherDefault<Short>;

/// A hash of a name or a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Short(u64);

impl Short {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Short {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        self.mix(rest.iter().fold(rest.len() as u64, |word, byte| (word << 8) | u64::from(*byte)));
    }

    /// `str` ends its bytes with one of these, to tell "ab" "c" from "a" "bc"; there is only ever one name.
    fn write_u8(&mut self, _: u8) {}

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    /// The table takes both its lowest and its highest bits, and the product is best mixed at the top.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
