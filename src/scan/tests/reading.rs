//! Every way of reading, over files and over storages that are slow or fail.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::codec::Encoding;
use crate::random::Random;
use crate::scan::{CancelToken, Grouping, Reading, Scan, ScanError};
use crate::schema::Schema;
use crate::segment::storage::{Advice, FileStorage, Storage, StorageBytes, StorageFile};
use crate::segment::{Place, SegmentError};
use crate::sketch::{Sketch, SketchSpec};
use crate::{Index, Row, Snapshot};

const DIMS: [u32; 2] = [5000, 900];
const ROWS: u32 = 1500;
const MODES: [(Reading, bool); 6] = [
    (Reading::Auto, true),
    (Reading::Auto, false),
    (Reading::Mapped, true),
    (Reading::Mapped, false),
    (Reading::Buffered, true),
    (Reading::Direct, true),
];

fn sketch(spec: &Arc<SketchSpec>, seed: u32) -> Sketch {
    Sketch::dense(Arc::clone(spec), Random(u64::from(seed)).normals(spec.dims())).unwrap()
}

/// An index of about 11 MB whose rows do not end at chunks.
fn index(folder: &Path, storage: impl FnOnce(FileStorage) -> Arc<dyn Storage>) -> (Index, Vec<Sketch>) {
    let spec = SketchSpec::dense("test", "1", [("a", DIMS[0]), ("b", DIMS[1])]);
    let schema = Schema::with_encodings(spec, vec![Encoding::I8, Encoding::F16]).unwrap();
    let spec = Arc::new(schema.spec().clone());
    let segments = folder.join("files");
    fs::create_dir(&segments).unwrap();
    let storage = storage(FileStorage::new(segments));
    let index = Index::options().storage(storage).create(folder.join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    for row in 0..ROWS / 2 {
        let rows = [sketch(&spec, 2 * row), sketch(&spec, 2 * row + 1)];
        let tokens = crate::Span::tokens(0, 1);
        let rows = [Row::new(&rows[0]), Row::new(&rows[1]).span(tokens)];
        writer.append_rows(row.to_be_bytes(), &rows).unwrap();
    }
    writer.commit().unwrap();
    (index, vec![sketch(&spec, 7), sketch(&spec, 12)])
}

fn segment(folder: &Path) -> PathBuf {
    fs::read_dir(folder.join("files")).unwrap().next().unwrap().unwrap().path()
}

fn drop_cache(folder: &Path) {
    let file = FileStorage::new(folder.join("files"));
    let file = file.open(&file.list().unwrap()[0]).unwrap();
    file.advise(0..file.len(), Advice::Done);
}

fn small_pieces(mut scan: Scan<'_>) -> Scan<'_> {
    (scan.limits.piece_bytes, scan.limits.block_bytes) = (100_000, 1);
    scan
}

/// Catches a way of reading that misses rows, reads others, or cuts an example in two, in files that
/// are in the page cache or not; and advice that spoils bytes which others still read.
#[test]
fn rankings_are_the_same_however_codes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (index, queries) = index(folder.path(), |files| Arc::new(files));
    let snapshot = index.snapshot().unwrap();
    for grouping in [Grouping::Rows, Grouping::Sum] {
        let scan = |snapshot: &Snapshot, threads, (reading, keep)| {
            let scan = snapshot.scan(&queries).unwrap().top_k(30).bottom_k(3).grouping(grouping);
            let scan = scan.exclude_ids([0u32.to_be_bytes()]).reading(reading).keep_cache(keep);
            small_pieces(scan.threads(threads)).run().unwrap()
        };
        let expected = scan(&snapshot, 1, (Reading::Mapped, true));
        assert_eq!(expected.proponents(0).len(), 30);
        for mode in MODES {
            for threads in [1, 3] {
                drop_cache(folder.path());
                let ranking = scan(&index.snapshot().unwrap(), threads, mode);
                for query in 0..queries.len() {
                    assert_eq!(ranking.proponents(query), expected.proponents(query), "{mode:?}");
                    assert_eq!(ranking.opponents(query), expected.opponents(query), "{mode:?}");
                }
                if mode.0 != Reading::Auto {
                    assert_eq!(ranking.statistics().reading, mode.0);
                }
            }
        }
    }
}

/// Catches a way of reading that does not look at checksums, or only at those of what it computes first.
#[test]
fn damage_is_found_however_codes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (index, queries) = index(folder.path(), |files| Arc::new(files));
    let path = segment(folder.path());
    let sound = fs::read(&path).unwrap();
    let many: Vec<_> = queries.iter().cycle().take(10).cloned().collect();
    // In the first chunk, in the last one of the first block, and in the padding behind its last row.
    let codes = (DIMS[0] as usize).next_multiple_of(64) * ROWS as usize;
    for at in [4096, 4096 + codes - 70, 4096 + codes + 5] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        for (reading, keep) in MODES {
            for queries in [&queries[..1], &many] {
                let snapshot = index.snapshot().unwrap();
                let scan = snapshot.scan(queries).unwrap().top_k(3).reading(reading).keep_cache(keep);
                let error = small_pieces(scan.threads(2)).run().unwrap_err();
                let ScanError::Segment(SegmentError::Damaged { place, offset, .. }) = error else {
                    panic!("{error}")
                };
                assert_eq!(place, Place::Codes { tier: None, block: 0, group: 0 });
                assert_eq!(offset as usize, 4096 + (at - 4096) / 65_536 * 65_536);
            }
        }
    }
    fs::write(&path, &sound).unwrap();
    assert!(index.snapshot().unwrap().scan(&queries).unwrap().top_k(1).run().is_ok());
}

/// Catches a direct scan that dies of a signal when somebody cuts a file off under it.
#[test]
#[cfg(target_os = "linux")]
fn direct_reads_of_a_file_that_was_cut_off_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (index, queries) = index(folder.path(), |files| Arc::new(files));
    let snapshot = index.snapshot().unwrap();
    for length in [3_000_000, 4096, 0] {
        File::options().write(true).open(segment(folder.path())).unwrap().set_len(length).unwrap();
        let error = snapshot.scan(&queries).unwrap().top_k(3).reading(Reading::Direct).run().unwrap_err();
        let cut = matches!(error, ScanError::Segment(SegmentError::Damaged { place: Place::File, .. }));
        assert!(cut, "{error:?}");
    }
}

/// Files whose direct reads are counted, and do what a test asks for.
#[derive(Debug)]
struct Watched {
    files: FileStorage,
    reads: Arc<AtomicUsize>,
    hook: fn(usize) -> io::Result<()>,
}

#[derive(Debug)]
struct WatchedBytes {
    bytes: Arc<dyn StorageBytes>,
    reads: Arc<AtomicUsize>,
    hook: fn(usize) -> io::Result<()>,
}

impl Storage for Watched {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.files.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let (bytes, reads) = (self.files.open(name)?, Arc::clone(&self.reads));
        Ok(Arc::new(WatchedBytes { bytes, reads, hook: self.hook }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }

    fn describe(&self, name: &str) -> String {
        self.files.describe(name)
    }
}

impl StorageBytes for WatchedBytes {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, buffer)
    }

    fn mapped(&self, range: Range<u64>) -> Option<&[u8]> {
        self.bytes.mapped(range)
    }

    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (self.hook)(self.reads.fetch_add(1, Ordering::SeqCst))?;
        self.bytes.read_direct(offset, buffer)
    }

    fn reads_directly(&self) -> bool {
        true
    }

    fn is_on_disk(&self) -> bool {
        true
    }

    fn advise(&self, range: Range<u64>, advice: Advice) {
        self.bytes.advise(range, advice);
    }
}

fn watched(folder: &Path, hook: fn(usize) -> io::Result<()>) -> (Index, Vec<Sketch>, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    let (index, queries) = index(folder, |files| Arc::new(Watched { files, reads: counter, hook }));
    (index, queries, reads)
}

/// Catches readers that run away from the workers, so that memory grows with the index.
#[test]
fn readers_stay_a_few_pieces_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let (index, queries, reads) = watched(folder.path(), |_| Ok(()));
    let snapshot = index.snapshot().unwrap();
    let (mut done, mut most) = (0, 0);
    let scan = snapshot.scan(&queries).unwrap().top_k(1).threads(2).reading(Reading::Direct);
    small_pieces(scan.progress(|_| {
        std::thread::sleep(Duration::from_millis(2));
        done += 1;
        most = most.max(reads.load(Ordering::SeqCst).saturating_sub(2 * done));
    }))
    .run()
    .unwrap();
    // Two blocks, each with a read for each piece; ten buffers.
    assert!(done > 80 && reads.load(Ordering::SeqCst) == 2 * done && most <= 20, "{done} pieces, {most}");
}

/// Catches an error of a reader that is lost, hangs the workers, or does not say where it was.
#[test]
fn reads_that_fail_end_the_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (index, queries, _) = watched(folder.path(), |read| match read {
        0..30 => Ok(()),
        _ => Err(io::Error::other("the disk is gone")),
    });
    for threads in [1, 3] {
        let snapshot = index.snapshot().unwrap();
        let scan = snapshot.scan(&queries).unwrap().top_k(1).threads(threads).reading(Reading::Direct);
        let error = small_pieces(scan).run().unwrap_err();
        let ScanError::Segment(SegmentError::Io { file, operation: "read", source }) = error else {
            panic!("{error}")
        };
        let source = source.to_string();
        assert!(
            file.ends_with(".seg") && source.contains("at offset") && source.contains("is gone"),
            "{source}"
        );
    }
}

/// Catches a scan that waits for its readers when it should stop, or forever when a callback panics.
#[test]
fn direct_scans_stop_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let slow = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let (index, queries, _) = watched(folder.path(), slow);
    let snapshot = index.snapshot().unwrap();
    let scan = || small_pieces(snapshot.scan(&queries).unwrap().top_k(1).threads(2).reading(Reading::Direct));
    let mut reactions = Vec::new();
    for delay in [0, 20, 100] {
        let token = CancelToken::new();
        let canceller = token.clone();
        let watcher = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            canceller.cancel();
            Instant::now()
        });
        assert!(matches!(scan().cancel(&token).run().unwrap_err(), ScanError::Cancelled));
        let ended = Instant::now();
        reactions.push(ended.saturating_duration_since(watcher.join().unwrap()));
    }
    // Others may share the machine.
    reactions.sort();
    assert!(reactions[1] < Duration::from_millis(50), "{reactions:?}");
    let run = || scan().progress(|_| panic!("from the callback")).run();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
}
