//! Files of a store: opened, read whole where they are small, and the errors about them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::super::FormatError;
use super::super::input::{DataFile, malformed, unsupported};

/// The longest file of settings that is read whole: 16 MiB.
const LONGEST_SETTINGS: u64 = 1 << 24;

pub(super) fn io_error(path: &Path, operation: &'static str, source: io::Error) -> FormatError {
    FormatError::Io { path: path.into(), operation, source }
}

/// Opens a file. What is no file, a pipe for example, is an error and is not waited for.
pub(super) fn open(path: &Path) -> Result<DataFile, FormatError> {
    let fail = |source| io_error(path, "open", source);
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok(DataFile { path: path.into(), file: File::open(path).map_err(fail)?, length: metadata.len() })
}

/// Opens a file that is read in order.
pub(super) fn open_buffered(path: &Path) -> Result<BufReader<File>, FormatError> {
    Ok(BufReader::with_capacity(1 << 18, open(path)?.file))
}

/// The text of a file of settings.
pub(super) fn read_text(path: &Path) -> Result<String, FormatError> {
    let file = open(path)?;
    if file.length > LONGEST_SETTINGS {
        let what = format!("{} bytes, where at most {LONGEST_SETTINGS} are possible", file.length);
        return Err(unsupported(path, what));
    }
    let mut text = String::new();
    let mut limited = file.file.take(LONGEST_SETTINGS);
    limited.read_to_string(&mut text).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => malformed(path, 0, "no UTF-8"),
        _ => io_error(path, "read", source),
    })?;
    Ok(text)
}

/// The error about JSON that begins at byte `offset` of a file.
pub(super) fn bad_json(path: &Path, offset: u64, error: &serde_json::Error) -> FormatError {
    malformed(path, offset, format!("no JSON as expected: {error}"))
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String, FormatError> {
    let mut file = open_buffered(path)?;
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

/// Passes each name in a folder, in no order. Names that are no UTF-8 are no store's, and are left out.
pub(super) fn each_name(folder: &Path, mut pass: impl FnMut(String)) -> Result<(), FormatError> {
    let fail = |source| io_error(folder, "list", source);
    for entry in fs::read_dir(folder).map_err(fail)? {
        if let Ok(name) = entry.map_err(fail)?.file_name().into_string() {
            pass(name);
        }
    }
    Ok(())
}

/// The one of `parts` that is asked for, or the only one there is. `sign` is what shows that something is a part.
pub(super) fn choose(
    path: &Path,
    asked: Option<&str>,
    mut parts: Vec<String>,
    sign: &str,
) -> Result<String, FormatError> {
    match (asked, parts.as_slice()) {
        (Some(asked), _) if parts.iter().any(|part| part == asked) => Ok(asked.into()),
        (_, []) => Err(unsupported(path, format!("there is no {sign} in it, nor in a folder of it"))),
        (Some(asked), _) => Err(FormatError::Missing { path: path.into(), name: asked.into(), found: parts }),
        (None, [_]) => Ok(parts.remove(0)),
        (None, several) => Err(unsupported(
            path,
            format!("several parts, of which one has to be chosen: {}", several.join(", ")),
        )),
    }
}

/// Where reading goes on after `rows` of `all` rows are passed over from `next` on.
pub(super) fn pass(path: &Path, next: u64, rows: u64, all: u64) -> Result<u64, FormatError> {
    let after = next.checked_add(rows).filter(|after| *after <= all);
    after.ok_or_else(|| {
        unsupported(path, format!("{rows} rows cannot be passed over after row {next} of {all}"))
    })
}
