//! What researchers compute from scans and rows, beside rankings.

// Depends on the public API of `index`, `scan` and `sketch`, and on a few of their internals.

mod bootstrap;
mod control;
mod distribution;
mod error;
mod queries;
mod selection;
mod sources;

pub use bootstrap::Interval;
pub use error::OperatorError;
pub use queries::{informative, informativeness, mean_of, sum_of};
pub use selection::{Selected, Selection};
pub use sources::{BySource, SourceScores};
