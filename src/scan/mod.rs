//! Ranks rows by their influence: one pass over the rows of a snapshot for a whole batch of queries.
//!
//! ```
//! # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
//! # let folder = tempfile::tempdir()?;
//! # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
//! # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
//! # let mut writer = index.writer()?;
//! # writer.append("a", &Sketch::dense(spec.clone(), vec![3.0, 4.0])?)?;
//! # writer.commit()?;
//! let queries = [Sketch::dense(spec, vec![1.0, 0.5])?];
//! let ranking = index.snapshot()?.scan(&queries)?.top_k(10).run()?;
//! for hit in ranking.proponents(0) {
//!     println!("{} {}", hit.id_lossy(), hit.score);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Each module depends only on those before it (`tests/structure.rs` reads this list):
//
// 1. `kernel`: the products of rows and queries, one folder for each architecture, all with the same bits.
// 2. `options`, `error`, `filter`, `control`: the request; `source`: what the index is asked for; `bounds` has the error
//    bounds of computed scores, and `batch` packs the queries.
// 3. `plan`: which scan path is the cheapest, and what it reads.
// 4. `read`: pieces, their columns, their codes.
// 5. `score`: tiles, screens, thresholds, the best rows of each query.
// 6. `ranking`, made by `hits`, and `scores` (every score in row order): the results.
// 7. `engine`: runs the workers and merges their results.
// 8. `builder`: the API.
//
// Depends on `codec`, the schema, `sketch`, `segment` and `curvature`, not on the manifest. `format-spec/encodings.md`
// specifies scores and order.

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
mod source;

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
#[cfg(feature = "serde")]
pub(crate) use ranking::text_or_bytes;
pub(crate) use source::{Lookup, RowLengths};
