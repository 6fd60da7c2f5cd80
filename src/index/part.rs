//! A part: segments that a detached writer has finished, and the file `PART` that describes them. Specified by
//! `format-spec/detached.md`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::error::{PartError, hex};
use crate::bytes::{array_at, u32_at, u64_at, uuid_at};
use crate::curvature::check_name;
use crate::files;
use crate::segment::file_name;

/// The name of the description in a part's folder.
pub(super) const NAME: &str = "PART";
const MAGIC: [u8; 8] = *b"\x89GDP\r\n\x1a\n";
const CONTAINER_VERSION: u32 = 1;
const HEADER: usize = 128;
const ENTRY: usize = 72;
const SUMS_ENTRY: usize = 128;
const CRC: usize = 4;
/// The maximum number of segments of a part, which bounds the description.
pub(super) const MAX_SEGMENTS: usize = 65_536;
/// The maximum number of sums of a part.
pub(super) const MAX_SUMS: usize = 64;
/// The maximum length of the name of sums.
const MAX_NAME: usize = 64;
/// The maximum length of a payload, of a part as of a commit.
pub(super) const MAX_PAYLOAD: usize = 1 << 20;

/// How far a part is, by the end of its folder's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Unfinished,
    Finished,
    /// Its segments belong to an index now.
    Moved,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Unfinished, Self::Finished, Self::Moved];

    pub fn extension(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Finished => "part",
            Self::Moved => "moved",
        }
    }
}

/// The name of a part's folder.
pub(super) fn folder_name(number: u64, stage: Stage) -> String {
    format!("{number:08}.{}", stage.extension())
}

fn parse_folder_name(name: &str) -> Option<(u64, Stage)> {
    let (digits, end) = name.split_once('.')?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.extension() == end)?;
    let number = digits.parse().ok().filter(|&number| number > 0)?;
    (folder_name(number, stage) == name).then_some((number, stage))
}

/// The parts in a folder, whatever their stage, by their numbers.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, Stage, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((number, stage)) = name.to_str().and_then(parse_folder_name)
            && entry.file_type()?.is_dir()
        {
            found.push((number, stage, entry.path()));
        }
    }
    found.sort_unstable_by_key(|(number, stage, _)| (*number, *stage as u8));
    Ok(found)
}

/// Segments of an index that a [`DetachedWriter`](crate::DetachedWriter) has finished, in a folder of their own:
/// what [`Writer::attach`](crate::Writer::attach) takes.
///
/// A part can be copied as a folder, under any name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Its folder.
    pub path: PathBuf,
    /// Its number among the parts of its writer, counted from 1.
    pub number: u64,
    /// The index for which it was built.
    pub index: Uuid,
    /// The SHA-256 of that index's schema.
    pub schema_digest: [u8; 32],
    /// Its segments, in the order of writing. There may be none.
    pub segments: Vec<PartSegment>,
    /// The sums of curvatures that it brings along, by name. Each covers all of its rows.
    pub sums: Vec<PartSums>,
    /// The bytes that [`DetachedWriter::finish`](crate::DetachedWriter::finish) was given.
    pub payload: Vec<u8>,
}

/// A segment file of a [`Part`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartSegment {
    /// Its UUID; the file is `<uuid>.seg`.
    pub segment: Uuid,
    /// Its rows.
    pub rows: u64,
    /// Its examples.
    pub examples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The SHA-256 of the file.
    pub sha256: [u8; 32],
}

/// A file of a [`Part`] with the sums of a curvature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartSums {
    /// Its UUID; the file is `<uuid>.art`.
    pub artifact: Uuid,
    /// The curvature's name.
    pub name: String,
    /// Whether the sums are those of observed sketches, and not of the part's rows.
    pub observed: bool,
    /// Bytes of the file.
    pub bytes: u64,
    /// The SHA-256 of the file.
    pub sha256: [u8; 32],
}

impl Part {
    /// Reads the description of the part in a folder, and checks that it is sound. It does not read the segments:
    /// [`Part::verify`] does.
    ///
    /// # Errors
    /// The folder has no `PART` file, that file is damaged or was written by a later version, or the file system
    /// fails.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, PartError> {
        let folder = folder.as_ref();
        let path = folder.join(NAME);
        let longest = HEADER + MAX_SEGMENTS * ENTRY + MAX_SUMS * SUMS_ENTRY + MAX_PAYLOAD + CRC;
        let bytes = match files::read_small(&path, longest as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PartError::Unfinished { path: folder.to_owned() });
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) =>
            {
                return Err(PartError::Damaged { path, offset: 0, reason: error.to_string() });
            }
            Err(source) => return Err(PartError::Io { path, operation: "read", source }),
        };
        Self::parse(folder, &bytes)
    }

    /// The finished parts in the folder of a detached writer, in their order. Those whose segments were
    /// [moved](crate::Attach::Move) are not among them.
    ///
    /// # Errors
    /// As [`Part::read`], for each of them.
    pub fn list(folder: impl AsRef<Path>) -> Result<Vec<Self>, PartError> {
        let folder = folder.as_ref();
        let listed = list(folder).map_err(|source| {
            let path = folder.to_owned();
            PartError::Io { path, operation: "list the parts in", source }
        })?;
        let finished = listed.into_iter().filter(|(_, stage, _)| *stage == Stage::Finished);
        finished.map(|(_, _, path)| Self::read(path)).collect()
    }

    /// The rows of all segments.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.rows))
    }

    /// The examples of all segments.
    #[must_use]
    pub fn examples(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.examples))
    }

    /// The bytes of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.bytes))
    }

    /// The path of a segment's file.
    #[must_use]
    pub fn file(&self, segment: &PartSegment) -> PathBuf {
        self.path.join(file_name(segment.segment))
    }

    /// The path of a file with sums.
    #[must_use]
    pub fn sums_file(&self, sums: &PartSums) -> PathBuf {
        self.path.join(crate::artifact::file_name(sums.artifact))
    }

    /// Reads all files and compares their lengths and digests with those at the time when they were
    /// built. [`Writer::attach`](crate::Writer::attach) does this too.
    ///
    /// # Errors
    /// A file is missing, or is another one; or the file system fails.
    pub fn verify(&self) -> Result<(), PartError> {
        let segments = self.segments.iter().map(|one| (self.file(one), one.bytes, one.sha256));
        let sums = self.sums.iter().map(|one| (self.sums_file(one), one.bytes, one.sha256));
        for (path, bytes, sha256) in segments.chain(sums) {
            let io = |operation| {
                let path = path.clone();
                move |source: io::Error| match source.kind() {
                    io::ErrorKind::NotFound => PartError::Missing { path },
                    _ => PartError::Io { path, operation, source },
                }
            };
            let mut file = files::open_regular(&path).map_err(io("open"))?;
            let (mut digest, mut length) = (Sha256::new(), 0u64);
            let mut buffer = vec![0; 1 << 20];
            loop {
                let read = file.read(&mut buffer).map_err(io("read"))?;
                if read == 0 {
                    break;
                }
                digest.update(&buffer[..read]);
                length += read as u64;
            }
            compare(&path, (bytes, &sha256), (length, &digest.finalize().into()))?;
        }
        Ok(())
    }

    /// The bytes of `PART`.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.segments.len() * ENTRY + self.payload.len() + CRC);
        bytes.extend(MAGIC);
        bytes.extend(CONTAINER_VERSION.to_le_bytes());
        bytes.extend(u32::try_from(self.segments.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 24]);
        bytes.extend(self.index.as_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.schema_digest);
        bytes.extend(u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(u32::try_from(self.sums.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 12]);
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        for segment in &self.segments {
            bytes.extend(segment.segment.as_bytes());
            bytes.extend(segment.rows.to_le_bytes());
            bytes.extend(segment.examples.to_le_bytes());
            bytes.extend(segment.bytes.to_le_bytes());
            bytes.extend(segment.sha256);
        }
        for sums in &self.sums {
            let mut name = [0; MAX_NAME];
            name[..sums.name.len()].copy_from_slice(sums.name.as_bytes());
            bytes.extend(sums.artifact.as_bytes());
            bytes.extend(sums.bytes.to_le_bytes());
            bytes.extend(sums.sha256);
            bytes.extend([u8::from(sums.observed), u8::try_from(sums.name.len()).unwrap_or(u8::MAX)]);
            bytes.extend(name);
            bytes.extend([0; 6]);
        }
        bytes.extend(&self.payload);
        let crc = crc32fast::hash(&bytes[HEADER..]);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    fn parse(folder: &Path, bytes: &[u8]) -> Result<Self, PartError> {
        let path = || folder.join(NAME);
        let damaged = |offset: usize, reason: &str| {
            Err(PartError::Damaged { path: path(), offset: offset as u64, reason: reason.to_owned() })
        };
        if bytes.get(..8) != Some(&MAGIC[..]) {
            return damaged(0, "another magic");
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER) else {
            return damaged(bytes.len(), "the file ends within its header");
        };
        let found = u32_at(header, 8);
        if found > CONTAINER_VERSION {
            return Err(PartError::Newer { path: path(), found, supported: CONTAINER_VERSION });
        }
        if crc32fast::hash(&header[..124]) != u32_at(header, 124) {
            return damaged(124, "checksum of the header does not match");
        }
        if found == 0 {
            return damaged(8, "container version 0");
        }
        let bits = u64_at(header, 16);
        if bits != 0 {
            return Err(PartError::UnknownFeature { path: path(), bits });
        }
        if header[64..72].iter().chain(&header[112..124]).any(|&byte| byte != 0) {
            return damaged(64, "reserved bytes are not zero");
        }
        let (count, payload) = (u32_at(header, 12) as usize, u32_at(header, 104) as usize);
        let sums = u32_at(header, 108) as usize;
        if count > MAX_SEGMENTS || sums > MAX_SUMS || payload > MAX_PAYLOAD {
            return damaged(12, "more than 65,536 segments or 64 sums, or a payload of more than 1 MiB");
        }
        let entries = count * ENTRY + sums * SUMS_ENTRY;
        if body.len() != entries + payload + CRC {
            let reason =
                format!("{count} segments, {sums} sums and {payload} bytes of payload do not fill the file");
            return damaged(12, &reason);
        }
        let (body, crc) = body.split_at(entries + payload);
        if crc32fast::hash(body) != u32_at(crc, 0) {
            return damaged(bytes.len() - CRC, "checksum of the body does not match");
        }
        let (entries, payload) = body.split_at(entries);
        let (entries, sums_entries) = entries.split_at(count * ENTRY);
        let segments: Vec<_> = entries.chunks_exact(ENTRY).map(PartSegment::parse).collect();
        let mut known = HashSet::new();
        for (at, segment) in segments.iter().enumerate() {
            let offset = HEADER + at * ENTRY;
            if !known.insert(segment.segment) {
                return damaged(offset, "a segment that stands there twice");
            }
            if !(1..1 << 32).contains(&segment.rows) || !(1..=segment.rows).contains(&segment.examples) {
                return damaged(offset, "impossible numbers of rows and examples");
            }
        }
        let mut sums: Vec<PartSums> = Vec::new();
        for (at, entry) in sums_entries.chunks_exact(SUMS_ENTRY).enumerate() {
            let parsed = PartSums::parse(entry).filter(|one| {
                known.insert(one.artifact) && sums.last().is_none_or(|last| last.name < one.name)
            });
            match parsed {
                Some(one) => sums.push(one),
                None => {
                    let offset = HEADER + count * ENTRY + at * SUMS_ENTRY;
                    return damaged(
                        offset,
                        "sums that stand there twice, are out of order, or without kind or name",
                    );
                }
            }
        }
        let number = u64_at(header, 56);
        if number == 0 {
            return damaged(56, "number 0");
        }
        Ok(Self {
            path: folder.to_owned(),
            number,
            index: uuid_at(header, 40),
            schema_digest: array_at(header, 72),
            segments,
            sums,
            payload: payload.to_vec(),
        })
    }
}

impl PartSums {
    fn parse(entry: &[u8]) -> Option<Self> {
        let (length, name) = (usize::from(entry[57]), &entry[58..58 + MAX_NAME]);
        let (name, rest) = name.split_at_checked(length)?;
        if rest.iter().chain(&entry[58 + MAX_NAME..]).any(|&byte| byte != 0) || entry[56] > 1 {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?;
        check_name(name).ok()?;
        Some(Self {
            artifact: uuid_at(entry, 0),
            name: name.to_owned(),
            observed: entry[56] == 1,
            bytes: u64_at(entry, 16),
            sha256: array_at(entry, 24),
        })
    }

    /// Compares a file with what it was when it was built.
    pub(super) fn compare(&self, path: &Path, bytes: u64, sha256: &[u8; 32]) -> Result<(), PartError> {
        compare(path, (self.bytes, &self.sha256), (bytes, sha256))
    }
}

/// Compares bytes and digest of a file with those that it was built with.
fn compare(path: &Path, built: (u64, &[u8; 32]), found: (u64, &[u8; 32])) -> Result<(), PartError> {
    if found.0 != built.0 {
        return Err(PartError::Length { path: path.to_owned(), expected: built.0, found: found.0 });
    }
    if found.1 != built.1 {
        let (expected, found) = (hex(built.1), hex(found.1));
        return Err(PartError::Digest { path: path.to_owned(), expected, found });
    }
    Ok(())
}

impl PartSegment {
    fn parse(entry: &[u8]) -> Self {
        Self {
            segment: uuid_at(entry, 0),
            rows: u64_at(entry, 16),
            examples: u64_at(entry, 24),
            bytes: u64_at(entry, 32),
            sha256: array_at(entry, 40),
        }
    }

    /// Compares a file with what it was when it was built.
    pub(super) fn compare(&self, path: &Path, bytes: u64, sha256: &[u8; 32]) -> Result<(), PartError> {
        compare(path, (self.bytes, &self.sha256), (bytes, sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        let segment = PartSegment {
            segment: Uuid::from_bytes([2; 16]),
            rows: 3,
            examples: 2,
            bytes: 8256,
            sha256: [4; 32],
        };
        Part {
            path: "p".into(),
            number: 7,
            index: Uuid::from_bytes([1; 16]),
            schema_digest: [3; 32],
            segments: vec![segment],
            sums: vec![PartSums {
                artifact: Uuid::from_bytes([5; 16]),
                name: "xyz".into(),
                observed: true,
                bytes: 258,
                sha256: [6; 32],
            }],
            payload: b"pay".to_vec(),
        }
    }

    /// Catches a change of any byte of `PART`. Written against format-spec/detached.md.
    #[test]
    fn part_bytes_are_those_of_the_specification() {
        let mut header = b"\x89GDP\r\n\x1a\n\x01\0\0\0\x01\0\0\0".to_vec();
        header.extend([0; 24]);
        header.extend([1; 16]);
        header.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        header.extend([0; 8]);
        header.extend([3; 32]);
        header.extend([3, 0, 0, 0, 1, 0, 0, 0]);
        header.extend([0; 12]);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        let mut body = vec![2; 16];
        body.extend([3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x20, 0, 0, 0, 0, 0, 0]);
        body.extend([4; 32]);
        body.extend([5; 16]);
        body.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        body.extend([6; 32]);
        body.extend(b"\x01\x03xyz");
        body.extend([0; 67]);
        body.extend(b"pay");
        body.extend(crc32fast::hash(&body).to_le_bytes());
        assert_eq!(part().to_bytes(), [header, body].concat());
        assert_eq!(Part::parse(Path::new("p"), &part().to_bytes()).unwrap(), part());
    }

    /// Catches a byte of `PART` that nothing checks.
    #[test]
    fn parse_notices_each_changed_byte_and_each_cut() {
        let sound = part().to_bytes();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x41;
            assert!(Part::parse(Path::new("p"), &bytes).is_err(), "byte {at}");
            assert!(Part::parse(Path::new("p"), &sound[..at]).is_err(), "cut at {at}");
        }
        assert!(Part::parse(Path::new("p"), &[&sound[..], b"x"].concat()).is_err());
    }

    /// Catches a description that is sound byte by byte, and claims what cannot be.
    #[test]
    fn parse_refuses_what_cannot_be() {
        let changed = |change: fn(&mut Part)| {
            let mut part = part();
            change(&mut part);
            Part::parse(Path::new("p"), &part.to_bytes())
        };
        assert!(changed(|_| ()).is_ok());
        assert!(changed(|part| part.number = 0).is_err());
        assert!(changed(|part| part.segments[0].rows = 0).is_err());
        assert!(changed(|part| part.segments[0].rows = 1 << 32).is_err());
        assert!(changed(|part| part.segments[0].examples = 4).is_err());
        assert!(changed(|part| part.segments.push(part.segments[0])).is_err());
        assert!(changed(|part| part.payload = vec![0; MAX_PAYLOAD + 1]).is_err());
    }

    /// Catches folders that are taken for parts, or parts that are not found again.
    #[test]
    fn folder_names_of_parts() {
        for stage in Stage::ALL {
            for number in [1, 99_999_999, 100_000_000] {
                assert_eq!(parse_folder_name(&folder_name(number, stage)), Some((number, stage)));
            }
        }
        for name in ["1.part", "00000000.part", "00000001.PART", "+0000001.part", "00000001.part.part", "x"] {
            assert_eq!(parse_folder_name(name), None, "{name}");
        }
    }
}
