//! The base, lanes and signs of a tensor's tiles.

use sha2::{Digest as _, Sha512};

use crate::codec::mix::mix;

/// Elements of a tile, and lanes of the sums.
pub(super) const TILE: usize = 16;

/// Sixteen sums, or sixteen elements, in one cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [f32; TILE]);

impl Tile {
    pub(super) const ZERO: Self = Self([0.0; TILE]);
}

/// The sixteen key words of a parameter, from which bases, lanes and signs are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys([u32; 16]);

impl Keys {
    pub(super) fn new(seed: u64, parameter: &str) -> Self {
        let mut hash = Sha512::new();
        hash.update(b"gradix.rapid_grad.1");
        hash.update(seed.to_le_bytes());
        hash.update(parameter.as_bytes());
        let digest: [u8; 64] = hash.finalize().into();
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> [u32; 16] {
        self.0
    }
}

/// The places and signs of one tensor's tiles in one block.
#[derive(Debug, Clone)]
pub(super) struct Tiling {
    /// Multiplier (odd) and addend of each of the four rounds.
    pub(super) rounds: [(u32, u32); 4],
    /// Added to a place to get a phase, and to a tile before and between the mixes.
    pub(super) phase_key: u32,
    pub(super) mix_keys: (u32, u32),
    /// `2^n - 1`, where n is the number of bits of a tile's place.
    pub(super) mask: u32,
    /// The shift within a round.
    pub(super) shift: u32,
    /// From a place to a phase: 32 - n; 32 shifts everything out.
    pub(super) to_phase: u32,
    /// From a phase to a base: 32 - b; 32 shifts everything out.
    pub(super) to_base: u32,
}

impl Tiling {
    /// For a tensor of `elements` (1 to 2^35) and a block of `bases` (a power of two) tiles of sums.
    pub(super) fn new(keys: &Keys, elements: usize, bases: usize) -> Self {
        let k = keys.0;
        let n = elements.div_ceil(TILE).next_power_of_two().trailing_zeros();
        let rounds = [0, 2, 4, 6].map(|i| (k[i] | 1, k[i + 1]));
        Self {
            rounds,
            phase_key: k[8],
            mix_keys: (k[9], k[10]),
            mask: !(u32::MAX << n),
            shift: n.div_ceil(2).max(1),
            to_phase: 32 - n,
            to_base: 32 - bases.trailing_zeros(),
        }
    }

    /// The base of tile `t`: the cache line of sums that it is added to.
    pub(super) fn base(&self, t: u32) -> usize {
        self.phase(t).checked_shr(self.to_base).unwrap_or(0) as usize
    }

    /// The place of tile `t` on the circle of 2^32 phases, which does not depend on the block.
    pub(super) fn phase(&self, t: u32) -> u32 {
        let mut x = t;
        for (multiplier, addend) in self.rounds {
            x = x.wrapping_mul(multiplier).wrapping_add(addend) & self.mask;
            x ^= x >> self.shift;
        }
        let place = x.checked_shl(self.to_phase).unwrap_or(0);
        place.wrapping_add(self.phase_key)
    }

    /// The hash of tile `t`: if bit `j` is set, element `j` is negated; the lane of an element is `j` XOR the
    /// top four bits.
    pub(super) fn hash(&self, t: u32) -> u32 {
        mix(mix(t.wrapping_add(self.mix_keys.0)) ^ self.mix_keys.1)
    }
}
