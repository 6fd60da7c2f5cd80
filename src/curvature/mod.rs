//! The numerics of curvature in sketch space: which sums a block keeps of its rows f, and how a query q becomes
//! `(F + lambda I)^-1 q`, where F is the mean of `f f^T`. `format-spec/curvature.md` fixes every sum and its order,
//! so that one artifact gives the same bits on every machine.
//!
//! Knows neither files nor indexes, and works on rayon's current thread pool.

mod cholesky;
mod eigen;
mod error;
mod estimate;
mod factor;
pub(crate) mod kernel;
mod low_rank;
mod sums;
#[cfg(test)]
mod tests;

pub use error::FactorError;
pub use estimate::Estimate;
pub(crate) use factor::Factor;
pub(crate) use sums::{BlockSums, Sign, panel_rows};
