//! Sixteen numbers in four registers.

use std::arch::aarch64::*;

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
pub(super) type Lanes = [float32x4_t; 4];

/// Sixteen `f32` codes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn singles(codes: &[u8; 64]) -> Lanes {
    let codes = codes.as_ptr();
    // SAFETY: 64 bytes; the loads may be unaligned.
    let codes = unsafe {
        [vld1q_u8(codes), vld1q_u8(codes.add(16)), vld1q_u8(codes.add(32)), vld1q_u8(codes.add(48))]
    };
    let [a, b, c, d] = codes;
    [vreinterpretq_f32_u8(a), vreinterpretq_f32_u8(b), vreinterpretq_f32_u8(c), vreinterpretq_f32_u8(d)]
}

/// Sixteen `f16` codes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn halves(codes: &[u8; 32]) -> Lanes {
    // SAFETY: 32 bytes; the loads may be unaligned.
    let (low, high) = unsafe { (vld1q_u8(codes.as_ptr()), vld1q_u8(codes.as_ptr().add(16))) };
    let (low, high) = (vreinterpretq_f16_u8(low), vreinterpretq_f16_u8(high));
    [
        vcvt_f32_f16(vget_low_f16(low)),
        vcvt_high_f32_f16(low),
        vcvt_f32_f16(vget_low_f16(high)),
        vcvt_high_f32_f16(high),
    ]
}

/// The lanes added in halves: `l += l + 8`, then 4, 2, 1.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_lanes(lanes: Lanes) -> f32 {
    let four = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
}
