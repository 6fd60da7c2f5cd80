//! The manifest: the RocksDB database of segments and rows, its keys and values, and its commit.
//!
//! - `records`: keys and values as bytes. No other module encodes or decodes them, or uses bincode.
//! - `guard`: what RocksDB must not be given to open.
//! - `store`: opens the database, reads from it, and applies batches.
//!
//! Refers to segments by UUID and row number only. `format-spec/manifest.md` specifies the bytes.

mod error;
mod guard;
mod records;
mod store;

pub use error::ManifestError;

#[cfg(fuzzing)]
pub(crate) use records::fuzz_record;
pub(crate) use records::{
    ArtifactFile, ArtifactRecord, CommitRecord, Coverage, ExampleHistory, ExampleVersion, IndexRecord,
    Location, SELF_INFLUENCE, SUMS_OF_OBSERVED, SUMS_OF_ROWS, SegmentRecord, StateRecord,
};
pub(crate) use store::{Batch, Manifest};
