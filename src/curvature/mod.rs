//! Curvature in sketch space: which sums a block keeps of its rows f, and how a query q becomes `(F + λI)⁻¹ q`, where F is
//! the mean of `f fᵀ`. `format-spec/curvature.md` fixes every sum and its order, so that one artifact gives the same bits on
//! every machine.
//!
//! [`Writer::fit_curvature`](crate::Writer::fit_curvature) makes the sums, [`Scan::curvature`](crate::Scan::curvature) uses them.

// `sums` and `factor` are the numerics, on `cholesky` and `kernel`; `conditioner` preconditions sketches. Knows neither
// files nor indexes, but for the error of an artifact, and works on rayon's current thread pool.

mod cholesky;
mod conditioner;
mod error;
mod estimate;
mod factor;
mod kernel;
mod options;
mod sums;
#[cfg(test)]
mod tests;

pub use error::{CurvatureError, FactorError};
pub use estimate::Estimate;
pub use options::{BlockCurvature, Covered, Curvature, CurvatureState};

pub(crate) use conditioner::Conditioner;
pub(crate) use factor::Factor;
pub(crate) use options::{DEFAULT_NAME, check_name};
pub(crate) use sums::{BlockSums, Sign, panel_rows};
