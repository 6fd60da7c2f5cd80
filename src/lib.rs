//! gradix: an embeddable storage engine for **gradient indexes**.
//!
//! A gradient index holds one compressed gradient (a [sketch](sketch::Sketch)), or several, for every
//! training example of a model. Given the gradient of something that the model said, it ranks the
//! examples by their influence on it: which training data made the model say this?
//!
//! ```
//! use gradix::{Encoding, Index, Schema, sketch::{Sketcher, SketchSpec}};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("my.gradix");
//! // How gradients become sketches: 4096 buckets, signs and places from seed 7.
//! let spec = SketchSpec::rapid_grad(7, 4096);
//! let index = Index::options().create(&path, &Schema::new(spec.clone(), Encoding::F16)?)?;
//!
//! // The gradient of each training example, one parameter tensor after the other.
//! let sketcher = Sketcher::new(spec)?;
//! let mut writer = index.writer()?;
//! for (id, gradient) in [("sea", [3.0f32, -1.0, 2.0]), ("land", [-2.0, 0.5, 1.0])] {
//!     let mut fold = sketcher.start();
//!     fold.add("layers.0.weight", &gradient)?;
//!     writer.append(id, &fold.finish()?)?;
//! }
//! writer.commit()?; // durable from here on; dropping the writer instead would leave nothing
//!
//! // The gradient of a generation is the query.
//! let mut fold = sketcher.start();
//! fold.add("layers.0.weight", &[1.0, 0.0, 1.0])?;
//! let ranking = index.snapshot()?.scan(&[fold.finish()?])?.top_k(10).run()?;
//! assert_eq!(ranking.query(0)[0].id, b"sea");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `ARCHITECTURE.md` says what lies where and why; `format-spec/` fixes every byte on disk.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[cfg(feature = "burn")]
pub mod burn;
mod bytes;
pub mod codec;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod lock;
mod manifest;
pub mod scan;
mod schema;
pub mod segment;
pub mod sketch;

pub use codec::{Encoding, Tier};
pub use index::{
    AppendError, Collection, ColumnStats, Commit, CommitError, CompactOptions, Compaction, CreateError,
    Example, ExampleRow, Finding, GcOptions, GetError, Index, IndexOptions, MaintenanceError, OpenError,
    PreparedCommit, Report, Row, SegmentStats, Snapshot, SnapshotError, Stats, Writer, WriterError,
};
pub use manifest::ManifestError;
pub use scan::{CancelToken, Grouping, Hit, Metric, Ranking, Scan, ScanError, SpanFilter};
pub use schema::Schema;
pub use segment::{SegmentError, Span};
