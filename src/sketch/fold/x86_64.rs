//! The fold on x86-64. Bases and hashes are computed for a vector of tiles at once. Then each tile is
//! loaded, signed, permuted by XOR of the lane, and added to one cache line of sums.

pub(super) mod avx2;
pub(super) mod avx512;

/// The number of tiles whose bases are computed at once. Their sums, at random addresses, are prefetched
/// while the previous batch is added.
const BATCH: usize = 16;

/// The prefetch distance of the gradient in elements, into L2: several pages, because the hardware prefetcher
/// stops at the end of a page. On a large tensor (`benches/fold.rs`), a fold of 2^16 buckets takes half of
/// the time that it takes with a distance of one page into L1, where the prefetched lines evict the sums.
const AHEAD: usize = 4096;
