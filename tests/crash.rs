//! A writer that is killed at any moment, and readers beside a writer: what was acknowledged is
//! there, and nobody ever sees half a commit.

mod fixtures;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::indexes::{self, assert_sound, segment_files};
use fixtures::random::Random;
use fixtures::sketches::{sketch, spec};
use gradix::{CompactOptions, Encoding, GcOptions, GetError, Index, Row, Schema, Snapshot};

const PATH: &str = "GRADIX_TEST_CHILD_PATH";
const ROLE: &str = "GRADIX_TEST_CHILD_ROLE";
/// Each commit appends this many examples.
const BATCH: u64 = 4;

fn create() -> (tempfile::TempDir, PathBuf) {
    let (folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    (folder, index.path().to_owned())
}

/// The n-th commit replaces the example `last`, appends a batch and says so in its payload. So a
/// snapshot shows at once whether it has all of a commit.
fn commit_batch(writer: &mut gradix::Writer, number: u64) -> u64 {
    for i in 0..BATCH {
        writer.append(format!("{number}-{i}"), &sketch(number * BATCH + i)).unwrap();
    }
    let last = sketch(number);
    if writer.contains("last").unwrap() {
        writer.replace("last", &[Row::new(&last)]).unwrap();
    } else {
        writer.append("last", &last).unwrap();
    }
    let commit = writer.prepare_commit().unwrap().payload(number.to_string()).commit().unwrap();
    commit.generation
}

/// How many batches are in the snapshot, after a check that it has all of each of them. `None` if a
/// collection by another process took the generation meanwhile.
fn batches(snapshot: &Snapshot, check_each: bool) -> Option<u64> {
    let last = match snapshot.get("last") {
        Err(GetError::Expired { .. }) => return None,
        other => other.unwrap(),
    };
    let rows = snapshot.rows();
    let Some(last) = last else {
        assert_eq!(rows, 0, "rows without the example `last`");
        return Some(0);
    };
    assert_eq!(rows % BATCH, 1, "{rows} rows are half a commit");
    let count = rows / BATCH;
    assert_eq!(last.rows[0].sketch, sketch(count), "`last` is of another commit than the rows");
    let numbers = if check_each { 1..=count } else { count.max(1)..=count };
    for number in numbers {
        for i in 0..BATCH {
            match snapshot.get(format!("{number}-{i}")) {
                Err(GetError::Expired { .. }) => return None,
                found => {
                    let found =
                        found.unwrap().unwrap_or_else(|| panic!("{number}-{i} is not in {count} batches"));
                    assert_eq!(found.rows[0].sketch, sketch(number * BATCH + i));
                }
            }
        }
    }
    Some(count)
}

fn start(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(mut child: Child) -> String {
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn acknowledge(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nACKNOWLEDGED {number}").unwrap();
    out.flush().unwrap();
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("ACKNOWLEDGED ")?.parse().ok()
}

/// Not a test by itself: what the other processes of this file do.
#[test]
fn child() {
    let (Ok(path), Ok(role)) = (std::env::var(PATH), std::env::var(ROLE)) else { return };
    match role.as_str() {
        "writer" => write_until_killed(Path::new(&path)),
        "reader" => read_until_killed(Path::new(&path)),
        other => panic!("no role {other}"),
    }
}

fn write_until_killed(path: &Path) {
    let index = Index::open(path).unwrap();
    let mut number = batches(&index.snapshot().unwrap(), false).unwrap();
    let grace = GcOptions::default().grace(Duration::ZERO);
    loop {
        // A new writer now and then: RocksDB then moves its log to tables, and merges these.
        let mut writer = index.writer().unwrap();
        for _ in 0..12 {
            number += 1;
            commit_batch(&mut writer, number);
            acknowledge(number);
            if number.is_multiple_of(5) {
                writer.compact(CompactOptions::all()).unwrap();
            }
            if number.is_multiple_of(7) {
                writer.gc(grace).unwrap();
            }
        }
    }
}

fn read_until_killed(path: &Path) {
    let index = Index::open(path).unwrap();
    let mut newest = 0;
    loop {
        let snapshot = index.snapshot().unwrap();
        if let Some(count) = batches(&snapshot, false) {
            assert!(count >= newest, "the index went back from {newest} to {count} batches");
            newest = count;
            acknowledge(count);
        }
    }
}

/// The files of the segments that the newest generation sees must be there; and after a writer was
/// open and has collected, no others.
fn assert_no_orphans(path: &Path, index: &Index) {
    let mut writer = index.writer().unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    drop(writer);
    let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    let files: BTreeSet<String> = segment_files(path).iter().map(name).collect();
    let listed = index.stats().unwrap().segments;
    let listed: BTreeSet<String> = listed.iter().map(|segment| format!("{}.seg", segment.segment)).collect();
    assert_eq!(files, listed);
}

/// Catches a commit that is acknowledged and lost, a commit that is half there, and files that nobody
/// owns, after a kill at any moment of append, commit, compaction, collection and opening.
#[test]
fn killed_writer_loses_nothing_that_was_acknowledged() {
    let (_folder, path) = create();
    let mut before = 0;
    let mut random = Random(1);
    for round in 0..25 {
        let mut child = start("writer", &path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).max().unwrap_or(0)
        });
        std::thread::sleep(Duration::from_millis(30 + random.next() % 350));
        let complaints = finish(child);
        assert!(!complaints.contains("panicked"), "round {round}: {complaints}");
        let acknowledged = reader.join().unwrap().max(before);

        let index = Index::open(&path).unwrap();
        let found = batches(&index.snapshot().unwrap(), true).unwrap();
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: {found} batches, where {acknowledged} were acknowledged"
        );
        assert_no_orphans(&path, &index);
        let report = index.verify().unwrap();
        assert!(report.is_sound(), "round {round}: {report:#?}");
        // The writer has settled what was interrupted behind its commit point.
        let settled = batches(&index.snapshot().unwrap(), true).unwrap();
        assert!(settled == found || (found == acknowledged && settled == found + 1));
        before = settled;
    }
    assert!(before > 50, "only {before} batches in all: nothing was tested");
}

/// Catches a reader in another process that sees half a commit, goes back in time, or fails, while
/// the writer commits, compacts, collects without any grace, closes and opens again.
#[test]
fn reader_process_never_sees_half_a_commit() {
    let (_folder, path) = create();
    let mut readers: Vec<Child> = (0..2).map(|_| start("reader", &path)).collect();
    let index = Index::open(&path).unwrap();
    let grace = GcOptions::default().grace(Duration::ZERO);
    let until = Instant::now() + Duration::from_secs(5);
    let mut number = 0;
    while Instant::now() < until {
        let mut writer = index.writer().unwrap();
        for _ in 0..10 {
            number += 1;
            commit_batch(&mut writer, number);
            writer.compact(CompactOptions::all()).unwrap();
            writer.gc(grace).unwrap();
        }
    }
    for reader in &mut readers {
        assert!(reader.try_wait().unwrap().is_none() || reader.stdout.is_some());
    }
    for mut reader in readers {
        let stdout = reader.stdout.take().unwrap();
        let lines = std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .filter(|line| acknowledged(line).is_some())
                .count()
        });
        let complaints = finish(reader);
        assert!(!complaints.contains("panicked"), "{complaints}");
        let seen = lines.join().unwrap();
        assert!(seen > 5, "only {seen} snapshots beside {number} commits");
    }
}

/// Catches a reader of the same process that sees half a commit, and a snapshot whose files are
/// collected under it.
#[test]
fn reader_thread_keeps_its_snapshot() {
    let (_folder, path) = create();
    let index = Index::open(&path).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut newest = 0;
            let mut seen = 0;
            while !is_done() {
                let snapshot = index.snapshot().unwrap();
                let count = batches(&snapshot, false).expect("a pinned generation is not collected");
                assert!(count >= newest, "the index went back from {newest} to {count} batches");
                newest = count;
                seen += 1;
                // The same again, after the writer has gone on.
                std::thread::sleep(Duration::from_millis(seen % 5));
                assert_eq!(batches(&snapshot, true), Some(count));
            }
            seen
        });
        let grace = GcOptions::default().grace(Duration::ZERO);
        let until = Instant::now() + Duration::from_secs(3);
        let mut number = 0;
        while Instant::now() < until && !reader.is_finished() {
            let mut writer = index.writer().unwrap();
            for _ in 0..10 {
                number += 1;
                commit_batch(&mut writer, number);
                writer.compact(CompactOptions::all()).unwrap();
                writer.gc(grace).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 5);
    });
    assert_no_orphans(&path, &index);
    assert_sound(&index);
}
