//! Memory stays bounded: an index ten times larger than the process may have is appended, scanned, operated on
//! and read row by row.
//!
//! The limit is RLIMIT_DATA, which counts heap and private memory but not the pages of mapped files,
//! which the kernel can drop. (It counts stacks too; those of C++ threads are as large as `ulimit -s`.) `GRADIX_MEMORY_TEST_MB` and `GRADIX_MEMORY_LIMIT_MB` change the sizes
//! (20480 and 1024 for 20 GB under 1 GB).
#![cfg(target_os = "linux")]

mod fixtures;

use std::ops::ControlFlow;
use std::process::Command;

use fixtures::indexes;
use fixtures::sketches::sketch_of;
use gradix::operators::{self, BySource, Coreset, Duplicates, Selection};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{CancelToken, Encoding, Row, Schema, Snapshot};

const DIMS: u32 = 16_384;
const BATCH: u64 = 64;

fn megabytes(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Catches an append, a scan, an operator or an iterator whose memory grows with the index.
#[test]
fn index_ten_times_the_memory_limit_is_written_and_scanned() {
    if std::env::var_os("GRADIX_MEMORY_CHILD").is_some() {
        return write_and_scan();
    }
    let limit = megabytes("GRADIX_MEMORY_LIMIT_MB", 256);
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -s 1024 && ulimit -d {} && exec \"$0\" --exact --nocapture index_ten_times_the_memory_limit_is_written_and_scanned", limit << 10))
        .arg(program)
        .env("GRADIX_MEMORY_CHILD", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("peak heap"), "{stdout}\n{stderr}");
    println!("{stdout}");
}

/// Catches a limit that does not limit: under it, a process that takes more must fail.
#[test]
fn memory_limit_stops_a_process_that_takes_more() {
    if std::env::var_os("GRADIX_MEMORY_CHILD").is_some() {
        let mut taken = Vec::<u8>::new();
        if taken.try_reserve_exact(400 << 20).is_err() {
            println!("refused");
        }
        return;
    }
    let output = Command::new("sh")
        .arg("-c")
        .arg("ulimit -d 204800 && exec \"$0\" --exact --nocapture memory_limit_stops_a_process_that_takes_more")
        .arg(std::env::current_exe().unwrap())
        .env("GRADIX_MEMORY_CHILD", "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("refused"), "{output:?}");
}

fn operate(snapshot: &Snapshot, queries: &[Sketch]) {
    let scan = || snapshot.scan(queries);
    let sources = BySource::new().replicates(50).run(scan().unwrap()).unwrap();
    assert_eq!(sources[0][0].examples, snapshot.rows());
    let selected = Selection::fraction(0.001).task(0..1).task(1..2).run(scan().unwrap()).unwrap();
    // Copies of the queries, the greater of them first.
    assert!(selected.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let chosen = Coreset::new(3).candidates(100).choose(scan).unwrap();
    assert_eq!(chosen.examples.len(), 3);
    let ids = (0..2_000u64).map(u64::to_be_bytes);
    operators::mean_of(snapshot, ids, &CancelToken::new()).unwrap();
    // Rows are copies of 64, so that each has thousands of duplicates.
    let mut left = 5_000;
    let pairs = Duplicates::new(0.999).batch(8).run(snapshot, |pair| {
        assert_eq!(pair.first[7] % BATCH as u8, pair.second[7] % BATCH as u8);
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(pairs.unwrap(), 5_000);
}

fn write_and_scan() {
    let bytes = megabytes("GRADIX_MEMORY_TEST_MB", 2_560) << 20;
    let spec = SketchSpec::dense("memory", "1", [("all", DIMS)]);
    let schema = Schema::new(spec.clone(), Encoding::F16).unwrap();
    let (_folder, index) = indexes::create(&schema);
    let rows = bytes / schema.row_bytes() as u64;
    let sketches: Vec<Sketch> = (0..BATCH).map(|row| sketch_of(&spec, row)).collect();
    let mut writer = index.writer().unwrap();
    let mut id = 0u64;
    while id < rows {
        let batch: Vec<([u8; 8], Row<'_>)> =
            sketches.iter().zip(id..).map(|(sketch, id)| (id.to_be_bytes(), Row::new(sketch))).collect();
        writer.append_batch(&batch).unwrap();
        id += BATCH;
    }
    writer.commit().unwrap();
    drop(writer);
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.rows(), id);
    let ranking = snapshot.scan(&sketches[..2]).unwrap().top_k(20).bottom_k(5).run().unwrap();
    assert_eq!(ranking.statistics().rows, id);
    // The greatest inner product of a row of the batch is with itself: first the one with the least id.
    assert_eq!(ranking.proponents(1)[0].id, 1u64.to_be_bytes());
    operate(&snapshot, &sketches[..2]);
    // Segments of one commit stand in any order.
    let mut seen = vec![false; rows as usize + BATCH as usize];
    for row in snapshot.iter().with_sketches() {
        let row = row.unwrap();
        let id = u64::from_be_bytes(row.id.try_into().unwrap());
        assert!(!std::mem::replace(&mut seen[id as usize], true), "{id}");
        // `f16` changes the numbers by 2^-11 of the greatest at most.
        let (read, written) = (row.sketch.unwrap(), &sketches[(id % BATCH) as usize]);
        assert!((read.values()[7] - written.values()[7]).abs() < 1e-3);
    }
    assert_eq!(seen.iter().filter(|&&seen| seen).count() as u64, id);
    assert!(snapshot.ids().map(Result::unwrap).eq((0..id).map(u64::to_be_bytes)));
    #[cfg(feature = "cli")]
    ask(index.path());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    println!(
        "rows {id}, {} MB on disk; heap now {} MB, peak heap under the limit; mapped pages {} MB",
        index.stats().unwrap().bytes >> 20,
        field("RssAnon"),
        field("RssFile"),
    );
}

/// The program, under the same limit, which its process inherits.
#[cfg(feature = "cli")]
fn ask(index: &std::path::Path) {
    let query = r"--id \x00\x00\x00\x00\x00\x00\x00\x01";
    let folder = index.parent().unwrap();
    for line in [
        "ls x.gradix".to_owned(),
        "ls x.gradix --long".to_owned(),
        format!("scores x.gradix {query} -o scores.csv"),
        format!("query x.gradix {query} --json"),
        "verify x.gradix".to_owned(),
        "stats x.gradix".to_owned(),
    ] {
        fixtures::program::ok(folder, &line);
    }
}
