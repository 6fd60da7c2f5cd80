//! Where segment files live: the one trait through which every byte of them goes.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use file::MappedFile;
pub(crate) use file::Pages;

mod file;

/// A flat folder of immutable files.
///
/// The contract that the engine relies on:
/// - a file is written once, front to back, and never changed afterwards;
/// - after [`StorageFile::sync`] **and** [`Storage::sync`] have returned, the file with all its
///   bytes survives a crash; before that, any part of it may be missing;
/// - [`StorageBytes`] stay readable until they are dropped, also after [`Storage::remove`].
pub trait Storage: fmt::Debug + Send + Sync {
    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists`, or whatever the storage says.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a whole file for reading.
    ///
    /// # Errors
    /// `NotFound`, or whatever the storage says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>>;

    /// Removes a file; one that does not exist is not an error.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes the creations and removals before this call durable.
    ///
    /// # Errors
    /// Whatever the storage says. A sync that failed is never tried again.
    fn sync(&self) -> io::Result<()>;

    /// What to call a file in messages.
    fn describe(&self, name: &str) -> String;
}

/// A file being written.
pub trait StorageFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// Whatever the storage says; the file is then of no use.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Whatever the storage says; the file is then of no use, and the sync is not tried again.
    fn sync(&mut self) -> io::Result<()>;
}

/// The bytes of an immutable file, by ranges.
///
/// Only [`StorageBytes::len`] and [`StorageBytes::read_at`] must be written: that is enough for an object
/// store. The rest is for storages that can do more; what it says has to agree with the bytes.
pub trait StorageBytes: fmt::Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on. Several threads may read at once.
    ///
    /// # Errors
    /// `UnexpectedEof` if there are not as many, or whatever the storage says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The bytes of a range where they lie in memory that stays valid and unchanged as long as `self`;
    /// `None`: they have to be read.
    fn mapped(&self, _range: Range<u64>) -> Option<&[u8]> {
        None
    }

    /// Like [`StorageBytes::read_at`], but past the page cache where that is possible: for `offset`,
    /// length and address that are multiples of 4096.
    ///
    /// # Errors
    /// As [`StorageBytes::read_at`].
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buffer)
    }

    /// Whether [`StorageBytes::read_direct`] passes the page cache by.
    fn reads_directly(&self) -> bool {
        false
    }

    /// Whether reading is more than copying from memory.
    fn is_on_disk(&self) -> bool {
        false
    }

    /// Whether the byte at `offset` is in memory already, as far as that is known.
    fn is_resident(&self, _offset: u64) -> bool {
        true
    }

    /// Says what the bytes of a range will be used for. A hint: it cannot fail, and it changes no byte.
    fn advise(&self, _range: Range<u64>, _advice: Advice) {}
}

/// What a range of a file will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// It is read soon: fetch it.
    Soon,
    /// It is not read again: memory need not keep it.
    Done,
}

/// A folder of the file system. Files are mapped, and read where that is better.
#[derive(Debug)]
pub struct FileStorage {
    folder: PathBuf,
}

impl FileStorage {
    /// The storage of an existing folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Refuses names that could lead out of the folder.
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = Path::new(name).file_name().is_some_and(|file| file == name);
        if plain {
            Ok(self.folder.join(name))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file name")))
        }
    }
}

impl Storage for FileStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(self.path(name)?)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let path = self.path(name)?;
        // Neither a link out of the folder nor a pipe that nobody writes to.
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(MappedFile::new(File::open(path)?)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // Names that are not UTF-8 cannot be ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    fn describe(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; NTFS journals its entries.
    if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }
}

/// Puts a small file in place durably: it is there with all its bytes, or as it was before.
pub(crate) fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.unfinished"));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, folder.join(name))?;
    sync_folder(folder)
}

impl StorageFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Files in memory, gone with the value: for tests, and for indexes that need not last.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    files: Files,
}

type Files = Arc<Mutex<HashMap<String, Arc<Vec<u8>>>>>;

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

struct MemoryFile {
    name: String,
    bytes: Vec<u8>,
    files: Files,
}

impl Storage for MemoryStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut files = lock(&self.files);
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(name.to_owned(), Arc::default());
        let (name, files) = (name.to_owned(), Arc::clone(&self.files));
        Ok(Box::new(MemoryFile { name, bytes: Vec::new(), files }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let files = lock(&self.files);
        match files.get(name) {
            Some(bytes) => Ok(Arc::clone(bytes) as Arc<dyn StorageBytes>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let files = lock(&self.files);
        Ok(files.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

impl StorageFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Only now do the bytes appear to readers.
    fn sync(&mut self) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.insert(self.name.clone(), Arc::new(std::mem::take(&mut self.bytes)));
        Ok(())
    }
}

impl StorageBytes for Vec<u8> {
    /// There is no page cache between a reader and memory.
    fn reads_directly(&self) -> bool {
        true
    }

    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        buffer.copy_from_slice(part(self, offset..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn mapped(&self, range: Range<u64>) -> Option<&[u8]> {
        part(self, range)
    }
}

/// Some of `bytes`, if they are there.
fn part(bytes: &[u8], range: Range<u64>) -> Option<&[u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(test: impl Fn(&dyn Storage)) {
        test(&MemoryStorage::new());
        let folder = tempfile::tempdir().unwrap();
        test(&FileStorage::new(folder.path()));
    }

    fn all(storage: &dyn Storage, name: &str) -> Vec<u8> {
        let bytes = storage.open(name).unwrap();
        let mut read = vec![0; bytes.len() as usize];
        bytes.read_at(0, &mut read).unwrap();
        read
    }

    /// Catches ranges that are off by one, a read beyond the end that gives bytes or panics, and lent
    /// bytes that are not those that are read.
    #[test]
    fn ranges_are_those_of_the_file() {
        each(|storage| {
            let expected: Vec<u8> = (0..9000u32).map(|i| (i * 7 + i / 256) as u8).collect();
            let mut file = storage.create("a.seg").unwrap();
            file.write(&expected).unwrap();
            file.sync().unwrap();
            let bytes = storage.open("a.seg").unwrap();
            assert_eq!((bytes.len(), bytes.is_empty()), (9000, false));
            for range in [0..9000usize, 0..0, 9000..9000, 1..2, 4095..8193, 8999..9000] {
                let mut read = vec![0; range.len()];
                bytes.read_at(range.start as u64, &mut read).unwrap();
                assert_eq!(read, expected[range.clone()]);
                let lent = bytes.mapped(range.start as u64..range.end as u64);
                assert_eq!(lent, Some(&expected[range]));
            }
            for (offset, length) in [(9000, 1), (8999, 2), (u64::MAX, 1), (u64::MAX - 1, 2)] {
                let error = bytes.read_at(offset, &mut vec![0; length]).unwrap_err();
                let eof = [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidInput].contains(&error.kind());
                assert!(eof, "{error:?}");
                assert_eq!(bytes.mapped(offset..offset.saturating_add(length as u64)), None);
            }
        });
    }

    /// Catches a storage that overwrites a segment, or loses its bytes.
    #[test]
    fn create_refuses_a_file_that_exists() {
        each(|storage| {
            let mut file = storage.create("a.seg").unwrap();
            file.write(b"one").unwrap();
            file.write(b"two").unwrap();
            file.sync().unwrap();
            storage.sync().unwrap();
            assert_eq!(all(storage, "a.seg"), b"onetwo");
            let again = storage.create("a.seg").err().unwrap();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        });
    }

    /// Catches a garbage collection that pulls the bytes from under a snapshot.
    #[test]
    fn open_bytes_survive_remove() {
        each(|storage| {
            let mut file = storage.create("a.seg").unwrap();
            file.write(b"bytes").unwrap();
            file.sync().unwrap();
            let bytes = storage.open("a.seg").unwrap();
            storage.remove("a.seg").unwrap();
            storage.remove("a.seg").unwrap();
            let mut read = [0; 5];
            bytes.read_at(0, &mut read).unwrap();
            assert_eq!((&read, bytes.mapped(0..5)), (b"bytes", Some(&b"bytes"[..])));
            assert!(storage.list().unwrap().is_empty());
        });
    }

    /// Catches a crafted name that reaches outside of the index's folder.
    #[test]
    fn file_storage_refuses_paths() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        for name in ["../x", "a/b", "/etc/passwd", "", ".."] {
            assert_eq!(storage.open(name).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
