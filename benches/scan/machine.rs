//! The disk's read bandwidth, and the process's memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use memmap2::{Mmap, MmapMut};

use super::roof::Clock;

/// Request sizes and numbers of threads of the first look at the disk.
const REQUESTS: [usize; 3] = [1 << 20, 4 << 20, 16 << 20];
const READERS: [usize; 3] = [1, 2, 4];

/// The fastest way to read the disk: O_DIRECT, with this request size and number of threads.
#[derive(Debug, Clone, Copy)]
pub struct DiskWay {
    pub request: usize,
    pub readers: usize,
}

/// The fastest way to read this file, and its bytes per second. `None` if O_DIRECT is not supported.
pub fn disk(file: &Path) -> Option<(DiskWay, f64)> {
    let mut best: Option<(DiskWay, f64)> = None;
    for request in REQUESTS {
        for readers in READERS {
            let way = DiskWay { request, readers };
            let (bytes, seconds) = read_direct(&[file.to_owned()], way, u64::MAX).ok()?;
            let speed = bytes as f64 / seconds;
            if best.is_none_or(|(_, other)| speed > other) {
                best = Some((way, speed));
            }
        }
    }
    best
}

/// Reads at most `limit` bytes of the files, bypassing the page cache. Returns bytes and seconds.
pub fn read_direct(files: &[PathBuf], way: DiskWay, limit: u64) -> io::Result<(u64, f64)> {
    let open = |path: &PathBuf| File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    let files = files.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let mut requests = Vec::new();
    let mut bytes = 0;
    for (file, handle) in files.iter().enumerate() {
        let length = handle.metadata()?.len();
        for offset in (0..length).step_by(way.request) {
            if bytes < limit {
                requests.push((file, offset));
                bytes += (length - offset).min(way.request as u64);
            }
        }
    }
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let clock = Clock::new(way.readers);
    std::thread::scope(|scope| {
        for _ in 0..way.readers {
            scope.spawn(|| {
                // A map begins at a page, as O_DIRECT requires.
                let buffer = MmapMut::map_anon(way.request);
                clock.time(|| {
                    let Ok(mut buffer) = buffer else { return failed.store(true, Ordering::Relaxed) };
                    while let Some((file, offset)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if files[*file].read_at(&mut buffer, *offset).is_err() {
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                });
            });
        }
    });
    let seconds = clock.seconds();
    if failed.into_inner() { Err(io::Error::other("a direct read failed")) } else { Ok((bytes, seconds)) }
}

/// Writes a file of noise that no layer below can compress, and syncs it.
pub fn write_noise(path: &Path, bytes: usize) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = File::create(path)?;
    let mut numbers = vec![0f32; 1 << 20];
    for part in 0..bytes.div_ceil(4 << 20) {
        super::numbers::gaussian(0x6469_736B, part as u64, &mut numbers);
        let noise: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        file.write_all(&noise)?;
    }
    file.sync_all()
}

/// Drops the files' pages from the page cache; the share of them that is left. Nothing may have them
/// mapped. Dirty pages are written first.
pub fn drop_pages(files: &[PathBuf]) -> io::Result<f64> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        // SAFETY: a call on a file that is open; it touches no memory of ours.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    let left = cached(files)?;
    if left > 0.01 {
        // Only root may, and then it is the whole machine's cache.
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
        return cached(files);
    }
    Ok(left)
}

/// The share of the files' pages that the page cache holds.
fn cached(files: &[PathBuf]) -> io::Result<f64> {
    let (mut pages, mut resident) = (0, 0);
    for path in files {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            continue;
        }
        // SAFETY: nobody changes the file while it is mapped, and its bytes are not looked at.
        let map = unsafe { Mmap::map(&file)? };
        let mut states = vec![0u8; map.len().div_ceil(4096)];
        // SAFETY: the range is the map, and there is one byte for each of its pages.
        let result = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), states.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        pages += states.len();
        resident += states.iter().filter(|state| **state & 1 != 0).count();
    }
    Ok(resident as f64 / pages.max(1) as f64)
}

/// Bytes of the process's anonymous memory, which no file backs.
pub fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs `work`. Returns by how many bytes anonymous memory grew beyond `before` meanwhile.
pub fn growth<T>(before: u64, work: impl FnOnce() -> T) -> (T, u64) {
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, peak.load(Ordering::Relaxed).saturating_sub(before))
    })
}
