//! Readers in threads and in other processes beside a writer that commits, compacts, collects, closes and opens
//! again: each sees one generation, whole, and never an older one than before.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gradix::{CompactOptions, Encoding, GcOptions, GetError, Index, Row, Schema, Snapshot, Writer};

use crate::check::assert_no_orphans;
use crate::fixtures::indexes::{self, assert_sound};
use crate::fixtures::sketches::{sketch, spec};
use crate::kills::MANIFEST_FILES;
use crate::workers::{setting, start};

/// Each commit appends this many examples.
const BATCH: u64 = 4;
/// Snapshots that a reader must have taken before the writer may stop.
const ENOUGH: u64 = 6;

fn create() -> (tempfile::TempDir, PathBuf) {
    let (folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    (folder, index.path().to_owned())
}

/// The n-th commit replaces the example `last` and appends a batch. So a snapshot shows at once whether it has
/// all of a commit.
fn commit_batch(writer: &mut Writer, number: u64) {
    for i in 0..BATCH {
        writer.append(format!("{number}-{i}"), &sketch(number * BATCH + i)).unwrap();
    }
    let last = sketch(number);
    if writer.contains("last").unwrap() {
        writer.replace("last", &[Row::new(&last)]).unwrap();
    } else {
        writer.append("last", &last).unwrap();
    }
    writer.commit().unwrap();
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

/// What a reader process does until it is killed: it says how many batches each of its snapshots has.
pub fn read_until_killed(path: &Path) {
    let index = Index::open(path).unwrap();
    let mut newest = 0;
    loop {
        let snapshot = index.snapshot().unwrap();
        if let Some(count) = batches(&snapshot, false) {
            assert!(count >= newest, "the index went back from {newest} to {count} batches");
            newest = count;
            writeln!(std::io::stdout().lock(), "\nSEEN {count}").unwrap();
        }
    }
}

/// A reader process, and the thread that counts its snapshots.
struct Reader {
    process: Child,
    seen: Arc<AtomicU64>,
}

impl Reader {
    fn start(path: &Path) -> Self {
        let mut process = start("reader", &[path.display().to_string()]);
        let out = process.stdout.take().unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                count.fetch_add(u64::from(line.starts_with("SEEN ")), Ordering::Relaxed);
            }
        });
        Self { process, seen }
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// It must still run.
    fn assert_running(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            let mut complaints = String::new();
            let mut pipe = self.process.stderr.take().unwrap();
            std::io::Read::read_to_string(&mut pipe, &mut complaints).unwrap();
            panic!("a reader ended with {status}: {complaints}");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It ends only so; if it has failed, that was noticed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Open files and resident memory in MiB of a process.
fn usage(process: &str) -> (usize, u64) {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
    let pages = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    (files, pages.unwrap_or(0) / 256)
}

/// Works on the index until the time is up and `is_enough`.
fn write(index: &Index, seconds: u64, mut is_enough: impl FnMut() -> bool) -> u64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let grace = GcOptions::default().grace(Duration::ZERO);
    let mut number = 0;
    while !(is_enough() && Instant::now() >= until) {
        let mut writer = index.writer().unwrap();
        for _ in 0..10 {
            number += 1;
            commit_batch(&mut writer, number);
            writer.compact(CompactOptions::all()).unwrap();
            writer.gc(grace).unwrap();
        }
    }
    number
}

/// Readers in processes.
pub fn processes(seconds: u64) {
    let (_folder, path) = create();
    let mut readers: Vec<Reader> = (0..2).map(|_| Reader::start(&path)).collect();
    let index = Index::open(&path).unwrap();
    let mut before = None;
    let started = Instant::now();
    let number = write(&index, seconds, || {
        readers.iter_mut().for_each(Reader::assert_running);
        if before.is_none() && started.elapsed() * 4 > Duration::from_secs(seconds) {
            before = Some(all_usage(&readers));
        }
        readers.iter().all(|reader| reader.seen() >= ENOUGH)
    });
    let after = all_usage(&readers);
    let seen: Vec<u64> = readers.iter().map(Reader::seen).collect();
    readers.iter_mut().for_each(Reader::assert_running);
    println!(
        "reader processes: {number} commits, {seen:?} snapshots; (files, MiB) of each process: {before:?}, then {after:?}"
    );
    for (before, after) in before.iter().flatten().zip(&after) {
        // One for each of RocksDB's tables, whose number is bounded.
        assert!(after.0 <= before.0 + MANIFEST_FILES, "descriptors: {before:?}, then {after:?}");
        // Content grows with the commits; what leaks with each snapshot grows faster.
        assert!(after.1 <= before.1 + 64, "memory in MiB: {before:?}, then {after:?}");
    }
}

fn all_usage(readers: &[Reader]) -> Vec<(usize, u64)> {
    let processes = readers.iter().map(|reader| reader.process.id().to_string());
    processes.chain(["self".into()]).map(|process| usage(&process)).collect()
}

/// Readers in threads, which keep their snapshots while the writer goes on.
pub fn threads(seconds: u64) {
    /// Ends the readers, however the writer ends.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (_folder, path) = create();
    let index = Index::open(&path).unwrap();
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut newest = 0;
            while !done.load(Ordering::Relaxed) {
                let snapshot = index.snapshot().unwrap();
                let count = batches(&snapshot, false).expect("a pinned generation is not collected");
                assert!(count >= newest, "the index went back from {newest} to {count} batches");
                newest = count;
                let seen = seen.fetch_add(1, Ordering::Relaxed);
                // The same again, after the writer has gone on.
                std::thread::sleep(Duration::from_millis(seen % 5));
                assert_eq!(batches(&snapshot, true), Some(count));
            }
        });
        let ending = Done(&done);
        let is_enough = || reader.is_finished() || seen.load(Ordering::Relaxed) >= ENOUGH;
        let number = write(&index, seconds, is_enough);
        drop(ending);
        reader.join().unwrap();
        println!("reader thread: {number} commits, {} snapshots", seen.load(Ordering::Relaxed));
    });
    {
        let mut writer = index.writer().unwrap();
        writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
    }
    assert_no_orphans(&path, &index).unwrap();
    assert_sound(&index);
}

/// Commits of this many examples beside a reader process.
pub fn great_commits(examples: u64) {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let mut seconds = Vec::new();
    let mut writer = index.writer().unwrap();
    let sketches: Vec<_> = (0..64).map(sketch).collect();
    for number in 0..3 {
        let started = Instant::now();
        for example in 0..examples {
            writer.append(format!("{number}-{example}"), &sketches[example as usize % 64]).unwrap();
        }
        writer.commit().unwrap();
        seconds.push(started.elapsed().as_secs_f32());
        let rows = Index::open(index.path()).unwrap().snapshot().unwrap().rows();
        assert_eq!(rows, examples * (number + 1), "rows beside a writer");
    }
    println!("commits of {examples} examples: {seconds:.1?} s; (files, MiB): {:?}", usage("self"));
}

/// How long the crowds last.
pub fn seconds(default: u64) -> u64 {
    setting("GRADIX_TORTURE_SECONDS", default)
}
