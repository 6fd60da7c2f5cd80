//! gradix: an embeddable storage engine for gradient indexes.
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
pub mod codec;
mod index;
mod manifest;
mod schema;
pub mod segment;
pub mod sketch;

pub use codec::Encoding;
pub use index::{
    AppendError, Collection, ColumnStats, Commit, CommitError, CompactOptions, Compaction, CreateError,
    Example, ExampleRow, Finding, GcOptions, GetError, Index, IndexOptions, MaintenanceError, OpenError,
    PreparedCommit, Report, Row, SegmentStats, Snapshot, SnapshotError, Stats, Writer, WriterError,
};
pub use manifest::ManifestError;
pub use schema::Schema;
pub use segment::{SegmentError, Span};
