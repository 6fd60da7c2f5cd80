//! One enum for each operation: what can go wrong, with everything needed to act on it.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::codec::EncodeError;
use crate::manifest::ManifestError;
use crate::segment::{SegmentError, Span};
use crate::sketch::{SketchError, SketchSpec};

/// An id for messages: as text if it is text, else in hexadecimal.
pub(crate) fn show_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) => format!("{text:?}"),
        Err(_) => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Why an index could not be created. Nothing that was there before has been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is an index already.
    #[error("{}: there is an index already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds other things.
    #[error("{}: the folder is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The schema makes no sense.
    #[error("the schema is not valid")]
    Schema(#[from] SketchError),
    /// The file system refused.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest could not be made.
    #[error("cannot make the manifest")]
    Manifest(#[from] ManifestError),
    /// The index was made but could not be opened.
    #[error("cannot open the new index")]
    Open(#[from] OpenError),
}

/// Why an index could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder is not an index: it does not exist, has no `INDEX`, or that is something else.
    #[error("{}: not a gradix index: {reason}", path.display())]
    NotAnIndex {
        /// The folder or file.
        path: PathBuf,
        /// What was seen instead.
        reason: &'static str,
    },
    /// The index was written by a later version.
    #[error("{}: container version {found} is newer than {supported}, the newest this version reads", path.display())]
    Newer {
        /// The `INDEX` file.
        path: PathBuf,
        /// Its container version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The index needs a feature that this version does not have.
    #[error("{}: needs features {bits:#x}, which this version does not know", path.display())]
    UnknownFeature {
        /// The `INDEX` file.
        path: PathBuf,
        /// The bits that are not known.
        bits: u64,
    },
    /// `INDEX` is damaged.
    #[error("{}: damaged at offset {offset}: {reason}", path.display())]
    Damaged {
        /// The `INDEX` file.
        path: PathBuf,
        /// Where the fault was seen.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The manifest is that of another index.
    #[error("{}: the manifest belongs to index {found}, not to {expected}", path.display())]
    ForeignManifest {
        /// The folder.
        path: PathBuf,
        /// The index that the manifest names.
        found: Uuid,
        /// The index that `INDEX` names.
        expected: Uuid,
    },
    /// The file system refused.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest could not be opened.
    #[error("cannot open the manifest")]
    Manifest(#[from] ManifestError),
}

/// Why an index has no writer to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// Another writer, here or in another process, is open.
    #[error("{}: another writer is open", path.display())]
    Busy {
        /// The index.
        path: PathBuf,
    },
    /// The index was opened read-only.
    #[error("{}: opened read-only", path.display())]
    ReadOnly {
        /// The index.
        path: PathBuf,
    },
    /// Writing needs a feature that this version does not have; reading does not.
    #[error("{}: writing needs features {bits:#x}, which this version does not know", path.display())]
    UnknownFeature {
        /// The index.
        path: PathBuf,
        /// The bits that are not known.
        bits: u64,
    },
    /// The file system refused.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest could not be opened for writing.
    #[error("cannot open the manifest for writing")]
    Manifest(#[from] ManifestError),
}

/// Why an example was not appended, replaced or deleted. The writer is as it was before, unless it
/// says [`AppendError::Poisoned`] from now on; what is committed is untouched in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The id is in the index already, or twice in a batch.
    #[error("example {} is in the index already", show_id(id))]
    DuplicateId {
        /// The id.
        id: Vec<u8>,
    },
    /// An id is 1 to 4096 bytes long.
    #[error("an id of {length} bytes; 1 to 4096 are possible")]
    IdLength {
        /// How long this one is.
        length: usize,
    },
    /// The sketch was made under another spec than the index's.
    #[error("example {}: its sketch is under {given}, and the index under {index}", show_id(id))]
    OtherSpec {
        /// The id.
        id: Vec<u8>,
        /// The sketch's spec.
        given: Box<SketchSpec>,
        /// The index's spec.
        index: Box<SketchSpec>,
    },
    /// A number of the sketch cannot be stored.
    #[error("example {}, row {row}, block {block:?}", show_id(id))]
    Encode {
        /// The id.
        id: Vec<u8>,
        /// Which of the example's rows.
        row: usize,
        /// The block's name.
        block: String,
        /// What is wrong with it.
        source: EncodeError,
    },
    /// An example has at least one row.
    #[error("example {} has no row", show_id(id))]
    NoRows {
        /// The id.
        id: Vec<u8>,
    },
    /// An example has at most 65,536 rows, and ids and metadata of at most 256 MiB in all.
    #[error(
        "example {} has {rows} rows with {bytes} bytes of ids and metadata; at most 65536 and 2^28 are possible",
        show_id(id)
    )]
    TooLarge {
        /// The id.
        id: Vec<u8>,
        /// Its rows.
        rows: usize,
        /// Bytes of ids and metadata.
        bytes: usize,
    },
    /// A span has at least one token.
    #[error("example {}, row {row}: the span {span} is empty", show_id(id))]
    EmptySpan {
        /// The id.
        id: Vec<u8>,
        /// Which of the example's rows.
        row: usize,
        /// The span.
        span: Span,
    },
    /// The name of a source is 1 to 255 bytes long.
    #[error("example {}, row {row}: a source name of {length} bytes; 1 to 255 are possible", show_id(id))]
    SourceLength {
        /// The id.
        id: Vec<u8>,
        /// Which of the example's rows.
        row: usize,
        /// How long this one is.
        length: usize,
    },
    /// Metadata of a row is at most 65,536 bytes long.
    #[error("example {}, row {row}: {length} bytes of metadata; at most 65536 are possible", show_id(id))]
    MetadataLength {
        /// The id.
        id: Vec<u8>,
        /// Which of the example's rows.
        row: usize,
        /// How long this one is.
        length: usize,
    },
    /// The example to replace is not in the index.
    #[error("example {} is not in the index", show_id(id))]
    NotFound {
        /// The id.
        id: Vec<u8>,
    },
    /// The segment could not be written. The writer is poisoned.
    #[error("cannot write a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read, or could not be written, which poisons the writer.
    #[error("cannot use the manifest")]
    Manifest(#[from] ManifestError),
    /// An earlier write failed. Drop this writer and open another; what was committed is there.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
}

/// Why a commit failed. It is there whole or not at all: open the index again to see which.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A commit's payload is at most 1 MiB.
    #[error("a payload of {length} bytes; at most 1 MiB is possible")]
    PayloadLength {
        /// How long this one is.
        length: usize,
    },
    /// A segment could not be written. The writer is poisoned.
    #[error("cannot write a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read or written. The writer is poisoned.
    #[error("cannot write the manifest")]
    Manifest(#[from] ManifestError),
    /// An earlier write failed. Drop this writer and open another; what was committed is there.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
}

/// Why compaction or garbage collection stopped. Nothing is lost: it can be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// There are appends or deletes that are not committed.
    #[error("there are uncommitted changes; commit or abort them first")]
    Uncommitted,
    /// A segment could not be read or written.
    #[error("cannot use a segment")]
    Segment(#[from] SegmentError),
    /// A commit failed.
    #[error("cannot commit")]
    Commit(#[from] CommitError),
    /// The manifest could not be read or written.
    #[error("cannot use the manifest")]
    Manifest(#[from] ManifestError),
    /// A snapshot of the current generation could not be taken.
    #[error("cannot take a snapshot")]
    Snapshot(#[from] SnapshotError),
    /// An earlier write failed.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
}

/// Why a snapshot could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The generation is not kept any more, or does not exist yet.
    #[error("generation {asked} is not there; {oldest} to {newest} are")]
    NoSuchGeneration {
        /// The generation asked for.
        asked: u64,
        /// The oldest that is kept.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// A segment that the manifest lists could not be opened.
    #[error("cannot open a segment")]
    Segment(#[from] SegmentError),
    /// A segment is not the one that the manifest lists.
    #[error(
        "{file}: {rows} rows in {bytes} bytes, where the manifest has {expected_rows} in {expected_bytes}"
    )]
    OtherSegment {
        /// The file.
        file: String,
        /// Its rows.
        rows: u64,
        /// Its bytes.
        bytes: u64,
        /// The manifest's rows.
        expected_rows: u64,
        /// The manifest's bytes.
        expected_bytes: u64,
    },
    /// The manifest has deleted rows that a segment does not have.
    #[error("the manifest has dead rows beyond the {rows} of segment {segment}")]
    DeadRows {
        /// The segment.
        segment: Uuid,
        /// Its rows.
        rows: u32,
    },
    /// The manifest could not be read.
    #[error("cannot read the manifest")]
    Manifest(#[from] ManifestError),
}

/// Why an example could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The index has been collected beyond this snapshot's generation by another process.
    #[error("generation {generation} is not kept any more; the oldest is {oldest}")]
    Expired {
        /// The snapshot's generation.
        generation: u64,
        /// The oldest that is kept.
        oldest: u64,
    },
    /// The manifest points to a row that is not there, or not this example's.
    #[error("the manifest has example {} at row {row} of segment {segment}, where it is not", show_id(id))]
    Misplaced {
        /// The id.
        id: Vec<u8>,
        /// The segment.
        segment: Uuid,
        /// The row.
        row: u32,
    },
    /// A segment could not be read.
    #[error("cannot read a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read.
    #[error("cannot read the manifest")]
    Manifest(#[from] ManifestError),
}
