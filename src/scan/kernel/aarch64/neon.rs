//! NEON: the sixteen lanes are four registers.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;
use std::ops::Range;

use super::super::narrow::Narrow;
use super::super::packed::{ByteQueries, FloatLine, FloatQueries, IntegerLine, IntegerQueries, PlaneQueries};
use super::super::speeds::Speeds;
use super::super::{Kernel, KernelChoice, Rows};
use super::lanes::{Lanes, add_lanes, halves, singles};
use super::{bits, bytes, filled_up, load, narrow, put, tiles};

/// Proves that the instructions exist.
#[derive(Debug)]
pub(in super::super) struct Neon {
    /// Whether the machine has byte dot products.
    dotprod: bool,
}

impl Neon {
    pub fn detect() -> Option<&'static Self> {
        let dotprod = is_aarch64_feature_detected!("dotprod");
        let found = if dotprod { &Self { dotprod: true } } else { &Self { dotprod: false } };
        is_aarch64_feature_detected!("neon").then_some(found)
    }

    /// As on a machine without byte dot products.
    #[cfg(test)]
    pub fn without_dotprod() -> Option<&'static Self> {
        is_aarch64_feature_detected!("neon").then_some(&Self { dotprod: false })
    }
}

impl Kernel for Neon {
    fn choice(&self) -> KernelChoice {
        KernelChoice::Neon
    }

    fn speeds(&self) -> Speeds {
        Speeds::NEON
    }

    fn products(&self) -> usize {
        1 << 28
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(4 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { f32_rows(rows, batch, queries, out) }
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(2 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { f16_rows(rows, batch, queries, out) }
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { i8_rows(rows, batch, queries, out) }
    }

    fn has_bytes(&self) -> bool {
        true
    }

    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        if self.dotprod {
            // SAFETY: `detect` has found NEON and the dot products.
            unsafe { bytes::dot_rows(rows, batch, queries, out) }
        } else {
            // SAFETY: `self` exists only where `detect` has found NEON.
            unsafe { bytes::wide_rows(rows, batch, queries, out) }
        }
    }

    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims().div_ceil(8), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { bits::plane_rows(rows, batch, queries, out) }
    }

    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { narrow::narrow_f32(rows, out) }
    }

    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found NEON.
        unsafe { narrow::narrow_f16(rows, out) }
    }
}

#[target_feature(enable = "neon")]
fn f32_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    tiles!(rows, queries, out, R = 2, Q = 2, f32_tile, |query| batch.lines(query));
}

#[target_feature(enable = "neon")]
fn f16_rows(rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
    tiles!(rows, queries, out, R = 2, Q = 2, f16_tile, |query| batch.lines(query));
}

#[target_feature(enable = "neon")]
fn i8_rows(rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
    tiles!(rows, queries, out, R = 4, Q = 4, i8_tile, |query| batch.lines(query));
}

/// Rows of `4 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "neon")]
fn f32_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    float_tile::<64, R, Q>(rows, queries, |codes| singles(codes))
}

/// Rows of `2 * dims` bytes; queries of `dims` numbers, padded to whole lines.
#[inline]
#[target_feature(enable = "neon")]
fn f16_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[FloatLine]; Q]) -> [[f32; Q]; R] {
    float_tile::<32, R, Q>(rows, queries, |codes| halves(codes))
}

/// `load` takes the sixteen codes of a line, `LINE` bytes.
#[inline]
#[target_feature(enable = "neon")]
fn float_tile<const LINE: usize, const R: usize, const Q: usize>(
    rows: [&[u8]; R],
    queries: [&[FloatLine]; Q],
    load: impl Fn(&[u8; LINE]) -> Lanes,
) -> [[f32; Q]; R] {
    let (full, rest) = (rows[0].len() / LINE, rows[0].len() % LINE);
    let lines = full + usize::from(rest > 0);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of unequal length");
    assert!(queries.iter().all(|query| query.len() >= lines), "query shorter than the row");
    let mut sums = [[[vdupq_n_f32(0.0); 4]; Q]; R];
    for line in 0..full {
        // SAFETY: `full` lines fit each row's length, which the assertion checks to be equal.
        let x =
            load!([vdupq_n_f32(0.0); 4], rows, |row| load(unsafe { row.as_chunks().0.get_unchecked(line) }));
        accumulate(&mut sums, x, queries, line);
    }
    if rest > 0 {
        let x = load!([vdupq_n_f32(0.0); 4], rows, |row| load(&filled_up(&row[full * LINE..])));
        accumulate(&mut sums, x, queries, full);
    }
    sums.map(|sums| sums.map(|lanes| add_lanes(lanes)))
}

/// One step of each lane: `sum = fma(x, q, sum)`.
#[inline]
#[target_feature(enable = "neon")]
fn accumulate<const R: usize, const Q: usize>(
    sums: &mut [[Lanes; Q]; R],
    x: [Lanes; R],
    queries: [&[FloatLine]; Q],
    line: usize,
) {
    for l in 0..Q {
        // SAFETY: the caller has checked that each query has this line, which is 16 numbers.
        let q = unsafe {
            let q = queries[l].as_ptr().add(line).cast::<f32>();
            [vld1q_f32(q), vld1q_f32(q.add(4)), vld1q_f32(q.add(8)), vld1q_f32(q.add(12))]
        };
        for k in 0..R {
            for four in 0..4 {
                sums[k][l][four] = vfmaq_f32(sums[k][l][four], x[k][four], q[four]);
            }
        }
    }
}

/// Steps of 16 codes before the sums of 32 bits could overflow: a step adds at most
/// `4 * 128 * 32512` in absolute value, and 129 of those are below 2^31. Even, for whole lines.
const STEPS: usize = 128;
const _: () = assert!(STEPS as u64 * 4 * 128 * (IntegerQueries::LARGEST as u64) < 1 << 31);

/// Sixteen codes, widened: the first eight and the last.
type Codes = [int16x8_t; 2];

/// Rows of `dims` bytes; queries of `dims` codes, padded to whole lines.
#[inline]
#[target_feature(enable = "neon")]
fn i8_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[IntegerLine]; Q]) -> [[i64; Q]; R] {
    let dims = rows[0].len();
    let (full, rest) = (dims / 16, dims % 16);
    assert!(rows.iter().all(|row| row.len() == dims), "rows of unequal length");
    assert!(queries.iter().all(|query| query.len() >= dims.div_ceil(32)), "query shorter than the row");
    let mut totals = [[0i64; Q]; R];
    let mut step = 0;
    while step < full {
        let end = full.min(step + STEPS);
        let mut sums = [[vdupq_n_s32(0); Q]; R];
        for step in step..end {
            // SAFETY: `16 * (step + 1) <= dims`, the length of each row; the load may be unaligned.
            let x = load!([vdupq_n_s16(0); 2], rows, |row| widen(unsafe {
                vld1q_s8(row.as_ptr().add(step * 16).cast())
            }));
            multiply_add(&mut sums, x, queries, step);
        }
        flush(&mut totals, sums);
        step = end;
    }
    if rest > 0 {
        let mut sums = [[vdupq_n_s32(0); Q]; R];
        let x = load!([vdupq_n_s16(0); 2], rows, |row| {
            let mut codes = [0u8; 16];
            codes[..rest].copy_from_slice(&row[full * 16..]);
            // SAFETY: `codes` is 16 bytes long; the load may be unaligned.
            widen(unsafe { vld1q_s8(codes.as_ptr().cast()) })
        });
        multiply_add(&mut sums, x, queries, full);
        flush(&mut totals, sums);
    }
    totals
}

#[inline]
#[target_feature(enable = "neon")]
fn widen(codes: int8x16_t) -> Codes {
    [vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)]
}

/// A step is half a line of each query.
#[inline]
#[target_feature(enable = "neon")]
fn multiply_add<const R: usize, const Q: usize>(
    sums: &mut [[int32x4_t; Q]; R],
    x: [Codes; R],
    queries: [&[IntegerLine]; Q],
    step: usize,
) {
    for l in 0..Q {
        // SAFETY: the caller has checked that each query has line `step / 2`; half a line is 16 codes.
        let q = unsafe {
            let q = queries[l].as_ptr().cast::<i16>().add(step * 16);
            [vld1q_s16(q), vld1q_s16(q.add(8))]
        };
        for k in 0..R {
            for half in 0..2 {
                let sum = vmlal_s16(sums[k][l], vget_low_s16(x[k][half]), vget_low_s16(q[half]));
                sums[k][l] = vmlal_high_s16(sum, x[k][half], q[half]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn flush<const R: usize, const Q: usize>(totals: &mut [[i64; Q]; R], sums: [[int32x4_t; Q]; R]) {
    for k in 0..R {
        for l in 0..Q {
            totals[k][l] += vaddlvq_s32(sums[k][l]);
        }
    }
}
