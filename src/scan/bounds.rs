//! How far a computed score can be from what is known of a row: the terms that every bound here is made
//! of. `score/screen` says how they add up.

use crate::codec::Encoding;

/// Norms, factors and sums of squares are off by less than this, relatively.
pub(super) const ABOVE: f64 = 1.0 + 1.0 / (1u64 << 20) as f64;

/// What sums of f64 products may be off by, relatively: 2^-40.
pub(super) const EPSILON: f64 = 1.0 / (1u64 << 40) as f64;

/// The L2 norm.
pub(super) fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

/// How far a computed score may be from the exact product of the row and the query as the score takes
/// it, relatively to the product of their norms. Floats round `dims / 16 + 4` times in each lane; twice
/// that is allowed for.
pub(super) fn rounding(dims: usize, encoding: Encoding) -> f64 {
    match encoding {
        Encoding::F32 | Encoding::F16 => 2.0 * (dims as f64 / 16.0 + 4.0) * f64::from(f32::EPSILON),
        Encoding::I8 => EPSILON,
    }
}

/// What products below the least f32 may add up to in a score, times the row's scale.
pub(super) fn underflow(dims: usize, encoding: Encoding) -> f64 {
    match encoding {
        Encoding::I8 => 0.0,
        Encoding::F16 | Encoding::F32 => dims as f64 * f64::from(f32::from_bits(1)),
    }
}
