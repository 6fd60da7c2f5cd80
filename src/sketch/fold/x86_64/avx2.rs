use std::arch::x86_64::*;

use super::super::product::{self, Product};
use super::super::tiling::{TILE, Tile, Tiling};
use super::{AHEAD, BATCH};
use crate::codec::lanes::SquareSum;
use crate::codec::mix::MIX;

/// The sum of squares by the portable code, compiled for wider vectors.
#[target_feature(enable = "avx2")]
pub(in super::super) fn sum_of_squares(gradient: &[f32]) -> f64 {
    let mut squares = SquareSum::new();
    for run in gradient.chunks(RUN) {
        for line in run.chunks(TILE) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(RUN).cast());
        }
        squares.add(run);
    }
    squares.finish()
}

/// The prefetch distance of [`sum_of_squares`] in elements: a page.
const RUN: usize = 1024;

/// Half a tile.
const HALF: usize = TILE / 2;

/// For each `r` below 8 the indices `lane ^ r`.
static PERMUTATIONS: [[u32; HALF]; HALF] = {
    let mut all = [[0; HALF]; HALF];
    let mut r = 0;
    while r < HALF {
        let mut lane = 0;
        while lane < HALF {
            all[r][lane] = (lane ^ r) as u32;
            lane += 1;
        }
        r += 1;
    }
    all
};

/// Bases and hashes of sixteen tiles.
#[repr(C, align(64))]
struct Batch {
    bases: [u32; BATCH],
    hashes: [u32; BATCH],
}

/// See [`scalar::fold`](super::super::scalar::fold).
#[target_feature(enable = "avx2")]
pub(in super::super) fn fold(
    tiling: &Tiling,
    first: u32,
    tiles: &[[f32; TILE]],
    scale: f32,
    sums: &mut [Tile],
) -> u32 {
    assert_eq!(sums.len().trailing_zeros(), 32 - tiling.to_base, "the sums must be one block's");
    let sums = sums.as_mut_ptr();
    let scale = _mm256_set1_ps(scale);
    let sign = _mm256_set1_epi32(i32::MIN);
    let magnitude = _mm256_set1_epi32(i32::MAX);
    // Shifted left by these, bit j of a hash becomes the sign of element j.
    let low_bits = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    let high_bits = _mm256_setr_epi32(23, 22, 21, 20, 19, 18, 17, 16);
    let mut most = _mm256_setzero_si256();
    let mut next = place(tiling, first, sums);
    let mut t = first;
    for tiles in tiles.chunks(BATCH) {
        let batch = next;
        t = t.wrapping_add(BATCH as u32);
        next = place(tiling, t, sums);
        for ((tile, &base), &hash) in tiles.iter().zip(&batch.bases).zip(&batch.hashes) {
            _mm_prefetch::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(AHEAD).cast());
            // SAFETY: a tile is sixteen f32.
            let (low, high) =
                unsafe { (_mm256_loadu_ps(tile.as_ptr()), _mm256_loadu_ps(tile.as_ptr().add(HALF))) };
            let bits = _mm256_and_si256(_mm256_castps_si256(low), magnitude);
            most = _mm256_max_epu32(most, bits);
            let bits = _mm256_and_si256(_mm256_castps_si256(high), magnitude);
            most = _mm256_max_epu32(most, bits);
            let r = (hash >> 28) as usize;
            let lanes = PERMUTATIONS[r % HALF].as_ptr();
            // SAFETY: a permutation is eight u32.
            let lanes = unsafe { _mm256_loadu_si256(lanes.cast()) };
            let hash = _mm256_set1_epi32(hash.cast_signed());
            let signed = |x: __m256, bits: __m256i| {
                let flips = _mm256_and_si256(_mm256_sllv_epi32(hash, bits), sign);
                let value = _mm256_mul_ps(x, scale);
                let value = _mm256_xor_ps(value, _mm256_castsi256_ps(flips));
                _mm256_permutevar8x32_ps(value, lanes)
            };
            let (low, high) = (signed(low, low_bits), signed(high, high_bits));
            // The top bit of r swaps the halves.
            // SAFETY: a base is a 32-bit number shifted right by `to_base`, so it is below the number of
            // sums, which is 2^(32 - to_base) as asserted above; and a `Tile` is sixteen f32 aligned to 64
            // bytes, of which both offsets take eight.
            unsafe {
                let sum = sums.add(base as usize).cast::<f32>();
                let (to_low, to_high) = (sum.add(r & HALF), sum.add((r & HALF) ^ HALF));
                _mm256_store_ps(to_low, _mm256_add_ps(_mm256_load_ps(to_low), low));
                _mm256_store_ps(to_high, _mm256_add_ps(_mm256_load_ps(to_high), high));
            }
        }
    }
    let mut all = [0u32; HALF];
    // SAFETY: `all` is eight u32.
    unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), most) };
    all.into_iter().fold(0, u32::max)
}

/// Computes the batch that starts at tile `t`, and prefetches its sums; `sums` is not dereferenced.
#[inline]
#[target_feature(enable = "avx2")]
fn place(tiling: &Tiling, t: u32, sums: *const Tile) -> Batch {
    let mut batch = Batch { bases: [0; BATCH], hashes: [0; BATCH] };
    let step = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for half in [0, HALF] {
        let t = _mm256_add_epi32(word(t.wrapping_add(half as u32)), step);
        let (mask, shift) = (word(tiling.mask), word(tiling.shift));
        let mut x = t;
        for (multiplier, addend) in tiling.rounds {
            x = _mm256_add_epi32(_mm256_mullo_epi32(x, word(multiplier)), word(addend));
            x = _mm256_and_si256(x, mask);
            x = _mm256_xor_si256(x, _mm256_srlv_epi32(x, shift));
        }
        // A shift by 32 gives 0, as required.
        let place = _mm256_sllv_epi32(x, word(tiling.to_phase));
        let phase = _mm256_add_epi32(place, word(tiling.phase_key));
        let bases = _mm256_srlv_epi32(phase, word(tiling.to_base));
        let hashes = mix(_mm256_add_epi32(t, word(tiling.mix_keys.0)));
        let hashes = mix(_mm256_xor_si256(hashes, word(tiling.mix_keys.1)));
        // SAFETY: `half` is 0 or 8, and both arrays have sixteen u32.
        unsafe {
            _mm256_storeu_si256(batch.bases.as_mut_ptr().add(half).cast(), bases);
            _mm256_storeu_si256(batch.hashes.as_mut_ptr().add(half).cast(), hashes);
        }
    }
    for base in batch.bases {
        _mm_prefetch::<_MM_HINT_T0>(sums.wrapping_add(base as usize).cast());
    }
    batch
}

#[inline]
#[target_feature(enable = "avx2")]
fn word(word: u32) -> __m256i {
    _mm256_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn mix(x: __m256i) -> __m256i {
    let x = _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x));
    let x = _mm256_mullo_epi32(x, word(MIX[0]));
    let x = _mm256_xor_si256(x, _mm256_srli_epi32::<15>(x));
    let x = _mm256_mullo_epi32(x, word(MIX[1]));
    _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x))
}

/// See [`product::add`].
#[target_feature(enable = "avx2")]
pub(in super::super) fn add_products(product: &Product<'_>, sums: &mut [f32]) {
    product::add::<4, 16>(product, sums);
}
