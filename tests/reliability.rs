//! Scenes in which an index once broke: what a crash, another process, a hostile folder or a fork does to it.
//! The torture tests (`tests/torture`) look for scenes that nobody has thought of.
#![cfg(unix)]

mod fixtures;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fixtures::indexes::{self, assert_sound, copy_folder, segment_files};
use fixtures::sketches::{constant, sketch, spec};
use fixtures::told;
use gradix::scan::{Reading, ScanError};
use gradix::segment::storage::{FileStorage, Storage, StorageBytes, StorageFile};
use gradix::sketch::SketchSpec;
use gradix::{
    AppendError, CommitError, CompactOptions, Encoding, ErrorKind, GcOptions, GetError, Index,
    MaintenanceError, ManifestError, OpenError, Row, Schema, SnapshotError, WriterError,
};

fn schema() -> Schema {
    Schema::new(spec(), Encoding::F32).unwrap()
}

fn create() -> (tempfile::TempDir, Index) {
    indexes::create(&schema())
}

/// Appends these ids and commits.
fn commit(index: &Index, ids: &[&str]) {
    let mut writer = index.writer().unwrap();
    for id in ids {
        writer.append(id, &sketch(1)).unwrap();
    }
    writer.commit().unwrap();
}

fn ids(index: &Index) -> Vec<String> {
    let snapshot = index.snapshot().unwrap();
    snapshot.ids().map(|id| String::from_utf8(id.unwrap()).unwrap()).collect()
}

fn files_of(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

/// A copy of an index whose last commit was interrupted between its commit point and its acknowledgement; and
/// the index.
fn interrupted() -> (tempfile::TempDir, Index, PathBuf) {
    let (folder, index) = create();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    writer.commit().unwrap();
    let committed = fs::read(index.path().join("COMMITTED")).unwrap();
    for i in 0..300 {
        writer.append(format!("b{i:0>60}"), &sketch(i)).unwrap();
    }
    writer.commit().unwrap();
    let copy = folder.path().join("interrupted.gradix");
    copy_folder(index.path(), &copy);
    fs::write(copy.join("COMMITTED"), committed).unwrap();
    drop(writer);
    (folder, index, copy)
}

/// Catches an index that can never be opened again because a power cut wrote the pages of the last, unsynced
/// batch of the log out of order.
#[test]
fn torn_page_of_an_unacknowledged_commit_is_no_damage() {
    let (_folder, _index, copy) = interrupted();
    let log =
        files_of(&copy.join("manifest"), ".log").into_iter().max_by_key(|log| log.metadata().unwrap().len());
    let log = log.unwrap();
    let bytes = fs::read(&log).unwrap();
    assert!(bytes.len() > 5 * 4096, "the batch has no page of its own");
    let mut torn = bytes.clone();
    torn[2 * 4096..3 * 4096].fill(0);
    fs::write(&log, torn).unwrap();
    let index = Index::open(&copy).unwrap();
    assert_eq!(ids(&index), ["a"]);
    commit(&index, &["c"]);
    assert_eq!(ids(&index), ["a", "c"]);
    assert_sound(&index);
}

/// Catches a reader that shows a commit that the next power cut may take back.
#[test]
fn commit_that_was_not_acknowledged_is_shown_to_nobody_before_a_writer_has_settled_it() {
    let (_folder, _index, copy) = interrupted();
    let reader = Index::open(&copy).unwrap();
    assert_eq!((ids(&reader), reader.snapshot().unwrap().generation()), (vec!["a".to_owned()], 1));
    let missing = reader.snapshot_at(2);
    assert!(matches!(missing, Err(SnapshotError::NoSuchGeneration { newest: 1, .. })), "{missing:?}");
    assert_sound(&reader);
    // Another handle, as of another process.
    let other = Index::open(&copy).unwrap();
    drop(other.writer().unwrap());
    assert_eq!(reader.snapshot().unwrap().generation(), 2);
    assert_eq!(ids(&reader).len(), 301);
    let committed = fs::read(copy.join("COMMITTED")).unwrap();
    assert_eq!(committed[8..16], 2u64.to_le_bytes());
}

/// Catches a reader that took its view just before a commit was acknowledged, and stays there.
#[test]
fn acknowledgement_is_seen_although_the_manifest_stays_the_same() {
    let (_folder, index, copy) = interrupted();
    let reader = Index::open(&copy).unwrap();
    assert_eq!(reader.snapshot().unwrap().generation(), 1);
    fs::copy(index.path().join("COMMITTED"), copy.join("COMMITTED")).unwrap();
    assert_eq!(reader.snapshot().unwrap().generation(), 2);
}

/// Catches a writer that takes the segments of commits which the manifest has lost for orphans, and removes them.
#[test]
fn writer_refuses_a_manifest_that_has_lost_commits() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let older = folder.path().join("older");
    copy_folder(&index.path().join("manifest"), &older);
    commit(&index, &["b"]);
    // The handle is open already: only the writer can notice.
    let handle = Index::open(index.path()).unwrap();
    fs::remove_dir_all(index.path().join("manifest")).unwrap();
    fs::rename(older, index.path().join("manifest")).unwrap();
    let error = handle.writer().unwrap_err();
    assert!(matches!(error, WriterError::Manifest(ManifestError::Damaged { .. })), "{error:?}");
    assert_eq!(segment_files(index.path()).len(), 2);
}

/// Catches a writer that goes on without a table of the manifest, and a reader that does.
#[test]
fn missing_table_of_the_manifest_is_noticed_at_once() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let handle = Index::open(index.path()).unwrap();
    let tables = files_of(&index.path().join("manifest"), ".sst");
    assert!(tables.len() > 3, "{tables:?}");
    for table in tables {
        let kept = folder.path().join("kept");
        fs::rename(&table, &kept).unwrap();
        assert!(handle.writer().is_err(), "{} is missing, and nobody says so", table.display());
        assert!(Index::open(index.path()).is_err());
        fs::rename(&kept, &table).unwrap();
    }
    drop(handle.writer().unwrap());
    assert_eq!(ids(&index), ["a"]);
}

/// Catches a log that is read on behind a damaged commit: the next one would then stand without it.
#[test]
fn commit_behind_a_damaged_one_is_not_shown_without_it() {
    let (folder, index) = create();
    let mut writer = index.writer().unwrap();
    // Several blocks of the log, so that the second commit begins in another one than the first.
    for i in 0..1500 {
        writer.append(format!("a{i:0>60}"), &sketch(i)).unwrap();
    }
    writer.commit().unwrap();
    writer.append("b", &sketch(1)).unwrap();
    writer.commit().unwrap();
    let killed = folder.path().join("killed.gradix");
    copy_folder(index.path(), &killed);
    let logs = files_of(&killed.join("manifest"), ".log");
    let log = logs.into_iter().max_by_key(|log| log.metadata().unwrap().len()).unwrap();
    let sound = fs::read(&log).unwrap();
    assert!(sound.len() > 4 * 32_768, "{} bytes", sound.len());
    for at in [5000, 40_000, 70_000] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(&log, damaged).unwrap();
        assert!(Index::open(&killed).is_err(), "byte {at}: the second commit is shown without the first");
    }
    fs::write(&log, sound).unwrap();
    assert_eq!(ids(&Index::open(&killed).unwrap()).len(), 1501);
}

/// Catches an example that is missing in a snapshot because another process has collected its generation.
#[test]
fn example_of_a_collected_generation_is_an_error() {
    let (_folder, index) = create();
    // Another handle does not see the pins of this one, like another process.
    let other = Index::open(index.path()).unwrap();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    drop(writer);
    let mut writer = other.writer().unwrap();
    writer.delete("a").unwrap();
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    drop(writer);
    assert_eq!(index.snapshot().unwrap().rows(), 0);
    let error = snapshot.get("a").unwrap_err();
    assert!(matches!(error, GetError::Expired { generation: 1, oldest: 2, .. }), "{error:?}");
}

/// Catches what a writer leaves behind when it closes: a log that every reader replays, in which a damaged last
/// record looks like a torn one; and what a killed one has left.
#[test]
fn closed_writer_leaves_no_log_and_no_temporary_files() {
    let (_folder, index) = create();
    let left = index.path().join("manifest/OPTIONS-000099.dbtmp");
    fs::write(&left, b"").unwrap();
    commit(&index, &["a"]);
    assert!(!left.exists());
    let logs = files_of(&index.path().join("manifest"), ".log");
    assert!(logs.iter().all(|log| log.metadata().unwrap().len() == 0), "{logs:?}");
}

/// Catches a `COMMITTED` that is not there, or does not fit the manifest, and is believed.
#[test]
fn committed_that_does_not_fit_is_refused() {
    let (_folder, index) = create();
    let path = index.path();
    let zero = fs::read(path.join("COMMITTED")).unwrap();
    assert_eq!(zero[8..16], [0; 8], "a new index has one");
    commit(&index, &["a"]);
    commit(&index, &["b"]);
    let sound = fs::read(path.join("COMMITTED")).unwrap();
    let refused = || {
        for error in [
            Index::open(path).err().map(|error| told(&error)),
            index.writer().err().map(|error| told(&error)),
        ] {
            assert!(error.expect("it was believed").contains("COMMITTED"));
        }
    };
    fs::remove_file(path.join("COMMITTED")).unwrap();
    refused();
    // Two generations behind: no crash leaves that.
    fs::write(path.join("COMMITTED"), zero).unwrap();
    refused();
    for bytes in [&sound[..19], &[&sound[..], &[0]].concat()] {
        fs::write(path.join("COMMITTED"), bytes).unwrap();
        refused();
    }
    fs::write(path.join("COMMITTED"), sound).unwrap();
    assert_eq!(ids(&index), ["a", "b"]);
}

/// Catches bytes behind the last record of RocksDB's MANIFEST, or one flipped bit in its log, at which opening
/// never returns.
#[test]
fn record_types_that_hang_rocksdb_are_refused() {
    let (_folder, _index, copy) = interrupted();
    let folder = copy.join("manifest");
    let manifest =
        files_of(&folder, "").into_iter().find(|path| path.to_string_lossy().contains("MANIFEST-"));
    let log = files_of(&folder, ".log").into_iter().max_by_key(|log| log.metadata().unwrap().len());
    for file in [manifest.unwrap(), log.unwrap()] {
        let sound = fs::read(&file).unwrap();
        for kind in [5, 6, 7, 8, 11, 131] {
            fs::write(&file, [&sound[..], &[9, 9, 9, 9, 0, 0, kind, 9]].concat()).unwrap();
            let error = Index::open(&copy).unwrap_err();
            let OpenError::Manifest(ManifestError::DamagedFile { path, offset, .. }) = error else {
                panic!("{error:?}")
            };
            assert_eq!((path, offset), (file.clone(), sound.len() as u64));
        }
        fs::write(&file, sound).unwrap();
    }
    assert_eq!(ids(&Index::open(&copy).unwrap()), ["a"]);
}

/// Catches a handle that goes on with the index that has taken its folder's place: a snapshot of 0 rows, or a
/// commit of foreign segments.
#[test]
fn handle_of_a_replaced_folder_says_so() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let path = index.path().to_owned();
    drop(Index::create(folder.path().join("new"), &schema()).unwrap());
    let mut writer = index.writer().unwrap();
    writer.append("b", &sketch(2)).unwrap();
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(error, CommitError::Manifest(ManifestError::Replaced { .. })), "{error:?}");
    assert!(matches!(writer.append("c", &sketch(3)), Err(AppendError::Poisoned)));
    drop(writer);
    let error = index.snapshot().unwrap_err();
    assert!(matches!(error, SnapshotError::Manifest(ManifestError::Foreign { .. })), "{error:?}");
    // Neither index was harmed.
    assert!(Index::open(&path).unwrap().writer().is_err(), "RocksDB has both open");
    fs::rename(&path, folder.path().join("new")).unwrap();
    let other = Index::open(folder.path().join("new")).unwrap();
    commit(&other, &["new"]);
    assert_eq!(ids(&other), ["new"]);
    assert_sound(&other);
    let moved = Index::open(folder.path().join("elsewhere")).unwrap();
    drop(moved.writer().unwrap());
    assert_eq!(ids(&moved), ["a"]);
    assert_eq!(segment_files(moved.path()).len(), 1);
    assert_sound(&moved);
}

/// Catches a writer that is opened, by a handle of before, in the index that has taken the folder's place.
#[test]
fn writer_of_a_replaced_folder_is_refused() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let other = Index::create(folder.path().join("new"), &schema()).unwrap();
    commit(&other, &["new"]);
    fs::rename(index.path(), folder.path().join("elsewhere")).unwrap();
    fs::rename(other.path(), index.path()).unwrap();
    let error = index.writer().unwrap_err();
    assert!(matches!(error, WriterError::Manifest(ManifestError::Foreign { .. })), "{error:?}");
    let now = Index::open(index.path()).unwrap();
    assert_eq!(ids(&now), ["new"]);
    assert_sound(&now);
}

/// Catches a relative path that means another folder once the working directory has changed.
#[test]
fn relative_path_survives_a_change_of_the_working_directory() {
    const HERE: &str = "GRADIX_TEST_WORKING_DIRECTORY";
    let Ok(folder) = std::env::var(HERE) else {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["relative_path_survives_a_change_of_the_working_directory", "--exact"])
            .env(HERE, folder.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    };
    std::env::set_current_dir(&folder).unwrap();
    fs::create_dir("other").unwrap();
    let index = Index::create("x.gradix", &schema()).unwrap();
    std::env::set_current_dir("other").unwrap();
    commit(&index, &["a"]);
    assert_eq!(ids(&index), ["a"]);
    assert!(index.path().is_absolute());
}

/// Catches a link in the folder through which a file of the user's is overwritten, removed or read.
#[test]
fn links_in_the_folder_lead_nowhere() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let path = index.path().to_owned();
    let victim = folder.path().join("victim");
    fs::write(&victim, b"mine").unwrap();
    symlink(&victim, path.join("COMMITTED.unfinished")).unwrap();
    commit(&index, &["b"]);
    assert_eq!(ids(&Index::open(&path).unwrap()), ["a", "b"]);
    // In place of each file and folder, a link to a sound copy of it.
    for name in ["INDEX", "COMMITTED", "LOCK", "manifest", "segments", "manifest/CURRENT"] {
        let (own, copy) = (path.join(name), folder.path().join("copy"));
        fs::rename(&own, &copy).unwrap();
        symlink(&copy, &own).unwrap();
        let opened = Index::open(&path).map_err(gradix::Error::from);
        let written = opened.and_then(|index| Ok(index.writer().map(drop)?));
        let error = told(&written.expect_err(name));
        assert!(
            error.contains(name.rsplit('/').next().unwrap()) || error.contains("INDEX"),
            "{name}: {error}"
        );
        fs::remove_file(&own).unwrap();
        fs::rename(&copy, &own).unwrap();
    }
    // RocksDB would truncate what a link with the name of its next file points to.
    for number in 0..200 {
        let link = path.join(format!("manifest/{number:06}.log"));
        if !link.exists() {
            symlink(&victim, link).unwrap();
        }
    }
    assert!(index.writer().is_err() && Index::open(&path).is_err());
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
}

/// Catches a pipe that is waited for, and a file of gigabytes that is read into memory.
#[test]
fn pipes_and_giants_in_the_folder_are_refused() {
    let (folder, index) = create();
    commit(&index, &["a"]);
    let path = index.path().to_owned();
    let manifest = files_of(&path.join("manifest"), "")
        .into_iter()
        .find(|file| file.to_string_lossy().contains("MANIFEST-"));
    let segment = segment_files(&path).remove(0);
    let files =
        ["INDEX", "COMMITTED", "LOCK", "manifest/CURRENT", "manifest/IDENTITY"].map(|name| path.join(name));
    for own in files.into_iter().chain([manifest.unwrap(), segment]) {
        let kept = folder.path().join("kept");
        fs::rename(&own, &kept).unwrap();
        assert!(Command::new("mkfifo").arg(&own).status().unwrap().success());
        let opened = Index::open(&path).map_err(gradix::Error::from);
        let used = opened.and_then(|index| {
            index.snapshot()?;
            Ok(index.writer().map(drop)?)
        });
        let error = told(&used.expect_err(&own.display().to_string()));
        assert!(error.contains("regular"), "{error}");
        fs::remove_file(&own).unwrap();
        // An empty LOCK is as good as any other.
        if !own.ends_with("LOCK") {
            fs::File::create(&own).unwrap().set_len(6 << 30).unwrap();
            let opened = Index::open(&path).map_err(gradix::Error::from);
            assert!(opened.and_then(|index| Ok(index.snapshot()?)).is_err(), "{}", own.display());
            fs::remove_file(&own).unwrap();
        }
        fs::rename(&kept, &own).unwrap();
    }
    assert_eq!(ids(&Index::open(&path).unwrap()), ["a"]);
}

/// Catches what reads through a map although it need not: there a file that somebody cuts off (like a sector
/// that the disk cannot read) ends the process.
#[test]
fn file_cut_off_while_the_index_is_open_is_an_error() {
    let (_folder, index) = create();
    let mut writer = index.writer().unwrap();
    for i in 0..3000 {
        writer.append(format!("{i}"), &sketch(i)).unwrap();
    }
    writer.commit().unwrap();
    let options = || Index::options().map_files(false).open(index.path()).unwrap();
    let (snapshot, unmapped) = (index.snapshot().unwrap(), options().snapshot().unwrap());
    let file = fs::OpenOptions::new().write(true).open(&segment_files(index.path())[0]).unwrap();
    file.set_len(4096).unwrap();
    for snapshot in [&snapshot, &unmapped] {
        let error = told(&snapshot.get("2999").unwrap_err());
        assert!(error.contains(".seg") && error.contains("offset"), "{error}");
        assert!(snapshot.iter().any(|row| row.is_err()), "an iterator gave rows that are not there");
    }
    assert!(!index.verify().unwrap().is_sound());
    assert!(matches!(writer.compact(CompactOptions::all()), Err(MaintenanceError::Segment(_))));
    let query = [sketch(1)];
    let scan = unmapped.scan(&query).unwrap().top_k(1).run();
    assert!(matches!(scan, Err(ScanError::Segment { .. })), "{scan:?}");
    let scan = unmapped.scan(&query).unwrap().top_k(1).reading(Reading::Mapped).run();
    assert!(matches!(scan, Err(ScanError::ImpossibleReading { .. })), "{scan:?}");
}

/// Catches an iterator that reads codes through the map: the file is cut off while it is at work.
#[test]
fn file_cut_off_during_an_iteration_is_an_error() {
    let spec = SketchSpec::dense("wide", "v1", [("all", 65_536)]);
    let (_folder, index) = indexes::create(&Schema::new(spec.clone(), Encoding::F32).unwrap());
    let mut writer = index.writer().unwrap();
    for i in 0..60u16 {
        writer.append(i.to_le_bytes(), &constant(&spec, f32::from(i))).unwrap();
    }
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let mut rows = snapshot.iter().with_sketches();
    assert!(rows.next().unwrap().is_ok());
    let file = fs::OpenOptions::new().write(true).open(&segment_files(index.path())[0]).unwrap();
    file.set_len(1 << 20).unwrap();
    assert!(rows.any(|row| row.is_err()));
}

/// Catches a forked process that removes its parent's segments, closes its database or releases its lock, when
/// it drops or uses what it has inherited; and one that hangs when it begins to write itself.
#[test]
fn forked_process_cannot_harm_its_parents_writer() {
    let (_folder, index) = create();
    let (other, idle) = create();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    // SAFETY: the child makes no thread and takes no lock that another thread of this process could have held
    // but the allocator's, which the C library keeps usable; it ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = matches!(writer.append("b", &sketch(2)), Err(AppendError::Forked))
            && matches!(writer.commit(), Err(CommitError::Forked))
            && matches!(writer.abort(), Err(CommitError::Forked))
            && matches!(writer.gc(GcOptions::default()), Err(MaintenanceError::Forked))
            && matches!(writer.compact(CompactOptions::all()), Err(MaintenanceError::Forked))
            // The database's threads are not there: creating or opening one would wait for them for ever.
            && Index::create(other.path().join("i"), index.schema())
                .is_err_and(|error| error.kind() == ErrorKind::InvalidState)
            && idle.writer().is_err_and(|error| error.kind() == ErrorKind::InvalidState);
        drop(writer);
        drop(index);
        // SAFETY: ends this process only.
        unsafe { libc::_exit(if forked { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and is waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child used its parent's writer");
    assert!(matches!(Index::open(index.path()).unwrap().writer(), Err(WriterError::Busy { .. })));
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(ids(&index), ["a"]);
    assert_sound(&index);
}

/// Files whose removal waits until it is told to go on.
#[derive(Debug)]
struct Slow {
    files: FileStorage,
    began: Mutex<mpsc::Sender<()>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Storage for Slow {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        self.files.create(name)
    }

    fn open(&self, name: &str) -> std::io::Result<Arc<dyn StorageBytes>> {
        self.files.open(name)
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        if name.ends_with(".seg") {
            self.began.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
        }
        self.files.remove(name)
    }

    fn list(&self) -> std::io::Result<Vec<String>> {
        self.files.list()
    }

    fn sync(&self) -> std::io::Result<()> {
        self.files.sync()
    }

    fn describe(&self, name: &str) -> String {
        self.files.describe(name)
    }
}

/// Catches a collection that snapshots wait for.
#[test]
fn snapshot_is_taken_while_a_collection_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    let ((began, begins), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let files = FileStorage::new(path.join("segments"));
    let storage = Slow { files, began: Mutex::new(began), go_on: Mutex::new(goes_on) };
    let index = Index::options().storage(Arc::new(storage)).create(&path, &schema()).unwrap();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(1)).unwrap();
    writer.commit().unwrap();
    writer.replace("a", &[Row::new(&sketch(2))]).unwrap();
    writer.commit().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap());
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
        // The collection is in the middle of it.
        let snapshot = index.snapshot().unwrap();
        assert_eq!(snapshot.get("a").unwrap().unwrap().rows[0].sketch, sketch(2));
        assert!(!collecting.is_finished());
        (0..2).for_each(|_| go_on.send(()).unwrap());
        assert_eq!(collecting.join().unwrap().segments, 2);
    });
}

/// Catches payloads and superseded versions that stay in the manifest for good.
#[test]
fn collection_leaves_nothing_of_old_generations() {
    let (_folder, index) = create();
    let mut writer = index.writer().unwrap();
    writer.append("a", &sketch(0)).unwrap();
    writer.append("b", &sketch(0)).unwrap();
    (1..20).for_each(|i| writer.append(format!("c{i}"), &sketch(i)).unwrap());
    for i in 1..20 {
        writer.replace("a", &[Row::new(&sketch(i))]).unwrap();
        writer.delete(format!("c{i}")).unwrap();
        writer.prepare_commit().unwrap().payload(vec![i as u8; 1000]).commit().unwrap();
    }
    writer.delete("b").unwrap();
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO).keep_generations(2)).unwrap();
    assert_eq!(index.snapshot_at(19).unwrap().payload().unwrap(), vec![19; 1000]);
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    drop(writer);
    let families =
        ["meta", "segments", "examples", "deletes", "commits", "intents", "superseded", "artifacts"];
    let options = rocksdb::Options::default();
    let folder = index.path().join("manifest");
    let database = rocksdb::DB::open_cf_for_read_only(&options, folder, families, false).unwrap();
    let count = |family| {
        let records = database.iterator_cf(database.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start);
        records.map(Result::unwrap).count()
    };
    assert_eq!([count("examples"), count("commits"), count("superseded")], [1, 1, 0]);
    assert!(count("deletes") <= count("segments"), "bitmaps of {} generations", count("deletes"));
    assert_sound(&index);
}

/// Catches a commit whose memory nothing bounds.
#[test]
fn commit_has_a_limit_of_examples() {
    let (_folder, index) = indexes::create_with(Index::options().commit_examples(3), &schema());
    let mut writer = index.writer().unwrap();
    let sketches: Vec<_> = (0..4).map(sketch).collect();
    let batch = |ids: &[&'static str]| -> Vec<_> {
        ids.iter().zip(&sketches).map(|(id, sketch)| (*id, Row::new(sketch))).collect()
    };
    let full = |done: Result<(), AppendError>| matches!(done, Err(AppendError::CommitFull { limit: 3 }));
    assert!(full(writer.append_batch(&batch(&["a", "b", "c", "d"]))));
    writer.append_batch(&batch(&["a", "b", "c"])).unwrap();
    assert!(full(writer.append("d", &sketch(4))));
    assert!(full(writer.delete("a").map(drop)) && full(writer.replace("a", &[Row::new(&sketch(5))])));
    writer.commit().unwrap();
    writer.append("d", &sketch(4)).unwrap();
    writer.commit().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    assert_eq!(ids(&index), ["a", "b", "c", "d"]);
    assert_sound(&index);
}

/// Catches a log of a large commit that every reader of another process replays at each open.
#[test]
fn large_commit_leaves_a_short_log() {
    let (_folder, index) = create();
    let mut writer = index.writer().unwrap();
    let sketch = sketch(1);
    for i in 0..60_000 {
        writer.append(format!("example {i:0>40}"), &sketch).unwrap();
    }
    writer.commit().unwrap();
    let logs = files_of(&index.path().join("manifest"), ".log");
    let bytes: u64 = logs.iter().map(|log| log.metadata().unwrap().len()).sum();
    assert!(bytes < 1 << 20, "a log of {bytes} bytes");
    assert_eq!(Index::open(index.path()).unwrap().snapshot().unwrap().rows(), 60_000);
}

/// Catches a number of threads that overflows on the way to the error about it.
#[test]
fn absurd_numbers_of_threads_are_refused() {
    let (_folder, index) = create();
    commit(&index, &["a"]);
    let snapshot = index.snapshot().unwrap();
    let query = [sketch(1)];
    for threads in [1 << 61, usize::MAX] {
        let scan = || snapshot.scan(&query).unwrap().top_k(1).threads(threads);
        assert!(matches!(scan().run(), Err(ScanError::Threads { .. })));
        assert!(matches!(scan().explain(), Err(ScanError::Threads { .. })));
    }
}
