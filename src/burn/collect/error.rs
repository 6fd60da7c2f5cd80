//! Why a collection stopped.

use super::Cause;
use super::failure::Failure;
use crate::sketch::SketchSpec;

/// Why a collection stopped. What was committed stays; started again with the same input it goes on behind that.
/// All complete windows before the error have been committed, unless the sink itself failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A setting is not possible.
    #[error("{setting}: {reason}")]
    Setting {
        /// Its method.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// The sink takes rows of another spec than the sketcher makes.
    #[error("the sketcher has the spec {sketcher}, but the index has {index}")]
    OtherSpec {
        /// The sketcher's spec.
        sketcher: Box<SketchSpec>,
        /// The sink's spec.
        index: Box<SketchSpec>,
    },
    /// A device was given other checkpoints than the first one.
    #[error("device {device} has the checkpoints {given:?}, the first one {expected:?}")]
    OtherCheckpoints {
        /// Its ordinal.
        device: usize,
        /// Its prefixes.
        given: Vec<String>,
        /// The first device's.
        expected: Vec<String>,
    },
    /// The rows have no such checkpoint.
    #[error("the rows have the checkpoints {expected:?}, and none with the prefix {given:?}")]
    OtherCheckpoint {
        /// The prefix that was given.
        given: String,
        /// Those of the rows; an empty one is none.
        expected: Vec<String>,
    },
    /// Parameters have other names, shapes or another order than those of the rows, or of the first device.
    #[error("{} has other parameters than {than}: {reason}", of(*device, checkpoint))]
    OtherParameters {
        /// The ordinal of the device whose replica differs; `None` for a model that makes queries.
        device: Option<usize>,
        /// The checkpoint's prefix, or nothing.
        checkpoint: String,
        /// Those with which they were compared.
        than: &'static str,
        /// The first parameter that differs; `None` if only digests could be compared.
        parameter: Option<String>,
        /// What is different.
        reason: String,
    },
    /// The iterator of examples returned an error.
    #[error("cannot read the example at position {position}")]
    Input {
        /// The place in the input, from 0.
        position: u64,
        /// The iterator's error.
        source: Cause,
    },
    /// The input is not the one of the commits that the index has: an id, a length, spans, source or metadata.
    #[error("the input differs from what was collected, {}{}", place(*first, *last), with_id(id.as_deref()))]
    InputChanged {
        /// The position from which on it can differ.
        first: u64,
        /// The position up to which the first difference lies; the same as `first` where that is known exactly.
        last: u64,
        /// The id that the input has at `last`; `None` if the input ends there.
        id: Option<Vec<u8>>,
    },
    /// The collection was begun with another setting, so that batches would differ.
    #[error("the collection was begun with {setting} = {recorded}, now it is {given}")]
    SettingChanged {
        /// The setting.
        setting: &'static str,
        /// What the last commit has.
        recorded: String,
        /// What was given.
        given: String,
    },
    /// A commit's payload of a collection cannot be read.
    #[error("the payload of generation {generation} is not what a collector wrote: {reason}")]
    Record {
        /// The commit.
        generation: u64,
        /// What is wrong.
        reason: String,
    },
    /// An example failed, and failures were to be fatal.
    #[error("{failure}")]
    Failed {
        /// The example and the reason.
        failure: Box<Failure>,
    },
    /// So many examples of one window failed that a commit cannot record them.
    #[error(
        "{failures} failures in the {examples} examples from position {position} on need {bytes} bytes, and a commit \
         records 1 MiB; the first: {first}"
    )]
    TooManyFailures {
        /// The position of the commit's first example.
        position: u64,
        /// Its examples.
        examples: u64,
        /// How many failed.
        failures: usize,
        /// Bytes of the record.
        bytes: usize,
        /// The first of them.
        first: Box<Failure>,
    },
    /// A device computes nothing any more: an example failed alone, and so did others tried after it.
    #[error(
        "device {device} failed on example {:?} at position {position}, and on others after it",
        show(id)
    )]
    Device {
        /// Its ordinal.
        device: usize,
        /// The example's position.
        position: u64,
        /// The example's id.
        id: Vec<u8>,
        /// The error of the first failure.
        source: Cause,
    },
    /// A thread of a device could not be started, or ended without an answer.
    #[error("the thread of device {device} does not answer")]
    Thread {
        /// Its ordinal.
        device: usize,
        /// Why.
        source: Cause,
    },
    /// The sink could not take rows, commit, or look up an earlier commit. [`Cause`] is the sink's error.
    #[error("the sink cannot {operation}")]
    Sink {
        /// What it was asked.
        operation: &'static str,
        /// Its error: an [`AppendError`](crate::AppendError), for example.
        source: Cause,
    },
    /// Cancelled by the caller.
    #[error("cancelled; committed up to position {position}")]
    Cancelled {
        /// The position behind the last committed example.
        position: u64,
    },
}

fn show(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

fn of(device: Option<usize>, checkpoint: &str) -> String {
    let whose = device.map_or("the model".to_owned(), |device| format!("the model of device {device}"));
    if checkpoint.is_empty() { whose } else { format!("{whose} at checkpoint {checkpoint:?}") }
}

fn place(first: u64, last: u64) -> String {
    if first == last {
        format!("at position {first}")
    } else {
        format!("at one of the positions {first} to {last}")
    }
}

fn with_id(id: Option<&[u8]>) -> String {
    id.map_or(", where it ends".to_owned(), |id| format!(", where it has example {:?}", show(id)))
}
