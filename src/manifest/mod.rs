//! Which segments and rows exist: the RocksDB database, its keys and values, and its commit.
//!
//! - `records`: keys and values as bytes. Nobody else encodes or decodes them, and nobody else uses
//!   bincode.
//! - `store`: opens the database, reads from it, and applies batches.
//!
//! Knows segments by UUID and row number only. The bytes are fixed by `format-spec/manifest.md`.

mod error;
mod records;
mod store;

pub use error::ManifestError;

#[cfg(fuzzing)]
pub(crate) use records::fuzz_record;
pub(crate) use records::{CommitRecord, ExampleVersion, IndexRecord, Location, SegmentRecord, StateRecord};
pub(crate) use store::{Batch, Manifest};
