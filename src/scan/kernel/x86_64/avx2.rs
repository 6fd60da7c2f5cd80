//! AVX2, FMA and F16C: the sixteen lanes are two registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::packed::{FloatLine, FloatQueries, IntegerLine, IntegerQueries};
use super::super::{Kernel, Rows};
use super::{load, put, tiles};

/// Proof that the instructions exist.
#[derive(Debug)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<&'static Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(&Self(()))
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
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
}

#[target_feature(enable = "avx2,fma,f16c")]
fn f32_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    tiles!(rows, queries, out, R = 2, Q = 2, f32_tile, |query| batch.lines(query));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn f16_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    tiles!(rows, queries, out, R = 2, Q = 2, f16_tile, |query| batch.lines(query));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn i8_rows(rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
    tiles!(rows, queries, out, R = 2, Q = 4, i8_tile, |query| batch.lines(query));
}

/// Lanes 0 to 7 and lanes 8 to 15.
type Lanes = [__m256; 2];

/// Rows of `4 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn f32_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    float_tile::<4, R, Q>(
        rows,
        queries,
        // SAFETY: `codes` is 64 bytes long; the loads may be unaligned.
        |codes| unsafe {
            [_mm256_loadu_ps(codes.as_ptr().cast()), _mm256_loadu_ps(codes.as_ptr().add(32).cast())]
        },
    )
}

/// Rows of `2 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn f16_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    float_tile::<2, R, Q>(
        rows,
        queries,
        // SAFETY: `codes` is 32 bytes long; the loads may be unaligned.
        |codes| unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().add(16).cast())),
            ]
        },
    )
}

/// `load` takes the sixteen codes of a line, `16 * CODE` bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile<const CODE: usize, const R: usize, const Q: usize>(
    rows: [&[u8]; R],
    queries: [&[FloatLine]; Q],
    load: impl Fn(&[u8]) -> Lanes,
) -> [[f32; Q]; R] {
    let line_bytes = 16 * CODE;
    let (full, rest) = (rows[0].len() / line_bytes, rows[0].len() % line_bytes);
    let lines = full + usize::from(rest > 0);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of unequal length");
    assert!(queries.iter().all(|query| query.len() >= lines), "query shorter than the row");
    let mut sums = [[[_mm256_setzero_ps(); 2]; Q]; R];
    for line in 0..full {
        // SAFETY: `full` lines fit each row's length, which the assertion has seen to be equal.
        let x = load!([_mm256_setzero_ps(); 2], rows, |row| load(unsafe {
            row.get_unchecked(line * line_bytes..(line + 1) * line_bytes)
        }));
        accumulate(&mut sums, x, queries, line);
    }
    if rest > 0 {
        let x = load!([_mm256_setzero_ps(); 2], rows, |row| {
            let mut codes = [0u8; 64];
            codes[..rest].copy_from_slice(&row[full * line_bytes..]);
            load(&codes[..line_bytes])
        });
        accumulate(&mut sums, x, queries, full);
    }
    sums.map(|sums| sums.map(|[low, high]| add_eight(_mm256_add_ps(low, high))))
}

/// One step of each lane: `sum = fma(x, q, sum)`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate<const R: usize, const Q: usize>(
    sums: &mut [[Lanes; Q]; R],
    x: [Lanes; R],
    queries: [&[FloatLine]; Q],
    line: usize,
) {
    for l in 0..Q {
        // SAFETY: the caller has seen that each query has this line; a line is 64 aligned bytes.
        let q = unsafe {
            let q = queries[l].as_ptr().add(line).cast::<f32>();
            [_mm256_load_ps(q), _mm256_load_ps(q.add(8))]
        };
        for k in 0..R {
            for half in 0..2 {
                sums[k][l][half] = _mm256_fmadd_ps(x[k][half], q[half], sums[k][l][half]);
            }
        }
    }
}

/// Eight lanes added in halves: `l += l + 4`, then 2, 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_eight(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Steps of 16 codes before the sums of 32 bits could overflow: a step adds at most
/// `2 * 128 * 32512` in absolute value, and 258 of those are below 2^31. Even, for whole lines.
const STEPS: usize = 256;
const _: () = assert!(STEPS as u64 * 2 * 128 * (IntegerQueries::LARGEST as u64) < 1 << 31);

/// Rows of `dims` bytes; queries of `dims` codes, padded to whole lines.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn i8_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[IntegerLine]; Q]) -> [[i64; Q]; R] {
    let dims = rows[0].len();
    let (full, rest) = (dims / 16, dims % 16);
    assert!(rows.iter().all(|row| row.len() == dims), "rows of unequal length");
    assert!(queries.iter().all(|query| query.len() >= dims.div_ceil(32)), "query shorter than the row");
    let mut totals = [[0i64; Q]; R];
    let mut step = 0;
    while step < full {
        let end = full.min(step + STEPS);
        let mut sums = [[_mm256_setzero_si256(); Q]; R];
        for step in step..end {
            // SAFETY: `16 * (step + 1) <= dims`, the length of each row; the load may be unaligned.
            let x = load!(_mm256_setzero_si256(), rows, |row| _mm256_cvtepi8_epi16(unsafe {
                _mm_loadu_si128(row.as_ptr().add(step * 16).cast())
            }));
            multiply_add(&mut sums, x, queries, step);
        }
        flush(&mut totals, sums);
        step = end;
    }
    if rest > 0 {
        let mut sums = [[_mm256_setzero_si256(); Q]; R];
        let x = load!(_mm256_setzero_si256(), rows, |row| {
            let mut codes = [0u8; 16];
            codes[..rest].copy_from_slice(&row[full * 16..]);
            // SAFETY: `codes` is 16 bytes long; the load may be unaligned.
            _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) })
        });
        multiply_add(&mut sums, x, queries, full);
        flush(&mut totals, sums);
    }
    totals
}

/// A step is half a line of each query.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_add<const R: usize, const Q: usize>(
    sums: &mut [[__m256i; Q]; R],
    x: [__m256i; R],
    queries: [&[IntegerLine]; Q],
    step: usize,
) {
    for l in 0..Q {
        // SAFETY: the caller has seen that each query has line `step / 2`; half a line is 32 aligned
        // bytes.
        let q = unsafe { _mm256_load_si256(queries[l].as_ptr().cast::<__m256i>().add(step)) };
        for k in 0..R {
            sums[k][l] = _mm256_add_epi32(sums[k][l], _mm256_madd_epi16(x[k], q));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn flush<const R: usize, const Q: usize>(totals: &mut [[i64; Q]; R], sums: [[__m256i; Q]; R]) {
    for k in 0..R {
        for l in 0..Q {
            let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sums[k][l]));
            let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(sums[k][l]));
            let four = _mm256_add_epi64(low, high);
            let two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
            totals[k][l] += _mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two);
        }
    }
}
