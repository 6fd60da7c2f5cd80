//! A manifest that is lost and built anew from the segments: what comes back, what is left out, and what
//! stays as it was.

mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fixtures::indexes::{self, assert_sound, copy_folder, segment_files};
use fixtures::random::Random;
use fixtures::sketches::{constant, sketch, spec};
use gradix::segment::storage::{FileStorage, Storage, StorageBytes, StorageFile};
use gradix::sketch::SketchSpec;
use gradix::{
    CompactOptions, Encoding, ErrorKind, GcOptions, Index, LeftOut, LeftOutReason, RecoverError, Recovery,
    Row, Schema, Snapshot, Span, WriterError,
};

const PATH: &str = "GRADIX_TEST_CHILD_PATH";

/// The rows of each example, by the seeds of their sketches.
type Examples = BTreeMap<String, Vec<u64>>;

fn create() -> (tempfile::TempDir, Index) {
    indexes::create(&Schema::new(spec(), Encoding::F32).unwrap())
}

/// Adds an example, or replaces it.
fn put(writer: &mut gradix::Writer, id: &str, seeds: &[u64]) {
    let sketches: Vec<_> = seeds.iter().map(|&seed| sketch(seed)).collect();
    let rows: Vec<Row<'_>> = sketches
        .iter()
        .zip(0..)
        .map(|(sketch, i)| {
            Row::new(sketch).span(Span::tokens(i, i + 1)).source(["x", "y"][i as usize % 2]).metadata(b"m")
        })
        .collect();
    if writer.contains(id).unwrap() {
        writer.replace(id, &rows).unwrap();
    } else {
        writer.append_rows(id, &rows).unwrap();
    }
}

/// Collects everything that can be.
fn collect(writer: &mut gradix::Writer) {
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
}

/// Whether the example has these rows, in all their columns.
fn has(snapshot: &Snapshot, id: &str, seeds: &[u64]) -> bool {
    let Some(example) = snapshot.get(id).unwrap() else { return false };
    example.rows.len() == seeds.len()
        && example.rows.iter().zip(seeds).zip(0..).all(|((row, &seed), i)| {
            row.sketch == sketch(seed)
                && row.span == Span::tokens(i, i + 1)
                && row.source.as_deref() == Some(["x", "y"][i as usize % 2])
                && row.metadata == b"m"
        })
}

#[track_caller]
fn assert_is(index: &Index, expected: &Examples) {
    let ids: Vec<_> =
        index.snapshot().unwrap().ids().map(|id| String::from_utf8(id.unwrap()).unwrap()).collect();
    assert_eq!(ids, expected.keys().cloned().collect::<Vec<_>>());
    let snapshot = index.snapshot().unwrap();
    for (id, seeds) in expected {
        assert!(has(&snapshot, id, seeds), "{id} does not have the rows {seeds:?}");
    }
}

/// Moves the manifest away and recovers it.
fn lose_and_recover(path: &Path) -> Result<Recovery, RecoverError> {
    let lost = path.with_extension("lost");
    if lost.exists() {
        fs::remove_dir_all(&lost).unwrap();
    }
    fs::rename(path.join("manifest"), lost).unwrap();
    Index::recover(path)
}

fn only(recovery: &Recovery) -> &LeftOut {
    let [left_out] = &recovery.left_out[..] else { panic!("{:#?}", recovery.left_out) };
    left_out
}

/// Only what belongs into the folder of an index.
#[track_caller]
fn assert_nothing_left(path: &Path) {
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["COMMITTED", "INDEX", "LOCK", "artifacts", "manifest", "segments"]);
}

/// Catches a recovery that takes an earlier version of an example for the last one, or merges two, or loses
/// one; over several writers, commits and a compaction, whose inputs are still there.
#[test]
fn recovered_index_has_the_last_version_of_each_example() {
    let (_folder, index) = create();
    let path = index.path().to_owned();
    let mut expected = Examples::new();
    let mut writer = index.writer().unwrap();
    for i in 0..20u64 {
        expected.insert(format!("{i:02}"), vec![i, i + 1000]);
    }
    for (id, seeds) in &expected {
        put(&mut writer, id, seeds);
    }
    writer.commit().unwrap();
    for id in ["03", "04", "05"] {
        writer.delete(id).unwrap();
        expected.remove(id);
    }
    writer.commit().unwrap();
    drop(writer);

    // Twice in one commit: at once, and with another one in between.
    let mut writer = index.writer().unwrap();
    for (id, seeds) in
        [("00", [77, 78].as_slice()), ("00", &[79]), ("01", &[80]), ("02", &[81]), ("01", &[82, 83, 84])]
    {
        put(&mut writer, id, seeds);
        expected.insert(id.into(), seeds.to_vec());
    }
    // Deleted, and there again.
    writer.delete("06").unwrap();
    put(&mut writer, "06", &[85]);
    expected.insert("06".into(), vec![85]);
    writer.commit().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    put(&mut writer, "07", &[86]);
    expected.insert("07".into(), vec![86]);
    writer.commit().unwrap();
    // Dropped by the compaction; its inputs, which have these, go now.
    collect(&mut writer);
    assert_eq!(segment_files(&path).len(), 2);
    writer.delete("08").unwrap();
    writer.commit().unwrap();
    // Nothing that was never committed is taken.
    put(&mut writer, "09", &[87]);
    drop(writer);
    let mut writer = index.writer().unwrap();
    put(&mut writer, "10", &[88]);
    writer.abort().unwrap();
    // Another compaction, of which the inputs stay.
    writer.compact(CompactOptions::all()).unwrap();
    put(&mut writer, "11", &[89]);
    expected.insert("11".into(), vec![89]);
    let last = writer.commit().unwrap().generation;
    drop(writer);
    drop(index);

    let recovery = lose_and_recover(&path).unwrap();
    let index = Index::open(&path).unwrap();
    // Deletions are lost where the rows are still there.
    assert_is(&index, &expected);
    assert_eq!((recovery.generation, recovery.committed), (last, Some(last)));
    assert_eq!(index.snapshot().unwrap().generation(), last);
    assert_eq!(recovery.segments.len(), segment_files(&path).len());
    assert_eq!(recovery.left_out, []);
    assert_eq!(recovery.examples, expected.len() as u64);
    assert_eq!(recovery.rows, index.snapshot().unwrap().rows());
    assert_eq!(recovery.ambiguous, 0);
    assert!(recovery.superseded > 0);
    assert!(index.snapshot_at(last - 1).is_err());
    assert_sound(&index);
    assert_nothing_left(&path);
}

/// Catches a recovery of a random history that loses a live example, or gives it other rows; and one that
/// makes rows up for one that was deleted.
#[test]
fn recovered_index_is_that_of_any_history() {
    for seed in 0..5 {
        let mut random = Random(seed);
        let (_folder, index) = create();
        let path = index.path().to_owned();
        let (mut now, mut committed) = (Examples::new(), Examples::new());
        let mut ever: BTreeMap<String, Vec<Vec<u64>>> = BTreeMap::new();
        let mut writer = index.writer().unwrap();
        for step in 0..60u64 {
            let id = format!("{}", random.below(9));
            match random.below(20) {
                0..10 => {
                    let seeds: Vec<u64> = (0..=random.below(3)).map(|i| step * 10 + i as u64).collect();
                    put(&mut writer, &id, &seeds);
                    ever.entry(id.clone()).or_default().push(seeds.clone());
                    now.insert(id, seeds);
                }
                10..13 => {
                    writer.delete(&id).unwrap();
                    now.remove(&id);
                }
                13..16 => {
                    writer.commit().unwrap();
                    committed = now.clone();
                }
                16 => {
                    writer.abort().unwrap();
                    now = committed.clone();
                }
                17 => {
                    writer.commit().unwrap();
                    committed = now.clone();
                    let dead = random.below(3) as f64 / 2.0;
                    writer.compact(CompactOptions::default().dead_fraction(dead)).unwrap();
                }
                18 => {
                    writer.commit().unwrap();
                    committed = now.clone();
                    collect(&mut writer);
                }
                _ => {
                    drop(writer);
                    now = committed.clone();
                    writer = index.writer().unwrap();
                }
            }
        }
        // The end is a kill in the middle of a commit.
        put(&mut writer, "never committed", &[1]);
        let _ = writer.prepare_commit().unwrap();
        let killed = path.with_extension("killed");
        copy_folder(&path, &killed);
        drop(writer);

        for path in [path, killed] {
            for _ in 0..2 {
                let before = Index::open(&path).unwrap().snapshot().unwrap().generation();
                let recovery = lose_and_recover(&path).unwrap();
                assert_eq!(recovery.generation, before);
                let index = Index::open(&path).unwrap();
                let snapshot = index.snapshot().unwrap();
                for (id, seeds) in &committed {
                    assert!(
                        has(&snapshot, id, seeds),
                        "history {seed}: {id} does not have the rows {seeds:?}"
                    );
                }
                for id in snapshot.ids() {
                    let id = String::from_utf8(id.unwrap()).unwrap();
                    let known =
                        ever.get(&id).is_some_and(|ever| ever.iter().any(|seeds| has(&snapshot, &id, seeds)));
                    assert!(known, "history {seed}: {id} has rows that it never had");
                }
                assert_sound(&index);
            }
        }
    }
}

/// Catches an example that counts twice because its later version is in a write batch that has been applied, or
/// in the one that is being filled.
#[test]
fn examples_of_several_write_batches_are_told_apart() {
    let (_folder, index) = create();
    let path = index.path().to_owned();
    let mut expected = Examples::new();
    let mut writer = index.writer().unwrap();
    for version in 0..2 {
        // 10 MB of ids, where a batch has 4 MiB.
        for i in 0..2500u64 {
            let (id, seeds) = (format!("{i:04000}"), vec![i + version]);
            put(&mut writer, &id, &seeds);
            expected.insert(id, seeds);
        }
        writer.commit().unwrap();
    }
    drop(writer);
    drop(index);
    let recovery = lose_and_recover(&path).unwrap();
    assert_eq!((recovery.examples, recovery.superseded), (2500, 2500));
    let index = Index::open(&path).unwrap();
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.rows(), 2500);
    // Each read of an example reads all ids of its row group.
    for (id, seeds) in expected.iter().step_by(125) {
        assert!(has(&snapshot, id, seeds), "{id} does not have the rows {seeds:?}");
    }
    assert_sound(&index);
}

/// Catches segments of one commit that are taken in another order than they were written.
#[test]
fn last_of_several_segments_of_one_commit_counts() {
    // 32 KiB a row, so that a commit of 100 has several segments.
    let spec = SketchSpec::dense("test", "v1", [("all", 8192)]);
    let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
    let (_folder, index) = indexes::create_with(Index::options().segment_bytes(1 << 20), &schema);
    let path = index.path().to_owned();
    let mut writer = index.writer().unwrap();
    writer.append("x", &constant(&spec, 0.0)).unwrap();
    for round in 1..=8 {
        for i in 0..34 {
            writer.append(format!("{round} {i}"), &constant(&spec, 0.5)).unwrap();
        }
        writer.replace("x", &[Row::new(&constant(&spec, round as f32))]).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    drop(index);
    let recovery = lose_and_recover(&path).unwrap();
    assert!(recovery.segments.len() > 5, "{}", recovery.segments.len());
    assert_eq!((recovery.superseded, recovery.ambiguous), (8, 0));
    let x = Index::open(&path).unwrap().snapshot().unwrap().get("x").unwrap().unwrap();
    assert_eq!(x.rows[0].sketch, constant(&spec, 8.0));
}

/// Catches a ranking that depends on what recovery does not know.
#[test]
fn recovered_index_ranks_as_before() {
    let (_folder, index) = create();
    let path = index.path().to_owned();
    let mut writer = index.writer().unwrap();
    for i in 0..300u64 {
        put(&mut writer, &format!("{i}"), &[i, i + 1]);
        if i % 70 == 0 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    drop(writer);
    let ranked = |index: &Index| {
        let snapshot = index.snapshot().unwrap();
        let ranking = snapshot.scan(&[sketch(5), sketch(900)]).unwrap().top_k(40).run().unwrap();
        let hits = (0..2).flat_map(|query| ranking.proponents(query).iter().chain(ranking.opponents(query)));
        hits.map(|hit| (hit.id.clone(), hit.score.to_bits())).collect::<Vec<_>>()
    };
    let before = ranked(&index);
    drop(index);
    let _ = lose_and_recover(&path).unwrap();
    assert_eq!(ranked(&Index::open(&path).unwrap()), before);
}

/// Three commits of ten examples, and the segment of each.
fn three_segments() -> (tempfile::TempDir, PathBuf, Vec<PathBuf>, Examples) {
    let (folder, index) = create();
    let path = index.path().to_owned();
    let (mut files, mut expected) = (Vec::<PathBuf>::new(), Examples::new());
    let mut writer = index.writer().unwrap();
    for commit in 0..3u64 {
        for i in 0..10 {
            let (id, seeds) = (format!("{commit}{i}"), vec![commit * 100 + i]);
            put(&mut writer, &id, &seeds);
            expected.insert(id, seeds);
        }
        put(&mut writer, "x", &[commit]);
        expected.insert("x".into(), vec![commit]);
        writer.commit().unwrap();
        let new = segment_files(&path).into_iter().find(|file| !files.contains(file)).unwrap();
        files.push(new);
    }
    drop(writer);
    (folder, path, files, expected)
}

/// Catches a damaged segment that is used, that hides another one, or that the report does not name.
#[test]
fn damaged_segment_is_left_out_and_named() {
    let (_folder, path, files, mut expected) = three_segments();
    let sound = fs::read(&files[2]).unwrap();
    // Of the last segment, so that an earlier version of "x" comes back.
    expected.retain(|id, _| !id.starts_with('2'));
    expected.insert("x".into(), vec![1]);
    let name = files[2].display().to_string();
    for (bytes, is_open) in [
        // A code, which only verification reads.
        (
            {
                let mut bytes = sound.clone();
                bytes[4096] ^= 1;
                bytes
            },
            true,
        ),
        (sound[..sound.len() - 1].to_vec(), false),
        (Vec::new(), false),
    ] {
        fs::remove_file(&files[2]).unwrap();
        fs::write(&files[2], &bytes).unwrap();
        let recovery = lose_and_recover(&path).unwrap();
        let left_out = only(&recovery);
        assert_eq!(left_out.file, name);
        match &left_out.reason {
            LeftOutReason::Damaged { findings } if is_open => {
                assert!(findings[0].message.contains("codes"), "{findings:?}");
            }
            LeftOutReason::Unusable { error } if !is_open => assert!(error.contains(&name), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((recovery.segments.len(), recovery.generation), (2, 3));
        let index = Index::open(&path).unwrap();
        assert_is(&index, &expected);
        assert_sound(&index);
    }
}

/// Catches rows that come back though their commit was never acknowledged; and, where nothing says what was,
/// rows that do not.
#[test]
fn segment_of_an_unacknowledged_commit_is_left_out() {
    let (folder, path, files, mut expected) = three_segments();
    let index = Index::open(&path).unwrap();
    let mut writer = index.writer().unwrap();
    put(&mut writer, "lost", &[7]);
    let _ = writer.prepare_commit().unwrap();
    let killed = folder.path().join("killed.gradix");
    copy_folder(&path, &killed);
    drop(writer);

    let orphan = segment_files(&killed)
        .into_iter()
        .find(|file| files.iter().all(|known| known.file_name() != file.file_name()));
    let recovery = lose_and_recover(&killed).unwrap();
    assert_eq!(only(&recovery).file, orphan.unwrap().display().to_string());
    assert_eq!(only(&recovery).reason, LeftOutReason::NotCommitted { generation: 4 });
    assert_eq!((recovery.generation, recovery.committed), (3, Some(3)));
    assert_is(&Index::open(&killed).unwrap(), &expected);

    fs::remove_file(killed.join("COMMITTED")).unwrap();
    let recovery = lose_and_recover(&killed).unwrap();
    assert_eq!((recovery.generation, recovery.committed, &recovery.left_out[..]), (4, None, &[][..]));
    expected.insert("lost".into(), vec![7]);
    let index = Index::open(&killed).unwrap();
    assert_is(&index, &expected);
    assert_sound(&index);
    assert_nothing_left(&killed);
}

/// Catches a file that is taken for a segment of this index because it lies there.
#[test]
fn foreign_files_are_left_out() {
    let (_folder, path, files, expected) = three_segments();
    let (_other_folder, _, other_files, _) = three_segments();
    let segments = path.join("segments");
    let foreign = segments.join(other_files[0].file_name().unwrap());
    fs::copy(&other_files[0], &foreign).unwrap();
    let named = segments.join("copy.seg");
    fs::copy(&files[0], &named).unwrap();
    let upper = segments.join("6C84FB90-12C4-11E1-840D-7B25C5EE775A.seg");
    fs::copy(&files[0], &upper).unwrap();
    let misplaced = segments.join("6c84fb90-12c4-11e1-840d-7b25c5ee775a.seg");
    fs::copy(&files[0], &misplaced).unwrap();
    let linked = segments.join("6c84fb90-12c4-11e1-840d-7b25c5ee775b.seg");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&other_files[0], &linked).unwrap();
    fs::write(segments.join("notes.txt"), "not a segment").unwrap();

    let recovery = lose_and_recover(&path).unwrap();
    let why = |file: &PathBuf| {
        let file = file.display().to_string();
        let left_out = recovery.left_out.iter().find(|left_out| left_out.file == file);
        left_out.unwrap_or_else(|| panic!("{file} was used")).reason.clone()
    };
    assert!(matches!(why(&foreign), LeftOutReason::Unusable { error } if error.contains("index")));
    assert_eq!((why(&named), why(&upper)), (LeftOutReason::OtherName, LeftOutReason::OtherName));
    assert!(matches!(why(&misplaced), LeftOutReason::Unusable { .. }));
    if cfg!(unix) {
        assert!(matches!(why(&linked), LeftOutReason::Unusable { .. }));
    }
    assert_eq!(recovery.left_out.len(), if cfg!(unix) { 5 } else { 4 });
    assert_is(&Index::open(&path).unwrap(), &expected);
    // Nothing is removed.
    assert!(foreign.exists() && named.exists() && upper.exists() && misplaced.exists());
}

/// Catches a recovery beside a writer, over a manifest, or without an index.
#[test]
fn recovery_is_refused_where_it_could_do_harm() {
    let (folder, path, _, expected) = three_segments();
    let kind = |error: RecoverError| error.kind();
    assert!(matches!(Index::recover(&path), Err(RecoverError::ManifestExists { .. })));
    let index = Index::open(&path).unwrap();
    let writer = index.writer().unwrap();
    assert!(matches!(Index::recover(&path), Err(RecoverError::Writer(WriterError::Busy { .. }))));
    drop(writer);
    assert_is(&index, &expected);
    drop(index);

    let manifest = path.join("manifest");
    fs::rename(&manifest, path.join("lost")).unwrap();
    for place in [|path: &Path| fs::write(path, "a file"), |path: &Path| fs::create_dir(path)] {
        place(&manifest).unwrap();
        assert_eq!(Index::recover(&path).map_err(kind), Err(ErrorKind::AlreadyExists));
        assert!(fs::remove_file(&manifest).or_else(|_| fs::remove_dir(&manifest)).is_ok());
    }
    let read_only = Index::options().read_only(true).recover(&path);
    assert!(matches!(read_only, Err(RecoverError::Writer(WriterError::ReadOnly { .. }))));
    assert_eq!(Index::recover(folder.path()).map_err(kind), Err(ErrorKind::NotFound));
    let committed = fs::read(path.join("COMMITTED")).unwrap();
    fs::write(path.join("COMMITTED"), &committed[1..]).unwrap();
    assert_eq!(Index::recover(&path).map_err(kind), Err(ErrorKind::Damaged));
    assert!(!manifest.exists());
    fs::write(path.join("COMMITTED"), committed).unwrap();
    let _ = Index::recover(&path).unwrap();
    assert_is(&Index::open(&path).unwrap(), &expected);
}

/// A storage in which only so many opens succeed.
#[derive(Debug)]
struct FewOpens(FileStorage, AtomicI64);

impl Storage for FewOpens {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> std::io::Result<Arc<dyn StorageBytes>> {
        if self.1.fetch_sub(1, Ordering::SeqCst) > 0 {
            self.0.open(name)
        } else {
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }

    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }

    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn describe(&self, name: &str) -> String {
        self.0.describe(name)
    }
}

/// Catches a storage that fails for a while and a segment that is left out for it; what an interrupted
/// recovery has left and the next one trips over; and one that removes what is not its own.
#[test]
fn interrupted_recovery_can_be_repeated() {
    let (_folder, path, _, expected) = three_segments();
    fs::rename(path.join("manifest"), path.join("lost")).unwrap();
    let building = path.join("manifest.recovering");
    let mut interrupted = 0;
    for opens in 0.. {
        let storage = FewOpens(FileStorage::new(path.join("segments")), AtomicI64::new(opens));
        let done = Index::options().storage(Arc::new(storage)).recover(&path);
        match done {
            Err(RecoverError::Segment(error)) => {
                assert_eq!(error.kind(), ErrorKind::Io);
                assert!(!path.join("manifest").exists());
                interrupted += usize::from(building.exists());
            }
            other => {
                assert_eq!(other.unwrap().left_out, []);
                break;
            }
        }
    }
    assert_eq!(interrupted, 3);
    assert_is(&Index::open(&path).unwrap(), &expected);

    // A folder that a crash has left before or in the middle of its mark.
    let mark = format!("a manifest of index {} is being built here\n", Index::open(&path).unwrap().uuid());
    for written in [None, Some(0), Some(9), Some(mark.len())] {
        fs::rename(path.join("manifest"), path.join(format!("lost {written:?}"))).unwrap();
        fs::create_dir(&building).unwrap();
        if let Some(length) = written {
            fs::write(building.join("RECOVERING"), &mark[..length]).unwrap();
        }
        let _ = Index::recover(&path).unwrap();
        assert!(!building.exists());
    }
    // Somebody else's.
    let somebody = |path: &Path, name: &str, text: &str| {
        fs::create_dir(path)?;
        fs::write(path.join(name), text)
    };
    fs::rename(path.join("manifest"), path.join("last")).unwrap();
    for (name, text) in
        [("notes", ""), ("RECOVERING", "a manifest of index"), ("RECOVERING", "other"), ("RECOVERING", &mark)]
    {
        somebody(&building, name, text).unwrap();
        if text.starts_with("a manifest") {
            fs::write(building.join("more"), "more").unwrap();
        }
        assert!(matches!(Index::recover(&path), Err(RecoverError::Occupied { .. })));
        assert_eq!(fs::read_to_string(building.join(name)).unwrap(), text);
        fs::remove_dir_all(&building).unwrap();
    }
    let _ = Index::recover(&path).unwrap();
    assert_is(&Index::open(&path).unwrap(), &expected);
}

/// Not a test by itself: the recovery that is killed.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else { return };
    let _ = Index::recover(path).unwrap();
}

/// Catches a recovery that is seen before it is complete, or that cannot be repeated after a kill.
#[test]
fn killed_recovery_leaves_no_manifest_or_a_whole_one() {
    let (_folder, path, _, expected) = three_segments();
    let (mut without, mut with) = (0, 0);
    let mut delay = Duration::from_millis(2);
    for attempt in 0.. {
        fs::rename(path.join("manifest"), path.with_extension(format!("lost {attempt}"))).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact"])
            .env(PATH, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        // It may be done already.
        child.kill().unwrap();
        child.wait().unwrap();
        if path.join("manifest").exists() {
            with += 1;
        } else {
            without += 1;
            let _ = Index::recover(&path).unwrap();
        }
        let index = Index::open(&path).unwrap();
        assert_is(&index, &expected);
        assert_sound(&index);
        // From a kill before the first step to one after the last.
        if with > 1 {
            break;
        }
        delay = delay * 3 / 2;
    }
    assert!(without > 0, "it was never interrupted");
}

/// Catches a recovered manifest that lacks what a writer, a compaction or a collection needs.
#[test]
fn recovered_index_goes_on() {
    let (_folder, path, _, mut expected) = three_segments();
    let recovery = lose_and_recover(&path).unwrap();
    let index = Index::open(&path).unwrap();
    let mut writer = index.writer().unwrap();
    assert_eq!(writer.generation(), recovery.generation);
    assert!(writer.append("x", &sketch(0)).is_err(), "the id is there");
    put(&mut writer, "new", &[500]);
    put(&mut writer, "x", &[501, 502]);
    writer.delete("00").unwrap();
    expected.insert("new".into(), vec![500]);
    expected.insert("x".into(), vec![501, 502]);
    expected.remove("00");
    assert_eq!(writer.commit().unwrap().generation, recovery.generation + 1);
    assert_is(&index, &expected);
    assert_sound(&index);
    assert_eq!(index.snapshot_at(recovery.generation).unwrap().payload().unwrap(), b"");
    writer.compact(CompactOptions::all()).unwrap();
    collect(&mut writer);
    assert_eq!(segment_files(&path).len(), 1);
    drop(writer);
    assert_is(&index, &expected);
    assert_sound(&index);
    drop(index);

    // And is lost again.
    let recovery = lose_and_recover(&path).unwrap();
    assert_eq!((recovery.superseded, recovery.segments.len()), (0, 1));
    let index = Index::open(&path).unwrap();
    assert_is(&index, &expected);
    assert_sound(&index);
}

/// Catches a segment that does not state its generation and is taken for a later one, and an order that
/// nothing justifies without a word about it.
#[test]
fn segments_without_a_generation_come_first() {
    let (_folder, path, files, mut expected) = three_segments();
    let unstate = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        bytes[104..116].fill(0);
        let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
        bytes[124..128].copy_from_slice(&crc);
        fs::remove_file(file).unwrap();
        fs::write(file, bytes).unwrap();
    };
    // In the end only the UUID says which of the three is the last.
    let last = (0..3).max_by_key(|&commit| &files[commit as usize]).unwrap();
    for (file, x, ambiguous) in [(0, vec![2], 0), (2, vec![1], 0), (1, vec![last], 2)] {
        unstate(&files[file]);
        let recovery = lose_and_recover(&path).unwrap();
        expected.insert("x".into(), x);
        assert_eq!((recovery.superseded, recovery.ambiguous), (2, ambiguous));
        let index = Index::open(&path).unwrap();
        assert_is(&index, &expected);
        assert_sound(&index);
    }
}

/// Catches an index without segments, or of which nothing was committed, that cannot be recovered.
#[test]
fn empty_index_is_recovered() {
    let (_folder, index) = create();
    let path = index.path().to_owned();
    drop(index);
    for generation in 0..2 {
        let recovery = lose_and_recover(&path).unwrap();
        assert_eq!((recovery.generation, recovery.examples), (generation, 0));
        let index = Index::open(&path).unwrap();
        assert_is(&index, &Examples::new());
        assert_sound(&index);
        // A commit of nothing.
        index.writer().unwrap().commit().unwrap();
    }
}
