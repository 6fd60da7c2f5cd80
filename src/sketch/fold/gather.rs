//! The fold read backwards: which tiles a base takes, instead of which base takes a tile. A device sums this
//! way, in the order that `format-spec/sketch.md` calls the device's.

use super::tiling::Tiling;

/// One tensor's tiles in one block, by base.
///
/// A tile's place in the circle, turned by the whole steps of the phase key, is its `turn`; the turns of a
/// base are consecutive, so that its tiles are found by the inverse of the four rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gather {
    /// Factor and addend of each inverse round, the last round's first.
    pub(crate) rounds: [(u32, u32); 4],
    pub(crate) shift: u32,
    pub(crate) mask: u32,
    /// What is subtracted from a turn to get a place.
    pub(crate) turned: u32,
    /// Added to a tile before and between the mixes of its hash.
    pub(crate) mix_keys: (u32, u32),
    /// Turns of a tensor: 2^n.
    pub(crate) turns: u32,
    /// Turns of a base, at least 1.
    pub(crate) turns_of_base: u32,
    /// The base of turn q is `(q / turns_of_base) * base_step + base_first`.
    pub(crate) base_step: u32,
    pub(crate) base_first: u32,
    /// The number of tiles; turns whose tile is not below it have none.
    pub(crate) tiles: u32,
}

impl Gather {
    /// The inverse of `tiling`, for a tensor of `tiles` tiles and a block of `bases` bases.
    pub(super) fn new(tiling: &Tiling, tiles: u32, bases: u32) -> Self {
        let rounds = [3, 2, 1, 0].map(|round: usize| {
            let (multiplier, addend) = tiling.rounds[round];
            let factor = inverse(multiplier);
            (factor, addend.wrapping_mul(factor).wrapping_neg())
        });
        let (n, b) = (32 - tiling.to_phase, 32 - tiling.to_base);
        let turned = tiling.phase_key.checked_shr(tiling.to_phase).unwrap_or(0);
        // What the phase key has below one turn decides which of several bases a turn meets.
        let below = tiling.phase_key.wrapping_sub(turned.checked_shl(tiling.to_phase).unwrap_or(0));
        let (turns_of_base, base_step, base_first) =
            if n >= b { (1 << (n - b), 1, 0) } else { (1, 1 << (b - n), below >> tiling.to_base) };
        debug_assert!(base_first < base_step && base_step <= bases);
        let Tiling { shift, mask, mix_keys, .. } = *tiling;
        let turns = 1 << n;
        Self { rounds, shift, mask, turned, mix_keys, turns, turns_of_base, base_step, base_first, tiles }
    }
}

/// The inverse of an odd number modulo 2^32: each step of Newton's doubles the right bits, of which there
/// are three at first.
fn inverse(odd: u32) -> u32 {
    (0..4).fold(odd, |x, _| x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x))))
}
