use super::kernel::KernelError;
use super::options::{Reading, ScanPath};
use crate::codec::MAX_NORM;
use crate::curvature::CurvatureError;
use crate::segment::SegmentError;
use crate::sketch::{SketchError, SketchSpec};

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The batch of queries is empty.
    #[error("there is no query to scan for")]
    NoQueries,
    /// `top_k` and `bottom_k` are both 0.
    #[error("top_k and bottom_k are both 0")]
    NoResults,
    /// A query's spec is neither the index's nor its
    /// [`for_queries`](crate::sketch::SketchSpec::for_queries).
    #[error("query {query} has the spec {given}, but the index has {index}")]
    OtherSpec {
        /// The query's ordinal in the batch.
        query: usize,
        /// The query's spec.
        given: Box<SketchSpec>,
        /// The index's spec.
        index: Box<SketchSpec>,
    },
    /// A query's norm in a block is above 2^62, so that products could overflow.
    #[error("query {query} has norm {norm:e} in block {block:?}; the maximum is {MAX_NORM:e}")]
    NormTooLarge {
        /// The query's ordinal in the batch.
        query: usize,
        /// The block's name.
        block: String,
        /// The norm; infinite if it overflows `f32`.
        norm: f32,
    },
    /// The index has no block of this name, and none whose name begins with it and a `.`.
    #[error("the index has no block {name:?}, nor any below it")]
    UnknownBlock {
        /// The name.
        name: String,
    },
    /// The selection of blocks is empty.
    #[error("no block is selected")]
    NoBlocks,
    /// A weight was given for blocks none of which is selected.
    #[error("block {name:?} has a weight but is not selected")]
    NotSelected {
        /// The name that the weight was given for.
        name: String,
    },
    /// A weight is NaN or infinite, or negative with a metric that divides by the length of rows.
    #[error(
        "block {name:?} has weight {weight}; weights are finite, and at least 0 where scores are divided by lengths"
    )]
    InvalidWeight {
        /// The name that the weight was given for.
        name: String,
        /// The weight.
        weight: f64,
    },
    /// The failure probability is not above 0 and below 1.
    #[error("delta is {delta}; a failure probability is above 0 and below 1")]
    InvalidDelta {
        /// The probability given.
        delta: f64,
    },
    /// [`Guarantee::Probable`](super::Guarantee::Probable) was requested, but the index has no sign tier.
    #[error(
        "the index has no sign tier, which Guarantee::Probable needs: use Guarantee::Exact, or create the \
         index with Tier::Sign"
    )]
    NoSignTier,
    /// The index, the guarantee or the grouping does not allow the requested path.
    #[error("the {path} path is not possible: {reason}; ScanPath::Auto chooses a possible one")]
    ImpossiblePath {
        /// The path.
        path: ScanPath,
        /// Why it is not possible.
        reason: &'static str,
    },
    /// The storage of the segments does not support the requested way of reading.
    #[error(
        "{reading} reading is not possible with this storage: {reason}; Reading::Auto chooses a possible one"
    )]
    ImpossibleReading {
        /// The way of reading.
        reading: Reading,
        /// Why it is not possible.
        reason: &'static str,
    },
    /// Scores overflow with the given weights.
    #[error("query {query}: the weights make its scores overflow")]
    WeightsOverflow {
        /// The query's ordinal in the batch.
        query: usize,
    },
    /// No segment of the snapshot has a source with this label.
    #[error("the snapshot has no source {name:?}")]
    UnknownSource {
        /// The name.
        name: String,
    },
    /// An id of the filter could not be looked up.
    #[error("cannot look up an id of the filter")]
    Lookup {
        /// The index's error, a [`GetError`](crate::GetError).
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The curvature cannot be used.
    #[error("cannot use the curvature")]
    Curvature(#[from] CurvatureError),
    /// A preconditioned query overflows `f32`.
    #[error("cannot precondition the queries")]
    Precondition(#[from] SketchError),
    /// A segment is damaged or cannot be read.
    #[error("cannot read a segment")]
    Segment(#[from] SegmentError),
    /// The machine does not support the requested kernel.
    #[error("cannot choose a kernel")]
    Kernel(#[from] KernelError),
    /// The scan's threads could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// The requested number of threads.
        threads: usize,
        /// The error of the operating system or the thread pool.
        source: std::io::Error,
    },
    /// The scan was cancelled through its [`CancelToken`](super::CancelToken).
    #[error("the scan was cancelled")]
    Cancelled,
}
