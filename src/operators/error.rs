use std::ops::Range;

use crate::curvature::CurvatureError;
use crate::index::GetError;
use crate::scan::ScanError;
use crate::sketch::SketchError;

/// Why an operator failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// A setting is not possible.
    #[error("{setting} is {given}; it must be {expected}")]
    Setting {
        /// Its method.
        setting: &'static str,
        /// The value given.
        given: f64,
        /// What is possible.
        expected: &'static str,
    },
    /// Ids are not in the snapshot.
    #[error("{} ids are not in the snapshot; the first is {:?}", ids.len(), first(ids))]
    MissingIds {
        /// All of them, in the order in which they were given.
        ids: Vec<Vec<u8>>,
    },
    /// No id was given, so there is no row to combine.
    #[error("there is no id to make a query of")]
    NoExamples,
    /// No task was given.
    #[error("there is no task to select examples for")]
    NoTask,
    /// A task has no query, or queries that the scan does not have.
    #[error("task {task} has the queries {given:?}, but the scan has {queries} queries")]
    Task {
        /// The ordinal of the task.
        task: usize,
        /// The range given.
        given: Range<usize>,
        /// The scan's number of queries.
        queries: usize,
    },
    /// The scan has a filter of rows, which an operator over pairs would apply to one side only.
    #[error(
        "the scan filters rows; set the filter on the operator, which applies it to both sides of a pair"
    )]
    Filtered,
    /// The operator would need more memory than it may take.
    #[error("{needed} bytes are needed for {what}, and {limit} allowed")]
    Memory {
        /// What it is needed for.
        what: &'static str,
        /// The bytes needed.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Two lists that belong together have different lengths.
    #[error("{what}: {given} were given, where {expected} belong")]
    Lengths {
        /// What they are.
        what: &'static str,
        /// The length given.
        given: usize,
        /// The length expected.
        expected: usize,
    },
    /// A weight is negative, NaN or infinite.
    #[error("weight {position} is {weight}; weights are finite and at least 0")]
    Weight {
        /// Its position.
        position: usize,
        /// The weight.
        weight: f64,
    },
    /// There is no weight, or all are 0, so there is no mean.
    #[error("no weight is above 0")]
    NoWeight,
    /// Numbers are no probability distribution.
    #[error("{what} is no distribution: {reason}")]
    Distribution {
        /// Which of those that were given.
        what: String,
        /// Why.
        reason: String,
    },
    /// A sum of scores overflows `f64`.
    #[error("the sum of the scores overflows")]
    Overflow,
    /// A sketch does not fit, or overflows.
    #[error("cannot combine sketches")]
    Sketch(#[from] SketchError),
    /// A row cannot be read.
    #[error("cannot read a row")]
    Get(#[from] GetError),
    /// The curvature or the self-influence cannot be used.
    #[error("cannot use the curvature")]
    Curvature(#[from] CurvatureError),
    /// A scan failed, or was cancelled.
    #[error("cannot scan")]
    Scan(#[from] ScanError),
    /// The operator was cancelled through its [`CancelToken`](crate::CancelToken).
    #[error("the operator was cancelled")]
    Cancelled,
}

fn first(ids: &[Vec<u8>]) -> String {
    ids.first().map(|id| String::from_utf8_lossy(id).into_owned()).unwrap_or_default()
}
