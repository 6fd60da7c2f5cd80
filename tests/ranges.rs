//! A storage that lends no memory, as an object store: everything works by reading ranges, and gives the
//! same as through a map.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gradix::scan::{Guarantee, Reading, ScanPath, Statistics};
use gradix::segment::storage::{MemoryStorage, Storage, StorageBytes, StorageFile};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    CompactOptions, Encoding, Example, GcOptions, Grouping, Hit, Index, Metric, Row, ScanError, Schema,
    SegmentError, Span, Tier,
};

/// The most that may be read at once: a window of codes with a chunk at its ends, for the widest column.
const MOST: usize = 6 << 20;
const EXAMPLES: usize = 700;

/// Files of which only ranges can be read; it counts what is.
#[derive(Debug, Default)]
struct Ranges {
    files: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
    reads: Arc<Reads>,
    wrong: Arc<Mutex<Option<usize>>>,
}

#[derive(Debug, Default)]
struct Reads {
    bytes: AtomicUsize,
    largest: AtomicUsize,
}

impl Reads {
    /// Bytes that `work` has read.
    fn during<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.bytes.load(Ordering::SeqCst);
        let done = work();
        (done, self.bytes.load(Ordering::SeqCst) - before)
    }
}

#[derive(Debug)]
struct File {
    name: String,
    bytes: Vec<u8>,
    files: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
}

#[derive(Debug)]
struct Bytes {
    bytes: Arc<Vec<u8>>,
    reads: Arc<Reads>,
    /// A bit that comes out wrong, if there is one.
    wrong: Arc<Mutex<Option<usize>>>,
}

impl Storage for Ranges {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(File { name: name.into(), bytes: Vec::new(), files: Arc::clone(&self.files) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let files = self.files.lock().unwrap();
        let bytes = Arc::clone(files.get(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(Arc::new(Bytes { bytes, reads: Arc::clone(&self.reads), wrong: Arc::clone(&self.wrong) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl StorageFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let bytes = Arc::new(std::mem::take(&mut self.bytes));
        self.files.lock().unwrap().insert(self.name.clone(), bytes);
        Ok(())
    }
}

/// Only what must be written of the trait.
impl StorageBytes for Bytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.bytes.fetch_add(buffer.len(), Ordering::SeqCst);
        self.reads.largest.fetch_max(buffer.len(), Ordering::SeqCst);
        let bytes = self.bytes.get(offset as usize..).and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        let wrong = self.wrong.lock().unwrap().and_then(|at| at.checked_sub(offset as usize));
        if let Some(byte) = wrong.and_then(|at| buffer.get_mut(at)) {
            *byte ^= 1;
        }
        Ok(())
    }
}

fn spec() -> SketchSpec {
    SketchSpec::dense("test", "v1", [("wide", 2500), ("bytes", 900), ("odd", 101)])
}

fn sketch(seed: usize) -> Sketch {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut number = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    Sketch::dense(spec(), (0..spec().dims()).map(|_| number()).collect()).unwrap()
}

/// Two segments, the first with a row group of about 10 MB of codes, which takes several windows.
fn index(folder: &Path, storage: Arc<dyn Storage>) -> Index {
    let schema = Schema::with_encodings(spec(), vec![Encoding::F32, Encoding::I8, Encoding::F16]).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 3 }, Tier::I8]).unwrap();
    let index = Index::options().storage(storage).create(folder.join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    for example in 0..EXAMPLES {
        let sketches = [sketch(2 * example), sketch(2 * example + 1)];
        let rows = [
            Row::new(&sketches[0]).source(["wiki", "code"][example % 2]),
            Row::new(&sketches[1]).span(Span::tokens(3, 9)).metadata(&[7; 40][..example % 40]),
        ];
        writer.append_rows(format!("{example}"), &rows[..1 + example % 2]).unwrap();
        if example == 660 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    index
}

fn examples(index: &Index) -> Vec<Option<Example>> {
    let snapshot = index.snapshot().unwrap();
    (0..EXAMPLES).map(|example| snapshot.get(format!("{example}")).unwrap()).collect()
}

/// The rankings of every path and of some ways of reading.
fn rankings(index: &Index, readings: &[Reading]) -> Vec<(Vec<Vec<Hit>>, Statistics)> {
    let snapshot = index.snapshot().unwrap();
    let queries: Vec<Sketch> = (0..3).map(|i| sketch(10_000 + i)).collect();
    let mut found = Vec::new();
    let paths = [
        (ScanPath::Full, Guarantee::Exact, Grouping::Rows, Metric::InnerProduct),
        (ScanPath::Full, Guarantee::Exact, Grouping::Sum, Metric::Cosine),
        (ScanPath::Bytes, Guarantee::Exact, Grouping::Rows, Metric::InnerProduct),
        (ScanPath::I8Tier, Guarantee::Exact, Grouping::Rows, Metric::InnerProduct),
        (ScanPath::SignTier, Guarantee::Probable { delta: 1e-6 }, Grouping::Rows, Metric::InnerProduct),
    ];
    for (path, guarantee, grouping, metric) in paths {
        for &reading in readings {
            let scan = snapshot.scan(&queries).unwrap().top_k(9).bottom_k(4).threads(2);
            let scan = scan.path(path).guarantee(guarantee).grouping(grouping).metric(metric);
            // Rows that do not follow each other, so that chunks between them are not wanted.
            let ranking = scan.reading(reading).sources(["code"]).run().unwrap();
            let both = |i| [ranking.proponents(i), ranking.opponents(i)].concat();
            found.push(((0..queries.len()).map(both).collect(), ranking.statistics().clone()));
        }
    }
    found
}

/// Catches anything that only works, or only gives the same, where a file lies in memory as one slice; and
/// a read that is as large as the file.
#[test]
fn storage_without_a_map_gives_the_same_as_a_mapped_one() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ranges = Arc::new(Ranges::default());
    let reads = Arc::clone(&ranges.reads);
    let read = index(folders[0].path(), ranges);
    let mapped = index(folders[1].path(), Arc::new(MemoryStorage::new()));
    assert!(read.stats().unwrap().segments[0].bytes > 2 * MOST as u64, "too small to tell");

    for round in ["appended", "compacted"] {
        let expected = examples(&mapped);
        assert!(examples(&read) == expected, "{round}");
        let ways = [Reading::Mapped, Reading::Buffered, Reading::Direct];
        let mapped_ways = rankings(&mapped, &ways);
        let read_ways = rankings(&read, &[Reading::Auto, Reading::Buffered]);
        for (of_path, expected) in mapped_ways.chunks(ways.len()).zip(read_ways.chunks(2)) {
            for (found, statistics) in of_path.iter().chain(expected) {
                assert_eq!(found, &expected[0].0, "{round}, {:?}, {:?}", statistics.path, statistics.reading);
            }
            // Nothing can be mapped, so nothing was.
            assert_eq!(expected[0].1.reading, Reading::Buffered);
        }
        let reports = [read.verify().unwrap(), mapped.verify().unwrap()];
        assert_eq!(reports[0], reports[1], "{round}");
        assert!(reports[0].is_sound() && reports[0].rows > 600, "{reports:#?}");
        for index in [&read, &mapped] {
            let mut writer = index.writer().unwrap();
            for example in (0..EXAMPLES).step_by(5) {
                writer.delete(format!("{example}")).unwrap();
            }
            writer.commit().unwrap();
            writer.compact(CompactOptions::all()).unwrap();
            writer.gc(GcOptions::default().grace(std::time::Duration::ZERO)).unwrap();
        }
    }
    assert!(reads.largest.load(Ordering::SeqCst) <= MOST, "{reads:?}");
}

/// Catches a way of reading that the storage does not have and that gives way to another in silence.
#[test]
fn readings_that_a_storage_lacks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path(), Arc::new(Ranges::default()));
    let snapshot = index.snapshot().unwrap();
    let queries = [sketch(1)];
    for asked in [Reading::Mapped, Reading::Direct] {
        let error = snapshot.scan(&queries).unwrap().top_k(1).reading(asked).run().unwrap_err();
        assert!(matches!(error, ScanError::ImpossibleReading { reading, .. } if reading == asked), "{error}");
        assert!(error.to_string().contains("Reading::Auto"), "{error}");
    }
}

/// Catches an opening, or the look at one example, that reads the whole file.
#[test]
fn opening_and_one_example_read_little() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = Arc::new(Ranges::default());
    let reads = Arc::clone(&ranges.reads);
    let index = index(folder.path(), ranges);
    let (snapshot, opening) = reads.during(|| index.snapshot().unwrap());
    assert!((8192..100_000).contains(&opening), "{opening} bytes to open two segments");
    let (example, one) = reads.during(|| snapshot.get("17").unwrap());
    assert_eq!(example.unwrap().rows.len(), 2);
    assert!((65_536..1 << 20).contains(&one), "{one} bytes for one example");
}

/// Catches bytes that are read and not checked, or checked the first time only: a storage may give others
/// the second time.
#[test]
fn bytes_are_checked_each_time_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = Arc::new(Ranges::default());
    let wrong = Arc::clone(&ranges.wrong);
    let index = index(folder.path(), ranges);
    let snapshot = index.snapshot().unwrap();
    let queries = [sketch(1)];
    // The first byte of the codes of both segments.
    for at in [None, Some(4096), None, Some(4096)] {
        *wrong.lock().unwrap() = at;
        for reading in [Reading::Auto, Reading::Buffered] {
            let scan = snapshot.scan(&queries).unwrap().top_k(3).path(ScanPath::Full).reading(reading);
            match scan.run() {
                Ok(_) => assert_eq!(at, None, "{reading:?}"),
                Err(ScanError::Segment(SegmentError::Damaged { offset: 4096, .. })) => assert!(at.is_some()),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(snapshot.get("0").is_ok(), at.is_none());
        assert_eq!(index.verify().unwrap().is_sound(), at.is_none());
    }
}
