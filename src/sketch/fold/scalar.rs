//! The fold as `format-spec/sketch.md` specifies it, one element at a time: the oracle of the other kernels.

use super::tiling::{TILE, Tile, Tiling};

/// Adds `tiles`, the first of which is tile `first` of the tensor, times `scale`. Returns the bits of the
/// largest magnitude of an element.
pub(super) fn fold(tiling: &Tiling, first: u32, tiles: &[[f32; TILE]], scale: f32, sums: &mut [Tile]) -> u32 {
    let mut most = 0;
    for (t, tile) in (first..).zip(tiles) {
        let (base, hash) = (tiling.base(t), tiling.hash(t));
        for (j, &x) in tile.iter().enumerate() {
            most = most.max(x.abs().to_bits());
            let value = x * scale;
            let lane = j ^ (hash >> 28) as usize;
            sums[base].0[lane] += if hash >> j & 1 == 1 { -value } else { value };
        }
    }
    most
}
