use std::io;
use std::path::PathBuf;

use uuid::Uuid;

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
    /// A file of the manifest, or `COMMITTED`, cannot be what gradix or the database wrote.
    #[error("{}: damaged at offset {offset}: {reason}", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// The offset of the fault in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The manifest is that of another index. If an open index says so, its folder was replaced.
    #[error("{}: the manifest belongs to index {found}, not to {expected}", path.display())]
    Foreign {
        /// The manifest's folder.
        path: PathBuf,
        /// The index that the manifest names.
        found: Uuid,
        /// The index that `INDEX` names.
        expected: Uuid,
    },
    /// The manifest is that of an index with another schema, although the UUID is the same.
    #[error("{}: the manifest was made for another schema than that of INDEX", path.display())]
    OtherSchema {
        /// The manifest's folder.
        path: PathBuf,
    },
    /// The index was moved away or replaced while this writer was open. What it has committed is in the folder that
    /// was moved. This process cannot open a writer at the path any more, as RocksDB is not closed there.
    #[error("{}: the index was removed or replaced while it was open", path.display())]
    Replaced {
        /// The index.
        path: PathBuf,
    },
    /// This process was forked from one that had written to an index. The database's threads stayed there, and what waits
    /// for them would wait for ever. Start a process anew (Python's `multiprocessing` calls it `spawn`) to write to an
    /// index; reading, and detached writers, work.
    #[error("{}: cannot be written by a process that was forked from one that has written to an index", path.display())]
    Forked {
        /// The manifest's folder.
        path: PathBuf,
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
