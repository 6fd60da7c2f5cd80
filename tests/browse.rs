//! Reading an index without ranking it: rows, ids and sources, at every generation that is kept.

mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fixtures::indexes;
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    CompactOptions, Encoding, ErrorKind, GcOptions, GetError, Index, Row, Schema, Snapshot, SourceCount,
    Span, StoredRow, Writer,
};
use proptest::prelude::*;

const DIMS: u32 = 6;

fn spec() -> SketchSpec {
    SketchSpec::dense("browse", "v1", [("a", 4), ("b", DIMS - 4)])
}

fn schema() -> Schema {
    // One block with scales, one without: their columns differ.
    Schema::with_encodings(spec(), vec![Encoding::F16, Encoding::F32]).unwrap()
}

/// A row as the model has it; `f16` keeps all of these numbers.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    span: Span,
    source: Option<&'static str>,
    metadata: Vec<u8>,
    values: Vec<f32>,
}

impl Model {
    fn new(seed: u32, ordinal: u32) -> Self {
        let source = [None, Some("wiki"), Some("news")][((seed + ordinal / 2) % 3) as usize];
        let span = if ordinal == 0 { Span::WHOLE } else { Span::tokens(ordinal, ordinal + 3) };
        let values = (0..DIMS).map(|i| ((seed * 31 + ordinal * 5 + i * 7) % 61) as f32 / 8.0 - 3.0);
        Self { span, source, metadata: vec![seed as u8; (seed % 4) as usize], values: values.collect() }
    }

    fn example(seed: u32, rows: u32) -> Vec<Self> {
        (0..rows).map(|ordinal| Self::new(seed, ordinal)).collect()
    }

    fn sketch(&self) -> Sketch {
        Sketch::dense(spec(), self.values.clone()).unwrap()
    }

    fn is(&self, row: &StoredRow) -> bool {
        let norms = [&self.values[..4], &self.values[4..]]
            .map(|block| block.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt());
        self.span == row.span
            && self.source == row.source.as_deref()
            && self.metadata == row.metadata
            && row.norms.iter().zip(norms).all(|(&given, norm)| (f64::from(given) - norm).abs() < 1e-5)
            && row.norms.len() == 2
            && row.sketch.as_ref().is_none_or(|sketch| *sketch == self.sketch())
    }
}

fn with_rows<T>(example: &[Model], write: impl FnOnce(&[Row<'_>]) -> T) -> T {
    let sketches: Vec<Sketch> = example.iter().map(Model::sketch).collect();
    let rows: Vec<Row<'_>> = example
        .iter()
        .zip(&sketches)
        .map(|(model, sketch)| {
            let row = Row::new(sketch).span(model.span).metadata(&model.metadata);
            model.source.map_or(row, |source| row.source(source))
        })
        .collect();
    write(&rows)
}

type Map = BTreeMap<Vec<u8>, Vec<Model>>;

fn assert_shows(snapshot: &Snapshot, expected: &Map) {
    for with_sketches in [false, true] {
        let rows = snapshot.iter();
        let rows = if with_sketches { rows.with_sketches() } else { rows };
        assert_eq!(rows.size_hint().1, Some(snapshot.rows() as usize));
        let mut found: BTreeMap<Vec<u8>, Vec<StoredRow>> = BTreeMap::new();
        let mut last = None;
        for row in rows.map(Result::unwrap) {
            assert_eq!(row.sketch.is_some(), with_sketches);
            // The rows of an example stand side by side.
            assert!(last.as_ref() == Some(&row.id) || !found.contains_key(&row.id), "{row:?}");
            last = Some(row.id.clone());
            found.entry(row.id.clone()).or_default().push(row);
        }
        assert!(found.keys().eq(expected.keys()), "{found:?}\n{expected:?}");
        for (rows, models) in found.values().zip(expected.values()) {
            assert_eq!(rows.len(), models.len());
            assert!(models.iter().zip(rows).all(|(model, row)| model.is(row)), "{rows:?}\n{models:?}");
        }
    }
    let ids = |ids: gradix::Ids| ids.map(Result::unwrap).collect::<Vec<_>>();
    assert!(ids(snapshot.ids()).iter().eq(expected.keys()));
    for prefix in IDS.iter().chain(&[&b""[..], b"c"]) {
        let wanted = expected.keys().filter(|id| id.starts_with(prefix));
        assert!(ids(snapshot.ids_with_prefix(prefix)).iter().eq(wanted), "{prefix:?}");
        // A map refuses a range that ends before it starts; here it is empty.
        for end in IDS {
            let within = |wanted: &dyn Fn(&[u8]) -> bool, found: gradix::Ids| {
                assert!(ids(found).iter().eq(expected.keys().filter(|id| wanted(id))), "{prefix:?} {end:?}");
            };
            within(&|id| id >= *prefix && id < end, snapshot.ids_in(*prefix..end));
            within(&|id| id >= *prefix && id <= end, snapshot.ids_in(*prefix..=end));
            within(&|id| id < end, snapshot.ids_in(..end));
            let excluded = (std::ops::Bound::Excluded(*prefix), std::ops::Bound::Included(end));
            within(&|id| id > *prefix && id <= end, snapshot.ids_in::<&[u8]>(excluded));
        }
        within_from(snapshot, prefix, expected);
    }
    let mut counted: BTreeMap<Option<&str>, (u64, u64)> = BTreeMap::new();
    for example in expected.values() {
        for source in [None, Some("wiki"), Some("news")] {
            let rows = example.iter().filter(|row| row.source == source).count() as u64;
            if rows > 0 {
                let count = counted.entry(source).or_default();
                *count = (count.0 + rows, count.1 + 1);
            }
        }
    }
    let found = snapshot.sources().unwrap();
    let found = found
        .iter()
        .map(|SourceCount { source, rows, examples, .. }| (source.as_deref(), (*rows, *examples)));
    assert!(found.eq(counted));
}

fn within_from(snapshot: &Snapshot, start: &[u8], expected: &Map) {
    let found: Vec<_> = snapshot.ids_in(start..).map(Result::unwrap).collect();
    assert!(found.iter().eq(expected.range(start.to_vec()..).map(|(id, _)| id)), "{start:?}..");
}

/// Prefixes of each other, and the edges of the order of bytes.
const IDS: [&[u8]; 9] = [b"\0", b"a", b"a\0", b"ab", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff\x01"];

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u32),
    Delete(usize),
    Commit,
    Compact,
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..IDS.len(), 1..5u32).prop_map(|(id, rows)| Step::Put(id, rows)),
        3 => (0..IDS.len()).prop_map(Step::Delete),
        4 => Just(Step::Commit),
        1 => Just(Step::Compact),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Catches a row, an id or a count that differs from those of a plain map after any appends,
    /// replacements, deletes, compactions and collections, at any generation that is kept.
    #[test]
    fn rows_ids_and_sources_are_those_of_a_map(steps in steps()) {
        let (_folder, index) = indexes::create(&schema());
        let mut writer = index.writer().unwrap();
        let mut now = Map::new();
        let mut generations = BTreeMap::from([(0, now.clone())]);
        for (seed, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(id, rows) => {
                    let example = Model::example(seed as u32, rows);
                    with_rows(&example, |rows| match now.contains_key(IDS[id]) {
                        true => writer.replace(IDS[id], rows).unwrap(),
                        false => writer.append_rows(IDS[id], rows).unwrap(),
                    });
                    now.insert(IDS[id].to_vec(), example);
                }
                Step::Delete(id) => {
                    prop_assert_eq!(writer.delete(IDS[id]).unwrap(), now.remove(IDS[id]).is_some());
                }
                Step::Commit => {
                    generations.insert(writer.commit().unwrap().generation, now.clone());
                }
                Step::Compact => {
                    generations.insert(writer.commit().unwrap().generation, now.clone());
                    writer.compact(CompactOptions::all()).unwrap();
                    generations.insert(writer.generation(), now.clone());
                }
                Step::Collect => {
                    generations.insert(writer.commit().unwrap().generation, now.clone());
                    let kept = GcOptions::default().keep_generations(3).grace(Duration::ZERO);
                    let oldest = writer.gc(kept).unwrap().oldest;
                    generations.retain(|&generation, _| generation >= oldest);
                }
            }
        }
        // Through the writer's own manifest, then through a reader's.
        for writer in [Some(writer), None] {
            for (&generation, expected) in &generations {
                assert_shows(&index.snapshot_at(generation).unwrap(), expected);
            }
            drop(writer);
        }
    }
}

fn append(writer: &mut Writer, ids: impl IntoIterator<Item = String>, seed: u32) {
    for id in ids {
        with_rows(&Model::example(seed, 1), |rows| writer.append_rows(id, rows).unwrap());
    }
}

/// Catches an order of rows that changes with what is deleted, or from one snapshot to the next.
#[test]
fn rows_stand_in_the_order_of_commits_and_appends() {
    let (_folder, index) = indexes::create(&schema());
    let mut writer = index.writer().unwrap();
    for commit in 0..3 {
        append(&mut writer, (0..4).rev().map(|i| format!("{i} of {commit}")), commit);
        writer.commit().unwrap();
    }
    let ids = |snapshot: &Snapshot| {
        snapshot.iter().map(|row| String::from_utf8(row.unwrap().id).unwrap()).collect::<Vec<_>>()
    };
    let mut expected: Vec<String> =
        (0..3).flat_map(|commit| (0..4).rev().map(move |i| format!("{i} of {commit}"))).collect();
    let before = index.snapshot().unwrap();
    assert_eq!(ids(&before), expected);
    for id in ["0 of 1", "3 of 0", "0 of 2"] {
        writer.delete(id).unwrap();
        expected.retain(|other| other != id);
    }
    writer.commit().unwrap();
    assert_eq!(ids(&index.snapshot().unwrap()), expected);
    assert_eq!(before.iter().count(), 12);
}

/// Catches ids that are lost or repeated where one page of them ends, an iterator that shows what was
/// committed later, and one that keeps a writer from closing.
#[test]
fn ids_are_read_page_by_page_beside_a_writer() {
    let (_folder, index) = indexes::create(&schema());
    let mut writer = index.writer().unwrap();
    let id = |i: usize| format!("{i:05}");
    append(&mut writer, (0..5000).step_by(2).map(id), 1);
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let mut ids = snapshot.ids();
    assert_eq!(ids.next().unwrap().unwrap(), b"00000");
    append(&mut writer, (1..5000).step_by(2).map(id), 2);
    for i in (0..5000).step_by(4) {
        assert!(writer.delete(id(i)).unwrap());
    }
    writer.commit().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    assert_eq!(ids.by_ref().take(1100).last().unwrap().unwrap(), id(2200).into_bytes());
    drop(writer);
    assert!(ids.map(Result::unwrap).eq((2202..5000).step_by(2).map(|i| id(i).into_bytes())));
    assert_eq!(index.snapshot().unwrap().ids().count(), 3750);
    assert_eq!(index.snapshot().unwrap().ids_with_prefix("012").count(), 75);
}

/// Catches pages that hold as many long ids as short ones, and ids that are lost between such pages.
#[test]
fn long_ids_are_read_in_smaller_pages() {
    let (_folder, index) = indexes::create(&schema());
    let mut writer = index.writer().unwrap();
    let id = |i: usize| format!("{i:0>4096}");
    append(&mut writer, (0..300).map(id), 1);
    writer.commit().unwrap();
    assert!(index.snapshot().unwrap().ids().map(Result::unwrap).eq((0..300).map(|i| id(i).into_bytes())));
}

/// Catches ids of a generation that was collected by another process, which may be missing.
#[test]
fn ids_of_a_collected_generation_are_an_error() {
    let (_folder, index) = indexes::create(&schema());
    // Another handle does not see the pins of this one, like another process.
    let other = Index::open(index.path()).unwrap();
    let mut writer = index.writer().unwrap();
    append(&mut writer, ["a".into(), "b".into()], 1);
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    drop(writer);
    let mut writer = other.writer().unwrap();
    writer.delete("a").unwrap();
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    drop(writer);
    // Brings the newer manifest.
    assert_eq!(index.snapshot().unwrap().ids().map(Result::unwrap).collect::<Vec<_>>(), [b"b"]);
    let mut ids = snapshot.ids();
    let error = ids.next().unwrap().unwrap_err();
    assert!(matches!(error, GetError::Expired { generation: 1, oldest: 2, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Expired);
    assert!(ids.next().is_none() && ids.next().is_none());
}

/// The file of the segment that commit `generation` added.
fn segment_file(index: &Index, generation: u64) -> PathBuf {
    let stats = index.stats().unwrap();
    let segment = stats.segments.iter().find(|segment| segment.added == generation).unwrap();
    index.path().join("segments").join(format!("{}.seg", segment.segment))
}

/// Catches a damaged byte that changes a row in silence, an error without a type, and an iterator that
/// goes on after one.
#[test]
fn damaged_segment_is_one_error_and_the_end() {
    let (_folder, index) = indexes::create(&schema());
    let mut writer = index.writer().unwrap();
    for commit in 0..3 {
        append(&mut writer, (0..20).map(|i| format!("{i} of {commit}, a long id")), commit);
        writer.commit().unwrap();
    }
    drop(writer);
    let file = segment_file(&index, 2);
    let sound_bytes = fs::read(&file).unwrap();
    fn read(snapshot: &Snapshot, with_sketches: bool) -> gradix::Rows<'_> {
        if with_sketches { snapshot.iter().with_sketches() } else { snapshot.iter() }
    }
    let snapshot = index.snapshot().unwrap();
    let sound: [Vec<StoredRow>; 2] =
        [false, true].map(|sketches| read(&snapshot, sketches).map(Result::unwrap).collect());
    drop(snapshot);
    let mut errors = [0; 2];
    for at in (4096..sound_bytes.len()).step_by(37) {
        let mut damaged = sound_bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        for with_sketches in [false, true] {
            // A new snapshot reads the file anew.
            let Ok(snapshot) = index.snapshot() else { continue };
            let sound = &sound[usize::from(with_sketches)];
            let mut rows = read(&snapshot, with_sketches);
            let before: Vec<StoredRow> = rows.by_ref().map_while(Result::ok).collect();
            // What came before the error is right; nothing comes after it.
            assert_eq!(before, sound[..before.len()], "byte {at}");
            assert!(rows.next().is_none(), "byte {at}");
            if before.len() < sound.len() {
                errors[usize::from(with_sketches)] += 1;
                assert!((20..40).contains(&before.len()), "byte {at}");
                let error = read(&snapshot, with_sketches).find_map(Result::err).unwrap();
                assert!(
                    matches!(&error, GetError::Segment(gradix::SegmentError::Damaged { .. })),
                    "{error:?}"
                );
                assert_eq!(error.kind(), ErrorKind::Damaged);
            }
        }
    }
    // Codes are read for sketches only.
    assert!(errors[0] > 20 && errors[1] > errors[0] + 20, "{errors:?}");
    fs::write(&file, &sound_bytes).unwrap();
    assert_eq!(read(&index.snapshot().unwrap(), true).map(Result::unwrap).collect::<Vec<_>>(), sound[1]);
}
