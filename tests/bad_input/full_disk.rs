//! A disk that is full, in a storage that says so at any step and on a real small file system.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gradix::sketch::SketchSpec;
use gradix::{
    AppendError, CommitError, CompactOptions, Encoding, GcOptions, Index, MaintenanceError, Schema,
};

use super::schema;
use crate::fixtures::indexes::{assert_sound, segment_files};
use crate::fixtures::sketches::{constant, sketch};
use crate::fixtures::storages::FaultyStorage;
use crate::fixtures::told;

fn faulty(folder: &Path) -> (FaultyStorage, Index, PathBuf) {
    let path = folder.join("x.gradix");
    let storage = FaultyStorage::new(&path.join("segments"));
    let index = Index::options().storage(Arc::new(storage.clone())).create(&path, &schema()).unwrap();
    let mut writer = index.writer().unwrap();
    writer.append("kept", &sketch(1)).unwrap();
    writer.commit().unwrap();
    (storage, index, path)
}

fn assert_only_kept(path: &Path) {
    let index = Index::open(path).unwrap();
    let writer = index.writer().unwrap();
    assert_eq!(segment_files(path).len(), 1, "an orphan is left");
    drop(writer);
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.rows(), 1);
    assert_eq!(snapshot.get("kept").unwrap().unwrap().rows[0].sketch, sketch(1));
    assert_sound(&index);
}

/// Catches a failed create, write or sync that is tried again, forgotten, or half committed.
#[test]
fn full_disk_at_any_step_poisons_the_writer_and_loses_nothing() {
    let mut failures = 0;
    for step in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (storage, index, path) = faulty(folder.path());
        let mut writer = index.writer().unwrap();
        storage.fail_after(step);
        let appended = writer.append("lost", &sketch(2));
        if appended.is_ok() && writer.commit().is_ok() {
            assert!(!storage.has_failed(), "step {step}: a commit that failed was acknowledged");
            break;
        }
        failures += 1;
        // Everything says so from now on, although the disk has room again.
        storage.fail_after(i64::MAX);
        assert!(matches!(writer.append("other", &sketch(3)), Err(AppendError::Poisoned)));
        assert!(matches!(writer.append_batch::<&str>(&[]), Err(AppendError::Poisoned)));
        assert!(matches!(writer.delete("kept"), Err(AppendError::Poisoned)));
        assert!(matches!(writer.commit(), Err(CommitError::Poisoned)));
        assert!(matches!(writer.abort(), Err(CommitError::Poisoned)));
        assert!(matches!(writer.compact(CompactOptions::all()), Err(MaintenanceError::Poisoned)));
        assert!(matches!(writer.gc(GcOptions::default()), Err(MaintenanceError::Poisoned)));
        // Readers go on.
        assert_eq!(index.snapshot().unwrap().rows(), 1);
        drop(writer);
        assert_eq!(index.snapshot().unwrap().rows(), 1);
        assert_only_kept(&path);
    }
    assert!(failures > 8, "only {failures} steps could fail");
}

/// Catches an error of a full disk that does not say which file and what was tried.
#[test]
fn full_disk_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, index, path) = faulty(folder.path());
    let mut writer = index.writer().unwrap();
    storage.fail_after(0);
    let error = writer.append("lost", &sketch(2)).unwrap_err();
    let message = told(&error);
    assert!(message.contains(&path.join("segments").display().to_string()), "{message}");
    assert!(message.contains("create"), "{message}");
    let full = io::Error::from(io::ErrorKind::StorageFull).to_string();
    assert!(message.ends_with(&full), "{message}");
}

/// Catches an abort, a compaction or a collection that harms something when it fails half-way.
#[test]
fn full_disk_during_maintenance_loses_nothing() {
    for step in 0..30 {
        let folder = tempfile::tempdir().unwrap();
        let (storage, index, path) = faulty(folder.path());
        let mut writer = index.writer().unwrap();
        writer.append("dead", &sketch(2)).unwrap();
        writer.commit().unwrap();
        writer.delete("dead").unwrap();
        writer.commit().unwrap();
        writer.append("lost", &sketch(3)).unwrap();
        storage.fail_after(step);
        let grace = std::time::Duration::ZERO;
        let done = writer.abort().is_ok()
            && writer.compact(CompactOptions::all()).is_ok()
            && writer.gc(GcOptions::default().grace(grace)).is_ok();
        assert_eq!(done, !storage.has_failed(), "step {step}");
        // What failed is not tried again.
        assert_eq!(matches!(writer.commit(), Err(CommitError::Poisoned)), !done, "step {step}");
        assert_eq!(index.snapshot().unwrap().rows(), 1);
        drop(writer);
        storage.fail_after(i64::MAX);
        // Whatever was left undone is done by the next writer.
        let mut writer = index.writer().unwrap();
        writer.compact(CompactOptions::all()).unwrap();
        writer.gc(GcOptions::default().grace(grace)).unwrap();
        drop(writer);
        assert_only_kept(&path);
        if done {
            return;
        }
    }
    panic!("maintenance needs more than 30 changes of the storage");
}

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(folder)),
            _ => None,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Catches what a full disk does to RocksDB and the segments together: a commit that is acknowledged
/// and gone, or an index that cannot be opened once there is room again.
#[test]
fn full_disk_for_real_keeps_every_acknowledged_commit() {
    let Some(disk) = SmallDisk::mount(24) else {
        println!("SKIPPED: mounting a small file system is not permitted here");
        return;
    };
    let path = disk.0.path().join("x.gradix");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let spec = SketchSpec::dense("wide", "v1", [("all", 65_536)]);
    let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
    let index = Index::options().create(&path, &schema).unwrap();
    let wide = |i: u32| constant(&spec, i as f32);
    let mut writer = index.writer().unwrap();
    let mut committed = 0;
    let message = loop {
        // What fails may be the segment or the manifest.
        let error = match writer.append(committed.to_string(), &wide(committed)) {
            Err(error) => told(&error),
            Ok(()) => {
                match writer.prepare_commit().and_then(|commit| commit.payload(vec![0; 99_999]).commit()) {
                    Err(error) => told(&error),
                    Ok(_) => {
                        committed += 1;
                        assert!(committed < 200, "the disk never fills up");
                        continue;
                    }
                }
            }
        };
        break error;
    };
    assert!(message.contains("No space") || message.contains("no space"), "{message}");
    assert!(matches!(writer.commit(), Err(CommitError::Poisoned)));
    // The one that failed is there whole or not at all.
    let all = u64::from(committed)..=u64::from(committed) + 1;
    assert!(all.contains(&index.snapshot().unwrap().rows()));
    drop(writer);
    drop(index);

    std::fs::remove_file(ballast).unwrap();
    let index = Index::open(&path).unwrap();
    let mut writer = index.writer().unwrap();
    let snapshot = index.snapshot().unwrap();
    // The last one may be there, whole, although it was not acknowledged.
    let found = snapshot.rows();
    assert!((u64::from(committed)..=u64::from(committed) + 1).contains(&found), "{found} of {committed}");
    for i in 0..committed {
        assert_eq!(snapshot.get(i.to_string()).unwrap().unwrap().rows[0].sketch, wide(i));
    }
    assert_eq!(segment_files(&path).len() as u64, found);
    writer.append("after", &wide(7)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_sound(&index);
}
