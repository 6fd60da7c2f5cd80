//! The fold on x86-64. Places and hashes are computed for a vector of tiles at once; then each tile
//! is loaded, signed, permuted by XOR of the lane, and added to one cache line of sums.

pub(super) mod avx2;
pub(super) mod avx512;

/// Tiles whose places are computed at once. Their sums, which lie at random places, are fetched
/// into the cache while the batch before is added.
const BATCH: usize = 16;

/// How many elements ahead of its use the gradient is fetched: one page, because the hardware stops
/// fetching at the end of each. Measured to be a quarter faster on large tensors.
const AHEAD: usize = 1024;
