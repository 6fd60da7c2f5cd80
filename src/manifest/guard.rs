//! Looks at the database's files before RocksDB does, for what RocksDB 11.8 does not survive, or should not be
//! given: `docs/upstream` has the cases.
//!
//! - Anything but regular files: RocksDB follows links, also when it writes, and waits for pipes.
//! - Files of which it reads all, however long: `CURRENT` and `IDENTITY`.
//! - Record types in its logs (the write-ahead log and its own `MANIFEST`) that it never writes here: at some of
//!   them its reader repeats itself for ever.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::error::ManifestError;
use crate::bytes::{u16_at, u32_at};
use crate::files;

/// A name with its line end, and room to spare.
const LONGEST_CURRENT: u64 = 64;
const LONGEST_IDENTITY: u64 = 4096;
/// A write batch has less; the log is flushed long before it grows to this by many.
const LONGEST_LOG: u64 = 4 << 30;

/// RocksDB's log format: blocks of this many bytes,
const BLOCK: usize = 32_768;
/// in them records with a header of checksum (4), length (2) and type (1).
const HEADER: usize = 7;
/// A whole record, or the first, a middle or the last part of one.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;
/// Bit 7 of a type says that a reader that does not know it may skip it.
const MAY_SKIP: u8 = 0x80;

/// Checks the files of a database that is about to be opened.
pub(super) fn check(folder: &Path) -> Result<(), ManifestError> {
    files::check_folder(folder).map_err(|source| failed(folder, "open the database's folder", source))?;
    for entry in
        fs::read_dir(folder).map_err(|source| failed(folder, "list the database's folder", source))?
    {
        let entry = entry.map_err(|source| failed(folder, "list the database's folder", source))?;
        let (path, name) = (entry.path(), entry.file_name());
        let metadata = match fs::symlink_metadata(&path) {
            // A writer removes files that it no longer needs at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|source| failed(&path, "look at", source))?,
        };
        if !metadata.is_file() {
            return Err(damaged(&path, 0, "not a regular file"));
        }
        let name = name.to_string_lossy();
        let longest = match &*name {
            "CURRENT" => LONGEST_CURRENT,
            "IDENTITY" => LONGEST_IDENTITY,
            name if is_record_log(name) => LONGEST_LOG,
            _ => continue,
        };
        if metadata.len() > longest {
            let reason = format!("{} bytes, where at most {longest} are possible", metadata.len());
            return Err(damaged(&path, longest, &reason));
        }
        if is_record_log(&name) {
            match files::open_regular(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => check_records(other.map_err(|source| failed(&path, "open", source))?, &path)?,
            }
        }
    }
    Ok(())
}

/// Removes temporary files of killed writers, which RocksDB forgets. Only under the writer's lock.
pub(super) fn remove_leftovers(folder: &Path) -> Result<(), ManifestError> {
    for entry in
        fs::read_dir(folder).map_err(|source| failed(folder, "list the database's folder", source))?
    {
        let path = entry.map_err(|source| failed(folder, "list the database's folder", source))?.path();
        if path.extension().is_some_and(|extension| extension == "dbtmp") {
            fs::remove_file(&path).map_err(|source| failed(&path, "remove", source))?;
        }
    }
    Ok(())
}

fn is_record_log(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_suffix(".log").is_some_and(is_number) || name.strip_prefix("MANIFEST-").is_some_and(is_number)
}

/// Walks through a log as RocksDB's reader does. An error if that reader would meet a record of a type that it
/// is not made for; what it reports itself is left to it.
fn check_records(mut file: File, path: &Path) -> Result<(), ManifestError> {
    let (mut block, mut start) = (Vec::with_capacity(BLOCK), 0u64);
    loop {
        block.clear();
        let read = (&mut file).take(BLOCK as u64).read_to_end(&mut block);
        read.map_err(|source| failed(path, "read", source))?;
        if let Some((at, kind)) = foreign_record(&block) {
            let reason = format!("a record of type {kind}, which is never written");
            return Err(damaged(path, start + at as u64, &reason));
        }
        if block.len() < BLOCK {
            return Ok(());
        }
        start += BLOCK as u64;
    }
}

/// The offset and the type of the first such record in a block.
fn foreign_record(block: &[u8]) -> Option<(usize, u8)> {
    let mut at = 0;
    while block.len() - at >= HEADER {
        let header = &block[at..at + HEADER];
        let (length, kind) = (usize::from(u16_at(header, 4)), header[6]);
        // RocksDB looks at these types before it looks at the checksum.
        if is_recyclable(kind) {
            return Some((at, kind));
        }
        let end = at + HEADER + length;
        // RocksDB masks its checksums.
        let masked = |crc: u32| crc.rotate_right(15).wrapping_add(0xA282_EAD8);
        let checked = block.get(at + 6..end)?;
        if u32_at(header, 0) != masked(crc32c::crc32c(checked)) {
            // The reader leaves the rest of the block.
            return None;
        }
        if !TYPES.contains(&kind) && kind & MAY_SKIP == 0 {
            return Some((at, kind));
        }
        at = end;
    }
    None
}

/// Types of records in logs that are used again, which gradix's never are.
fn is_recyclable(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

fn failed(path: &Path, operation: &'static str, source: io::Error) -> ManifestError {
    ManifestError::Database { path: path.to_owned(), operation, source }
}

fn damaged(path: &Path, offset: u64, reason: &str) -> ManifestError {
    ManifestError::DamagedFile { path: path.to_owned(), offset, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut checked = vec![kind];
        checked.extend(body);
        let crc = crc32c::crc32c(&checked).rotate_right(15).wrapping_add(0xA282_EAD8);
        let mut bytes = crc.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(checked);
        bytes
    }

    /// Catches a log at which RocksDB's reader would repeat itself for ever, and one that is refused although
    /// a power cut may leave it.
    #[test]
    fn record_types_that_are_never_written_are_refused_and_torn_records_are_not() {
        let mut log = record(1, b"one");
        log.extend(record(2, b"two"));
        assert_eq!(foreign_record(&log), None);
        for kind in [5, 6, 7, 8, 11, 131] {
            // Neither a checksum nor a length is needed.
            let bytes = [&log[..], &[1, 2, 3, 4, 0, 0, kind]].concat();
            assert_eq!(foreign_record(&bytes), Some((log.len(), kind)));
            let mut flipped = log.clone();
            flipped[6] = kind;
            assert_eq!(foreign_record(&flipped), Some((0, kind)));
        }
        assert_eq!(foreign_record(&[&log[..], &record(9, b"zstd")].concat()), Some((log.len(), 9)));
        assert_eq!(foreign_record(&[&log[..], &record(130, b"")].concat()), None);
        // Zeros, as in a page that did not reach the disk; cut off; a type that only a checksum vouches for.
        assert_eq!(foreign_record(&[&log[..], &[0; 90][..], &[5; 90]].concat()), None);
        for end in 0..log.len() {
            assert_eq!(foreign_record(&log[..end]), None);
        }
        let mut torn = log.clone();
        torn[4] = 0xFF;
        assert_eq!(foreign_record(&torn), None);
        torn[6] = 9;
        assert_eq!(foreign_record(&torn), None);
    }
}
