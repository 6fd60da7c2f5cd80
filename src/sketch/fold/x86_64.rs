//! The fold on x86-64. Places and hashes are computed for a vector of tiles at once; then each tile
//! is loaded, signed, permuted by XOR of the lane, and added to one cache line of sums.

pub(super) mod avx2;
pub(super) mod avx512;

/// Tiles whose places are computed at once. Their sums, which lie at random places, are fetched
/// into the cache while the batch before is added.
const BATCH: usize = 16;

/// How many elements ahead of its use the gradient is fetched, into L2: some pages, because the hardware stops
/// fetching at the end of each. On a large tensor (`benches/fold.rs`) a fold of 2^16 buckets takes half of the
/// time that it takes with a distance of one page into L1, where the fetched lines push the sums out.
const AHEAD: usize = 4096;
