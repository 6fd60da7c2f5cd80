//! Cold scans compared with the disk's sequential bandwidth, and the cost of checking checksums on first use,
//! measured in the same run.
//!
//! `cargo bench --bench disk`; `GRADIX_BENCH_MB` sets the size of each index (default 1024 MiB of
//! codes), `GRADIX_BENCH_FOLDER` where it lies (default: the folder for temporary files, which has to be
//! on a disk).

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the page cache cannot be controlled here");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use gradix::scan::Reading;
    use gradix::segment::storage::{FileStorage, Storage as _};
    use gradix::sketch::{Sketch, SketchSpec};
    use gradix::{Encoding, Index, Row, Schema};

    const DIMS: u32 = 4096;
    const REPEATS: usize = 5;
    const BATCH: usize = 256;

    pub fn main() -> Result<(), Box<dyn Error>> {
        let mebibytes = match std::env::var("GRADIX_BENCH_MB") {
            Ok(given) => given.parse()?,
            Err(_) => 1024usize,
        };
        let parent = std::env::var_os("GRADIX_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let cores = std::thread::available_parallelism()?.get();
        let spec = SketchSpec::dense("bench", "1", [("all", DIMS)]);
        println!(
            "| encoding | threads | what | seconds | GB/s | of the disk | of warm | memory, MB | cached, MB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for encoding in [Encoding::I8, Encoding::F16, Encoding::F32] {
            let folder = tempfile::tempdir_in(&parent)?;
            let path = folder.path().join("bench.gradix");
            let schema = Schema::new(spec.clone(), encoding)?;
            let rows = (mebibytes << 20) / schema.row_bytes();
            let bytes = (rows * schema.row_bytes()) as u64;
            let sketches = write(&path, &schema, rows)?;
            let index = Index::options().read_only(true).open(&path)?;
            let query = &sketches[..1];
            let segments = path.join("segments");
            let line = |threads: usize, what: &str, seconds: f64, disk: f64, warm: f64, seen: &Seen| {
                let speed = bytes as f64 / seconds / 1e9;
                let (memory, cached) = (seen.memory.load(Ordering::Relaxed) >> 10, cached(&segments) >> 20);
                let (disk, warm) = (speed / disk, seconds / warm);
                println!(
                    "| {encoding} | {threads} | {what} | {seconds:.3} | {speed:.2} | {disk:.2} | {warm:.2} | {memory} | {cached} |"
                );
            };
            let mut disk = 0f64;
            let mut took = f64::INFINITY;
            for _ in 0..REPEATS {
                took = took.min(read_direct(&segments, bytes)?);
                disk = bytes as f64 / took / 1e9;
            }
            line(2, "disk, direct reads of 2 MiB", took, disk, f64::NAN, &Seen::default());
            for threads in [1, cores] {
                let scan = |snapshot: &gradix::Snapshot, reading, keep, seen: &Seen| {
                    let scan = snapshot.scan(query)?.top_k(100).threads(threads).reading(reading);
                    let scan = scan.keep_cache(keep).progress(|_| seen.look());
                    scan.run().map(|ranking| ranking.statistics().elapsed.as_secs_f64())
                };
                let readings = [
                    ("cold, mapped", Reading::Mapped, true),
                    ("cold, mapped, cache left alone", Reading::Mapped, false),
                    ("cold, buffered", Reading::Buffered, true),
                    ("cold, direct", Reading::Direct, true),
                    ("cold, auto", Reading::Auto, true),
                ];
                for (what, reading, keep) in readings {
                    let (mut best, seen) = (f64::INFINITY, Seen::default());
                    for _ in 0..REPEATS {
                        drop_cache(&segments)?;
                        best = best.min(scan(&index.snapshot()?, reading, keep, &seen)?);
                    }
                    line(threads, what, best, disk, f64::NAN, &seen);
                }
                // In memory: a snapshot's first scan checks and maps, its second does neither. What filled the
                // page cache decides how large its folios are, and so what mapping them costs.
                for (by, reading) in [("mapped", Reading::Mapped), ("buffered", Reading::Buffered)] {
                    let seen = Seen::default();
                    let (mut first, mut second) = (f64::INFINITY, f64::INFINITY);
                    drop_cache(&segments)?;
                    scan(&index.snapshot()?, reading, true, &seen)?;
                    for _ in 0..REPEATS * 2 {
                        let snapshot = index.snapshot()?;
                        first = first.min(scan(&snapshot, Reading::Mapped, true, &seen)?);
                        second = second.min(scan(&snapshot, Reading::Mapped, true, &seen)?);
                    }
                    line(threads, &format!("warm, read {by}, first touch"), first, disk, second, &seen);
                    line(threads, &format!("warm, read {by}, touched before"), second, disk, second, &seen);
                }
            }
        }
        Ok(())
    }

    /// The peak of the process's anonymous memory, in kilobytes.
    #[derive(Default)]
    struct Seen {
        calls: AtomicU64,
        memory: AtomicU64,
    }

    impl Seen {
        fn look(&self) {
            if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
                let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
                self.memory.fetch_max(number.unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    fn write(path: &Path, schema: &Schema, rows: usize) -> Result<Vec<Sketch>, Box<dyn Error>> {
        let spec = Arc::new(schema.spec().clone());
        let mut state = 1u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let mut sketch = |_| Sketch::dense(Arc::clone(&spec), (0..DIMS).map(|_| number()).collect());
        let sketches = (0..BATCH).map(&mut sketch).collect::<Result<Vec<_>, _>>()?;
        let index = Index::options().create(path, schema)?;
        let mut writer = index.writer()?;
        for start in (0..rows).step_by(BATCH) {
            let ids = (start..rows).map(|row| format!("row {row}"));
            let batch: Vec<_> = ids.zip(&sketches).map(|(id, sketch)| (id, Row::new(sketch))).collect();
            writer.append_batch(&batch)?;
        }
        writer.commit()?;
        Ok(sketches)
    }

    fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn drop_cache(folder: &Path) -> std::io::Result<()> {
        for path in files(folder)? {
            let file = File::open(path)?;
            // SAFETY: a call on an open file that touches no memory of this process.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
        Ok(())
    }

    /// Bytes of the folder's files in the page cache, from a sample of them.
    fn cached(folder: &Path) -> u64 {
        let storage = FileStorage::new(folder);
        let names = storage.list().unwrap_or_default();
        let of_file = |name: &String| {
            let Ok(file) = storage.open(name) else { return 0 };
            let pages = (0..file.len()).step_by(1 << 18);
            (1 << 18) * pages.filter(|&page| file.is_resident(page)).count() as u64
        };
        names.iter().map(of_file).sum()
    }

    /// Seconds to read the first bytes of the folder's files, bypassing the page cache.
    fn read_direct(folder: &Path, bytes: u64) -> Result<f64, Box<dyn Error>> {
        use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
        const READ: u64 = 2 << 20;
        let mut requests = Vec::new();
        for path in files(folder)? {
            let file = Arc::new(File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?);
            let length = file.metadata()?.len();
            requests.extend((0..length / READ).map(|i| (Arc::clone(&file), i * READ)));
        }
        requests.truncate(usize::try_from(bytes / READ)?);
        let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut memory = vec![1u8; READ as usize + 4096];
                    let start = memory.as_ptr().align_offset(4096);
                    let buffer = &mut memory[start..start + READ as usize];
                    while let Some((file, at)) = requests.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        failed.fetch_add(file.read_exact_at(buffer, *at).is_err().into(), Ordering::Relaxed);
                    }
                });
            }
        });
        let read = requests.len() as f64 * READ as f64;
        assert_eq!(failed.into_inner(), 0, "the disk cannot be read");
        Ok(started.elapsed().as_secs_f64() * bytes as f64 / read)
    }
}
