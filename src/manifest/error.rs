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
        /// What was tried.
        operation: &'static str,
        /// What the database or the system said: `InvalidData` where it found its own files damaged.
        source: io::Error,
    },
    /// A value is not what the format says.
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
        /// The record version that can be read.
        supported: u8,
    },
}
