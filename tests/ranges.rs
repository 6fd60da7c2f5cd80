//! A storage that lends no memory, as an object store: everything works by reading ranges, and gives the
//! same as through a map.

mod fixtures;

use std::sync::Arc;

use fixtures::indexes;
use fixtures::sketches::sketch_of;
use fixtures::storages::Ranges;
use gradix::scan::{Guarantee, Reading, ScanPath, Statistics};
use gradix::segment::storage::{MemoryStorage, Storage};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    CompactOptions, Encoding, Example, GcOptions, Grouping, Hit, Index, Metric, Row, ScanError, Schema,
    SegmentError, Span, Tier,
};

/// The most that may be read at once: a window of codes with a chunk at its ends, for the widest column.
const MOST: usize = 6 << 20;
const EXAMPLES: usize = 700;

fn spec() -> SketchSpec {
    SketchSpec::dense("test", "v1", [("wide", 2500), ("bytes", 900), ("odd", 101)])
}

fn sketch(seed: usize) -> Sketch {
    sketch_of(&spec(), seed as u64)
}

/// Two segments, the first with a row group of about 10 MB of codes, which takes several windows.
fn index(storage: Arc<dyn Storage>) -> (tempfile::TempDir, Index) {
    let schema = Schema::with_encodings(spec(), vec![Encoding::F32, Encoding::I8, Encoding::F16]).unwrap();
    assert!(Encoding::ALL.iter().all(|encoding| schema.encodings().contains(encoding)));
    let schema = schema.with_tiers([Tier::Sign { seed: 3 }, Tier::I8]).unwrap();
    let (folder, index) = indexes::create_with(Index::options().storage(storage), &schema);
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
    drop(writer);
    (folder, index)
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
    let ranges = Arc::new(Ranges::default());
    let reads = Arc::clone(&ranges.reads);
    let (_read_folder, read) = index(ranges);
    let (_mapped_folder, mapped) = index(Arc::new(MemoryStorage::new()));
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
    assert!(reads.largest() <= MOST, "{reads:?}");
}

/// Catches a way of reading that the storage does not have and that gives way to another in silence.
#[test]
fn readings_that_a_storage_lacks_are_refused() {
    let (_folder, index) = index(Arc::new(Ranges::default()));
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
    let ranges = Arc::new(Ranges::default());
    let reads = Arc::clone(&ranges.reads);
    let (_folder, index) = index(ranges);
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
    let ranges = Arc::new(Ranges::default());
    let wrong = Arc::clone(&ranges.wrong);
    let (_folder, index) = index(ranges);
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
