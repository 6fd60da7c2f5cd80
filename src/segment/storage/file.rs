//! A mapped file, which can also be read through the page cache or directly.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

use memmap2::{Mmap, MmapMut};

use super::{Advice, StorageBytes};

/// The alignment of direct reads. On disks with larger sectors they fail, and plain reads are used.
#[cfg(target_os = "linux")]
const ALIGNMENT: usize = 4096;

#[derive(Debug)]
pub(super) struct MappedFile {
    map: Mmap,
    file: File,
    /// The same file opened with `O_DIRECT` on first use; `None` if that fails.
    #[cfg(target_os = "linux")]
    direct: OnceLock<Option<File>>,
}

impl MappedFile {
    pub fn new(file: File) -> io::Result<Self> {
        // SAFETY: segment files are immutable by the contract of `Storage`: gradix creates them with
        // `create_new`, never opens them for writing again, and removes them by unlinking, which
        // leaves mapped pages in place. Only another program that truncates or overwrites files in
        // the index's folder could break this; the API documents that it must not.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self {
            map,
            file,
            #[cfg(target_os = "linux")]
            direct: OnceLock::new(),
        })
    }

    /// Opened through the handle, so that it is the same file even if it has been removed.
    #[cfg(target_os = "linux")]
    fn direct(&self) -> Option<&File> {
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let open = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            File::options().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Offset and length of the pages from that of `start` to before that of `end`.
    #[cfg(unix)]
    fn pages(&self, start: u64, end: u64) -> Option<(usize, usize)> {
        let page =
            |at: u64| usize::try_from(at).map_or(usize::MAX, |at| at.min(self.map.len())) / 4096 * 4096;
        let (start, end) = (page(start), page(end));
        (start < end).then(|| (start, end - start))
    }
}

impl StorageBytes for MappedFile {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn mapped(&self, range: Range<u64>) -> Option<&[u8]> {
        super::part(&self.map, range)
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        use std::os::windows::fs::FileExt as _;
        while !buffer.is_empty() {
            match self.file.seek_read(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => (offset, buffer) = (offset + read as u64, &mut buffer[read..]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let aligned = offset.is_multiple_of(ALIGNMENT as u64)
            && buffer.len().is_multiple_of(ALIGNMENT)
            && buffer.as_ptr().addr().is_multiple_of(ALIGNMENT);
        let direct = if aligned { self.direct() } else { None };
        let Some(direct) = direct else { return self.read_at(offset, buffer) };
        match std::os::unix::fs::FileExt::read_exact_at(direct, buffer, offset) {
            // Larger sectors.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.read_at(offset, buffer),
            other => other,
        }
    }

    #[cfg(target_os = "linux")]
    fn reads_directly(&self) -> bool {
        self.direct().is_some()
    }

    fn is_on_disk(&self) -> bool {
        true
    }

    #[cfg(target_os = "linux")]
    fn is_resident(&self, offset: u64) -> bool {
        let Some((start, _)) = self.pages(offset, offset.saturating_add(4096)) else { return true };
        let mut state = 0u8;
        // SAFETY: the page lies in the map, which lives as long as `self`; a system with larger pages
        // refuses a start within one. The call writes one byte for the one page that it is asked for.
        let done = unsafe { libc::mincore(self.map[start..].as_ptr().cast_mut().cast(), 1, &raw mut state) };
        done != 0 || state & 1 == 1
    }

    #[cfg(unix)]
    fn advise(&self, range: Range<u64>, advice: Advice) {
        match advice {
            Advice::Soon => {
                if let Some((start, length)) = self.pages(range.start, range.end.saturating_add(4095)) {
                    // A hint; errors are ignored.
                    let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, length);
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
                        self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length)
                    };
                    let (start, length) = (start as libc::off_t, length as libc::off_t);
                    // SAFETY: a call on an open file that touches no memory of this process.
                    unsafe {
                        libc::posix_fadvise(self.file.as_raw_fd(), start, length, libc::POSIX_FADV_DONTNEED)
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
