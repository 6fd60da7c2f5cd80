//! Ranks rows by their influence: one pass over the rows of a snapshot for a whole batch of queries.
//!
//! - What is asked? [`Scan`], a builder with one fallible call; `query` packs the batch for it.
//! - Which rows count? `filter`: deletes, ids, sources and spans.
//! - Who multiplies? `kernel`, one folder for each architecture, all with the same bits.
//! - Which path through the rows is the cheapest? `planner`; `screen` leaves rows out that cannot be
//!   among the best, whose `bars` all workers share.
//! - Who walks the rows? `engine` cuts row groups into pieces; each `worker` takes them in order, scores
//!   a `tile` at a time and keeps the `best` of each query; `columns` decodes ids when one is kept.
//! - Where do codes come from? `stream`: mapped files, or buffers that are filled ahead of the workers.
//! - What comes out? [`Ranking`].
//!
//! Depends on `codec`, the schema, `sketch` and `segment`; knows nothing of the manifest. Scores and
//! order are fixed by `format-spec/encodings.md`.

mod bars;
mod best;
mod builder;
mod columns;
mod control;
mod engine;
mod error;
mod filter;
mod kernel;
mod planner;
mod query;
mod ranking;
mod screen;
mod stream;
mod tile;
mod worker;

#[cfg(test)]
mod tests;

pub use builder::{Grouping, Guarantee, Metric, Scan};
pub use control::{CancelToken, Progress};
pub use error::ScanError;
pub use filter::SpanFilter;
pub use kernel::{KernelChoice, KernelError};
pub use planner::{Explanation, PathCost, ScanPath};
pub use ranking::{Hit, Ranking, Statistics};
pub use stream::Reading;

pub(crate) use filter::ExampleRows;
