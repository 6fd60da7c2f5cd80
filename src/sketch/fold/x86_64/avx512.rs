use std::arch::x86_64::*;

use super::super::product::{self, Product};
use super::super::tiling::{TILE, Tile, Tiling};
use super::{AHEAD, BATCH};
use crate::codec::lanes;
use crate::codec::mix::MIX;

/// [`lanes::sum_of_squares`] with eight lanes per vector.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn sum_of_squares(gradient: &[f32]) -> f64 {
    let (tiles, rest) = gradient.as_chunks::<TILE>();
    let (mut low, mut high) = (_mm512_setzero_pd(), _mm512_setzero_pd());
    for tile in tiles {
        _mm_prefetch::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(AHEAD).cast());
        // SAFETY: a tile is sixteen f32.
        let (x, y) =
            unsafe { (_mm256_loadu_ps(tile.as_ptr()), _mm256_loadu_ps(tile.as_ptr().add(TILE / 2))) };
        let (x, y) = (_mm512_cvtps_pd(x), _mm512_cvtps_pd(y));
        // The square is exact in f64, so fusing it with the sum changes nothing.
        low = _mm512_fmadd_pd(x, x, low);
        high = _mm512_fmadd_pd(y, y, high);
    }
    let mut lanes = [0.0; TILE];
    // SAFETY: `lanes` is sixteen f64, eight for each of the two.
    unsafe {
        _mm512_storeu_pd(lanes.as_mut_ptr(), low);
        _mm512_storeu_pd(lanes.as_mut_ptr().add(TILE / 2), high);
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(value) * f64::from(value);
    }
    lanes::halve_f64(lanes)
}

/// For each `r` the indices `lane ^ r`.
static PERMUTATIONS: [[u32; TILE]; TILE] = {
    let mut all = [[0; TILE]; TILE];
    let mut r = 0;
    while r < TILE {
        let mut lane = 0;
        while lane < TILE {
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
#[target_feature(enable = "avx512f")]
pub(in super::super) fn fold(
    tiling: &Tiling,
    first: u32,
    tiles: &[[f32; TILE]],
    scale: f32,
    sums: &mut [Tile],
) -> u32 {
    assert_eq!(sums.len().trailing_zeros(), 32 - tiling.to_base, "the sums must be one block's");
    let sums = sums.as_mut_ptr();
    let scale = _mm512_set1_ps(scale);
    let sign = _mm512_set1_epi32(i32::MIN);
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let mut most = _mm512_setzero_si512();
    let mut next = place(tiling, first, sums);
    let mut t = first;
    for tiles in tiles.chunks(BATCH) {
        let batch = next;
        t = t.wrapping_add(BATCH as u32);
        next = place(tiling, t, sums);
        for ((tile, &base), &hash) in tiles.iter().zip(&batch.bases).zip(&batch.hashes) {
            _mm_prefetch::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(AHEAD).cast());
            // SAFETY: a tile is sixteen f32.
            let x = unsafe { _mm512_loadu_ps(tile.as_ptr()) };
            let bits = _mm512_castps_si512(x);
            most = _mm512_max_epu32(most, _mm512_and_si512(bits, magnitude));
            let value = _mm512_castps_si512(_mm512_mul_ps(x, scale));
            let signed = _mm512_mask_xor_epi32(value, hash as u16, value, sign);
            let lanes = PERMUTATIONS[(hash >> 28) as usize].as_ptr();
            // SAFETY: a permutation is sixteen u32.
            let lanes = unsafe { _mm512_loadu_si512(lanes.cast()) };
            let moved = _mm512_permutexvar_ps(lanes, _mm512_castsi512_ps(signed));
            // SAFETY: a base is a 32-bit number shifted right by `to_base`, so it is below the number of
            // sums, which is 2^(32 - to_base) as asserted above; and a `Tile` is sixteen f32 aligned to 64
            // bytes.
            unsafe {
                let sum = sums.add(base as usize).cast::<f32>();
                _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), moved));
            }
        }
    }
    _mm512_reduce_max_epu32(most)
}

/// Computes the batch that starts at tile `t`, and prefetches its sums; `sums` is not dereferenced.
#[inline]
#[target_feature(enable = "avx512f")]
fn place(tiling: &Tiling, t: u32, sums: *const Tile) -> Batch {
    let word = |word: u32| _mm512_set1_epi32(word.cast_signed());
    let step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let t = _mm512_add_epi32(word(t), step);
    let (mask, shift) = (word(tiling.mask), word(tiling.shift));
    let mut x = t;
    for (multiplier, addend) in tiling.rounds {
        x = _mm512_add_epi32(_mm512_mullo_epi32(x, word(multiplier)), word(addend));
        x = _mm512_and_si512(x, mask);
        x = _mm512_xor_si512(x, _mm512_srlv_epi32(x, shift));
    }
    // A shift by 32 gives 0, as required.
    let place = _mm512_sllv_epi32(x, word(tiling.to_phase));
    let phase = _mm512_add_epi32(place, word(tiling.phase_key));
    let bases = _mm512_srlv_epi32(phase, word(tiling.to_base));
    let hashes = mix(_mm512_add_epi32(t, word(tiling.mix_keys.0)));
    let hashes = mix(_mm512_xor_si512(hashes, word(tiling.mix_keys.1)));
    let mut batch = Batch { bases: [0; BATCH], hashes: [0; BATCH] };
    // SAFETY: both are sixteen u32.
    unsafe {
        _mm512_storeu_si512(batch.bases.as_mut_ptr().cast(), bases);
        _mm512_storeu_si512(batch.hashes.as_mut_ptr().cast(), hashes);
    }
    for base in batch.bases {
        _mm_prefetch::<_MM_HINT_T0>(sums.wrapping_add(base as usize).cast());
    }
    batch
}

#[inline]
#[target_feature(enable = "avx512f")]
fn mix(x: __m512i) -> __m512i {
    let [first, second] = MIX.map(u32::cast_signed);
    let x = _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x));
    let x = _mm512_mullo_epi32(x, _mm512_set1_epi32(first));
    let x = _mm512_xor_si512(x, _mm512_srli_epi32::<15>(x));
    let x = _mm512_mullo_epi32(x, _mm512_set1_epi32(second));
    _mm512_xor_si512(x, _mm512_srli_epi32::<16>(x))
}

/// Rows and vectors of sums that stay in registers.
const HEIGHT: usize = 8;
const VECTORS: usize = 2;

/// See [`product::add`]. Since a product is exact, fusing it with the sum changes nothing.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn add_products(product: &Product<'_>, sums: &mut [f32]) {
    const WIDTH: usize = VECTORS * TILE;
    let Product { left, rows, right, stride, width } = *product;
    let terms = left.len() / rows.max(1);
    let fits = terms == 0 || right.len() >= (terms - 1) * stride + width;
    assert!(sums.len() >= rows * width && fits, "the sums and the terms must be there");
    let (whole_rows, whole_width) = (rows - rows % HEIGHT, width - width % WIDTH);
    for first in (0..whole_width).step_by(WIDTH) {
        for top in (0..whole_rows).step_by(HEIGHT) {
            let mut tile = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
            for (row, tile) in tile.iter_mut().enumerate() {
                for (vector, sums_of) in tile.iter_mut().enumerate() {
                    let at = (top + row) * width + first + vector * TILE;
                    // SAFETY: row and columns are within `sums`, whose length is checked above.
                    *sums_of = unsafe { _mm512_loadu_ps(sums.as_ptr().add(at)) };
                }
            }
            for term in 0..terms {
                let at = term * stride + first;
                // SAFETY: the term's columns are within `right`, whose length is checked above.
                let x: [_; VECTORS] = [0, TILE].map(|vector| unsafe { right.as_ptr().add(at + vector) });
                // SAFETY: as above; each is sixteen f32.
                let x = unsafe { [_mm512_loadu_ps(x[0]), _mm512_loadu_ps(x[1])] };
                for (row, tile) in tile.iter_mut().enumerate() {
                    // SAFETY: `left` has `rows` elements for each term.
                    let by = _mm512_set1_ps(unsafe { *left.get_unchecked(term * rows + top + row) });
                    tile[0] = _mm512_fmadd_ps(x[0], by, tile[0]);
                    tile[1] = _mm512_fmadd_ps(x[1], by, tile[1]);
                }
            }
            for (row, tile) in tile.iter().enumerate() {
                for (vector, sums_of) in tile.iter().enumerate() {
                    let at = (top + row) * width + first + vector * TILE;
                    // SAFETY: as where they were loaded.
                    unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(at), *sums_of) };
                }
            }
        }
    }
    product::add_rest::<TILE>(product, sums, whole_rows, whole_width);
}
