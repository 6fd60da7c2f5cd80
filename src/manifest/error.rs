use std::io;
use std::path::PathBuf;

/// Why the manifest could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The database, or a file beside it, could not be read or written.
    #[error("{}: cannot {operation}", path.display())]
    Database {
        /// The manifest's folder.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// The error of the database or the operating system; `InvalidData` if the database found its files
        /// damaged.
        source: io::Error,
    },
    /// A record does not conform to the format.
    #[error("{}: damaged record {key} in column family {family}: {reason}", path.display())]
    Damaged {
        /// The manifest's folder.
        path: PathBuf,
        /// The column family.
        family: &'static str,
        /// The key, in hexadecimal if it is not a name.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A record was written by a later version.
    #[error("{}: record {key} in column family {family} has version {found}, and this version reads {supported}", path.display())]
    Newer {
        /// The manifest's folder.
        path: PathBuf,
        /// The column family.
        family: &'static str,
        /// The key.
        key: String,
        /// Its record version.
        found: u8,
        /// The record version that this version of gradix reads.
        supported: u8,
    },
}
