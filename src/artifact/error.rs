use std::io;

use uuid::Uuid;

/// Why an artifact file could not be written, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The storage failed.
    #[error("{file}: cannot {operation}")]
    Io {
        /// The file.
        file: String,
        /// The operation.
        operation: &'static str,
        /// The storage's error.
        source: io::Error,
    },
    /// The file does not begin with an artifact's magic.
    #[error("{file}: not a gradix artifact")]
    NotAnArtifact {
        /// The file.
        file: String,
    },
    /// The file was written by a later version.
    #[error("{file}: container version {found} is newer than {supported}, the newest this version reads")]
    Newer {
        /// The file.
        file: String,
        /// Its container version.
        found: u32,
        /// The newest version that this version of gradix reads.
        supported: u32,
    },
    /// The file needs a feature that this version does not have.
    #[error("{file}: needs features {bits:#x}, which this version does not support")]
    UnknownFeature {
        /// The file.
        file: String,
        /// The unsupported feature bits.
        bits: u64,
    },
    /// The artifact belongs to another index.
    #[error("{file}: belongs to index {found}, not to {expected}")]
    Foreign {
        /// The file.
        file: String,
        /// The index in its header.
        found: Uuid,
        /// The index that was opened.
        expected: Uuid,
    },
    /// The artifact was made under another schema.
    #[error("{file}: was made under another schema than this index's")]
    OtherSchema {
        /// The file.
        file: String,
    },
    /// The header's UUID is not the one of the file's name.
    #[error("{file}: holds artifact {found}")]
    Misplaced {
        /// The file.
        file: String,
        /// The artifact in its header.
        found: Uuid,
    },
    /// The file's contents are damaged.
    #[error("{file}: damaged at offset {offset}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// The offset of the fault in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}
