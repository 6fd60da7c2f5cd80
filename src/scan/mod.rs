//! Ranks rows by their influence: one pass over the rows of a snapshot for a whole batch of queries.
//!
//! Each file knows those before it only (`tests/structure.rs` holds it to that):
//!
//! 1. Who multiplies? `kernel`, one folder for each architecture, all with the same bits.
//! 2. What is asked? `options`, `filter`, `control`, `error`; `batch` packs the queries, and `bounds`
//!    says how far computed scores can be off.
//! 3. What will be done? `plan`: which path through the rows is the cheapest, and what it reads.
//! 4. How are rows brought? `read`: pieces, their columns, their codes.
//! 5. How are they scored? `score`: tiles, screens, thresholds, the best of each query.
//! 6. Who does it? `engine` starts the threads and merges what they found.
//! 7. What comes out? [`Ranking`] (`hits`), or every score in row order (`scores`).
//! 8. [`Scan`] puts it together, a builder with fallible calls at its end.
//!
//! Depends on `codec`, the schema, `sketch` and `segment`; knows nothing of the manifest. Scores and
//! order are fixed by `format-spec/encodings.md`.

mod batch;
mod bounds;
mod builder;
mod control;
mod engine;
mod error;
mod filter;
mod hits;
mod kernel;
mod options;
mod plan;
mod ranking;
mod read;
mod score;
mod scores;

#[cfg(test)]
mod tests;

pub use builder::Scan;
pub use control::{CancelToken, Progress};
pub use error::ScanError;
pub use filter::SpanFilter;
pub use kernel::{KernelChoice, KernelError};
pub use options::{Grouping, Guarantee, Metric, Reading, ScanPath};
pub use plan::{Explanation, PathCost};
pub use ranking::{Hit, Ranking, Statistics};
pub use scores::ScoredRows;

pub(crate) use filter::ExampleRows;
pub(crate) use plan::Feedback;
