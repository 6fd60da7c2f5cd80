//! Rows of one bit a dim: `cnt` of the bits that a row and a plane share, planes weighted and added
//! while their counts still fit bytes.

use std::arch::aarch64::*;
use std::ops::Range;

use super::super::Rows;
use super::super::packed::{BitLine, PlaneQueries};
use super::{load, put, tiles};

#[target_feature(enable = "neon")]
pub(super) fn plane_rows(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
    tiles!(rows, queries, out, R = 2, Q = 2, plane_tile, |query| batch.lines(query));
}

/// 512 bits.
type Bits = [uint8x16_t; 4];

/// Sums of a row and a query: of planes 0, 1 and 2, and of planes 3, 4 and 5 with an eighth of their
/// weights.
type Sums = (uint16x8_t, int16x8_t);

/// Steps of 512 dims before the sums of 16 bits could overflow. In a step, a byte's four counts add up
/// to at most 32 for a plane: to `7 * 32` with the weights of the low planes, and between `-4 * 32` and
/// `3 * 32` with those of the high planes; and two bytes come together.
const STEPS: usize = 128;
const _: () = assert!(7 * 32 <= u8::MAX as usize && 4 * 32 <= i8::MIN.unsigned_abs() as usize);
const _: () = assert!(STEPS * 2 * 7 * 32 <= u16::MAX as usize);
const _: () = assert!(STEPS * 2 * 4 * 32 <= i16::MIN.unsigned_abs() as usize);
const _: () = assert!(PlaneQueries::PLANES == 6);

/// Rows of a bit a dim, in whole bytes; queries of as many planes of lines.
#[inline]
#[target_feature(enable = "neon")]
fn plane_tile<const R: usize, const Q: usize>(rows: [&[u8]; R], queries: [&[BitLine]; Q]) -> [[i32; Q]; R] {
    let (full, rest) = (rows[0].len() / 64, rows[0].len() % 64);
    let lines = (full + usize::from(rest > 0)) * PlaneQueries::PLANES;
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of unequal length");
    assert!(queries.iter().all(|query| query.len() >= lines), "query shorter than the row");
    let mut totals = [[0i32; Q]; R];
    let mut step = 0;
    while step < full {
        let end = full.min(step + STEPS);
        let mut sums = [[(vdupq_n_u16(0), vdupq_n_s16(0)); Q]; R];
        for step in step..end {
            let x = load!([vdupq_n_u8(0); 4], rows, |row| load_bits(&row.as_chunks().0[step]));
            count(&mut sums, x, queries, step);
        }
        flush(&mut totals, sums);
        step = end;
    }
    if rest > 0 {
        let mut sums = [[(vdupq_n_u16(0), vdupq_n_s16(0)); Q]; R];
        let x = load!([vdupq_n_u8(0); 4], rows, |row| {
            let mut bits = [0u8; 64];
            bits[..rest].copy_from_slice(&row[full * 64..]);
            load_bits(&bits)
        });
        count(&mut sums, x, queries, full);
        flush(&mut totals, sums);
    }
    totals
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bits(bits: &[u8; 64]) -> Bits {
    let bits = bits.as_ptr();
    // SAFETY: 64 bytes; the loads may be unaligned.
    unsafe { [vld1q_u8(bits), vld1q_u8(bits.add(16)), vld1q_u8(bits.add(32)), vld1q_u8(bits.add(48))] }
}

/// A step is 512 dims.
#[inline]
#[target_feature(enable = "neon")]
fn count<const R: usize, const Q: usize>(
    sums: &mut [[Sums; Q]; R],
    x: [Bits; R],
    queries: [&[BitLine]; Q],
    step: usize,
) {
    for l in 0..Q {
        let mut counts = [[vdupq_n_u8(0); R]; PlaneQueries::PLANES];
        for (plane, counts) in counts.iter_mut().enumerate() {
            // SAFETY: the caller has seen that each query has the lines of this step.
            let line = unsafe { queries[l].get_unchecked(step * PlaneQueries::PLANES + plane) };
            let q = load_bits(&line.0);
            for k in 0..R {
                counts[k] = shared(x[k], q);
            }
        }
        for k in 0..R {
            let [one, two, four, eight, sixteen, sign] = counts.map(|counts| counts[k]);
            let low = vaddq_u8(vaddq_u8(one, vshlq_n_u8::<1>(two)), vshlq_n_u8::<2>(four));
            let high = vsubq_u8(vaddq_u8(eight, vshlq_n_u8::<1>(sixteen)), vshlq_n_u8::<2>(sign));
            let sums = &mut sums[k][l];
            *sums = (vpadalq_u8(sums.0, low), vpadalq_s8(sums.1, vreinterpretq_s8_u8(high)));
        }
    }
}

/// How many bits are set in both, for each place of a register.
#[inline]
#[target_feature(enable = "neon")]
fn shared(x: Bits, q: Bits) -> uint8x16_t {
    let low = vaddq_u8(vcntq_u8(vandq_u8(x[0], q[0])), vcntq_u8(vandq_u8(x[1], q[1])));
    let high = vaddq_u8(vcntq_u8(vandq_u8(x[2], q[2])), vcntq_u8(vandq_u8(x[3], q[3])));
    vaddq_u8(low, high)
}

#[inline]
#[target_feature(enable = "neon")]
fn flush<const R: usize, const Q: usize>(totals: &mut [[i32; Q]; R], sums: [[Sums; Q]; R]) {
    for k in 0..R {
        for l in 0..Q {
            let (low, high) = sums[k][l];
            totals[k][l] += vaddlvq_u16(low).cast_signed() + 8 * vaddlvq_s16(high);
        }
    }
}
