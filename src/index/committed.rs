//! The `COMMITTED` file: the last acknowledged generation, stored outside of the manifest's log.
//!
//! A log with damaged records can look like a log that a crash truncated before the records were
//! acknowledged. This file distinguishes the two. It is never ahead of the manifest: it is written after
//! the write batch, and before `commit` returns.

use std::fs;
use std::io;
use std::path::Path;

use crate::bytes::{u32_at, u64_at};
use crate::manifest::ManifestError;
use crate::segment::storage::replace_file;

pub(super) const NAME: &str = "COMMITTED";
const MAGIC: [u8; 8] = *b"\x89GDC\r\n\x1a\n";
const LENGTH: usize = 20;

/// Records durably that `generation` is acknowledged.
pub(super) fn write(folder: &Path, generation: u64) -> Result<(), ManifestError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(generation.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    replace_file(folder, NAME, &bytes).map_err(|source| {
        let path = folder.join(NAME);
        ManifestError::Database { path, operation: "write", source }
    })
}

/// The last acknowledged generation; 0 if there is none.
pub(super) fn read(folder: &Path) -> Result<u64, ManifestError> {
    let path = folder.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => {
            return Err(ManifestError::Database { path, operation: "read", source });
        }
    };
    let is_sound =
        bytes.len() == LENGTH && bytes[..8] == MAGIC && crc32fast::hash(&bytes[..16]) == u32_at(&bytes, 16);
    // No index has 2^63 commits.
    if is_sound && u64_at(&bytes, 8) < 1 << 63 {
        return Ok(u64_at(&bytes, 8));
    }
    let reason = "magic, length, generation or checksum is wrong".to_owned();
    Err(ManifestError::Damaged { path, family: "COMMITTED", key: String::new(), reason })
}
