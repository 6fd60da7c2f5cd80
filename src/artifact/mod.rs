//! Artifact files: numbers that are derived from rows, as regions with checksums of all bytes.
//! `format-spec/artifacts.md` specifies the bytes.

// `layout` converts numbers to bytes and back, `writer` streams a file, `reader` opens one. What a region means, the
// index knows. Depends on the storage and the identity of segments, not on the manifest.

mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod layout;
mod reader;
mod writer;

pub use error::ArtifactError;

pub(crate) use layout::{ArtifactKind, Region};
pub(crate) use reader::ArtifactReader;
pub(crate) use writer::{ArtifactWriter, SealedArtifact};

use uuid::Uuid;

/// The name of an artifact's file.
pub(crate) fn file_name(artifact: Uuid) -> String {
    format!("{artifact}.art")
}
