//! The storage of segment files: the traits through which all their bytes are read and written.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::files;
use crate::lock::lock;
pub(crate) use file::Pages;
use file::{Descriptors, FolderFile};

mod file;

/// A flat namespace of immutable files. Set it with [`IndexOptions::storage`](crate::IndexOptions::storage).
///
/// The engine relies on this contract:
/// - A file is written once, front to back, and never changed afterwards.
/// - After [`StorageFile::sync`] **and** [`Storage::sync`] have returned, the file with all its bytes
///   survives a crash. Before that, any part of it may be missing after a crash.
/// - [`StorageBytes`] stay readable until they are dropped, even after [`Storage::remove`].
pub trait Storage: fmt::Debug + Send + Sync {
    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists`, or an error of the storage.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a whole file for reading.
    ///
    /// # Errors
    /// `NotFound`, or an error of the storage.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>>;

    /// Gives a file of the file system, which nobody writes to any more, a name in this storage too, without copying
    /// it. Its bytes are durable when this has returned, its name after [`Storage::sync`]. Default: `Unsupported`.
    ///
    /// # Errors
    /// `AlreadyExists`, `CrossesDevices`, `Unsupported`, or an error of the storage.
    fn link(&self, _file: &Path, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file. It is not an error if the file does not exist.
    ///
    /// # Errors
    /// An error of the storage.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// An error of the storage.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes all earlier creations and removals durable.
    ///
    /// # Errors
    /// An error of the storage. The engine never retries a failed sync.
    fn sync(&self) -> io::Result<()>;

    /// The name of a file in error messages.
    fn describe(&self, name: &str) -> String;
}

/// A file being written.
pub trait StorageFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// An error of the storage. The engine then abandons the file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all bytes written so far durable.
    ///
    /// # Errors
    /// An error of the storage. The engine then abandons the file and never retries the sync.
    fn sync(&mut self) -> io::Result<()>;
}

/// An open immutable file, read by ranges.
///
/// [`StorageBytes::len`] and [`StorageBytes::read_at`] are required, and sufficient for an object store. The
/// other methods are for storages that can map files, bypass the page cache or prefetch.
pub trait StorageBytes: fmt::Debug + Send + Sync {
    /// The length of the file in bytes.
    fn len(&self) -> u64;

    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset`. Several threads may read at once.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, or an error of the storage.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The bytes of a range in mapped memory, which stays valid and unchanged as long as `self`. `None` if
    /// the storage does not map files, so that the range must be read.
    fn mapped(&self, _range: Range<u64>) -> Option<&[u8]> {
        None
    }

    /// As [`StorageBytes::read_at`], but bypasses the page cache if possible: if `offset`, length and address
    /// are multiples of 4096.
    ///
    /// # Errors
    /// As [`StorageBytes::read_at`].
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buffer)
    }

    /// Whether [`StorageBytes::read_direct`] bypasses the page cache. Default: `false`.
    fn reads_directly(&self) -> bool {
        false
    }

    /// Whether bytes may have to be read from a disk or a network. Default: `false`.
    fn is_on_disk(&self) -> bool {
        false
    }

    /// Whether the byte at `offset` is in memory, as far as known. Default: `true`.
    fn is_resident(&self, _offset: u64) -> bool {
        true
    }

    /// A hint about the future use of a range. Default: no effect.
    fn advise(&self, _range: Range<u64>, _advice: Advice) {}
}

/// The future use of a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The range will be read soon: prefetch it.
    Soon,
    /// The range will not be read again: it can be dropped from memory.
    Done,
}

/// Storage in a folder of the file system. Files are mapped, unless asked otherwise; ranges can also be read.
///
/// It keeps at most 32 descriptors, however many files are open, and opens files again when they are read.
#[derive(Debug)]
pub struct FileStorage {
    folder: PathBuf,
    is_mapped: bool,
    descriptors: Arc<Descriptors>,
}

impl FileStorage {
    /// Storage in an existing folder, which maps files for scans.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), is_mapped: true, descriptors: Arc::default() }
    }

    /// Storage in an existing folder, which maps nothing. Then a disk that cannot read a sector, or another
    /// program that cuts off a file, causes an error; under a map it ends the process with SIGBUS. But a file that
    /// another process removes cannot be read any longer than its descriptor is kept.
    pub fn unmapped(folder: impl Into<PathBuf>) -> Self {
        Self { is_mapped: false, ..Self::new(folder) }
    }

    /// The path of a file. A name that is not a plain file name is an error.
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
        Ok(Arc::new(FolderFile::open(self.path(name)?, self.is_mapped, &self.descriptors)?))
    }

    fn link(&self, file: &Path, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        // A link to a link would be made too.
        drop(files::open_regular(file)?);
        fs::hard_link(file, &path)?;
        // It may have been copied here, and never synced.
        let mut options = OpenOptions::new();
        files::open_regular_with(options.read(true).write(cfg!(windows)), &path)?.sync_all()
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
            // gradix creates no names that are not UTF-8.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        files::sync_folder(&self.folder)
    }

    fn describe(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl StorageFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Storage in memory: for tests and temporary indexes.
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

    /// Makes the bytes visible to readers.
    fn sync(&mut self) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.insert(self.name.clone(), Arc::new(std::mem::take(&mut self.bytes)));
        Ok(())
    }
}

impl StorageBytes for Vec<u8> {
    /// Reads from memory do not go through a page cache.
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

/// A range of `bytes`, if they contain it.
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

    /// Catches a descriptor that stays open for each file, bytes of another file after a descriptor was given
    /// away, and a file that is lost with its name.
    #[cfg(target_os = "linux")]
    #[test]
    fn many_open_files_share_few_descriptors() {
        use std::fs::read_link;
        let folder = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(folder.path()).unwrap();
        for is_mapped in [true, false] {
            let storage = FileStorage { is_mapped, ..FileStorage::new(folder.path()) };
            let name = |i: u32| format!("{is_mapped}-{i}");
            for i in 0..200 {
                let mut file = storage.create(&name(i)).unwrap();
                file.write(&i.to_le_bytes()).unwrap();
                file.sync().unwrap();
            }
            let open: Vec<_> = (0..200).map(|i| storage.open(&name(i)).unwrap()).collect();
            let check = |i: u32| {
                let mut bytes = [0; 4];
                open[i as usize].read_at(0, &mut bytes).map(|()| assert_eq!(bytes, i.to_le_bytes()))
            };
            for i in (0..200).chain(0..200).chain((0..200).rev()) {
                check(i).unwrap();
                assert_eq!(open[i as usize].mapped(0..4).is_some(), is_mapped);
            }
            let descriptors = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
            let ours =
                descriptors.filter(|entry| read_link(entry.path()).is_ok_and(|to| to.starts_with(&here)));
            assert!(ours.count() <= 32);
            storage.remove(&name(199)).unwrap();
            fs::rename(folder.path().join(name(198)), folder.path().join(name(199))).unwrap();
            assert!((0..100).all(|i| check(i).is_ok()));
            assert_eq!(check(199).is_ok(), is_mapped, "the map has it still, and nothing else has");
        }
    }

    /// Catches a file that is cut off while it is open, and then read through the map: that is a SIGBUS.
    #[test]
    fn file_cut_off_while_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for storage in [FileStorage::new(folder.path()), FileStorage::unmapped(folder.path())] {
            let _ = fs::remove_file(folder.path().join("a"));
            let mut file = storage.create("a").unwrap();
            file.write(&[1; 20_000]).unwrap();
            let open = storage.open("a").unwrap();
            OpenOptions::new().write(true).open(folder.path().join("a")).unwrap().set_len(4096).unwrap();
            let error = open.read_at(8192, &mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
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
