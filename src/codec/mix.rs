//! The hash from which folds and rotations compute their signs.

/// The constants of the 32-bit finaliser "lowbias32", found by C. Wellons' search.
pub(crate) const MIX: [u32; 2] = [0x7FEB_352D, 0x846C_A68B];

#[inline(always)]
pub(crate) fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MIX[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(MIX[1]);
    x ^ x >> 16
}
