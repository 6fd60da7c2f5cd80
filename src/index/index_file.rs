//! The bytes of the `INDEX` file, specified by `format-spec/index-file.md`.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::{CreateError, OpenError};
use crate::bytes::{u32_at, u64_at, uuid_at};
use crate::files;
use crate::schema::{self, Schema};
use crate::segment::Identity;

pub(crate) const CONTAINER_VERSION: u32 = 1;
const NAME: &str = "INDEX";
const MAGIC: [u8; 8] = *b"\x89GDI\r\n\x1a\n";
const HEADER: usize = 64;
pub(crate) const MAX_BODY: usize = 16 << 20;

/// The feature words of `INDEX` that a reader keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Features {
    pub write: u64,
}

pub(crate) fn exists(folder: &Path) -> bool {
    folder.join(NAME).exists()
}

/// Writes `INDEX` durably and atomically, under a temporary name first.
pub(crate) fn write(folder: &Path, index: Uuid, body: &[u8]) -> Result<(), CreateError> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(CONTAINER_VERSION.to_le_bytes());
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend([0; 24]);
    bytes.extend(index.as_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);

    files::replace(folder, NAME, &bytes).map_err(|source| {
        let path = folder.join(NAME);
        CreateError::Io { path, operation: "write", source }
    })
}

/// Copies `INDEX` from one folder to another, durably and byte by byte, for the sake of the features that it may name.
pub(crate) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    files::replace(to, NAME, &files::read_small(&from.join(NAME), (HEADER + MAX_BODY) as u64)?)
}

/// Reads and checks `INDEX`.
pub(crate) fn read(folder: &Path) -> Result<(Identity, Features), OpenError> {
    read_file(folder, folder.join(NAME))
}

/// As [`read`], from a copy of the file. Messages about what is no index name `folder`.
pub(crate) fn read_file(folder: &Path, path: PathBuf) -> Result<(Identity, Features), OpenError> {
    let not_an_index = |reason| OpenError::NotAnIndex { path: folder.to_owned(), reason };
    let damaged = |offset: usize, reason: String| OpenError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        reason,
    };
    let longest = (HEADER + MAX_BODY) as u64;
    let bytes = match files::read_small(&path, longest) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = if folder.exists() { "it has no INDEX file" } else { "it does not exist" };
            return Err(not_an_index(reason));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(not_an_index("it is not a folder"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(not_an_index("INDEX is not a regular file"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(damaged(HEADER + MAX_BODY, error.to_string()));
        }
        Err(source) => return Err(OpenError::Io { path, operation: "read", source }),
    };
    if bytes.get(..8) != Some(&MAGIC[..]) {
        return Err(not_an_index("INDEX begins with another magic"));
    }
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(damaged(bytes.len(), "the file ends within its header".into()));
    };
    let found = u32_at(header, 8);
    if found > CONTAINER_VERSION {
        return Err(OpenError::Newer { path, found, supported: CONTAINER_VERSION });
    }
    if crc32fast::hash(&header[..60]) != u32_at(header, 60) {
        return Err(damaged(60, "checksum of the header does not match".into()));
    }
    if found == 0 {
        return Err(damaged(8, "container version 0".into()));
    }
    if u32_at(header, 12) as usize != body.len() {
        return Err(damaged(
            12,
            format!(
                "the header gives the body {} bytes, but the file has {}",
                u32_at(header, 12),
                body.len()
            ),
        ));
    }
    if crc32fast::hash(body) != u32_at(header, 56) {
        return Err(damaged(56, "checksum of the body does not match".into()));
    }
    let bits: u64 = u64_at(header, 16);
    if bits != 0 {
        return Err(OpenError::UnknownFeature { path, bits });
    }
    let schema = Schema::from_json(body).map_err(|reason| damaged(HEADER, reason))?;
    let identity = Identity { index: uuid_at(header, 40), schema, schema_digest: schema::digest(body) };
    Ok((identity, Features { write: u64_at(header, 24) }))
}
