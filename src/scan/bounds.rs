//! Error bounds of computed scores: the terms of every bound in this module. `score/screen` explains their
//! sum.

use crate::codec::Encoding;

/// An upper bound of the relative error of norms, factors and sums of squares, plus 1.
pub(super) const ABOVE: f64 = 1.0 + 1.0 / (1u64 << 20) as f64;

/// An upper bound of the relative error of sums of f64 products: 2^-40.
pub(super) const EPSILON: f64 = 1.0 / (1u64 << 40) as f64;

/// The L2 norm.
pub(super) fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

/// An upper bound of the error of a computed score against the exact product of the row and the query,
/// relative to the product of their norms. Floats round `dims / 16 + 4` times in each lane; the bound is
/// twice that.
pub(super) fn rounding(dims: usize, encoding: Encoding) -> f64 {
    match encoding {
        Encoding::F32 | Encoding::F16 => 2.0 * (dims as f64 / 16.0 + 4.0) * f64::from(f32::EPSILON),
        Encoding::I8 => EPSILON,
    }
}

/// An upper bound of the error of a score by underflow, for a row of scale 1.
pub(super) fn underflow(dims: usize, encoding: Encoding) -> f64 {
    match encoding {
        Encoding::I8 => 0.0,
        Encoding::F16 | Encoding::F32 => dims as f64 * f64::from(f32::from_bits(1)),
    }
}
