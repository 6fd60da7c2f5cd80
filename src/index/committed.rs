//! The `COMMITTED` file: the last acknowledged generation, stored outside of the manifest's log.
//!
//! A log with damaged records can look like a log that a crash cut off before the records were
//! acknowledged. This file distinguishes the two. It is written after the write batch of a commit, and before
//! `commit` returns: so it is never ahead of the manifest, and never more than one generation behind.

use std::io;
use std::path::Path;

use crate::bytes::{u32_at, u64_at};
use crate::files;
use crate::manifest::{ManifestError, StateRecord};

pub(super) const NAME: &str = "COMMITTED";
const MAGIC: [u8; 8] = *b"\x89GDC\r\n\x1a\n";
const LENGTH: usize = 20;

/// Records durably that `generation` is acknowledged.
pub(super) fn write(folder: &Path, generation: u64) -> Result<(), ManifestError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(generation.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    files::replace(folder, NAME, &bytes).map_err(|source| {
        let path = folder.join(NAME);
        ManifestError::Database { path, operation: "write", source }
    })
}

/// The last acknowledged generation.
pub(super) fn read(folder: &Path) -> Result<u64, ManifestError> {
    let path = folder.join(NAME);
    let damaged = |offset, reason: &str| ManifestError::DamagedFile {
        path: path.clone(),
        offset,
        reason: reason.to_owned(),
    };
    let bytes = match files::read_small(&path, LENGTH as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(LENGTH as u64, &error.to_string()));
        }
        Err(source) => {
            return Err(ManifestError::Database { path, operation: "read", source });
        }
    };
    if bytes.len() < LENGTH {
        return Err(damaged(bytes.len() as u64, "the file ends here, before its 20 bytes"));
    }
    if bytes[..8] != MAGIC {
        return Err(damaged(0, "another magic"));
    }
    if crc32fast::hash(&bytes[..16]) != u32_at(&bytes, 16) {
        return Err(damaged(16, "checksum does not match"));
    }
    match u64_at(&bytes, 8) {
        generation if generation < 1 << 63 => Ok(generation),
        _ => Err(damaged(8, "no index has 2^63 commits")),
    }
}

/// Checks that the manifest is at most one commit ahead, and keeps the acknowledged generation.
/// [`Manifest::holds`](crate::manifest::Manifest::holds) checks that it is not behind.
pub(super) fn check(folder: &Path, acknowledged: u64, state: &StateRecord) -> Result<(), ManifestError> {
    if acknowledged >= state.oldest && acknowledged.saturating_add(1) >= state.generation {
        return Ok(());
    }
    let StateRecord { generation, oldest } = state;
    let reason = format!("generation {acknowledged}, where the manifest has {oldest} to {generation}");
    Err(ManifestError::DamagedFile { path: folder.join(NAME), offset: 8, reason })
}
