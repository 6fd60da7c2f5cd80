//! AVX-512 F, BW and VL: the sixteen lanes are one register.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::narrow::{Narrow, Scale};
use super::super::packed::{ByteQueries, FloatLine, FloatQueries, IntegerLine, IntegerQueries, PlaneQueries};
use super::super::speeds::Speeds;
use super::super::{Kernel, KernelChoice, Rows, scalar};
use super::{FIRST_CACHE, filled_up, load, one_query_or_tiles, put, tiles};

/// Proves that the instructions exist.
#[derive(Debug)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<&'static Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        let all = all && super::Avx2::detect().is_some();
        all.then_some(&Self(()))
    }
}

impl Kernel for Avx512 {
    fn choice(&self) -> KernelChoice {
        KernelChoice::Avx512
    }

    fn speeds(&self) -> Speeds {
        Speeds::AVX512
    }

    fn products(&self) -> usize {
        1 << 28
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(4 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { f32_rows(rows, batch, queries, out) }
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(2 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { f16_rows(rows, batch, queries, out) }
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { i8_rows(rows, batch, queries, out) }
    }

    fn has_bytes(&self) -> bool {
        false
    }

    /// Runs the scalar code: the planner chooses no path with products of bytes if `has_bytes` is false.
    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
        scalar::bytes(rows, batch, queries, out);
    }

    /// Counts bits as AVX2 does.
    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims().div_ceil(8), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { super::avx2::planes_rows(rows, batch, queries, out) }
    }

    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { narrow_f32(rows, out) }
    }

    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { narrow_f16(rows, out) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn f32_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    tiles!(rows, queries, out, R = 4, Q = 4, f32_tile, |query| batch.lines(query));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn f16_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    one_query_or_tiles!(rows, queries, out, R = 4, Q = 4, f16_tile, |query| batch.lines(query));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn i8_rows(rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
    one_query_or_tiles!(rows, queries, out, R = 4, Q = 4, i8_tile, |query| batch.lines(query));
}

/// Rows of `4 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn f32_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    let dims = rows[0].len() / 4;
    let (full, rest) = (dims / 16, dims % 16);
    let mask = (1u16 << rest) - 1;
    check(&rows, 4 * dims, queries.map(<[_]>::len), dims.div_ceil(16));
    let mut sums = [[_mm512_setzero_ps(); Q]; R];
    for line in 0..full {
        // SAFETY: `64 * (line + 1) <= 4 * dims`, the length of each row; the load may be unaligned.
        let x = load!(_mm512_setzero_ps(), rows, |row| unsafe {
            _mm512_loadu_ps(row.as_ptr().add(line * 64).cast())
        });
        accumulate(&mut sums, x, queries, line);
    }
    if rest > 0 {
        // SAFETY: the mask selects the `rest` numbers that each row has left, and no others.
        let x = load!(_mm512_setzero_ps(), rows, |row| unsafe {
            _mm512_maskz_loadu_ps(mask, row.as_ptr().add(full * 64).cast())
        });
        accumulate(&mut sums, x, queries, full);
    }
    sums.map(|sums| sums.map(|lanes| add_lanes(lanes)))
}

/// Rows of `2 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn f16_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    let dims = rows[0].len() / 2;
    let (full, rest) = (dims / 16, dims % 16);
    let mask = (1u16 << rest) - 1;
    check(&rows, 2 * dims, queries.map(<[_]>::len), dims.div_ceil(16));
    let mut sums = [[_mm512_setzero_ps(); Q]; R];
    for line in 0..full {
        // SAFETY: `32 * (line + 1) <= 2 * dims`, the length of each row; the load may be unaligned.
        let x = load!(_mm512_setzero_ps(), rows, |row| _mm512_cvtph_ps(unsafe {
            _mm256_loadu_si256(row.as_ptr().add(line * 32).cast())
        }));
        accumulate(&mut sums, x, queries, line);
    }
    if rest > 0 {
        // SAFETY: the mask selects the `rest` codes that each row has left, and no others.
        let x = load!(_mm512_setzero_ps(), rows, |row| _mm512_cvtph_ps(unsafe {
            _mm256_maskz_loadu_epi16(mask, row.as_ptr().add(full * 32).cast())
        }));
        accumulate(&mut sums, x, queries, full);
    }
    sums.map(|sums| sums.map(|lanes| add_lanes(lanes)))
}

/// One step of each lane: `sum = fma(x, q, sum)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn accumulate<const R: usize, const Q: usize>(
    sums: &mut [[__m512; Q]; R],
    x: [__m512; R],
    queries: [&[FloatLine]; Q],
    line: usize,
) {
    for l in 0..Q {
        // SAFETY: `check` ensures that each query has this line; a line is 64 aligned bytes.
        let q = unsafe { _mm512_load_ps(queries[l].as_ptr().add(line).cast()) };
        for k in 0..R {
            sums[k][l] = _mm512_fmadd_ps(x[k], q, sums[k][l]);
        }
    }
}

/// The lanes added in halves: `l += l + 8`, then 4, 2, 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_lanes(lanes: __m512) -> f32 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
    super::avx2::add_eight(_mm256_add_ps(_mm512_castps512_ps256(lanes), high))
}

/// Steps of 32 codes before the sums of 32 bits could overflow: a step adds at most
/// `2 * 128 * 32512` in absolute value, and 258 of those are below 2^31.
pub(super) const STEPS: usize = 256;
const _: () = assert!(STEPS as u64 * 2 * 128 * (IntegerQueries::LARGEST as u64) < 1 << 31);

/// Defines `i8_tile`, for instruction sets that differ in how two products are added to each sum of 32 bits.
/// A macro, because an inlined function must not need target features that its caller lacks.
macro_rules! make_i8_tile {
    ($features:literal, |$sum:ident, $x:ident, $q:ident| $step:expr) => {
        /// Rows of `dims` bytes; queries of `dims` codes, padded to whole lines.
        #[inline]
        #[target_feature(enable = $features)]
        fn i8_tile<const R: usize, const Q: usize>(
            rows: [&[u8]; R],
            queries: [&[IntegerLine]; Q],
        ) -> [[i64; Q]; R] {
            let dims = rows[0].len();
            let (full, rest) = (dims / 32, dims % 32);
            let mask = (1u32 << rest) - 1;
            check(&rows, dims, queries.map(<[_]>::len), dims.div_ceil(32));
            let mut totals = [[0i64; Q]; R];
            let mut line = 0;
            while line < full {
                let end = full.min(line + STEPS);
                let mut sums = [[_mm512_setzero_si512(); Q]; R];
                for line in line..end {
                    // SAFETY: `32 * (line + 1) <= dims`, the length of each row; the load may be unaligned.
                    let x = load!(_mm512_setzero_si512(), rows, |row| _mm512_cvtepi8_epi16(unsafe {
                        _mm256_loadu_si256(row.as_ptr().add(line * 32).cast())
                    }));
                    multiply_add(&mut sums, x, queries, line);
                }
                flush(&mut totals, sums);
                line = end;
            }
            if rest > 0 {
                let mut sums = [[_mm512_setzero_si512(); Q]; R];
                // SAFETY: the mask selects the `rest` codes that each row has left, and no others.
                let x = load!(_mm512_setzero_si512(), rows, |row| _mm512_cvtepi8_epi16(unsafe {
                    _mm256_maskz_loadu_epi8(mask, row.as_ptr().add(full * 32).cast())
                }));
                multiply_add(&mut sums, x, queries, full);
                flush(&mut totals, sums);
            }
            totals
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn multiply_add<const R: usize, const Q: usize>(
            sums: &mut [[__m512i; Q]; R],
            x: [__m512i; R],
            queries: [&[IntegerLine]; Q],
            line: usize,
        ) {
            for l in 0..Q {
                // SAFETY: `check` ensures that each query has this line; a line is 64 aligned bytes.
                let $q = unsafe { _mm512_load_si512(queries[l].as_ptr().add(line).cast()) };
                for k in 0..R {
                    let ($sum, $x) = (sums[k][l], x[k]);
                    sums[k][l] = $step;
                }
            }
        }
    };
}
pub(super) use make_i8_tile;

make_i8_tile!("avx512f,avx512bw,avx512vl", |sum, x, q| _mm512_add_epi32(sum, _mm512_madd_epi16(x, q)));

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn flush<const R: usize, const Q: usize>(totals: &mut [[i64; Q]; R], sums: [[__m512i; Q]; R]) {
    for k in 0..R {
        for l in 0..Q {
            let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums[k][l]));
            let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums[k][l]));
            totals[k][l] += _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
        }
    }
}

/// Checks what the loads rely on, once for each tile.
#[inline]
pub(super) fn check<const R: usize, const Q: usize>(
    rows: &[&[u8]; R],
    bytes: usize,
    lines: [usize; Q],
    needed: usize,
) {
    assert!(rows.iter().all(|row| row.len() == bytes), "rows of unequal length");
    assert!(lines.iter().all(|&lines| lines >= needed), "query shorter than the row");
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn narrow_f32(rows: &Rows<'_>, out: &mut Narrow) {
    // SAFETY: `codes` is 64 bytes long; the load may be unaligned.
    let load = |codes: &[u8; 64]| unsafe { _mm512_loadu_ps(codes.as_ptr().cast()) };
    out.fill(rows, 4, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn narrow_f16(rows: &Rows<'_>, out: &mut Narrow) {
    // SAFETY: `codes` is 32 bytes long; the load may be unaligned.
    let load = |codes: &[u8; 32]| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(codes.as_ptr().cast())) };
    out.fill(rows, 2, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

/// The largest bits, without the sign. `load` loads the codes of sixteen numbers, `BYTES` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn largest<const BYTES: usize>(row: &[u8], load: impl Fn(&[u8; BYTES]) -> __m512) -> u32 {
    let sign = _mm512_set1_epi32(i32::MIN);
    let bits = |codes| _mm512_andnot_si512(sign, _mm512_castps_si512(load(codes)));
    let (fours, rest) = row.as_chunks::<BYTES>().0.as_chunks::<4>();
    let mut largest = [_mm512_setzero_si512(); 4];
    for codes in fours {
        for (largest, codes) in largest.iter_mut().zip(codes) {
            *largest = _mm512_max_epu32(*largest, bits(codes));
        }
    }
    for codes in rest {
        largest[0] = _mm512_max_epu32(largest[0], bits(codes));
    }
    let end = row.as_chunks::<BYTES>().1;
    if !end.is_empty() {
        largest[1] = _mm512_max_epu32(largest[1], bits(&filled_up(end)));
    }
    let [a, b, c, d] = largest;
    _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d)))
}

/// Fills `codes`, and returns the sum of squares of their errors.
/// `load` as above.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow<const BYTES: usize>(
    row: &[u8],
    scale: Scale,
    codes: &mut [u8],
    load: impl Fn(&[u8; BYTES]) -> __m512,
) -> f32 {
    let (inverse, scale) = (_mm512_set1_ps(scale.inverse), _mm512_set1_ps(scale.scale));
    let mut sums = _mm512_setzero_ps();
    let mut step = |x: __m512, to: &mut [u8; 16]| {
        // No number exceeds `max`, so the product rounds to at most 127.
        let c = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(x, inverse));
        let r = _mm512_fnmadd_ps(c, scale, x);
        sums = _mm512_fmadd_ps(r, r, sums);
        // SAFETY: `to` is 16 bytes long; the store may be unaligned.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(c))) }
    };
    let (lines, end) = row.as_chunks::<BYTES>();
    let (to, more) = codes.as_chunks_mut::<16>().0.split_at_mut(lines.len());
    for (line, to) in lines.iter().zip(to) {
        step(load(line), to);
    }
    let mut more = more.iter_mut();
    if !end.is_empty() {
        more.next().into_iter().for_each(|to| step(load(&filled_up(end)), to));
    }
    more.for_each(|to| *to = [0; 16]);
    add_lanes(sums)
}
