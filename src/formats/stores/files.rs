//! Files of a store: opened, read whole where they are small, and the errors about them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::super::FormatError;

/// The longest file of settings that is read whole: 16 MiB.
const LONGEST_SETTINGS: u64 = 1 << 24;

pub(super) fn io_error(path: &Path, operation: &'static str, source: io::Error) -> FormatError {
    FormatError::Io { path: path.into(), operation, source }
}

pub(super) fn malformed(path: &Path, offset: u64, what: impl Into<String>) -> FormatError {
    FormatError::Malformed { path: path.into(), offset, what: what.into() }
}

pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> FormatError {
    FormatError::Unsupported { path: path.into(), what: what.into() }
}

/// Opens a file, and returns its length. What is no file, a pipe for example, is an error and is not waited for.
pub(super) fn open(path: &Path) -> Result<(File, u64), FormatError> {
    let fail = |source| io_error(path, "open", source);
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok((File::open(path).map_err(fail)?, metadata.len()))
}

/// The text of a file of settings.
pub(super) fn read_text(path: &Path) -> Result<String, FormatError> {
    let (file, length) = open(path)?;
    if length > LONGEST_SETTINGS {
        return Err(unsupported(
            path,
            format!("{length} bytes, where at most {LONGEST_SETTINGS} are possible"),
        ));
    }
    let mut text = String::new();
    let mut limited = file.take(LONGEST_SETTINGS);
    limited.read_to_string(&mut text).map_err(|source| io_error(path, "read", source))?;
    Ok(text)
}

/// The names in a folder, in order. Names that are no UTF-8 are no store's, and are left out.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, FormatError> {
    let fail = |source| io_error(folder, "list", source);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The error about JSON that begins at byte `offset` of a file.
pub(super) fn bad_json(path: &Path, offset: u64, error: &serde_json::Error) -> FormatError {
    malformed(path, offset, format!("no JSON as expected: {error}"))
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String, FormatError> {
    let mut file = BufReader::with_capacity(1 << 18, open(path)?.0);
    let mut digest = Sha256::new();
    loop {
        let bytes = file.fill_buf().map_err(|source| io_error(path, "read", source))?;
        if bytes.is_empty() {
            break;
        }
        digest.update(bytes);
        let length = bytes.len();
        file.consume(length);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The path of the one of `parts` below `path` that is asked for, or of the only one there is. `sign` is what shows that
/// something is a part.
pub(super) fn choose(
    path: &Path,
    asked: Option<&str>,
    parts: Vec<String>,
    sign: &str,
) -> Result<PathBuf, FormatError> {
    match (asked, parts.as_slice()) {
        (Some(asked), _) if parts.iter().any(|part| part == asked) => Ok(path.join(asked)),
        (Some(asked), _) => Err(FormatError::Missing { path: path.into(), name: asked.into(), found: parts }),
        (None, [only]) => Ok(path.join(only)),
        (None, []) => Err(unsupported(path, format!("no store: there is no {sign}"))),
        (None, several) => Err(unsupported(
            path,
            format!("several parts, of which one has to be chosen: {}", several.join(", ")),
        )),
    }
}
