//! gradix: an embeddable storage engine for **gradient indexes**.
//!
//! A gradient index holds one or more compressed gradients ([sketches](sketch::Sketch)) for every
//! training example of a model. Given the gradient of a model's output, it ranks the examples by their
//! influence on it: which training data made the model say this?
//!
//! # Append and scan
//!
//! ```
//! use gradix::sketch::{SketchSpec, Sketcher};
//! use gradix::{Encoding, Index, Schema};
//!
//! # fn main() -> gradix::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("my.gradix");
//! // How gradients become sketches (4096 buckets, seed 7), and how sketches become bytes.
//! let spec = SketchSpec::rapid_grad(7, 4096);
//! let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::F16)?)?;
//!
//! // The gradient of each training example, one parameter tensor after the other.
//! let sketcher = Sketcher::new(spec)?;
//! let mut writer = index.writer()?; // at most one, over all processes
//! for (id, gradient) in [("sea", [3.0f32, -1.0, 2.0]), ("land", [-2.0, 0.5, 1.0])] {
//!     let mut fold = sketcher.start();
//!     fold.add("layers.0.weight", &gradient)?;
//!     writer.append(id, &fold.finish()?)?;
//! }
//! writer.commit()?; // durable when it returns; dropping a writer commits nothing
//!
//! // The gradient of an output is the query.
//! let mut fold = sketcher.start();
//! fold.add("layers.0.weight", &[1.0, 0.0, 1.0])?;
//! let queries = [fold.finish()?];
//!
//! let snapshot = index.snapshot()?; // Clone + Send + Sync; a fixed view of this generation
//! let ranking = snapshot.scan(&queries)?.top_k(10).bottom_k(10).run()?;
//! assert_eq!(ranking.proponents(0)[0].id, b"sea"); // the highest score
//! assert_eq!(ranking.opponents(0)[0].id, b"land"); // the lowest
//! # Ok(())
//! # }
//! ```
//!
//! # Spans, sources and filters
//!
//! An example has one row for the whole example, or one for each of several spans. A row can have a source
//! label, by which scans can filter, and metadata, which gradix stores but does not interpret.
//!
//! ```
//! use gradix::sketch::{Sketch, SketchSpec};
//! use gradix::{Encoding, Grouping, Index, Row, Schema, Span, SpanFilter};
//!
//! # fn main() -> gradix::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("my.gradix");
//! // Sketches computed by another program: the name and dims of each block.
//! let spec = SketchSpec::dense("logra", "rank 2", [("layers.0", 2), ("layers.1", 2)]);
//! let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::F32)?)?;
//! let mut writer = index.writer()?;
//! let sketch = |values: [f32; 4]| Sketch::dense(spec.clone(), values.to_vec());
//! let (first, second) = (sketch([1.0, 0.0, 0.0, 0.0])?, sketch([0.0, 4.0, 1.0, 0.0])?);
//! writer.append_rows(
//!     "page 7",
//!     &[
//!         Row::new(&first).span(Span::tokens(0, 128)).source("wiki").metadata(b"page 7, first half"),
//!         Row::new(&second).span(Span::tokens(128, 256)).source("wiki"),
//!     ],
//! )?;
//! writer.append("unlabelled", &first)?;
//! writer.commit()?;
//!
//! let snapshot = index.snapshot()?;
//! let queries = [sketch([1.0, 1.0, 1.0, 1.0])?];
//! let ranking = snapshot
//!     .scan(&queries)?
//!     .top_k(10)
//!     .sources(["wiki"])
//!     .spans(SpanFilter::Tokens)
//!     .blocks(["layers.0"])
//!     .grouping(Grouping::Max) // one hit for each example: its best row
//!     .run()?;
//! let hits = ranking.proponents(0);
//! assert_eq!((hits.len(), hits[0].score, hits[0].span), (1, 4.0, Span::tokens(128, 256)));
//! # Ok(())
//! # }
//! ```
//!
//! # Faster scans: tiers
//!
//! A tier is a coarse copy of the rows, stored beside their codes and written when rows are appended. A scan
//! reads the tier to prune most rows, and scores the remaining candidates from their codes.
//!
//! ```
//! use gradix::scan::Guarantee;
//! use gradix::sketch::{Sketch, SketchSpec};
//! use gradix::{Encoding, Index, Schema, Tier};
//!
//! # fn main() -> gradix::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("my.gradix");
//! let spec = SketchSpec::dense("mine", "v1", [("all", 64)]);
//! let schema = Schema::new(spec.clone(), Encoding::F16)?.with_tiers([Tier::Sign { seed: 1 }, Tier::I8])?;
//! let index = Index::create(&path, &schema)?;
//! # let mut writer = index.writer()?;
//! # let query = Sketch::dense(spec.clone(), vec![1.0; 64])?;
//! # writer.append("one", &query)?;
//! # writer.commit()?;
//! # let queries = [query];
//! # let snapshot = index.snapshot()?;
//! // Exact. The planner chooses the cheapest scan path.
//! let scan = snapshot.scan(&queries)?.top_k(100);
//! println!("{}", scan.explain()?);
//! let ranking = scan.run()?;
//! assert_eq!(ranking.statistics().delta, None);
//!
//! // Or with a stated failure probability: of most rows, the scan reads one bit per dim.
//! let guarantee = Guarantee::Probable { delta: 1e-6 };
//! let ranking = snapshot.scan(&queries)?.top_k(100).guarantee(guarantee).run()?;
//! # assert_eq!(ranking.proponents(0)[0].id, b"one");
//! # Ok(())
//! # }
//! ```
//!
//! # Beyond rankings
//!
//! [`operators`] answers what researchers ask besides: contrasts, which source made the model do this, which data
//! to train on, a small set that keeps the influence of all, near-duplicates.
//!
//! # Deletes, and reading without ranking
//!
//! ```
//! use gradix::sketch::{Sketch, SketchSpec};
//! use gradix::{CompactOptions, Encoding, GcOptions, Index, Row, Schema};
//!
//! # fn main() -> gradix::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("my.gradix");
//! # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
//! # let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::I8)?)?;
//! let mut writer = index.writer()?;
//! let sketch = Sketch::dense(spec, vec![1.0, 2.0])?;
//! for id in ["news/1", "news/2", "wiki/1"] {
//!     writer.append(id, &sketch)?;
//! }
//! let before = writer.commit()?.generation;
//!
//! // Both take effect with the next commit, together.
//! writer.delete("news/1")?;
//! writer.replace("news/2", &[Row::new(&sketch).source("news")])?;
//! writer.commit()?;
//! // Deleted rows occupy disk space until compaction drops them and `gc` removes the old files.
//! writer.compact(CompactOptions::all())?;
//! writer.gc(GcOptions::default().keep_generations(10))?;
//!
//! let snapshot = index.snapshot()?;
//! assert_eq!(snapshot.ids_with_prefix("news/").count(), 1);
//! assert!(snapshot.get("news/1")?.is_none());
//! for row in &snapshot {
//!     let row = row?; // id, span, source, metadata, norms; `snapshot.iter().with_sketches()` adds the sketch
//!     println!("{} bytes of id, source {:?}", row.id.len(), row.source);
//! }
//! assert_eq!(snapshot.sources()?.len(), 2); // no label, and "news"
//! // Earlier generations stay readable until they are collected.
//! assert_eq!(index.snapshot_at(before)?.rows(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Each operation has its own error enum, whose variants name the file and offset, or the example and block.
//! All of them convert into [`Error`]; [`Error::kind`] classifies an error by what the caller can do about
//! it.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `serde` | `Serialize` for statistics, reports, commits and collections |
//! | `formats` | `gradix::formats`: vectors from and to the files of other programs |
//! | `report` | `gradix::report`: a ranking as one HTML file |
//! | `cli` | the program `gradix` |
//! | `burn` | `gradix::burn`: sketches from the gradients of a burn model, on its CPU device |
//! | `wgpu`, `cuda` | the same on these devices |
//!
//! The repository's `ARCHITECTURE.md` explains how the engine works and why; its `format-spec` folder
//! specifies the bytes on disk.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

/// The code of README.md, compiled as doctests.
#[cfg(doctest)]
#[allow(rustdoc::invalid_codeblock_attributes, reason = "`no-run` is for tests/docs.rs")]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of docs/capabilities.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/capabilities.md")]
struct Capabilities;

/// The code of docs/embed.md.
#[cfg(doctest)]
#[allow(rustdoc::invalid_codeblock_attributes, reason = "`no-run` is for tests/docs.rs")]
#[doc = include_str!("../docs/embed.md")]
struct Embed;

/// The code of docs/import.md.
#[cfg(all(doctest, feature = "formats"))]
#[doc = include_str!("../docs/import.md")]
struct Import;

/// The code of docs/detached.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/detached.md")]
struct DetachedSegments;

mod artifact;
#[cfg(feature = "burn")]
pub mod burn;
mod bytes;
#[cfg_attr(not(test), expect(dead_code, reason = "the order of sums, which tests compare kernels with"))]
mod codec;
pub mod curvature;
mod error;
pub mod eval;
mod files;
#[cfg(feature = "formats")]
pub mod formats;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod lock;
mod manifest;
pub mod operators;
#[cfg(feature = "report")]
pub mod report;
pub mod scan;
mod schema;
pub mod segment;
pub mod sketch;

#[cfg(test)]
#[path = "../tests/fixtures/random.rs"]
mod random;

pub use artifact::ArtifactError;
pub use codec::{EncodeError, Encoding, Tier};
pub use curvature::{Curvature, CurvatureError};
pub use error::{Error, ErrorKind, Result};
pub use index::{
    AppendError, Appended, ArtifactStats, Attach, AttachError, Attached, Backup, BackupError, BackupOptions,
    BackupProgress, Collection, ColumnStats, Commit, CommitError, CompactOptions, Compaction, CreateError,
    DetachedError, DetachedWriter, Example, ExampleRow, Existing, Finding, Fit, FitError, FitOptions,
    FitProgress, GcOptions, GetError, Ids, Index, IndexOptions, LeftOut, LeftOutReason, LoggedCommit,
    MaintenanceError, OpenError, Part, PartError, PartSegment, PartSums, PreparedCommit, RecoverError,
    Recovery, Report, Row, Rows, SegmentStats, SelfInfluenceOptions, Snapshot, SnapshotError, SourceCount,
    Stats, StoredRow, VerifyOptions, VerifyProgress, Writer, WriterError,
};
pub use manifest::ManifestError;
pub use scan::{CancelToken, Grouping, Hit, Metric, Ranking, Scan, ScanError, SpanFilter};
pub use schema::Schema;
pub use segment::{SegmentError, Span};
