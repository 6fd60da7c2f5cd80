//! AVX2, FMA and F16C: the sixteen lanes are two registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::narrow::{Narrow, Scale};
use super::super::packed::{
    BitLine, ByteQueries, FloatLine, FloatQueries, IntegerLine, IntegerQueries, PlaneQueries,
};
use super::super::speeds::Speeds;
use super::super::{Kernel, KernelChoice, Rows, scalar};
use super::{FIRST_CACHE, filled_up, load, one_query_or_tiles, put, tiles};

/// Proves that the instructions exist.
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
    fn choice(&self) -> KernelChoice {
        KernelChoice::Avx2
    }

    fn speeds(&self) -> Speeds {
        Speeds::AVX2
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

    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims().div_ceil(8), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { planes_rows(rows, batch, queries, out) }
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
    one_query_or_tiles!(rows, queries, out, R = 2, Q = 4, i8_tile, |query| batch.lines(query));
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

/// `load` loads the sixteen codes of a line, `16 * CODE` bytes.
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
        // SAFETY: `full` lines fit each row's length, which the assertion checks to be equal.
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
        // SAFETY: the caller has checked that each query has this line; a line is 64 aligned bytes.
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
        // SAFETY: the caller has checked that each query has line `step / 2`; half a line is 32 aligned
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

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn planes_rows(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
    tiles!(rows, queries, out, R = 2, Q = 1, planes_tile, |query| batch.lines(query));
}

/// Rows of `dims / 8` bytes, rounded up; each plane of a query has `dims` bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn planes_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[BitLine]; Q]) -> [[i32; Q]; R] {
    const PLANES: usize = PlaneQueries::PLANES;
    let bytes = rows[0].len();
    let full = bytes / 64;
    assert!(rows.iter().all(|row| row.len() == bytes), "rows of unequal length");
    assert!(
        queries.iter().all(|query| query.len() >= bytes.div_ceil(64) * PLANES),
        "query shorter than the row"
    );
    let mut products = [[0; Q]; R];
    for (l, query) in queries.iter().enumerate() {
        let planes = query.as_chunks::<PLANES>().0;
        let mut counts = [[_mm256_setzero_si256(); PLANES]; R];
        for (line, planes) in planes[..full].iter().enumerate() {
            for (counts, row) in counts.iter_mut().zip(rows) {
                count(counts, &row.as_chunks().0[line], planes);
            }
        }
        if !bytes.is_multiple_of(64) {
            for (counts, row) in counts.iter_mut().zip(rows) {
                count(counts, &filled_up(&row[64 * full..]), &planes[full]);
            }
        }
        for (products, counts) in products.iter_mut().zip(counts) {
            // Horner's rule from the top plane, whose weight is negative.
            let mut sum = _mm256_sub_epi64(_mm256_setzero_si256(), counts[PLANES - 1]);
            for &count in counts[..PLANES - 1].iter().rev() {
                sum = _mm256_add_epi64(_mm256_add_epi64(sum, sum), count);
            }
            let two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            products[l] = (_mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two)) as i32;
        }
    }
    products
}

/// Counts the bits that each plane shares with a line of a row: per byte by a table of nibbles, then summed
/// to 64 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn count<const P: usize>(counts: &mut [__m256i; P], row: &[u8; 64], planes: &[BitLine; P]) {
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let nibble = _mm256_set1_epi8(15);
    // SAFETY: each line is 64 bytes long; the loads may be unaligned.
    let half = |line: *const u8, half: usize| unsafe { _mm256_loadu_si256(line.add(32 * half).cast()) };
    for (counts, plane) in counts.iter_mut().zip(planes) {
        let mut bytes = _mm256_setzero_si256();
        for i in 0..2 {
            let set = _mm256_and_si256(half(row.as_ptr(), i), half(plane.0.as_ptr(), i));
            let low = _mm256_shuffle_epi8(table, _mm256_and_si256(set, nibble));
            let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(set), nibble));
            bytes = _mm256_add_epi8(bytes, _mm256_add_epi8(low, high));
        }
        *counts = _mm256_add_epi64(*counts, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn narrow_f32(rows: &Rows<'_>, out: &mut Narrow) {
    // SAFETY: `codes` is 64 bytes long; the loads may be unaligned.
    let load = |codes: &[u8; 64]| unsafe {
        [_mm256_loadu_ps(codes.as_ptr().cast()), _mm256_loadu_ps(codes.as_ptr().add(32).cast())]
    };
    out.fill(rows, 4, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn narrow_f16(rows: &Rows<'_>, out: &mut Narrow) {
    // SAFETY: `codes` is 32 bytes long; the loads may be unaligned.
    let load = |codes: &[u8; 32]| unsafe {
        [
            _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().add(16).cast())),
        ]
    };
    out.fill(rows, 2, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

/// The largest bits, without the sign. `load` loads the codes of sixteen numbers, `BYTES` bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest<const BYTES: usize>(row: &[u8], load: impl Fn(&[u8; BYTES]) -> Lanes) -> u32 {
    let bits = _mm256_set1_epi32(i32::MAX);
    let mut largest = [_mm256_setzero_si256(); 2];
    let mut step = |x: Lanes| {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = _mm256_max_epu32(*largest, _mm256_and_si256(bits, _mm256_castps_si256(x)));
        }
    };
    let (lines, end) = row.as_chunks::<BYTES>();
    lines.iter().for_each(|codes| step(load(codes)));
    if !end.is_empty() {
        step(load(&filled_up(end)));
    }
    let mut numbers = [0u32; 8];
    let both = _mm256_max_epu32(largest[0], largest[1]);
    // SAFETY: `numbers` is 32 bytes long; the store may be unaligned.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), both) };
    numbers.into_iter().max().unwrap_or(0)
}

/// Fills `codes`, and returns the sum of squares of their errors.
/// `load` as above.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow<const BYTES: usize>(
    row: &[u8],
    scale: Scale,
    codes: &mut [u8],
    load: impl Fn(&[u8; BYTES]) -> Lanes,
) -> f32 {
    let (inverse, scale) = (_mm256_set1_ps(scale.inverse), _mm256_set1_ps(scale.scale));
    let mut sums = [_mm256_setzero_ps(); 2];
    let mut step = |x: Lanes, to: &mut [u8; 16]| {
        let mut codes = [_mm256_setzero_si256(); 2];
        for half in 0..2 {
            // No number exceeds `max`, so the product rounds to at most 127.
            let c = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
                x[half], inverse,
            ));
            let r = _mm256_fnmadd_ps(c, scale, x[half]);
            sums[half] = _mm256_fmadd_ps(r, r, sums[half]);
            codes[half] = _mm256_cvtps_epi32(c);
        }
        // Packed in each half of the register: quads 0 and 2, then 1 and 3.
        let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(codes[0], codes[1]));
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        // SAFETY: `to` is 16 bytes long; the store may be unaligned.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
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
    add_eight(_mm256_add_ps(sums[0], sums[1]))
}
