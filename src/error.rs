//! [`Error`], into which every operation's error converts, and [`ErrorKind`], which classifies it for the
//! caller.

use std::io;

use crate::artifact::ArtifactError;
use crate::codec::EncodeError;
use crate::curvature::{CurvatureError, FactorError};
use crate::eval::EvalError;
#[cfg(feature = "formats")]
use crate::formats::FormatError;
use crate::index::{
    AppendError, AttachError, BackupError, CommitError, CreateError, DetachedError, FitError, GetError,
    MaintenanceError, OpenError, PartError, RecoverError, SnapshotError, WriterError,
};
use crate::manifest::ManifestError;
use crate::operators::OperatorError;
use crate::scan::{KernelError, ScanError};
use crate::segment::SegmentError;
use crate::sketch::SketchError;

/// A result whose error is [`Error`], for functions that call several operations of an index.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate. Each operation returns its own error type; all of them convert into this one
/// with `?`.
///
/// Its `Display` and [`source`](std::error::Error::source) are those of the wrapped error.
///
/// ```
/// use std::path::Path;
///
/// use gradix::sketch::{Sketch, SketchSpec, Sketcher};
/// use gradix::{Encoding, ErrorKind, Index, Schema};
///
/// fn rank(path: &Path, gradient: &[f32]) -> gradix::Result<Vec<Vec<u8>>> {
///     let spec = SketchSpec::rapid_grad(7, 4096);
///     let index = Index::create(path, &Schema::new(spec.clone(), Encoding::F16)?)?;
///     let sketcher = Sketcher::new(spec)?;
///     let mut fold = sketcher.start();
///     fold.add("layers.0.weight", gradient)?;
///     let sketch: Sketch = fold.finish()?;
///     let mut writer = index.writer()?;
///     writer.append("example", &sketch)?;
///     writer.commit()?;
///     let ranking = index.snapshot()?.scan(&[sketch])?.top_k(10).run()?;
///     Ok(ranking.proponents(0).iter().map(|hit| hit.id.clone()).collect())
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my.gradix");
/// assert_eq!(rank(&path, &[1.0, 2.0])?, [b"example"]);
/// // Now the index exists.
/// assert_eq!(rank(&path, &[1.0, 2.0]).unwrap_err().kind(), ErrorKind::AlreadyExists);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From [`Writer::append`](crate::Writer::append) and the other changes to an index.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// From [`Writer::attach`](crate::Writer::attach).
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// From [`Snapshot::backup`](crate::Snapshot::backup).
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// From [`Writer::commit`](crate::Writer::commit) and [`DetachedWriter::finish`](crate::DetachedWriter::finish).
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// From [`Index::create`](crate::Index::create).
    #[error(transparent)]
    Create(#[from] CreateError),
    /// From reading and writing [files of vectors](crate::formats).
    #[cfg(feature = "formats")]
    #[error(transparent)]
    Format(#[from] FormatError),
    /// From [`Index::detached`](crate::Index::detached).
    #[error(transparent)]
    Detached(#[from] DetachedError),
    /// From [`Writer::fit_curvature`](crate::Writer::fit_curvature).
    #[error(transparent)]
    Fit(#[from] FitError),
    /// From [`Snapshot::curvature`](crate::Snapshot::curvature).
    #[error(transparent)]
    Curvature(#[from] CurvatureError),
    /// From an artifact file.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// From [`Snapshot::get`](crate::Snapshot::get) and the iterators of a snapshot.
    #[error(transparent)]
    Get(#[from] GetError),
    /// From [`Writer::compact`](crate::Writer::compact) and [`Writer::gc`](crate::Writer::gc).
    #[error(transparent)]
    Maintenance(#[from] MaintenanceError),
    /// From [`Index::open`](crate::Index::open).
    #[error(transparent)]
    Open(#[from] OpenError),
    /// From [`Part::read`](crate::Part::read).
    #[error(transparent)]
    Part(#[from] PartError),
    /// From [`Index::recover`](crate::Index::recover).
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// From [`Index::snapshot`](crate::Index::snapshot).
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// From [`Index::writer`](crate::Index::writer).
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// From the manifest, for example in [`Snapshot::payload`](crate::Snapshot::payload).
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// From a segment file.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// From [`Snapshot::scan`](crate::Snapshot::scan) and [`Scan::run`](crate::Scan::run).
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// From parsing or selecting a [kernel](crate::scan::KernelChoice).
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// From [`Sketcher`](crate::sketch::Sketcher), [`Sketch`](crate::sketch::Sketch) and
    /// [`Schema`](crate::Schema).
    #[error(transparent)]
    Sketch(#[from] SketchError),
    /// From encoding one row of one block.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// From an [operator](crate::operators).
    #[error(transparent)]
    Operator(Box<OperatorError>),
    /// See [`EvalError`].
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// From the burn adapter.
    #[cfg(feature = "burn")]
    #[error(transparent)]
    Burn(#[from] crate::burn::BurnError),
    /// From collecting the gradients of a training set.
    #[cfg(feature = "burn")]
    #[error(transparent)]
    Collect(#[from] crate::burn::collect::CollectError),
}

/// Classifies an error by what the caller can do about it, independent of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ErrorKind {
    /// Stored bytes are not what was written. Retrying does not help: restore the index from a copy.
    /// [`Index::verify`](crate::Index::verify) lists all damage.
    Damaged,
    /// The file system, the storage, the database or a device failed. The operating system's error is the
    /// [source](std::error::Error::source).
    Io,
    /// An argument is invalid or does not fit the index. Correct the call.
    InvalidInput,
    /// The call is not allowed in this state: the index was opened read-only, or there are uncommitted
    /// changes.
    InvalidState,
    /// What was named does not exist: no index in the folder, no such id, generation, source or block.
    NotFound,
    /// What was to be created exists already: an index or another file in the folder, or an id.
    AlreadyExists,
    /// The generation has been collected. Take a newer snapshot.
    Expired,
    /// Another writer is open, or never rests. Try again later.
    Busy,
    /// An earlier write failed. Drop the writer and open another; committed data is intact.
    Poisoned,
    /// The index was written by a later version, or needs a feature that this version lacks. Update gradix.
    Newer,
    /// This machine or this index does not support the request.
    Unsupported,
    /// The caller cancelled the operation.
    Cancelled,
}

// The matches below have no catch-all arm: a new variant does not compile until it has a kind.

// Boxed, as it is the largest.
impl From<OperatorError> for Error {
    fn from(error: OperatorError) -> Self {
        Self::Operator(Box::new(error))
    }
}

impl Error {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Append(error) => error.kind(),
            Self::Attach(error) => error.kind(),
            Self::Artifact(error) => error.kind(),
            Self::Backup(error) => error.kind(),
            Self::Commit(error) => error.kind(),
            Self::Curvature(error) => error.kind(),
            Self::Fit(error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::Detached(error) => error.kind(),
            Self::Get(error) => error.kind(),
            Self::Maintenance(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Part(error) => error.kind(),
            Self::Recover(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Writer(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Scan(error) => error.kind(),
            Self::Kernel(error) => error.kind(),
            #[cfg(feature = "formats")]
            Self::Format(error) => error.kind(),
            Self::Sketch(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Operator(error) => error.kind(),
            Self::Eval(error) => error.kind(),
            #[cfg(feature = "burn")]
            Self::Burn(error) => error.kind(),
            #[cfg(feature = "burn")]
            Self::Collect(error) => error.kind(),
        }
    }
}

impl AppendError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DuplicateId { .. } => ErrorKind::AlreadyExists,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::IdLength { .. }
            | Self::OtherSpec { .. }
            | Self::Width { .. }
            | Self::NoRows { .. }
            | Self::TooLarge { .. }
            | Self::EmptySpan { .. }
            | Self::SourceLength { .. }
            | Self::MetadataLength { .. } => ErrorKind::InvalidInput,
            Self::CommitFull { .. } => ErrorKind::InvalidState,
            Self::Encode { source, .. } => source.kind(),
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Poisoned => ErrorKind::Poisoned,
            Self::Forked => ErrorKind::InvalidState,
        }
    }
}

impl AttachError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoParts { .. } => ErrorKind::NotFound,
            Self::Part(error) => error.kind(),
            Self::Foreign { .. } | Self::OtherSchema { .. } => ErrorKind::InvalidInput,
            Self::AttachedAlready { .. } | Self::Occupied { .. } | Self::DuplicateId { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::OtherSums { .. } => ErrorKind::AlreadyExists,
            Self::OtherFileSystem { .. } | Self::CannotLink { .. } => ErrorKind::Unsupported,
            Self::Changed { .. } => ErrorKind::Damaged,
            Self::CommitFull { .. } | Self::Forked => ErrorKind::InvalidState,
            Self::Io { .. } => ErrorKind::Io,
            Self::Artifact(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Poisoned => ErrorKind::Poisoned,
        }
    }
}

impl BackupError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotEmpty { .. } => ErrorKind::AlreadyExists,
            Self::Changed { .. } => ErrorKind::Damaged,
            Self::CannotLink { .. } => ErrorKind::Unsupported,
            Self::Io { .. } => ErrorKind::Io,
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl CommitError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PayloadLength { .. } => ErrorKind::InvalidInput,
            Self::NotObserved { .. } => ErrorKind::InvalidState,
            Self::AttachedFileChanged { .. } => ErrorKind::Damaged,
            Self::Artifact(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Poisoned => ErrorKind::Poisoned,
            Self::Forked => ErrorKind::InvalidState,
        }
    }
}

impl CreateError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } | Self::NotEmpty { .. } => ErrorKind::AlreadyExists,
            Self::Schema(error) => error.kind(),
            Self::Io { .. } => ErrorKind::Io,
            Self::Manifest(error) => error.kind(),
            Self::Open(error) => error.kind(),
        }
    }
}

impl DetachedError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Writer(error) => error.kind(),
            Self::Part(error) => error.kind(),
            Self::Foreign { .. } => ErrorKind::InvalidInput,
            Self::Occupied { .. } => ErrorKind::AlreadyExists,
            Self::Io { .. } => ErrorKind::Io,
        }
    }
}

impl FitError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Uncommitted | Self::CommitFull { .. } | Self::Forked => ErrorKind::InvalidState,
            Self::InvalidName { .. }
            | Self::InvalidEstimate { .. }
            | Self::TooManySums { .. }
            | Self::Overflow { .. }
            | Self::OtherSpec { .. } => ErrorKind::InvalidInput,
            Self::UnknownBlock { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotOfRows { .. } | Self::NotObserved { .. } => ErrorKind::AlreadyExists,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Curvature(error) => error.kind(),
            Self::Artifact(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Commit(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Poisoned => ErrorKind::Poisoned,
        }
    }
}

impl CurvatureError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFitted { .. } | Self::NoSelfInfluence { .. } => ErrorKind::NotFound,
            Self::Missing { .. } | Self::RowsWithoutSelfInfluence { .. } => ErrorKind::InvalidState,
            Self::NoCurvature => ErrorKind::InvalidInput,
            Self::Factor { source, .. } => source.kind(),
            Self::Artifact(error) => error.kind(),
            Self::Lookup { source } => {
                source.downcast_ref::<ManifestError>().map_or(ErrorKind::Io, ManifestError::kind)
            }
        }
    }
}

impl FactorError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::InvalidInput,
        }
    }
}

impl ArtifactError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Newer { .. } | Self::UnknownFeature { .. } => ErrorKind::Newer,
            Self::NotAnArtifact { .. }
            | Self::Foreign { .. }
            | Self::OtherSchema { .. }
            | Self::Misplaced { .. }
            | Self::Damaged { .. } => ErrorKind::Damaged,
        }
    }
}

impl GetError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SelfInfluence { source } => source.kind(),
            Self::Expired { .. } => ErrorKind::Expired,
            Self::Misplaced { .. } => ErrorKind::Damaged,
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
        }
    }
}

impl MaintenanceError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Uncommitted => ErrorKind::InvalidState,
            Self::Segment(error) => error.kind(),
            Self::Commit(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Poisoned => ErrorKind::Poisoned,
            Self::Forked => ErrorKind::InvalidState,
        }
    }
}

impl OpenError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAnIndex { .. } => ErrorKind::NotFound,
            Self::Newer { .. } | Self::UnknownFeature { .. } => ErrorKind::Newer,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Io { .. } => ErrorKind::Io,
            Self::Manifest(error) => error.kind(),
        }
    }
}

impl PartError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unfinished { .. } => ErrorKind::NotFound,
            Self::Newer { .. } | Self::UnknownFeature { .. } => ErrorKind::Newer,
            Self::Damaged { .. }
            | Self::Missing { .. }
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Counts { .. } => ErrorKind::Damaged,
            Self::Io { .. } => ErrorKind::Io,
        }
    }
}

impl RecoverError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ManifestExists { .. } | Self::Occupied { .. } => ErrorKind::AlreadyExists,
            Self::Open(error) => error.kind(),
            Self::Writer(error) => error.kind(),
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Io { .. } => ErrorKind::Io,
        }
    }
}

impl SnapshotError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchGeneration { asked, oldest, .. } if asked < oldest => ErrorKind::Expired,
            Self::NoSuchGeneration { .. } => ErrorKind::NotFound,
            Self::OtherSegment { .. } | Self::DeadRows { .. } => ErrorKind::Damaged,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
        }
    }
}

impl WriterError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } => ErrorKind::Busy,
            Self::ReadOnly { .. } => ErrorKind::InvalidState,
            Self::UnknownFeature { .. } => ErrorKind::Newer,
            Self::Io { .. } => ErrorKind::Io,
            Self::Segment(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
        }
    }
}

impl ManifestError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Database { source, .. } => match source.kind() {
                io::ErrorKind::InvalidData => ErrorKind::Damaged,
                io::ErrorKind::ResourceBusy => ErrorKind::Busy,
                _ => ErrorKind::Io,
            },
            Self::Damaged { .. }
            | Self::DamagedFile { .. }
            | Self::Foreign { .. }
            | Self::OtherSchema { .. }
            | Self::Replaced { .. } => ErrorKind::Damaged,
            Self::Forked { .. } => ErrorKind::InvalidState,
            Self::Newer { .. } => ErrorKind::Newer,
        }
    }
}

impl SegmentError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Newer { .. } | Self::UnknownFeature { .. } => ErrorKind::Newer,
            Self::NotASegment { .. }
            | Self::Foreign { .. }
            | Self::OtherSchema { .. }
            | Self::Misplaced { .. }
            | Self::Damaged { .. } => ErrorKind::Damaged,
        }
    }
}

#[cfg(feature = "formats")]
impl FormatError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Malformed { .. } => ErrorKind::Damaged,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Row { .. } | Self::NotFinite { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl ScanError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoQueries
            | Self::NoResults
            | Self::OtherSpec { .. }
            | Self::NormTooLarge { .. }
            | Self::NoBlocks
            | Self::NotSelected { .. }
            | Self::InvalidWeight { .. }
            | Self::InvalidDelta { .. }
            | Self::WeightsOverflow { .. } => ErrorKind::InvalidInput,
            Self::NoSignTier | Self::ImpossiblePath { .. } | Self::ImpossibleReading { .. } => {
                ErrorKind::Unsupported
            }
            Self::UnknownBlock { .. } | Self::UnknownSource { .. } => ErrorKind::NotFound,
            Self::Lookup { source } => source.downcast_ref().map_or(ErrorKind::Io, GetError::kind),
            Self::Curvature(error) => error.kind(),
            Self::Precondition(_) => ErrorKind::InvalidInput,
            Self::Segment(error) => error.kind(),
            Self::Kernel(error) => error.kind(),
            Self::Threads { .. } => ErrorKind::Io,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl KernelError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::InvalidInput,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }
}

impl SketchError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidSpec { .. }
            | Self::NoSketcher { .. }
            | Self::NoBlock { .. }
            | Self::NotFinite { .. }
            | Self::Overflow { .. }
            | Self::TooLong { .. }
            | Self::Width { .. }
            | Self::NotFiniteValue { .. }
            | Self::NotAMatrix { .. }
            | Self::Elements { .. }
            | Self::OtherShape { .. }
            | Self::TooManyParameters { .. }
            | Self::NoProjections { .. }
            | Self::OtherSpec { .. }
            | Self::NotNested { .. } => ErrorKind::InvalidInput,
            Self::NoKernel { .. } => ErrorKind::Unsupported,
        }
    }
}

impl EvalError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFinite { .. }
            | Self::Length { .. }
            | Self::Empty { .. }
            | Self::UnknownRow { .. }
            | Self::TooManyRelevant { .. }
            | Self::InvalidLevel { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl EncodeError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFinite { .. } | Self::NormTooLarge { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl OperatorError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingIds { .. } => ErrorKind::NotFound,
            Self::Setting { .. }
            | Self::NoExamples
            | Self::NoTask
            | Self::Task { .. }
            | Self::Filtered
            | Self::Memory { .. }
            | Self::Lengths { .. }
            | Self::Weight { .. }
            | Self::NoWeight
            | Self::Distribution { .. }
            | Self::Overflow => ErrorKind::InvalidInput,
            Self::Sketch(error) => error.kind(),
            Self::Curvature(error) => error.kind(),
            Self::Get(error) => error.kind(),
            Self::Scan(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

#[cfg(feature = "burn")]
impl crate::burn::BurnError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingSelected { .. }
            | Self::MissingGradient { .. }
            | Self::NotTapped { .. }
            | Self::SharedParameter { .. }
            | Self::Positions { .. }
            | Self::Span { .. }
            | Self::NotAMatrix { .. }
            | Self::PlainGradients { .. }
            | Self::OtherState { .. }
            | Self::NoState { .. }
            | Self::StateShape { .. }
            | Self::InvalidState { .. }
            | Self::OtherParameters { .. }
            | Self::OtherOrder { .. }
            | Self::ForeignLayer { .. }
            | Self::NothingTapped
            | Self::BatchSize { .. }
            | Self::Shape { .. }
            | Self::FullyMasked { .. }
            | Self::Target { .. }
            | Self::OtherDevice { .. } => ErrorKind::InvalidInput,
            Self::DeviceLimit { .. } => ErrorKind::Unsupported,
            Self::Read { .. } | Self::Device { .. } | Self::DeviceCheck { .. } | Self::Record { .. } => {
                ErrorKind::Io
            }
            Self::Sketch(error) => error.kind(),
            Self::Example { source, .. } => source.kind(),
        }
    }
}

#[cfg(feature = "burn")]
impl crate::burn::collect::CollectError {
    /// What the caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. }
            | Self::OtherSpec { .. }
            | Self::OtherCheckpoints { .. }
            | Self::OtherCheckpoint { .. }
            | Self::OtherParameters { .. }
            | Self::InputChanged { .. }
            | Self::SettingChanged { .. }
            | Self::Failed { .. }
            | Self::TooManyFailures { .. } => ErrorKind::InvalidInput,
            Self::Input { .. } | Self::Thread { .. } => ErrorKind::Io,
            Self::Record { .. } => ErrorKind::Damaged,
            Self::Device { source, .. } => {
                source.downcast_ref().map_or(ErrorKind::Io, crate::burn::BurnError::kind)
            }
            Self::Sink { source, .. } => {
                let append = source.downcast_ref().map(AppendError::kind);
                let commit = source.downcast_ref().map(CommitError::kind);
                let part = source.downcast_ref().map(PartError::kind);
                append.or(commit).or(part).unwrap_or(ErrorKind::Io)
            }
            Self::Cancelled { .. } => ErrorKind::Cancelled,
        }
    }
}
