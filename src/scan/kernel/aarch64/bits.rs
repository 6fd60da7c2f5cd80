//! Rows of one bit per dim: `cnt` of the bits that a row and a plane share; planes are weighted and added
//! while their counts fit bytes.

use std::arch::aarch64::*;
use std::ops::Range;

use super::super::Rows;
use super::super::packed::{BitLine, PlaneQueries};

/// One row and one query at a time: counting takes more instructions than loading, so reusing loads in
/// registers gains nothing.
#[target_feature(enable = "neon")]
pub(super) fn plane_rows(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
    for i in 0..rows.len() {
        for (j, query) in queries.clone().enumerate() {
            out[j * rows.len() + i] = product(rows.row(i), batch.lines(query));
        }
    }
}

/// 512 bits.
type Bits = [uint8x16_t; 4];

/// Sums of a row and a query: of planes 0 and 1, and of planes 2 and 3 with a quarter of their weights.
type Sums = (uint16x8_t, int16x8_t);

/// Steps of 512 dims before the sums of 16 bits could overflow. In a step, a byte's four counts add up
/// to at most 32 for a plane: to `3 * 32` with the weights of the low planes, and between `-2 * 32` and
/// `32` with those of the high planes; and two bytes come together.
const STEPS: usize = 128;
const _: () = assert!(STEPS * 2 * 3 * 32 <= u16::MAX as usize);
const _: () = assert!(STEPS * 2 * 2 * 32 <= i16::MIN.unsigned_abs() as usize);

/// A step of 512 dims of a query: the plane of bit 0 to that of bit 3.
type Planes = [BitLine; PlaneQueries::PLANES];

/// A row of one bit per dim, in whole bytes, and a query of the same dims.
#[inline]
#[target_feature(enable = "neon")]
fn product(row: &[u8], query: &[BitLine]) -> i32 {
    let (full, rest) = row.as_chunks::<64>();
    let (steps, _) = query.as_chunks::<{ PlaneQueries::PLANES }>();
    let mut total = 0;
    for (bits, steps) in full.chunks(STEPS).zip(steps.chunks(STEPS)) {
        let mut sums = (vdupq_n_u16(0), vdupq_n_s16(0));
        for (bits, planes) in bits.iter().zip(steps) {
            count(&mut sums, bits, planes);
        }
        total += flush(sums);
    }
    if !rest.is_empty() {
        let mut sums = (vdupq_n_u16(0), vdupq_n_s16(0));
        let mut bits = [0u8; 64];
        bits[..rest.len()].copy_from_slice(rest);
        count(&mut sums, &bits, &steps[full.len()]);
        total += flush(sums);
    }
    total
}

#[inline]
#[target_feature(enable = "neon")]
fn count(sums: &mut Sums, bits: &[u8; 64], planes: &Planes) {
    let x = load(bits);
    let [one, two, four, sign] = planes.each_ref().map(|plane| shared(x, load(&plane.0)));
    let low = vaddq_u8(one, vshlq_n_u8::<1>(two));
    let high = vsubq_u8(four, vshlq_n_u8::<1>(sign));
    *sums = (vpadalq_u8(sums.0, low), vpadalq_s8(sums.1, vreinterpretq_s8_u8(high)));
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bits: &[u8; 64]) -> Bits {
    let bits = bits.as_ptr();
    // SAFETY: 64 bytes; the loads may be unaligned.
    unsafe { [vld1q_u8(bits), vld1q_u8(bits.add(16)), vld1q_u8(bits.add(32)), vld1q_u8(bits.add(48))] }
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
fn flush((low, high): Sums) -> i32 {
    vaddlvq_u16(low).cast_signed() + 4 * vaddlvq_s16(high)
}
