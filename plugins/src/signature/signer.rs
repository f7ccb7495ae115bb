//! Signs as minisign does, for tests: an Ed25519 signature of the file's BLAKE2b-512, and another of that and the trusted comment.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

/// Somebody who signs plugins.
#[derive(Debug)]
pub struct Signer {
    pair: Ed25519KeyPair,
    id: [u8; 8],
}

impl Signer {
    /// One with a key of its own.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let pair = Ed25519KeyPair::generate().expect("randomness");
        let mut id = [0; 8];
        id.copy_from_slice(&pair.public_key().as_ref()[..8]);
        Self { pair, id }
    }

    /// The public key, as `minisign.pub` has it in its second line.
    #[must_use]
    pub fn key(&self) -> String {
        base64(&[b"Ed", self.id.as_slice(), self.pair.public_key().as_ref()].concat())
    }

    /// The signature file of `bytes`, with this trusted comment.
    #[must_use]
    pub fn sign(&self, bytes: &[u8], comment: &str) -> String {
        let signature = self.pair.sign(blake2b_simd::blake2b(bytes).as_bytes());
        let over_all = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let first = base64(&[b"ED", self.id.as_slice(), signature.as_ref()].concat());
        format!("untrusted comment: a test\n{first}\ntrusted comment: {comment}\n{}\n", base64(over_all.as_ref()))
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..4).map(move |place| match place <= chunk.len() {
            true => char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]),
            false => '=',
        })
    });
    letters.collect()
}
