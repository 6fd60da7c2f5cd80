//! The life of an index: what is appended comes back, at every generation that is kept.

mod fixtures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fixtures::indexes::{self, assert_sound, copy_folder, segment_files};
use fixtures::sketches::{constant, sketch, spec};
use gradix::segment::storage::{FileStorage, MemoryStorage, Storage};
use gradix::sketch::SketchSpec;
use gradix::{
    AppendError, CompactOptions, Encoding, GcOptions, Index, Row, Schema, SnapshotError, Span, Tier,
    WriterError,
};
use proptest::prelude::*;

fn create(encoding: Encoding) -> (tempfile::TempDir, Index) {
    indexes::create(&Schema::new(spec(), encoding).unwrap())
}

/// Catches a column that is lost or shifted between append and get.
#[test]
fn get_returns_every_column_after_reopen() {
    let (folder, index) = create(Encoding::F32);
    let mut writer = index.writer().unwrap();
    writer.append("whole", &sketch(1)).unwrap();
    let spans = [sketch(2), sketch(3), sketch(4)];
    let rows: Vec<Row<'_>> = spans
        .iter()
        .zip(0..)
        .map(|(sketch, i)| Row::new(sketch).span(Span::tokens(i, i + 2)).source("wiki").metadata(b"page"))
        .collect();
    writer.append_rows(b"\xff\x00spans", &rows).unwrap();
    let commit = writer.prepare_commit().unwrap().payload("day 1").commit().unwrap();
    assert_eq!((commit.generation, commit.appended, commit.deleted), (1, 4, 0));
    drop(writer);
    drop(index);

    let index = Index::open(folder.path().join("x.gradix")).unwrap();
    let snapshot = index.snapshot().unwrap();
    assert_eq!((snapshot.generation(), snapshot.rows()), (1, 4));
    assert_eq!(snapshot.payload().unwrap(), b"day 1");
    let whole = snapshot.get("whole").unwrap().unwrap();
    assert_eq!(whole.rows.len(), 1);
    assert_eq!((whole.rows[0].span, whole.rows[0].source.as_deref()), (Span::WHOLE, None));
    assert_eq!(whole.rows[0].sketch, sketch(1));
    let example = snapshot.get(b"\xff\x00spans").unwrap().unwrap();
    for (i, (row, sketch)) in example.rows.iter().zip(&spans).enumerate() {
        assert_eq!(row.span, Span::tokens(i as u32, i as u32 + 2));
        assert_eq!((row.source.as_deref(), &row.metadata[..]), (Some("wiki"), &b"page"[..]));
        assert_eq!(&row.sketch, sketch);
    }
    assert!(snapshot.get("nobody").unwrap().is_none());
    assert_sound(&index);
}

/// Catches values without a sketch that become other rows than the sketch would, or are cut to the width of the index.
#[test]
fn rows_of_values_are_those_of_the_sketch() {
    let (_folder, index) = create(Encoding::I8);
    let mut writer = index.writer().unwrap();
    let given = sketch(3);
    writer.append("sketch", &given).unwrap();
    writer.append_batch(&[("values", Row::of_values(given.values()).source("wiki"))]).unwrap();
    let error = writer.append_batch(&[("short", Row::of_values(&given.values()[1..]))]).unwrap_err();
    assert!(matches!(error, AppendError::Width { row: 0, .. }), "{error}");
    assert_eq!(error.kind(), gradix::ErrorKind::InvalidInput);
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let row = |id| snapshot.get(id).unwrap().unwrap().rows[0].sketch.clone();
    assert_eq!(row("sketch"), row("values"));
    assert_eq!(snapshot.rows(), 2);
}

/// Catches a plan that is not what is then done, a cancelled compaction or verification that changes something, and
/// a log that has lost a commit or shows one that the snapshot does not see.
#[test]
fn maintenance_is_planned_stopped_and_logged() {
    let (_folder, index) = create(Encoding::F32);
    let mut writer = index.writer().unwrap();
    for (id, n) in [("a", 1), ("b", 2), ("c", 3)] {
        writer.append(id, &sketch(n)).unwrap();
        writer.prepare_commit().unwrap().payload("four").commit().unwrap();
    }
    writer.delete("b").unwrap();
    let deleted = writer.commit().unwrap().generation;
    let before = index.snapshot().unwrap();
    let commits = before.commits().unwrap();
    let counts: Vec<_> =
        commits.iter().map(|c| (c.generation, c.appended, c.deleted, c.payload_bytes)).collect();
    assert_eq!(counts, [(1, 1, 0, 4), (2, 1, 0, 4), (3, 1, 0, 4), (4, 0, 1, 0)]);
    assert_eq!(index.snapshot_at(2).unwrap().commits().unwrap().len(), 2);

    let stopped = gradix::CancelToken::new();
    stopped.cancel();
    let error = writer.compact(CompactOptions::all().cancel(&stopped)).unwrap_err();
    assert_eq!(error.kind(), gradix::ErrorKind::Cancelled);
    let error = index.verify_with(gradix::VerifyOptions::default().cancel(&stopped)).unwrap_err();
    assert_eq!(error.kind(), gradix::ErrorKind::Cancelled);
    assert_eq!(index.snapshot().unwrap().generation(), deleted);

    let planned = before.plan_compaction(&CompactOptions::all());
    drop(before);
    let mut seen = Vec::new();
    let done = writer.compact(CompactOptions::all().progress(|at| seen.push(at.rows_copied))).unwrap();
    assert_eq!((done, seen), (planned, vec![1, 1, 2]));
    assert_eq!((done.segments_removed, done.segments_added, done.rows_dropped), (3, 1, 1));

    let options = GcOptions::default().grace(Duration::ZERO);
    let planned = index.snapshot().unwrap().plan_gc(options).unwrap();
    assert_eq!(segment_files(index.path()).len(), 4);
    assert_eq!(writer.gc(options).unwrap(), planned);
    assert_eq!((planned.segments, planned.oldest), (3, 5));
    assert_eq!(index.snapshot().unwrap().plan_gc(options).unwrap().segments, 0);
    assert_eq!(index.snapshot().unwrap().commits().unwrap().len(), 1);

    let mut seen = Vec::new();
    let options = gradix::VerifyOptions::default();
    assert!(index.verify_with(options.progress(|at| seen.push(at))).unwrap().is_sound());
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].bytes_done, seen[1].bytes_done), (0, seen[1].bytes_total));
}

/// Catches a commit that shows early, an abort that leaves something, a drop that commits.
#[test]
fn uncommitted_rows_are_never_seen() {
    let (_folder, index) = create(Encoding::F16);
    let files = || segment_files(index.path()).len();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    assert!(writer.contains("a").unwrap());
    assert_eq!(index.snapshot().unwrap().rows(), 0);
    writer.abort().unwrap();
    assert!(!writer.contains("a").unwrap());
    assert_eq!(files(), 0);

    writer.append("b", &sketch(1)).unwrap();
    writer.prepare_commit().unwrap().abort().unwrap();
    assert_eq!(files(), 0);

    writer.append("c", &sketch(1)).unwrap();
    let _ = writer.prepare_commit().unwrap();
    assert_eq!(index.snapshot().unwrap().rows(), 0);
    drop(writer);
    assert_eq!(files(), 0);
    assert_eq!(index.snapshot().unwrap().rows(), 0);
    // The index is as good as new.
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    writer.commit().unwrap();
    assert_eq!(index.snapshot().unwrap().rows(), 1);
    assert_sound(&index);
}

/// Catches a reopen that trips over what a killed writer left, or removes a file that is not its own.
#[test]
fn writer_after_a_kill_removes_only_its_own_orphans() {
    let (folder, index) = create(Encoding::F32);
    let segments = folder.path().join("x.gradix/segments");
    let mut writer = index.writer().unwrap();
    writer.append("kept", &sketch(1)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let foreign = segments.join("6c84fb90-12c4-11e1-840d-7b25c5ee775a.seg");
    std::fs::write(&foreign, b"somebody else's").unwrap();

    // A copy of the folder in the middle of a commit is what a kill leaves.
    let mut writer = index.writer().unwrap();
    writer.append("lost", &sketch(2)).unwrap();
    let _ = writer.prepare_commit().unwrap();
    let copy = folder.path().join("copy.gradix");
    copy_folder(&folder.path().join("x.gradix"), &copy);
    drop(writer);

    let killed = Index::open(&copy).unwrap();
    assert_eq!(killed.snapshot().unwrap().rows(), 1);
    assert_eq!(segment_files(&copy).len(), 3);
    let writer = killed.writer().unwrap();
    assert_eq!(segment_files(&copy).len(), 2);
    assert!(copy.join("segments").join(foreign.file_name().unwrap()).exists());
    assert!(!writer.contains("lost").unwrap());
    drop(writer);
    assert_sound(&killed);
}

/// Catches two writers, and a writer that keeps readers of another handle out.
#[test]
fn second_writer_is_refused_and_readers_follow() {
    let (_folder, index) = create(Encoding::F32);
    let other = Index::open(index.path()).unwrap();
    let mut writer = index.writer().unwrap();
    assert!(matches!(other.writer(), Err(WriterError::Busy { .. })));
    assert!(matches!(index.writer(), Err(WriterError::Busy { .. })));
    writer.append("a", &sketch(1)).unwrap();
    let before = other.snapshot().unwrap();
    writer.commit().unwrap();
    assert_eq!(before.rows(), 0);
    assert_eq!(other.snapshot().unwrap().rows(), 1);
    assert_eq!(index.snapshot().unwrap().rows(), 1);
    drop(writer);
    let read_only = Index::options().read_only(true).open(index.path()).unwrap();
    assert!(matches!(read_only.writer(), Err(WriterError::ReadOnly { .. })));
    assert_eq!(read_only.snapshot().unwrap().rows(), 1);
    let _writer = other.writer().unwrap();
    assert!(matches!(index.writer(), Err(WriterError::Busy { .. })));
}

/// Catches deletes that reach into older snapshots, and generations that vanish too early.
#[test]
fn earlier_generations_stay_until_they_are_collected() {
    let (_folder, index) = create(Encoding::I8);
    let mut writer = index.writer().unwrap();
    for id in ["a", "b", "c"] {
        writer.append(id, &sketch(1)).unwrap();
    }
    writer.commit().unwrap();
    assert!(writer.delete("b").unwrap());
    assert!(!writer.delete("b").unwrap());
    let replacement = sketch(9);
    writer.replace("c", &[Row::new(&replacement), Row::new(&replacement)]).unwrap();
    let commit = writer.commit().unwrap();
    assert_eq!((commit.generation, commit.appended, commit.deleted), (2, 2, 2));

    let old = index.snapshot_at(1).unwrap();
    assert_eq!(old.rows(), 3);
    assert_eq!(old.get("c").unwrap().unwrap().rows.len(), 1);
    let new = index.snapshot().unwrap();
    assert_eq!(new.rows(), 3);
    assert!(new.get("b").unwrap().is_none());
    assert_eq!(new.get("c").unwrap().unwrap().rows.len(), 2);

    let compaction = writer.compact(CompactOptions::all()).unwrap();
    assert_eq!((compaction.rows_copied, compaction.rows_dropped), (3, 2));
    assert_eq!((compaction.segments_removed, compaction.segments_added), (2, 1));
    // Other processes may still read what was replaced within the grace time.
    assert_eq!(writer.gc(GcOptions::default()).unwrap().oldest, 0);
    // The pinned snapshot holds generation 1 and its files.
    let now = GcOptions::default().grace(Duration::ZERO);
    assert_eq!(writer.gc(now).unwrap().oldest, 1);
    assert_eq!(old.get("b").unwrap().unwrap().rows.len(), 1);
    drop(old);
    let collection = writer.gc(now).unwrap();
    assert_eq!((collection.oldest, collection.segments), (2, 0));
    drop(new);
    let collection = writer.gc(now).unwrap();
    assert_eq!((collection.oldest, collection.segments), (3, 2));
    assert!(matches!(
        index.snapshot_at(2),
        Err(SnapshotError::NoSuchGeneration { oldest: 3, newest: 3, .. })
    ));
    assert!(matches!(index.snapshot_at(4), Err(SnapshotError::NoSuchGeneration { .. })));
    assert_eq!(index.snapshot().unwrap().get("c").unwrap().unwrap().rows.len(), 2);
    assert_eq!(segment_files(index.path()).len(), 1);
    assert_sound(&index);
}

/// Catches a snapshot that cannot be handed to another thread, or an error that cannot be boxed.
#[test]
fn handles_and_errors_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    fn moves<T: Send + 'static>() {}
    moves::<gradix::Writer>();
    crosses::<Index>();
    crosses::<gradix::Snapshot>();
    crosses::<gradix::Ranking>();
    crosses::<gradix::sketch::Sketcher>();
    crosses::<AppendError>();
    crosses::<gradix::CommitError>();
    crosses::<gradix::ScanError>();
    crosses::<gradix::Report>();
}

/// Catches a snapshot that expires because another handle collects what it shows.
#[test]
fn snapshot_outlives_a_collection_by_another_handle() {
    let (_folder, index) = create(Encoding::F32);
    let other = Index::open(index.path()).unwrap();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    writer.commit().unwrap();
    let pinned = other.snapshot().unwrap();
    let replacement = sketch(2);
    writer.replace("a", &[Row::new(&replacement)]).unwrap();
    writer.commit().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    assert_eq!(other.snapshot().unwrap().get("a").unwrap().unwrap().rows[0].sketch, replacement);
    assert_eq!(pinned.get("a").unwrap().unwrap().rows[0].sketch, sketch(1));
}

/// Catches a verification that takes a commit beside it for damage.
#[test]
fn verify_beside_a_writer_finds_nothing() {
    let (_folder, index) = create(Encoding::F32);
    let mut writer = index.writer().unwrap();
    std::thread::scope(|scope| {
        let verified = scope.spawn(|| (0..60).for_each(|_| assert_sound(&index)));
        for id in 0u32.. {
            writer.append(id.to_le_bytes(), &sketch(u64::from(id))).unwrap();
            writer.commit().unwrap();
            if verified.is_finished() {
                break;
            }
        }
        verified.join().unwrap();
    });
}

/// Catches an acknowledged commit that is lost in silence when the log of a killed writer is damaged.
#[test]
fn damaged_log_of_a_killed_writer_loses_no_commit_in_silence() {
    let (folder, index) = create(Encoding::F32);
    let mut writer = index.writer().unwrap();
    for id in ["a", "b"] {
        writer.append(id, &sketch(1)).unwrap();
        writer.commit().unwrap();
    }
    // What a kill would leave.
    let killed = folder.path().join("killed.gradix");
    copy_folder(index.path(), &killed);
    let logs = std::fs::read_dir(killed.join("manifest")).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<_> = logs.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    for log in logs {
        let bytes = std::fs::read(&log).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&log, &damaged).unwrap();
            if let Ok(Ok(snapshot)) = Index::open(&killed).map(|index| index.snapshot()) {
                assert_eq!((snapshot.generation(), snapshot.rows()), (2, 2), "byte {at} of the log");
            }
        }
        std::fs::write(&log, &bytes).unwrap();
    }
    // Nor is the file believed that guards the log, if it is damaged.
    assert_eq!(Index::open(&killed).unwrap().snapshot().unwrap().generation(), 2);
    let mut committed = std::fs::read(killed.join("COMMITTED")).unwrap();
    committed[9] ^= 1;
    std::fs::write(killed.join("COMMITTED"), committed).unwrap();
    assert!(matches!(Index::open(&killed), Err(gradix::OpenError::Manifest(_))));
}

/// Catches an index that can be created but never opened again.
#[test]
fn create_refuses_a_schema_that_index_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = (0..65_535).map(|i| (format!("{i:0>250}"), 1));
    let schema = Schema::new(SketchSpec::dense("wide", "1", blocks), Encoding::I8).unwrap();
    let path = folder.path().join("x.gradix");
    assert!(matches!(Index::options().create(&path, &schema), Err(gradix::CreateError::Schema(_))));
    assert!(!path.exists());
}

/// Catches an engine that only works on the file system, or only in memory.
#[test]
fn every_storage_serves() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("elsewhere");
    std::fs::create_dir(&files).unwrap();
    let storages: [Arc<dyn Storage>; 2] =
        [Arc::new(MemoryStorage::new()), Arc::new(FileStorage::new(&files))];
    for (i, storage) in storages.into_iter().enumerate() {
        let schema = Schema::new(spec(), Encoding::I8).unwrap();
        let path = folder.path().join(format!("{i}.gradix"));
        let index = Index::options().storage(storage).create(path, &schema).unwrap();
        let mut writer = index.writer().unwrap();
        writer.append("a", &sketch(1)).unwrap();
        writer.commit().unwrap();
        writer.append("b", &sketch(1)).unwrap();
        writer.commit().unwrap();
        writer.compact(CompactOptions::all()).unwrap();
        assert_eq!(index.snapshot().unwrap().rows(), 2);
        assert_sound(&index);
    }
}

/// Catches rows that fall between segments or row groups when these are closed.
#[test]
fn many_segments_hold_every_row_once() {
    let spec = SketchSpec::dense("wide", "v1", [("all", 4096)]);
    let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
    let (_folder, index) = indexes::create_with(Index::options().segment_bytes(1 << 20), &schema);
    let mut writer = index.writer().unwrap();
    let sketches: Vec<_> = (0..300).map(|i| constant(&spec, i as f32)).collect();
    let batch: Vec<(String, Row<'_>)> =
        sketches.iter().enumerate().map(|(i, sketch)| (format!("example {i}"), Row::new(sketch))).collect();
    writer.append_batch(&batch).unwrap();
    writer.commit().unwrap();
    let stats = index.stats().unwrap();
    assert!(stats.segments.len() > 3, "{stats:#?}");
    assert_eq!(stats.rows, 300);
    assert_eq!(stats.bytes, stats.segments.iter().map(|segment| segment.bytes).sum::<u64>());
    let snapshot = index.snapshot().unwrap();
    for (i, (id, _)) in batch.iter().enumerate() {
        assert_eq!(snapshot.get(id).unwrap().unwrap().rows[0].sketch.values()[0], i as f32);
    }
    drop(writer);
    assert_sound(&index);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8, u8),
    Replace(u8, u8),
    Delete(u8),
    Commit,
    Abort,
    Reopen,
    Compact,
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u8, 1..4u8).prop_map(|(id, rows)| Step::Append(id, rows)),
        3 => (0..12u8, 1..4u8).prop_map(|(id, rows)| Step::Replace(id, rows)),
        3 => (0..12u8).prop_map(Step::Delete),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Reopen),
        1 => Just(Step::Compact),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Catches any sequence of operations after which the index differs from a plain map, at any
    /// generation that is kept.
    #[test]
    fn index_behaves_like_a_map_of_maps(steps in steps()) {
        // With tiers: verification compares them with the rows.
        let schema = Schema::new(spec(), Encoding::F32).unwrap();
        let schema = schema.with_tiers([Tier::Sign { seed: 3 }, Tier::I8]).unwrap();
        let (_folder, index) = indexes::create(&schema);
        let path = index.path().to_owned();
        let mut writer = Some(index.writer().unwrap());
        let mut now: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        let mut generations = BTreeMap::from([(0u64, now.clone())]);
        for (seed, step) in steps.into_iter().enumerate() {
            let seeds = |rows: u8| (0..u64::from(rows)).map(|row| seed as u64 * 4 + row).collect::<Vec<_>>();
            let w = writer.as_mut().unwrap();
            match step {
                Step::Append(id, rows) => {
                    let sketches: Vec<_> = seeds(rows).into_iter().map(sketch).collect();
                    let rows_: Vec<_> = sketches.iter().map(Row::new).collect();
                    let appended = w.append_rows([id], &rows_);
                    if let std::collections::btree_map::Entry::Vacant(entry) = now.entry(id) {
                        prop_assert!(appended.is_ok());
                        entry.insert(seeds(rows));
                    } else {
                        let refused = matches!(appended, Err(AppendError::DuplicateId { .. }));
                        prop_assert!(refused);
                    }
                }
                Step::Replace(id, rows) => {
                    let sketches: Vec<_> = seeds(rows).into_iter().map(sketch).collect();
                    let rows_: Vec<_> = sketches.iter().map(Row::new).collect();
                    let replaced = w.replace([id], &rows_);
                    if let Some(slot) = now.get_mut(&id) {
                        prop_assert!(replaced.is_ok());
                        *slot = seeds(rows);
                    } else {
                        let refused = matches!(replaced, Err(AppendError::NotFound { .. }));
                        prop_assert!(refused);
                    }
                }
                Step::Delete(id) => prop_assert_eq!(w.delete([id]).unwrap(), now.remove(&id).is_some()),
                Step::Commit => {
                    let commit = w.commit().unwrap();
                    generations.insert(commit.generation, now.clone());
                }
                Step::Abort => {
                    w.abort().unwrap();
                    now = generations.values().next_back().unwrap().clone();
                }
                Step::Reopen => {
                    drop(writer.take());
                    writer = Some(Index::open(&path).unwrap().writer().unwrap());
                    now = generations.values().next_back().unwrap().clone();
                }
                Step::Compact => {
                    let commit = w.commit().unwrap();
                    generations.insert(commit.generation, now.clone());
                    w.compact(CompactOptions::all()).unwrap();
                    generations.insert(w.generation(), now.clone());
                }
                Step::Collect => {
                    let commit = w.commit().unwrap();
                    generations.insert(commit.generation, now.clone());
                    let kept = GcOptions::default().keep_generations(2).grace(Duration::ZERO);
                    let oldest = w.gc(kept).unwrap().oldest;
                    generations.retain(|&generation, _| generation >= oldest);
                }
            }
        }
        drop(writer);
        let index = Index::open(&path).unwrap();
        for (&generation, expected) in &generations {
            let snapshot = index.snapshot_at(generation).unwrap();
            prop_assert_eq!(snapshot.rows(), expected.values().map(|rows| rows.len() as u64).sum::<u64>());
            for id in 0..12u8 {
                let found = snapshot.get([id]).unwrap();
                let found = found.map(|found| found.rows.into_iter().map(|row| row.sketch).collect::<Vec<_>>());
                let expected = expected.get(&id).map(|seeds| seeds.iter().map(|&seed| sketch(seed)).collect::<Vec<_>>());
                prop_assert_eq!(found, expected);
            }
        }
        assert_sound(&index);
    }
}
