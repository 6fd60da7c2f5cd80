//! The fold on x86-64. Places and hashes are computed for a vector of tiles at once; then each tile
//! is loaded, signed, permuted by XOR of the lane, and added to one cache line of sums.

pub(super) mod avx2;
pub(super) mod avx512;

/// How far ahead the sums of a batch of tiles are fetched: they lie at random places.
const BATCH: usize = 16;
