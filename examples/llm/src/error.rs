//! What can be wrong with a model's files.

use std::path::PathBuf;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file ends before something that it should hold.
    #[error("{path} is truncated: {what} needs bytes {start} to {end}, the file has {len}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The tensor's name, or the field's.
        what: String,
        /// The first byte.
        start: u64,
        /// The byte behind the last.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// A part of a file is not what its format asks for.
    #[error("{path}, byte {offset}: {what} {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the part begins.
        offset: u64,
        /// The part.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON file does not parse.
    #[error("{path} is not what it should be")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A tensor's numbers have a type that cannot be read.
    #[error("{path}: tensor {tensor:?} at byte {offset} has the type {kind}, which is not supported")]
    UnknownType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where its data begins.
        offset: u64,
        /// The type's number or name.
        kind: String,
    },
    /// A tensor is not there.
    #[error("{path} has no tensor {tensor:?}")]
    MissingTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{path}: tensor {tensor:?} has the shape {given:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape, the outer axis first.
        given: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// A tensor that the architecture does not use, so that the model would not be computed as it was meant.
    #[error("{path} has the tensor {tensor:?}, which a Llama model does not use")]
    UnusedTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A setting that is missing.
    #[error("{path} has no {setting:?}")]
    MissingSetting {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
    },
    /// A setting that is there, and means something that is not implemented or not possible.
    #[error("{path}: {setting} is {given}: {reason}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
        /// Its value.
        given: String,
        /// What is possible.
        reason: String,
    },
    /// The tokenizer has ids for which the model has no row, or lacks a token.
    #[error("{path}: the tokenizer does not fit the model: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// How so.
        reason: String,
    },
}

/// The result of loading.
pub type Result<T> = std::result::Result<T, LoadError>;
