use super::kernel::KernelError;
use super::options::{Reading, ScanPath};
use crate::codec::MAX_NORM;
use crate::segment::SegmentError;
use crate::sketch::SketchSpec;

/// Why a scan gave no ranking.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The batch of queries is empty.
    #[error("there is no query to scan for")]
    NoQueries,
    /// Neither proponents nor opponents were asked for.
    #[error("top_k and bottom_k are both 0: nothing is asked for")]
    NoResults,
    /// A query was made under another spec than the index's.
    #[error("query {query} is under {given}, and the index under {index}")]
    OtherSpec {
        /// Its place in the batch.
        query: usize,
        /// Its spec.
        given: Box<SketchSpec>,
        /// The index's spec.
        index: Box<SketchSpec>,
    },
    /// A query's norm is above 2^62, so that products could overflow.
    #[error("query {query} has norm {norm:e} in block {block:?}; at most {MAX_NORM:e} is possible")]
    NormTooLarge {
        /// Its place in the batch.
        query: usize,
        /// The block's name.
        block: String,
        /// The norm, infinite if it is beyond `f32`.
        norm: f32,
    },
    /// The index has no block of this name.
    #[error("the index has no block {name:?}")]
    UnknownBlock {
        /// The name.
        name: String,
    },
    /// The selection of blocks is empty.
    #[error("no block is selected")]
    NoBlocks,
    /// A weight was given for a block that is not selected.
    #[error("block {name:?} has a weight but is not selected")]
    NotSelected {
        /// The block's name.
        name: String,
    },
    /// A weight is NaN or infinite, or negative where the cosine needs a norm.
    #[error("block {name:?} has weight {weight}; weights are finite, and at least 0 for the cosine")]
    InvalidWeight {
        /// The block's name.
        name: String,
        /// The weight.
        weight: f64,
    },
    /// A probability that is none, or none to rely on.
    #[error("delta is {delta}; a probability of failure is above 0 and below 1")]
    InvalidDelta {
        /// What was given.
        delta: f64,
    },
    /// A probability was asked for, and there is no tier that gives one.
    #[error(
        "the index has no sign tier, which a probable guarantee needs: ask for an exact one, or build the \
         index with Tier::Sign"
    )]
    NoSignTier,
    /// A path was asked for that the index, the guarantee or the grouping does not allow.
    #[error("the {path} path is not possible: {reason}; ScanPath::Auto takes one that is")]
    ImpossiblePath {
        /// The path.
        path: ScanPath,
        /// Why it is not possible.
        reason: &'static str,
    },
    /// A way of reading was asked for that the storage of the segments does not have.
    #[error(
        "{reading} reading is not possible with this storage: {reason}; Reading::Auto takes a way that is"
    )]
    ImpossibleReading {
        /// The way of reading.
        reading: Reading,
        /// Why it is not possible.
        reason: &'static str,
    },
    /// Scores are infinite under the weights that were given.
    #[error("query {query}: the weights make its scores overflow")]
    WeightsOverflow {
        /// Its place in the batch.
        query: usize,
    },
    /// No segment of the snapshot knows a source of this name.
    #[error("the snapshot has no source {name:?}")]
    UnknownSource {
        /// The name.
        name: String,
    },
    /// An id of the filter could not be looked up.
    #[error("cannot look up an id of the filter")]
    Lookup {
        /// What the index said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A segment is damaged or cannot be read.
    #[error("cannot read a segment")]
    Segment(#[from] SegmentError),
    /// The kernel that was asked for is not to be had.
    #[error("cannot choose a kernel")]
    Kernel(#[from] KernelError),
    /// The system gave no threads.
    #[error("cannot start {threads} threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system or the thread pool said.
        source: std::io::Error,
    },
    /// It was cancelled through its token.
    #[error("the scan was cancelled")]
    Cancelled,
}
