use std::fmt;
use std::io;

use uuid::Uuid;

/// A part of a segment file, in error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The first page.
    Header,
    /// The last 64 bytes.
    Tail,
    /// Group table, region table and checksums.
    Footer,
    /// The codes of one block in one row group.
    Codes {
        /// Ordinal of the block.
        block: u32,
        /// Ordinal of the row group.
        group: u32,
        /// The tier's name: `sign`, `i8`; `None` for the rows' own codes.
        tier: Option<&'static str>,
    },
    /// Another region, by its name in `format-spec/segment.md`.
    Column {
        /// The kind's name, for example `ids`.
        name: &'static str,
        /// Ordinal of the row group.
        group: u32,
    },
    /// The file as a whole.
    File,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Tail => f.write_str("tail"),
            Self::Footer => f.write_str("footer"),
            Self::Codes { block, group, tier: None } => {
                write!(f, "codes of block {block}, row group {group}")
            }
            Self::Codes { block, group, tier: Some(tier) } => {
                write!(f, "{tier} codes of block {block}, row group {group}")
            }
            Self::Column { name, group } => write!(f, "{name}, row group {group}"),
            Self::File => f.write_str("file"),
        }
    }
}

/// Why a segment file could not be written, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
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
    /// The file does not begin with a segment's magic.
    #[error("{file}: not a gradix segment")]
    NotASegment {
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
    /// The segment belongs to another index.
    #[error("{file}: belongs to index {found}, not to {expected}")]
    Foreign {
        /// The file.
        file: String,
        /// The index in its header.
        found: Uuid,
        /// The index that was opened.
        expected: Uuid,
    },
    /// The segment was written under another schema.
    #[error("{file}: was written under another schema than this index's")]
    OtherSchema {
        /// The file.
        file: String,
    },
    /// The header's segment UUID is not the one of the file's name.
    #[error("{file}: holds segment {found}")]
    Misplaced {
        /// The file.
        file: String,
        /// The segment in its header.
        found: Uuid,
    },
    /// The file's contents are damaged.
    #[error("{file}: damaged {place} at offset {offset}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// The damaged part.
        place: Place,
        /// The offset of the fault in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A fault and its place; the reader adds the file.
#[derive(Debug)]
pub(crate) struct Fault {
    pub place: Place,
    pub offset: u64,
    pub reason: String,
}

impl Fault {
    pub fn new(place: Place, offset: u64, reason: impl Into<String>) -> Self {
        Self { place, offset, reason: reason.into() }
    }

    pub fn in_file(self, file: &str) -> SegmentError {
        let Self { place, offset, reason } = self;
        SegmentError::Damaged { file: file.to_owned(), place, offset, reason }
    }
}
