//! Backups: what they hold, whatever a writer does meanwhile, and what of them an interruption leaves.

mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fixtures::indexes::{assert_sound, create, create_with, segment_files};
use fixtures::sketches::{sketch, spec};
use fixtures::told;
use gradix::segment::storage::MemoryStorage;
use gradix::{
    Attach, BackupError, BackupOptions, CancelToken, CompactOptions, Curvature, Encoding, Error, ErrorKind,
    FitOptions, GcOptions, Index, OpenError, Row, Schema, Snapshot, Writer,
};

/// What an index holds: the seed of the sketch of each example.
type Content = BTreeMap<String, u64>;

fn schema() -> Schema {
    Schema::new(spec(), Encoding::F32).unwrap()
}

fn append(writer: &mut Writer, id: &str, seed: u64) {
    writer.append(id, &sketch(seed)).unwrap();
}

/// Compares all that can be read with what was committed.
#[track_caller]
fn assert_content(snapshot: &Snapshot, expected: &Content) {
    let ids: Vec<String> = snapshot.ids().map(|id| String::from_utf8(id.unwrap()).unwrap()).collect();
    assert_eq!(ids, expected.keys().cloned().collect::<Vec<_>>());
    for (id, &seed) in expected {
        let example = snapshot.get(id).unwrap().unwrap();
        assert_eq!(example.rows[0].sketch.values(), sketch(seed).values(), "{id}");
    }
    let ranking = snapshot.scan(&[sketch(0)]).unwrap().top_k(1000).run().unwrap();
    assert_eq!(ranking.proponents(0).len(), expected.len());
}

/// One round of a writer's day, and what the index holds after each of its generations.
fn write(
    writer: &mut Writer,
    round: u64,
    content: &mut Content,
    history: &Mutex<BTreeMap<u64, Content>>,
    grace: Duration,
) {
    let note = |generation, content: &Content| {
        history.lock().unwrap().insert(generation, content.clone());
    };
    for new in 0..3 {
        let id = format!("{round}-{new}");
        append(writer, &id, 10 * round + new);
        content.insert(id, 10 * round + new);
    }
    if round > 2 {
        let replaced = format!("{}-0", round - 1);
        writer.replace(&replaced, &[Row::new(&sketch(round))]).unwrap();
        content.insert(replaced, round);
        let deleted = format!("{}-1", round - 2);
        assert!(writer.delete(&deleted).unwrap());
        content.remove(&deleted);
    }
    // Noted before it is visible; a generation has one content.
    note(writer.generation() + 1, content);
    writer.commit().unwrap();
    if round.is_multiple_of(4) {
        for next in 1..8 {
            // A compaction commits once or more, or not at all.
            note(writer.generation() + next, content);
        }
        writer.compact(CompactOptions::all()).unwrap();
        writer.gc(GcOptions::default().grace(grace)).unwrap();
    }
}

/// Backups of `reader` while a writer of `index` commits, compacts and collects with this grace time.
fn back_up_beside_a_writer(index: &Index, reader: &Index, folder: &Path, grace: Duration) {
    const BACKUPS: usize = 8;
    let (history, made) = (Mutex::new(BTreeMap::from([(0, Content::new())])), AtomicUsize::new(0));
    let failed = AtomicBool::new(false);
    let generations: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut writer, mut content) = (index.writer().unwrap(), Content::new());
            for round in 1.. {
                if made.load(Ordering::Relaxed) == BACKUPS || failed.load(Ordering::Relaxed) {
                    break;
                }
                write(&mut writer, round, &mut content, &history, grace);
            }
        });
        let backing_up = scope.spawn(|| {
            let back_up = |number: usize| {
                let options = BackupOptions::default().link(number % 2 == 1);
                let backup = reader.snapshot().unwrap().backup(folder.join(number.to_string()), options);
                let backup = backup.map_err(|error| told(&error)).unwrap();
                made.fetch_add(1, Ordering::Relaxed);
                (number, backup.generation)
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..BACKUPS).map(back_up).collect::<Vec<_>>()
            }));
            failed.store(done.is_err(), Ordering::Relaxed);
            done
        });
        writing.join().unwrap();
        backing_up.join().unwrap().unwrap()
    });
    let history = history.into_inner().unwrap();
    for (number, generation) in generations {
        let copy = Index::open(folder.join(number.to_string())).unwrap();
        assert_sound(&copy);
        let snapshot = copy.snapshot().unwrap();
        assert_eq!(snapshot.generation(), generation);
        assert_content(&snapshot, &history[&generation]);
        // It is an index like any other.
        let mut writer = copy.writer().unwrap();
        append(&mut writer, "one more", 1);
        assert_eq!(writer.commit().unwrap().generation, generation + 1);
        writer.compact(CompactOptions::all()).unwrap();
        writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
        assert_sound(&copy);
    }
    assert_sound(index);
    let snapshot = index.snapshot().unwrap();
    assert_content(&snapshot, &history[&snapshot.generation()]);
}

/// Catches a backup with half of a commit, without a segment that was replaced meanwhile, or with the records of a generation
/// whose files it does not have: of a snapshot beside the writer of its own process, which collects at once.
#[test]
fn backup_beside_a_writer_of_the_process_is_one_generation() {
    let (folder, index) = create(&schema());
    back_up_beside_a_writer(&index, &index, folder.path(), Duration::ZERO);
}

/// Catches the same where the manifest is read beside a writer of another process, and what that one does to RocksDB's files.
#[test]
fn backup_beside_another_writer_is_one_generation() {
    let (folder, index) = create(&schema());
    let reader = Index::options().read_only(true).open(index.path()).unwrap();
    back_up_beside_a_writer(&index, &reader, folder.path(), Duration::from_secs(3600));
}

/// Catches a backup that shares with the index what the index changes or removes, or the reverse; one that loses payloads, the log,
/// or dead rows; and one that has later generations.
#[test]
fn backup_and_index_go_separate_ways() {
    for link in [false, true] {
        let (folder, index) = create(&schema());
        let mut writer = index.writer().unwrap();
        append(&mut writer, "a", 1);
        append(&mut writer, "b", 2);
        writer.prepare_commit().unwrap().payload("first").commit().unwrap();
        writer.delete("a").unwrap();
        writer.prepare_commit().unwrap().payload("second").commit().unwrap();
        let second = index.snapshot().unwrap();
        append(&mut writer, "c", 3);
        writer.delete("b").unwrap();
        writer.commit().unwrap();
        writer.compact(CompactOptions::all()).unwrap();

        let path = folder.path().join("deep/copy.gradix");
        let backup = second.backup(&path, BackupOptions::default().link(link)).unwrap();
        assert_eq!((backup.generation, backup.segments, backup.examples), (2, 1, 1));
        assert_eq!(backup.bytes, fs::metadata(&segment_files(&path)[0]).unwrap().len());
        drop(second);
        writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
        drop(writer);
        let content = Content::from([("b".to_owned(), 2)]);
        let copy = Index::open(&path).unwrap();
        assert_eq!(copy.uuid(), index.uuid());
        let snapshot = copy.snapshot().unwrap();
        assert_content(&snapshot, &content);
        assert_eq!(snapshot.payload().unwrap(), b"second");
        assert_eq!(snapshot.payload_of(1).unwrap().unwrap(), b"first");
        assert_eq!(snapshot.commits().unwrap().iter().map(|c| c.generation).collect::<Vec<_>>(), [1, 2]);
        assert!(copy.snapshot_at(1).is_err() && copy.snapshot_at(3).is_err());

        let mut writer = copy.writer().unwrap();
        append(&mut writer, "d", 4);
        writer.commit().unwrap();
        drop((writer, snapshot, copy));
        fs::remove_dir_all(&path).unwrap();
        assert_sound(&index);
        assert_content(&index.snapshot().unwrap(), &Content::from([("c".to_owned(), 3)]));
    }
}

/// Catches a backup without the curvature of its generation, and one of segments that were attached which cannot be recovered in
/// their order when its manifest is lost.
#[test]
fn backup_has_curvature_and_the_order_of_attached_segments() {
    let (folder, index) = create(&schema());
    let mut writer = index.writer().unwrap();
    for (number, seed) in [(0, 1), (1, 2)] {
        let part = folder.path().join(format!("part-{number}"));
        let mut detached = index.detached(&part).unwrap();
        detached.append(format!("id-{number}"), &sketch(seed)).unwrap();
        detached.finish("").unwrap();
        drop(detached);
        writer.attach(&part, Attach::Link).unwrap();
        writer.commit().unwrap();
    }
    // Another row of the first id, in a later segment.
    writer.replace("id-0", &[Row::new(&sketch(3))]).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();

    let path = folder.path().join("copy.gradix");
    let backup = index.snapshot().unwrap().backup(&path, BackupOptions::default()).unwrap();
    assert_eq!((backup.segments, backup.artifacts, backup.examples), (3, 1, 2));
    let copy = Index::open(&path).unwrap();
    assert_sound(&copy);
    let scores = |index: &Index| {
        let snapshot = index.snapshot().unwrap();
        let queries = [sketch(9)];
        let scan = snapshot.scan(&queries).unwrap().top_k(9).curvature(Curvature::default());
        scan.run().unwrap().proponents(0).iter().map(|hit| hit.score.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(scores(&copy), scores(&index));
    drop(copy);
    fs::remove_dir_all(path.join("manifest")).unwrap();
    let recovery = Index::recover(&path).unwrap();
    assert_eq!((recovery.examples, recovery.ambiguous), (2, 0));
    let content = Content::from([("id-0".to_owned(), 3), ("id-1".to_owned(), 2)]);
    assert_content(&Index::open(&path).unwrap().snapshot().unwrap(), &content);
}

/// Catches a backup into a folder that holds something, and one that copies damage without a word.
#[test]
fn backup_refuses_what_is_there_and_what_is_damaged() {
    let (folder, index) = create(&schema());
    let mut writer = index.writer().unwrap();
    append(&mut writer, "a", 1);
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let error = snapshot.backup(index.path(), BackupOptions::default()).unwrap_err();
    assert!(matches!(&error, BackupError::NotEmpty { path } if path == index.path()), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_sound(&index);

    let segment = &segment_files(index.path())[0];
    let mut bytes = fs::read(segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let whole = fs::read(segment).unwrap();
    fs::write(segment, &bytes).unwrap();
    let path = folder.path().join("copy.gradix");
    let error = snapshot.backup(&path, BackupOptions::default()).unwrap_err();
    assert_eq!((error.kind(), told(&error).contains(".seg")), (ErrorKind::Damaged, true), "{error:?}");
    assert!(matches!(Index::open(&path), Err(OpenError::NotAnIndex { .. })));

    // One that is cut off, by its length.
    fs::write(segment, &whole[..last]).unwrap();
    for link in [false, true] {
        let path = folder.path().join(format!("cut-{link}"));
        let error = snapshot.backup(&path, BackupOptions::default().link(link)).unwrap_err();
        assert!(matches!(error, BackupError::Changed { .. }), "{error:?}");
    }
    fs::write(segment, whole).unwrap();
}

/// Catches a backup that is an index before it is whole, and progress that does not end at its total.
#[test]
fn backup_that_is_cancelled_is_no_index() {
    let (folder, index) = create(&schema());
    let mut writer = index.writer().unwrap();
    append(&mut writer, "a", 1);
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let mut reported = Vec::new();
    let options = BackupOptions::default().progress(|at| reported.push((at.bytes_done, at.bytes_total)));
    let backup = snapshot.backup(folder.path().join("whole"), options).unwrap();
    assert_eq!((reported[0].0, *reported.last().unwrap()), (0, (backup.bytes, backup.bytes)));
    for cancel_at in 0..reported.len() {
        let (token, mut calls) = (CancelToken::new(), 0);
        let cancel = |_| {
            if calls == cancel_at {
                token.cancel();
            }
            calls += 1;
        };
        let path = folder.path().join(cancel_at.to_string());
        let error = snapshot.backup(&path, BackupOptions::default().cancel(&token).progress(cancel));
        assert!(matches!(error, Err(BackupError::Cancelled)), "{error:?}");
        assert_eq!(Error::from(Index::open(&path).unwrap_err()).kind(), ErrorKind::NotFound);
    }
}

/// Catches a backup that looks for segments where they are not: those of an index with a storage of its own are copied from there, and
/// cannot be linked.
#[test]
fn backup_of_an_index_in_memory_is_copied() {
    let storage = std::sync::Arc::new(MemoryStorage::new());
    let (folder, index) = create_with(Index::options().storage(storage), &schema());
    let mut writer = index.writer().unwrap();
    append(&mut writer, "a", 1);
    writer.commit().unwrap();
    let path = folder.path().join("copy.gradix");
    let snapshot = index.snapshot().unwrap();
    snapshot.backup(&path, BackupOptions::default()).unwrap();
    let copy = Index::open(&path).unwrap();
    assert_sound(&copy);
    assert_content(&copy.snapshot().unwrap(), &Content::from([("a".to_owned(), 1)]));
    let error = snapshot.backup(folder.path().join("link"), BackupOptions::default().link(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
}
