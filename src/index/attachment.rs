//! What an index keeps of a segment that was built apart from it: the file `<uuid>.attached` beside the segment,
//! which says for which commit it was attached, as its header cannot. Specified by `format-spec/detached.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use super::part::Stage;
use crate::bytes::{u32_at, u64_at, uuid_at};
use crate::files;
use crate::segment::storage::{Storage, StorageBytes};
use crate::segment::{Origin, SegmentError, file_name};

const MAGIC: [u8; 8] = *b"\x89GDA\r\n\x1a\n";
const CONTAINER_VERSION: u32 = 1;
const LENGTH: usize = 64;

fn note_name(segment: Uuid) -> String {
    format!("{segment}.attached")
}

fn io_error(
    storage: &dyn Storage,
    name: &str,
    operation: &'static str,
) -> impl Fn(io::Error) -> SegmentError {
    let file = storage.describe(name);
    move |source| SegmentError::Io { file: file.clone(), operation, source }
}

/// Writes the note of a segment durably, but for its name: the storage is synced later.
pub(super) fn write_note(
    storage: &dyn Storage,
    index: Uuid,
    segment: Uuid,
    origin: Origin,
) -> Result<(), SegmentError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(CONTAINER_VERSION.to_le_bytes());
    bytes.extend(origin.ordinal.to_le_bytes());
    bytes.extend(origin.generation.to_le_bytes());
    bytes.extend(index.as_bytes());
    bytes.extend(segment.as_bytes());
    bytes.extend([0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    let name = note_name(segment);
    let io = |operation| io_error(storage, &name, operation);
    // Of a file that somebody has moved away.
    storage.remove(&name).map_err(io("remove"))?;
    let mut file = storage.create(&name).map_err(io("create"))?;
    file.write(&bytes).map_err(io("write"))?;
    file.sync().map_err(io("sync"))
}

/// For which commit a segment was attached; `None` if it has no note. The inner error says what is wrong with
/// the note.
pub(super) fn read_note(
    storage: &dyn Storage,
    index: Uuid,
    segment: Uuid,
) -> Result<Option<Result<Origin, String>>, SegmentError> {
    let name = note_name(segment);
    let bytes = match storage.open(&name) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Some(Err(error.to_string()))),
        Err(error) => return Err(io_error(storage, &name, "open")(error)),
    };
    let length = StorageBytes::len(&*bytes);
    if length != LENGTH as u64 {
        return Ok(Some(Err(format!("it has {length} bytes in place of {LENGTH}"))));
    }
    let mut note = [0; LENGTH];
    bytes.read_at(0, &mut note).map_err(io_error(storage, &name, "read"))?;
    Ok(Some(parse(&note, index, segment)))
}

fn parse(note: &[u8; LENGTH], index: Uuid, segment: Uuid) -> Result<Origin, String> {
    if note[..8] != MAGIC {
        return Err("it begins with another magic".into());
    }
    let version = u32_at(note, 8);
    if version != CONTAINER_VERSION {
        return Err(format!("container version {version}, where {CONTAINER_VERSION} is known"));
    }
    if crc32fast::hash(&note[..60]) != u32_at(note, 60) {
        return Err("its checksum does not match".into());
    }
    if uuid_at(note, 24) != index || uuid_at(note, 40) != segment {
        return Err("it is of another index or segment".into());
    }
    match u64_at(note, 16) {
        generation if (1..1 << 63).contains(&generation) && u32_at(note, 56) == 0 => {
            Ok(Origin { generation, ordinal: u32_at(note, 12) })
        }
        generation => Err(format!("generation {generation}, or reserved bytes that are not zero")),
    }
}

/// The note's name in messages.
pub(super) fn describe_note(storage: &dyn Storage, segment: Uuid) -> String {
    storage.describe(&note_name(segment))
}

/// Removes a segment's file, and its note if it has one. The caller syncs the storage.
pub(super) fn remove_segment(storage: &dyn Storage, segment: Uuid) -> Result<(), SegmentError> {
    for name in [file_name(segment), note_name(segment)] {
        storage.remove(&name).map_err(io_error(storage, &name, "remove"))?;
    }
    Ok(())
}

/// What a file is known again by: another inode, length or time of change means that it is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    identity: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let identity = (0, 0);
        Ok(Self { identity, length: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// A file that was linked, by the name that its builder gave it.
#[derive(Debug)]
pub(super) struct LinkedFile {
    pub path: PathBuf,
    pub stamp: Stamp,
}

impl LinkedFile {
    /// Whether the file was written since. Not known once its name stands for another file, or for none.
    pub fn has_changed(&self) -> bool {
        Stamp::of(&self.path).is_ok_and(|now| now.identity == self.stamp.identity && now != self.stamp)
    }
}

/// What the next commit has to do with what was attached.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    pub linked: Vec<LinkedFile>,
    pub moves: Vec<Move>,
}

/// A part that moves into the index with the next commit.
#[derive(Debug)]
pub(super) struct Move {
    /// The part's folder.
    pub folder: PathBuf,
    pub files: Vec<LinkedFile>,
}

impl Attachments {
    pub fn is_empty(&self) -> bool {
        self.linked.is_empty() && self.moves.is_empty()
    }

    /// A file that was written after it was attached.
    pub fn changed(&self) -> Option<&Path> {
        let moved = self.moves.iter().flat_map(|part| &part.files);
        self.linked.iter().chain(moved).find(|file| file.has_changed()).map(|file| &*file.path)
    }
}

impl Move {
    /// The name of the part's folder once it has moved.
    fn moved(&self) -> PathBuf {
        let is_named = self.folder.extension().is_some_and(|end| end == Stage::Finished.extension());
        let stem = if is_named { self.folder.file_stem() } else { self.folder.file_name() };
        let mut name = stem.unwrap_or_default().to_owned();
        name.push(".");
        name.push(Stage::Moved.extension());
        self.folder.with_file_name(name)
    }

    /// Takes the builder's names away, after the commit: first the part is marked as moved, so that none that lacks
    /// some of its files is ever taken for a whole one.
    pub fn complete(&self) -> io::Result<()> {
        let moved = self.moved();
        fs::rename(&self.folder, &moved)?;
        if let Some(parent) = moved.parent() {
            files::sync_folder(parent)?;
        }
        for file in &self.files {
            let Some(name) = file.path.file_name() else { continue };
            let path = moved.join(name);
            match Stamp::of(&path) {
                Ok(now) if now.identity == file.stamp.identity => fs::remove_file(path)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files::sync_folder(&moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::storage::MemoryStorage;

    /// Catches a change of any byte of a note (written against format-spec/detached.md), and a byte that nothing
    /// checks.
    #[test]
    fn note_bytes_are_those_of_the_specification() {
        let (index, segment) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let origin = Origin { generation: 258, ordinal: 3 };
        let storage = MemoryStorage::new();
        write_note(&storage, index, segment, origin).unwrap();
        let mut expected = b"\x89GDA\r\n\x1a\n\x01\0\0\0\x03\0\0\0\x02\x01\0\0\0\0\0\0".to_vec();
        expected.extend([[1; 16], [2; 16]].concat());
        expected.extend([0; 4]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        let file = storage.open("02020202-0202-0202-0202-020202020202.attached").unwrap();
        assert_eq!(file.mapped(0..64).unwrap(), expected);
        assert_eq!(read_note(&storage, index, segment).unwrap(), Some(Ok(origin)));
        assert_eq!(read_note(&storage, index, index).unwrap(), None);
        let mut note: [u8; LENGTH] = expected.try_into().unwrap();
        for at in 0..LENGTH {
            note[at] ^= 1;
            assert!(parse(&note, index, segment).is_err(), "byte {at}");
            note[at] ^= 1;
        }
        assert_eq!(parse(&note, index, segment), Ok(origin));
        assert!(parse(&note, segment, segment).is_err() && parse(&note, index, index).is_err());
    }
}
