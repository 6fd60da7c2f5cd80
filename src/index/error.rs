//! The error enum of each operation.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::artifact::ArtifactError;
use crate::codec::EncodeError;
use crate::curvature::{CurvatureError, Estimate};
use crate::manifest::ManifestError;
use crate::segment::{SegmentError, Span};
use crate::sketch::{SketchError, SketchSpec};

/// An id for messages: quoted if it is UTF-8, otherwise in hexadecimal.
pub(crate) fn show_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) => format!("{text:?}"),
        Err(_) => hex(id),
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why an index could not be created. No existing file has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The folder holds an index already.
    #[error("{}: there is an index already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds other files.
    #[error("{}: the folder is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The schema is invalid.
    #[error("the schema is not valid")]
    Schema(#[from] SketchError),
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The manifest could not be created.
    #[error("cannot create the manifest")]
    Manifest(#[from] ManifestError),
    /// The index was created but could not be opened.
    #[error("cannot open the new index")]
    Open(#[from] OpenError),
}

/// Why an index could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder is not an index: it does not exist, or has no valid `INDEX` file.
    #[error("{}: not a gradix index: {reason}", path.display())]
    NotAnIndex {
        /// The folder or file.
        path: PathBuf,
        /// Why it is not an index.
        reason: &'static str,
    },
    /// The index was written by a later version.
    #[error("{}: container version {found} is newer than {supported}, the newest this version reads", path.display())]
    Newer {
        /// The `INDEX` file.
        path: PathBuf,
        /// Its container version.
        found: u32,
        /// The newest version that this version of gradix reads.
        supported: u32,
    },
    /// The index needs a feature that this version does not have.
    #[error("{}: needs features {bits:#x}, which this version does not support", path.display())]
    UnknownFeature {
        /// The `INDEX` file.
        path: PathBuf,
        /// The unsupported feature bits.
        bits: u64,
    },
    /// `INDEX` is damaged.
    #[error("{}: damaged at offset {offset}: {reason}", path.display())]
    Damaged {
        /// The `INDEX` file.
        path: PathBuf,
        /// The offset of the fault in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The manifest could not be opened.
    #[error("cannot open the manifest")]
    Manifest(#[from] ManifestError),
}

/// Why a writer could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// Another writer is open, in this or another process.
    #[error("{}: another writer is open", path.display())]
    Busy {
        /// The index, or the folder of a detached writer.
        path: PathBuf,
    },
    /// The index was opened read-only.
    #[error("{}: opened read-only", path.display())]
    ReadOnly {
        /// The index.
        path: PathBuf,
    },
    /// Writing, unlike reading, needs a feature that this version does not have.
    #[error("{}: writing needs features {bits:#x}, which this version does not support", path.display())]
    UnknownFeature {
        /// The index.
        path: PathBuf,
        /// The unsupported feature bits.
        bits: u64,
    },
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file of an unfinished segment could not be removed.
    #[error("cannot remove a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be opened for writing.
    #[error("cannot open the manifest for writing")]
    Manifest(#[from] ManifestError),
}

/// Why an example was not appended, replaced or deleted. The writer is unchanged, unless the error poisons
/// it; committed data is unchanged in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The id is in the index, or in the part of a detached writer, already; or twice in a batch.
    #[error("example {} is in the index already", show_id(id))]
    DuplicateId {
        /// The id.
        id: Vec<u8>,
    },
    /// The id is not 1 to 4096 bytes long.
    #[error("an id of {length} bytes; ids have 1 to 4096")]
    IdLength {
        /// Its length in bytes.
        length: usize,
    },
    /// The sketch's spec is not the index's.
    #[error("example {}: its sketch has the spec {given}, but the index has {index}", show_id(id))]
    OtherSpec {
        /// The id.
        id: Vec<u8>,
        /// The sketch's spec.
        given: Box<SketchSpec>,
        /// The index's spec.
        index: Box<SketchSpec>,
    },
    /// The row does not have as many values as the spec has dims.
    #[error("example {}, row {row}: {given} values, but the index has {expected} dims", show_id(id))]
    Width {
        /// The id.
        id: Vec<u8>,
        /// The ordinal of the row in the example.
        row: usize,
        /// The number of values.
        given: usize,
        /// The index's dims.
        expected: usize,
    },
    /// The sketch cannot be encoded.
    #[error("example {}, row {row}, block {block:?}", show_id(id))]
    Encode {
        /// The id.
        id: Vec<u8>,
        /// The ordinal of the row in the example.
        row: usize,
        /// The block's name.
        block: String,
        /// What is wrong with it.
        source: EncodeError,
    },
    /// No rows were given.
    #[error("example {} has no rows", show_id(id))]
    NoRows {
        /// The id.
        id: Vec<u8>,
    },
    /// The example has more than 65,536 rows, or more than 256 MiB of ids and metadata over all rows.
    #[error(
        "example {} has {rows} rows with {bytes} bytes of ids and metadata; the maximum is 65536 and 2^28",
        show_id(id)
    )]
    TooLarge {
        /// The id.
        id: Vec<u8>,
        /// The number of its rows.
        rows: usize,
        /// Bytes of ids and metadata over all rows.
        bytes: usize,
    },
    /// The span has no token.
    #[error("example {}, row {row}: the span {span} is empty", show_id(id))]
    EmptySpan {
        /// The id.
        id: Vec<u8>,
        /// The ordinal of the row in the example.
        row: usize,
        /// The span.
        span: Span,
    },
    /// The source label is not 1 to 255 bytes long.
    #[error("example {}, row {row}: a source label of {length} bytes; labels have 1 to 255", show_id(id))]
    SourceLength {
        /// The id.
        id: Vec<u8>,
        /// The ordinal of the row in the example.
        row: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// The metadata of a row is longer than 65,536 bytes.
    #[error("example {}, row {row}: {length} bytes of metadata; the maximum is 65536", show_id(id))]
    MetadataLength {
        /// The id.
        id: Vec<u8>,
        /// The ordinal of the row in the example.
        row: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// The example to replace is not in the index.
    #[error("example {} is not in the index", show_id(id))]
    NotFound {
        /// The id.
        id: Vec<u8>,
    },
    /// The changes since the last commit have reached
    /// [`IndexOptions::commit_examples`](crate::IndexOptions::commit_examples). Commit, and try again.
    #[error("{limit} examples have changed since the last commit, the maximum for one commit; commit first")]
    CommitFull {
        /// The limit.
        limit: usize,
    },
    /// The segment could not be written, which poisons the writer.
    #[error("cannot write a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read, or could not be written; the latter poisons the writer.
    #[error("cannot use the manifest")]
    Manifest(#[from] ManifestError),
    /// An earlier write failed. Drop this writer and open another; committed data is intact.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
    /// This process was forked from the one that opened the writer. Open the index again, and a writer once that
    /// process has dropped its own.
    #[error("the writer belongs to the process that this one was forked from")]
    Forked,
}

impl AppendError {
    /// The id of the example that cannot be appended, and the ordinal of the row in it that the error is about; 0 if it is
    /// about all of them. `None` if it is about no example, or about one whose id cannot be one.
    #[must_use]
    pub fn example(&self) -> Option<(&[u8], usize)> {
        match self {
            Self::DuplicateId { id }
            | Self::OtherSpec { id, .. }
            | Self::NoRows { id }
            | Self::TooLarge { id, .. }
            | Self::NotFound { id } => Some((id, 0)),
            Self::Width { id, row, .. }
            | Self::Encode { id, row, .. }
            | Self::EmptySpan { id, row, .. }
            | Self::SourceLength { id, row, .. }
            | Self::MetadataLength { id, row, .. } => Some((id, *row)),
            Self::IdLength { .. }
            | Self::CommitFull { .. }
            | Self::Segment(_)
            | Self::Manifest(_)
            | Self::Poisoned
            | Self::Forked => None,
        }
    }
}

/// Why a commit failed. It has taken effect completely or not at all; open the index again to find out which.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The payload is longer than 1 MiB. The writer is unchanged.
    #[error("a payload of {length} bytes; the maximum is 1 MiB")]
    PayloadLength {
        /// Its length in bytes.
        length: usize,
    },
    /// A file has been written after it was [attached](crate::Writer::attach). The writer is unchanged:
    /// [abort](crate::Writer::abort), and attach what is whole.
    #[error("{}: was written after it was attached", path.display())]
    AttachedFileChanged {
        /// The file, by its builder's name.
        path: PathBuf,
    },
    /// Some examples of a part were not [observed](crate::DetachedWriter::observe) under a name under which others were. The
    /// writer is unchanged.
    #[error("{examples} examples of the part were not observed under {name:?}")]
    NotObserved {
        /// The name.
        name: String,
        /// How many were not.
        examples: u64,
    },
    /// The sums of observed sketches could not be read or written.
    #[error("cannot use an artifact")]
    Artifact(#[from] ArtifactError),
    /// A segment could not be written, which poisons the writer.
    #[error("cannot write a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read or written, which poisons the writer.
    #[error("cannot write the manifest")]
    Manifest(#[from] ManifestError),
    /// An earlier write failed. Drop this writer and open another; committed data is intact.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
    /// This process was forked from the one that opened the writer. Open the index again, and a writer once that
    /// process has dropped its own.
    #[error("the writer belongs to the process that this one was forked from")]
    Forked,
}

/// Why compaction or garbage collection failed. No committed data is lost; it can be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// The writer has uncommitted changes.
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
    /// The caller cancelled the compaction.
    #[error("the compaction was cancelled")]
    Cancelled,
    /// An earlier write failed.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
    /// This process was forked from the one that opened the writer. Open the index again, and a writer once that
    /// process has dropped its own.
    #[error("the writer belongs to the process that this one was forked from")]
    Forked,
}

impl MaintenanceError {
    /// From the error of a writer that cannot be used.
    pub(super) fn unusable(error: CommitError) -> Self {
        match error {
            CommitError::Poisoned => Self::Poisoned,
            CommitError::Forked => Self::Forked,
            other => Self::Commit(other),
        }
    }
}

/// Why a curvature, or the self-influence of rows, could not be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The writer has uncommitted changes.
    #[error("there are uncommitted changes; commit or abort them first")]
    Uncommitted,
    /// The name is not 1 to 64 bytes long, or has control characters or a slash.
    #[error("the name {name:?} of a curvature is not 1 to 64 bytes without control characters and slashes")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The index has no block of this name, and none whose name begins with it and a `.`.
    #[error("the index has no block {name:?}, nor any below it")]
    UnknownBlock {
        /// The name.
        name: String,
    },
    /// An estimate does not fit a block.
    #[error("block {block:?} has {dims} dims, for which {estimate:?} is not possible")]
    InvalidEstimate {
        /// The block's name.
        block: String,
        /// Its dims.
        dims: usize,
        /// The estimate.
        estimate: Estimate,
    },
    /// The sums of this name are not those of stored rows, or are no sums at all.
    #[error("{name:?} was not fitted from stored rows; choose another name, or drop it first")]
    NotOfRows {
        /// The name.
        name: String,
    },
    /// The sums of this name are those of stored rows, or no sums at all.
    #[error("{name:?} is not that of observed sketches; choose another name, or drop it first")]
    NotObserved {
        /// The name.
        name: String,
    },
    /// As many examples have been observed as a commit may change; commit, and go on.
    #[error("{limit} examples have been observed, the most in one commit; commit, and go on")]
    CommitFull {
        /// The limit.
        limit: usize,
    },
    /// A part cannot have the sums of so many curvatures.
    #[error("a part has the sums of {limit} curvatures at most")]
    TooManySums {
        /// The limit.
        limit: usize,
    },
    /// There is no example with this id.
    #[error("there is no example {}", show_id(id))]
    NotFound {
        /// The id.
        id: Vec<u8>,
    },
    /// A sum over the rows overflows.
    #[error("block {block:?}: the sums over its rows overflow")]
    Overflow {
        /// The block's name.
        block: String,
    },
    /// An observed sketch has another spec than the index.
    #[error("the sketch has the spec {given}, but the index has {index}")]
    OtherSpec {
        /// The sketch's spec.
        given: Box<SketchSpec>,
        /// The index's spec.
        index: Box<SketchSpec>,
    },
    /// The fit was cancelled.
    #[error("the fit was cancelled")]
    Cancelled,
    /// The curvature that the self-influence is computed with cannot be used.
    #[error("cannot use the curvature")]
    Curvature(#[from] CurvatureError),
    /// An artifact could not be read or written.
    #[error("cannot use an artifact")]
    Artifact(#[from] ArtifactError),
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
    /// This process was forked from the one that opened the writer. Open the index again, and a writer once that
    /// process has dropped its own.
    #[error("the writer belongs to the process that this one was forked from")]
    Forked,
}

impl FitError {
    /// From the error of a writer that cannot be used.
    pub(super) fn unusable(error: CommitError) -> Self {
        match error {
            CommitError::Poisoned => Self::Poisoned,
            CommitError::Forked => Self::Forked,
            other => Self::Commit(other),
        }
    }
}

/// Why a backup was not made. The index is as it was; what there is of the backup is no index, and can be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The folder is there, and is not empty.
    #[error("{}: the folder is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the index is not the one that was committed.
    #[error("{file}: is not the file of {bytes} bytes with the SHA-256 {sha256} that was committed")]
    Changed {
        /// The file.
        file: String,
        /// Its length when it was committed.
        bytes: u64,
        /// Its digest when it was committed, in hexadecimal.
        sha256: String,
    },
    /// The file cannot be linked: it is on another file system, which may have no links, or not permit this one.
    #[error("{}: cannot be linked to {to}", path.display())]
    CannotLink {
        /// The file.
        path: PathBuf,
        /// Its name in the backup.
        to: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{file}: cannot {operation}")]
    Io {
        /// The file or folder.
        file: String,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// What the index keeps beside an attached segment could not be written.
    #[error("cannot write beside a segment")]
    Segment(#[from] SegmentError),
    /// The manifest of the index could not be read, or that of the backup not written.
    #[error("cannot copy the manifest")]
    Manifest(#[from] ManifestError),
    /// The caller cancelled the backup.
    #[error("the backup was cancelled")]
    Cancelled,
}

/// Why a manifest could not be recovered. Nothing has been overwritten; the recovery can be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// There is a manifest, or something else in its place. Move it away first.
    #[error("{}: there is a manifest; move it away to build a new one", path.display())]
    ManifestExists {
        /// The manifest's folder.
        path: PathBuf,
    },
    /// Where a manifest is built there is something that no recovery of this index has left. Move it away
    /// first.
    #[error("{}: no recovery of this index has left it; move it away", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// `INDEX` cannot be read.
    #[error("cannot read INDEX")]
    Open(#[from] OpenError),
    /// The index cannot be written to, or another writer is open.
    #[error("cannot become the writer of the index")]
    Writer(#[from] WriterError),
    /// A segment could not be read, because the storage failed. A damaged segment is no error: it is left
    /// out.
    #[error("cannot read a segment")]
    Segment(#[from] SegmentError),
    /// The new manifest could not be written, or `COMMITTED` could not be read or written.
    #[error("cannot write the manifest")]
    Manifest(#[from] ManifestError),
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Why a snapshot could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The generation has been collected, or does not exist yet.
    #[error("generation {asked} does not exist; {oldest} to {newest} do")]
    NoSuchGeneration {
        /// The requested generation.
        asked: u64,
        /// The oldest readable generation.
        oldest: u64,
        /// The newest generation.
        newest: u64,
    },
    /// A segment that the manifest lists could not be opened.
    #[error("cannot open a segment")]
    Segment(#[from] SegmentError),
    /// A segment file is not the one that the manifest lists.
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
    /// The manifest lists dead rows past the end of a segment.
    #[error("the manifest lists dead rows beyond the {rows} rows of segment {segment}")]
    DeadRows {
        /// The segment.
        segment: Uuid,
        /// Its rows.
        rows: u32,
    },
    /// The caller cancelled the verification.
    #[error("the verification was cancelled")]
    Cancelled,
    /// The manifest could not be read.
    #[error("cannot read the manifest")]
    Manifest(#[from] ManifestError),
}

/// Why an example could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The self-influence of a row cannot be read.
    #[error("cannot read the self-influence of a row")]
    SelfInfluence {
        /// Why.
        source: Box<CurvatureError>,
    },
    /// Another process has collected this snapshot's generation.
    #[error("generation {generation} has been collected; the oldest is {oldest}")]
    Expired {
        /// The snapshot's generation.
        generation: u64,
        /// The oldest readable generation.
        oldest: u64,
    },
    /// The manifest refers to a row that does not exist or belongs to another example.
    #[error("the manifest lists example {} at row {row} of segment {segment}, where it is not", show_id(id))]
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

/// Why a part could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The folder has no `PART` file: its writer has not finished it, or it was not copied in full.
    #[error("{}: not a finished part", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The part was written by a later version.
    #[error("{}: container version {found} is newer than {supported}, the newest this version reads", path.display())]
    Newer {
        /// The `PART` file.
        path: PathBuf,
        /// Its container version.
        found: u32,
        /// The newest version that this version of gradix reads.
        supported: u32,
    },
    /// The part needs a feature that this version does not have.
    #[error("{}: needs features {bits:#x}, which this version does not support", path.display())]
    UnknownFeature {
        /// The `PART` file.
        path: PathBuf,
        /// The unsupported feature bits.
        bits: u64,
    },
    /// `PART` is damaged.
    #[error("{}: damaged at offset {offset}: {reason}", path.display())]
    Damaged {
        /// The `PART` file.
        path: PathBuf,
        /// The offset of the fault in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A segment file of the part is not there.
    #[error("{}: missing, though its part lists it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A segment file is longer or shorter than it was when it was built.
    #[error("{}: {found} bytes, but it was built with {expected}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its bytes when it was built.
        expected: u64,
        /// Its bytes now.
        found: u64,
    },
    /// A segment file has other bytes than when it was built.
    #[error("{}: its SHA-256 is {found}, but it was built with {expected}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest when it was built, in hexadecimal.
        expected: String,
        /// Its digest now.
        found: String,
    },
    /// A segment file does not have the rows or examples that `PART` states.
    #[error("{}: {found_rows} rows and {found_examples} examples, where PART states {rows} and {examples}", path.display())]
    Counts {
        /// The file.
        path: PathBuf,
        /// The rows that `PART` states.
        rows: u64,
        /// The examples that `PART` states.
        examples: u64,
        /// The rows of the file.
        found_rows: u64,
        /// The examples of the file, or one more than stated if it has too many.
        found_examples: u64,
    },
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Why a detached writer could not be opened. Nothing has been changed, but what an interrupted one has left may be
/// gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachedError {
    /// The `INDEX` file cannot be read.
    #[error("cannot read INDEX")]
    Open(#[from] OpenError),
    /// Another detached writer is open in the folder, the index needs a feature for writing that this version
    /// does not have, or the lock cannot be taken.
    #[error("cannot become the writer of the folder")]
    Writer(#[from] WriterError),
    /// A finished part in the folder cannot be read.
    #[error("cannot read the last part")]
    Part(#[from] PartError),
    /// The last part in the folder belongs to another index, or to one with another schema.
    #[error("{}: holds parts of another index: {found}, not {expected}", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The index of its last part.
        found: Uuid,
        /// The index to write for. The same one, if its schema is another.
        expected: Uuid,
    },
    /// The folder is that of an index, or that of an unfinished part in it holds something that no detached writer has
    /// left. Take another folder, or move the file away.
    #[error("{}: is not of a detached writer", path.display())]
    Occupied {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file system operation failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Why nothing was attached. The part's files are as they were. The writer is unchanged, unless the error poisons
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The path is neither a part nor a folder that holds finished parts.
    #[error("{}: holds no finished part", path.display())]
    NoParts {
        /// The folder.
        path: PathBuf,
    },
    /// A part cannot be read, or its files are not those that were built.
    #[error("cannot take a part")]
    Part(#[from] PartError),
    /// The part was built for another index.
    #[error("{}: was built for index {found}, not for {expected}", path.display())]
    Foreign {
        /// The part's folder.
        path: PathBuf,
        /// The index for which it was built.
        found: Uuid,
        /// The writer's index.
        expected: Uuid,
    },
    /// The part was built under another schema.
    #[error("{}: was built under the schema with the digest {found}, but the index has {expected}", path.display())]
    OtherSchema {
        /// The part's folder.
        path: PathBuf,
        /// The digest of the part's schema, in hexadecimal.
        found: String,
        /// The digest of the index's schema.
        expected: String,
    },
    /// The segment is in the index already, or was attached since the last commit.
    #[error("{}: is attached already", path.display())]
    AttachedAlready {
        /// The file.
        path: PathBuf,
        /// The segment.
        segment: Uuid,
    },
    /// Where the segment belongs there is a file that the manifest does not list. Move it away first.
    #[error("{file}: is there already, though the index does not list it")]
    Occupied {
        /// The file in the index.
        file: String,
    },
    /// An example is in the index already, or in another segment that was attached.
    #[error("{}: example {} is in {holder} already", path.display(), show_id(id))]
    DuplicateId {
        /// The id.
        id: Vec<u8>,
        /// The file that repeats it.
        path: PathBuf,
        /// The file that has it.
        holder: String,
    },
    /// The part brings sums of a curvature that the index has otherwise: of observed sketches and not of rows, or the
    /// reverse, or of other widths. [Drop](crate::Writer::drop_curvature) those of the index, or give the part's
    /// [another name](crate::DetachedWriter::fit_curvature).
    #[error("{}: does not fit the sums of {name:?} that are there", path.display())]
    OtherSums {
        /// The file of the part.
        path: PathBuf,
        /// The curvature's name.
        name: String,
    },
    /// The file cannot be linked, as it is on another file system than the index.
    /// [`Attach::Copy`](crate::Attach::Copy) copies it.
    #[error("{}: is on another file system than {to}, and cannot be linked", path.display())]
    OtherFileSystem {
        /// The file.
        path: PathBuf,
        /// Its name in the index.
        to: String,
    },
    /// The file cannot be linked: the storage or the file system has no links, or does not permit this one.
    /// [`Attach::Copy`](crate::Attach::Copy) copies it.
    #[error("{}: cannot be linked to {to}", path.display())]
    CannotLink {
        /// The file.
        path: PathBuf,
        /// Its name in the index.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// The file was written while it was attached.
    #[error("{}: was written while it was attached", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// With the part, more examples would have changed since the last commit than
    /// [`IndexOptions::commit_examples`](crate::IndexOptions::commit_examples) allows. Commit first; or attach parts
    /// one by one, with a commit after each.
    #[error("{examples} examples would have changed since the last commit; the maximum is {limit}")]
    CommitFull {
        /// The examples, with those of the part.
        examples: u64,
        /// The limit.
        limit: usize,
    },
    /// A file system operation on the part failed.
    #[error("{}: cannot {operation}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The sums of a curvature, those of the part or those of the index, cannot be read.
    #[error("cannot read the sums of a curvature")]
    Artifact(#[from] ArtifactError),
    /// The segment is not sound; or it could not be linked, written or read in the index, which may poison the
    /// writer.
    #[error("cannot attach a segment")]
    Segment(#[from] SegmentError),
    /// The manifest could not be read, or could not be written; the latter poisons the writer.
    #[error("cannot use the manifest")]
    Manifest(#[from] ManifestError),
    /// An earlier write failed. Drop this writer and open another; committed data is intact.
    #[error("an earlier write failed; open the index again")]
    Poisoned,
    /// This process was forked from the one that opened the writer. Open the index again, and a writer once that
    /// process has dropped its own.
    #[error("the writer belongs to the process that this one was forked from")]
    Forked,
}

impl AttachError {
    /// From the error of a writer that cannot be used, or cannot seal its open segment.
    pub(super) fn unusable(error: CommitError) -> Self {
        match error {
            CommitError::Forked => Self::Forked,
            CommitError::Segment(error) => Self::Segment(error),
            CommitError::Manifest(error) => Self::Manifest(error),
            CommitError::Artifact(error) => Self::Artifact(error),
            CommitError::Poisoned
            | CommitError::PayloadLength { .. }
            | CommitError::NotObserved { .. }
            | CommitError::AttachedFileChanged { .. } => Self::Poisoned,
        }
    }
}

impl From<FitError> for CommitError {
    /// Of an error that a commit meets while it writes sums; the others are checked before.
    fn from(error: FitError) -> Self {
        match error {
            FitError::Artifact(error) => Self::Artifact(error),
            FitError::Segment(error) => Self::Segment(error),
            FitError::Manifest(error) => Self::Manifest(error),
            _ => Self::Poisoned,
        }
    }
}
