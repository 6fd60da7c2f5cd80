//! Narrows rows to signed bytes: sixteen numbers at a time, a register for each four lanes.

use std::arch::aarch64::*;

use super::super::Rows;
use super::super::narrow::{Narrow, Scale};
use super::filled_up;
use super::lanes::{Lanes, add_lanes, halves, singles};

#[target_feature(enable = "neon")]
pub(super) fn narrow_f32(rows: &Rows<'_>, out: &mut Narrow) {
    let load = |codes: &[u8; 64]| singles(codes);
    out.fill(rows, 4, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

#[target_feature(enable = "neon")]
pub(super) fn narrow_f16(rows: &Rows<'_>, out: &mut Narrow) {
    let load = |codes: &[u8; 32]| halves(codes);
    out.fill(rows, 2, |row| largest(row, load), |row, scale, codes| narrow(row, scale, codes, load));
}

/// The largest bits, without the sign. `load` loads the codes of sixteen numbers, `BYTES` bytes.
#[inline]
#[target_feature(enable = "neon")]
fn largest<const BYTES: usize>(row: &[u8], load: impl Fn(&[u8; BYTES]) -> Lanes) -> u32 {
    let bits = vdupq_n_u32(i32::MAX.cast_unsigned());
    let mut largest = [vdupq_n_u32(0); 4];
    let mut step = |x: Lanes| {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = vmaxq_u32(*largest, vandq_u32(bits, vreinterpretq_u32_f32(x)));
        }
    };
    let (lines, end) = row.as_chunks::<BYTES>();
    lines.iter().for_each(|codes| step(load(codes)));
    if !end.is_empty() {
        step(load(&filled_up(end)));
    }
    let [a, b, c, d] = largest;
    vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)))
}

/// Fills `codes`, and returns the sum of squares of their errors.
/// `load` as above.
#[inline]
#[target_feature(enable = "neon")]
fn narrow<const BYTES: usize>(
    row: &[u8],
    scale: Scale,
    codes: &mut [u8],
    load: impl Fn(&[u8; BYTES]) -> Lanes,
) -> f32 {
    let (inverse, scale) = (vdupq_n_f32(scale.inverse), vdupq_n_f32(scale.scale));
    let mut sums = [vdupq_n_f32(0.0); 4];
    let mut step = |x: Lanes, to: &mut [u8; 16]| {
        let mut codes = [vdupq_n_s32(0); 4];
        for four in 0..4 {
            // No number exceeds `max`, so the product rounds to at most 127.
            let c = vrndnq_f32(vmulq_f32(x[four], inverse));
            let r = vfmsq_f32(x[four], c, scale);
            sums[four] = vfmaq_f32(sums[four], r, r);
            codes[four] = vcvtq_s32_f32(c);
        }
        let [a, b, c, d] = codes;
        let low = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
        let high = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
        // SAFETY: `to` is 16 bytes long; the store may be unaligned.
        unsafe { vst1q_s8(to.as_mut_ptr().cast(), vcombine_s8(vmovn_s16(low), vmovn_s16(high))) }
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
