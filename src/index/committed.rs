//! The `COMMITTED` file: the last generation that was acknowledged, kept outside of the manifest's log.
//!
//! A log whose records are damaged can look like one that a crash cut off before they were
//! acknowledged. This file tells the two apart. It is never ahead of the manifest: it is written after
//! the commit, and before anybody hears of it.

use std::fs;
use std::io;
use std::path::Path;

use crate::bytes::{u32_at, u64_at};
use crate::manifest::ManifestError;
use crate::segment::storage::replace_file;

const NAME: &str = "COMMITTED";
const MAGIC: [u8; 8] = *b"\x89GDC\r\n\x1a\n";
const LENGTH: usize = 20;

/// Notes durably that `generation` is acknowledged.
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

/// The last generation that was acknowledged; 0 if none was.
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
    if is_sound {
        return Ok(u64_at(&bytes, 8));
    }
    let reason = "magic, length or checksum is wrong".to_owned();
    Err(ManifestError::Damaged { path, family: "COMMITTED", key: String::new(), reason })
}
