//! A file of a folder: mapped if asked, and read by ranges through the page cache or directly.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use memmap2::{Mmap, MmapMut};

use super::{Advice, StorageBytes};
use crate::files;
use crate::lock::lock;

/// The alignment of direct reads. On disks with larger sectors they fail, and plain reads are used.
#[cfg(target_os = "linux")]
const ALIGNMENT: usize = 4096;

/// The maximum number of descriptors that a storage keeps open. An index has as many segments as it likes, a
/// process often no more than 256 or 1,024 descriptors.
const DESCRIPTORS: usize = 32;

/// The descriptors that were used last, for all files of a storage.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// The one used last stands last.
    open: Mutex<Vec<Descriptor>>,
    files: AtomicU64,
}

#[derive(Debug)]
struct Descriptor {
    of: u64,
    is_direct: bool,
    file: Arc<File>,
}

impl Descriptors {
    fn find(&self, of: u64, is_direct: bool) -> Option<Arc<File>> {
        let mut open = lock(&self.open);
        let found = open.iter().rposition(|one| one.of == of && one.is_direct == is_direct)?;
        let descriptor = open.remove(found);
        let file = Arc::clone(&descriptor.file);
        open.push(descriptor);
        Some(file)
    }

    fn keep(&self, of: u64, is_direct: bool, file: &Arc<File>) {
        let mut open = lock(&self.open);
        if open.len() >= DESCRIPTORS {
            open.remove(0);
        }
        open.push(Descriptor { of, is_direct, file: Arc::clone(file) });
    }

    fn forget(&self, of: u64) {
        lock(&self.open).retain(|descriptor| descriptor.of != of);
    }
}

#[derive(Debug)]
pub(super) struct FolderFile {
    path: PathBuf,
    length: u64,
    /// Device and inode, on which the file is known again.
    identity: (u64, u64),
    map: Option<Mmap>,
    descriptors: Arc<Descriptors>,
    /// Its number among the files of `descriptors`.
    number: u64,
    /// Whether it can be read past the page cache.
    #[cfg(target_os = "linux")]
    is_direct: OnceLock<bool>,
}

impl Drop for FolderFile {
    fn drop(&mut self) {
        self.descriptors.forget(self.number);
    }
}

#[cfg(unix)]
fn identity(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &File) -> io::Result<(u64, u64)> {
    Ok((0, 0))
}

impl FolderFile {
    pub fn open(path: PathBuf, is_mapped: bool, descriptors: &Arc<Descriptors>) -> io::Result<Self> {
        let file = Arc::new(files::open_regular(&path)?);
        // SAFETY: segment files are immutable by the contract of `Storage`: gradix creates them with
        // `create_new`, never opens them for writing again, and removes them by unlinking, which
        // leaves mapped pages in place. Only another program that truncates or overwrites files in
        // the index's folder could break this; the API documents that it must not, and how to do without.
        let map = if is_mapped { Some(unsafe { Mmap::map(&*file)? }) } else { None };
        let length = match &map {
            Some(map) => map.len() as u64,
            None => file.metadata()?.len(),
        };
        let number = descriptors.files.fetch_add(1, Ordering::Relaxed);
        descriptors.keep(number, false, &file);
        Ok(Self {
            path,
            length,
            identity: identity(&file)?,
            map,
            descriptors: Arc::clone(descriptors),
            number,
            #[cfg(target_os = "linux")]
            is_direct: OnceLock::new(),
        })
    }

    /// The open file, opened again if its descriptor was needed for another.
    fn file(&self, is_direct: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.descriptors.find(self.number, is_direct) {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(target_os = "linux")]
        let file = if is_direct {
            std::os::unix::fs::OpenOptionsExt::custom_flags(
                &mut options,
                libc::O_DIRECT | libc::O_NOFOLLOW | libc::O_NONBLOCK,
            );
            options.open(&self.path)?
        } else {
            files::open_regular_with(&mut options, &self.path)?
        };
        #[cfg(not(target_os = "linux"))]
        let file = files::open_regular_with(&mut options, &self.path)?;
        if identity(&file)? != self.identity {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has taken its place"));
        }
        let file = Arc::new(file);
        self.descriptors.keep(self.number, is_direct, &file);
        Ok(file)
    }

    /// Offset and length of the pages from that of `start` to before that of `end`.
    #[cfg(unix)]
    fn pages(&self, start: u64, end: u64) -> Option<(usize, usize)> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        let page = |at: u64| usize::try_from(at).map_or(usize::MAX, |at| at.min(length)) / 4096 * 4096;
        let (start, end) = (page(start), page(end));
        (start < end).then(|| (start, end - start))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt as _;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (offset, buffer) = (offset + read as u64, &mut buffer[read..]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl StorageBytes for FolderFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn mapped(&self, range: Range<u64>) -> Option<&[u8]> {
        super::part(self.map.as_ref()?, range)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let error = match self.file(false) {
            Ok(file) => return read_exact_at(&file, offset, buffer),
            Err(error) => error,
        };
        // Another process has removed it: the map still has its bytes.
        let end = offset.saturating_add(buffer.len() as u64);
        match self.map.as_ref().filter(|_| error.kind() == io::ErrorKind::NotFound) {
            Some(map) => {
                buffer.copy_from_slice(super::part(map, offset..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            None => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let is_aligned = offset.is_multiple_of(ALIGNMENT as u64)
            && buffer.len().is_multiple_of(ALIGNMENT)
            && buffer.as_ptr().addr().is_multiple_of(ALIGNMENT);
        if !is_aligned || !self.reads_directly() {
            return self.read_at(offset, buffer);
        }
        match self.file(true).and_then(|file| read_exact_at(&file, offset, buffer)) {
            // Larger sectors; or removed meanwhile.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) || error.kind() == io::ErrorKind::NotFound =>
            {
                self.read_at(offset, buffer)
            }
            other => other,
        }
    }

    #[cfg(target_os = "linux")]
    fn reads_directly(&self) -> bool {
        *self.is_direct.get_or_init(|| self.file(true).is_ok())
    }

    fn is_on_disk(&self) -> bool {
        true
    }

    #[cfg(target_os = "linux")]
    fn is_resident(&self, offset: u64) -> bool {
        let pages = self.pages(offset, offset.saturating_add(4096));
        let (Some(map), Some((start, _))) = (&self.map, pages) else { return true };
        let mut state = 0u8;
        // SAFETY: the page lies in the map, which lives as long as `self`; a system with larger pages
        // refuses a start within one. The call writes one byte for the one page that it is asked for.
        let done = unsafe { libc::mincore(map[start..].as_ptr().cast_mut().cast(), 1, &raw mut state) };
        done != 0 || state & 1 == 1
    }

    #[cfg(unix)]
    fn advise(&self, range: Range<u64>, advice: Advice) {
        let Some(map) = &self.map else { return };
        match advice {
            Advice::Soon => {
                if let Some((start, length)) = self.pages(range.start, range.end.saturating_add(4095)) {
                    // A hint; errors are ignored.
                    let _ = map.advise_range(memmap2::Advice::WillNeed, start, length);
                }
            }
            Advice::Done => {
                #[cfg(target_os = "linux")]
                // Not the last page, if it also contains the next range.
                if let Some((start, length)) = self.pages(range.start, range.end) {
                    use std::os::fd::AsRawFd as _;
                    // SAFETY: the map is shared, read only and backed by the file: a later read of the
                    // pages gives the same bytes.
                    let _ = unsafe {
                        map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length)
                    };
                    let Ok(file) = self.file(false) else { return };
                    let (start, length) = (start as libc::off_t, length as libc::off_t);
                    // SAFETY: a call on an open file that touches no memory of this process.
                    unsafe {
                        libc::posix_fadvise(file.as_raw_fd(), start, length, libc::POSIX_FADV_DONTNEED)
                    };
                }
            }
        }
    }
}

/// Page-aligned memory for direct reads, in huge pages if the system has them.
#[derive(Debug)]
pub(crate) struct Pages(MmapMut);

impl Pages {
    pub fn new(bytes: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(bytes.max(1).next_multiple_of(2 << 20))?;
        #[cfg(target_os = "linux")]
        // A hint; errors are ignored.
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
