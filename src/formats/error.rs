//! What can be wrong with a file of vectors.

use std::io;
use std::path::PathBuf;

/// A file of vectors that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file system fails.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes are not what the format says: damaged, cut off, or of another format.
    #[error("{}: {what}, at byte {offset}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A valid file that holds something which cannot become rows.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is, and what is expected.
        what: String,
    },
    /// A column, tensor or array that was asked for is not there.
    #[error("{}: there is no {name:?}; there are {}", path.display(), found.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// The names that are there.
        found: Vec<String>,
    },
    /// A row whose id, source, span, metadata or vector is not what it has to be.
    #[error("{}: row {row}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A value of a row is NaN or infinite.
    #[error("{}: row {row}, block {block:?}: value {position} is {value}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: u64,
        /// The block.
        block: String,
        /// The position in the block.
        position: usize,
        /// The value.
        value: f32,
    },
}
