//! The signs of projections: a word of 32 for each row and 32 columns.

use sha2::{Digest as _, Sha512};

use crate::codec::mix::mix;

/// The number of signs of a word.
pub(super) const WORD: usize = 32;

/// The key words of a parameter: four for each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys([u32; 8]);

impl Keys {
    pub(super) fn new(seed: u64, parameter: &str) -> Self {
        let mut hash = Sha512::new();
        hash.update(b"gradix.kronecker.1");
        hash.update(seed.to_le_bytes());
        hash.update(parameter.as_bytes());
        let digest: [u8; 64] = hash.finalize().into();
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }

    pub(super) fn inputs(&self) -> [u32; 4] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }

    pub(super) fn outputs(&self) -> [u32; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }
}

/// The two keys of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row(u32, u32);

impl Row {
    #[expect(clippy::cast_possible_truncation, reason = "a side has at most 2^14 rows")]
    pub(super) fn new(keys: &[u32; 4], row: usize) -> Self {
        let key = |first: u32, second: u32| mix(mix((row as u32).wrapping_add(first)) ^ second);
        Self(key(keys[0], keys[1]), key(keys[2], keys[3]))
    }

    /// The signs of the columns from `32 * chunk`: if bit `j` is set, the sign of column `32 * chunk + j` is
    /// negative.
    #[expect(clippy::cast_possible_truncation, reason = "a side has at most 2^35 columns")]
    pub(super) fn word(self, chunk: usize) -> u32 {
        mix(mix((chunk as u32).wrapping_add(self.0)) ^ self.1)
    }
}
