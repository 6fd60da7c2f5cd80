//! Curvature in sketch space: which sums a block keeps of its rows f, and how a query q becomes `(F + λI)⁻¹ q`, where F is
//! the mean of `f fᵀ`. `format-spec/curvature.md` fixes every sum and its order, so that one artifact gives the same bits on
//! every machine.
//!
//! [`Writer::fit_curvature`](crate::Writer::fit_curvature) makes the sums, [`Scan::curvature`](crate::Scan::curvature) uses them.

// `sums` and `factor` are the numerics: with `kernel`, `cholesky`, `eigen`, `low_rank` and the small files that these use they
// know nothing else of the crate but `codec::lanes`, so that `benches/curvature.rs` compiles them again. `conditioner`
// preconditions sketches. Nothing here knows files or indexes, but for the error of an artifact; all work is done on rayon's
// current thread pool.

mod cholesky;
mod conditioner;
mod eigen;
mod error;
mod estimate;
mod factor;
mod factor_error;
mod kernel;
mod low_rank;
mod options;
mod sums;
#[cfg(test)]
mod tests;

pub use error::CurvatureError;
pub use estimate::Estimate;
pub use factor_error::FactorError;
pub use options::{BlockCurvature, Covered, Curvature, CurvatureState};

pub(crate) use conditioner::Conditioner;
pub(crate) use factor::Factor;
pub(crate) use options::{DEFAULT_NAME, check_name};
pub(crate) use sums::{BlockSums, Sign, panel_rows};
