//! More segments than the process may open files: everything still works.
#![cfg(unix)]

mod fixtures;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fixtures::indexes::{self, assert_sound};
use fixtures::sketches::{sketch, spec};
use gradix::{AppendError, CompactOptions, Encoding, GcOptions, Index, Row, Schema};

const PATH: &str = "GRADIX_TEST_CHILD_PATH";
const SEGMENTS: u64 = 600;
const DESCRIPTORS: libc::rlim_t = 256;

/// Limits the open files of this process.
fn limit_descriptors() {
    let limit = libc::rlimit { rlim_cur: DESCRIPTORS, rlim_max: DESCRIPTORS };
    // SAFETY: `limit` is a valid rlimit for the time of the call, which only reads it.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn id(i: u64) -> String {
    format!("{i:06}")
}

/// Not a test by itself: what the other process does, which says how far it came.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else { return };
    limit_descriptors();
    let path = Path::new(&path);
    let step = |what: &str| eprintln!("{what} ...");

    step("open");
    let index = Index::open(path).unwrap();
    step("snapshot");
    let snapshot = index.snapshot().unwrap();
    assert_eq!((snapshot.generation(), snapshot.rows()), (SEGMENTS, 2 * SEGMENTS));
    step("get");
    for i in 0..2 * SEGMENTS {
        let example = snapshot.get(id(i)).unwrap().unwrap();
        assert_eq!(example.rows[0].sketch, sketch(i));
    }
    assert_eq!(snapshot.get("nobody").unwrap(), None);
    step("scan");
    let rank = |snapshot: &gradix::Snapshot| {
        let ranking = snapshot.scan(&[sketch(7)]).unwrap().top_k(20).run().unwrap();
        ranking.proponents(0).iter().map(|hit| (hit.id.clone(), hit.score)).collect::<Vec<_>>()
    };
    let ranked = rank(&snapshot);
    let score = |i| -> f64 {
        sketch(i).values().iter().zip(sketch(7).values()).map(|(a, b)| a * b).sum::<f32>().into()
    };
    // Few numbers in eighths, so that the sums are exact.
    assert_eq!(ranked[0].1, (0..2 * SEGMENTS).map(score).fold(f64::MIN, f64::max));
    step("iterate");
    assert_eq!(snapshot.iter().filter(Result::is_ok).count() as u64, 2 * SEGMENTS);

    step("writer");
    let mut writer = index.writer().unwrap();
    step("append");
    let again = writer.append(id(3), &sketch(3));
    assert!(matches!(again, Err(AppendError::DuplicateId { .. })), "{again:?}");
    writer.append("new", &sketch(1)).unwrap();
    writer.replace(id(8), &[Row::new(&sketch(9))]).unwrap();
    for segment in 0..SEGMENTS {
        // One row of each segment, so that each has a bitmap of dead rows.
        assert!(writer.delete(id(2 * segment + 1)).unwrap());
    }
    step("commit");
    writer.commit().unwrap();
    step("snapshot beside the one before");
    let after = index.snapshot().unwrap();
    assert_eq!((after.rows(), snapshot.rows()), (SEGMENTS + 1, 2 * SEGMENTS));
    assert_eq!(rank(&snapshot), ranked, "the earlier generation has changed");
    step("verify");
    assert_sound(&index);
    step("compact");
    let done = writer.compact(CompactOptions::all()).unwrap();
    assert_eq!((done.segments_removed, done.rows_copied), (SEGMENTS + 1, SEGMENTS + 1));
    step("gc");
    drop((snapshot, after));
    let collected = writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    assert_eq!(collected.segments, SEGMENTS + 1);
    step("read what is left");
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.rows(), SEGMENTS + 1);
    assert_eq!(snapshot.get(id(8)).unwrap().unwrap().rows[0].sketch, sketch(9));
    assert_sound(&index);
}

/// Catches a process that must have a file open for each segment, whatever it does with them.
#[test]
fn more_segments_than_descriptors_are_no_obstacle() {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let mut writer = index.writer().unwrap();
    for segment in 0..SEGMENTS {
        for i in [2 * segment, 2 * segment + 1] {
            writer.append(id(i), &sketch(i)).unwrap();
        }
        writer.commit().unwrap();
    }
    drop(writer);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(PATH, index.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} after\n{told}", output.status);
    assert!(told.contains("read what is left"), "{told}");
}
