//! The promises of durability, put to the test: power cuts at any moment, every system call failing once, kills
//! at any moment, crowds of readers beside a writer. `docs/durability.md` says what is modelled and what is not.
//!
//! | file | question |
//! |---|---|
//! | `calls.rs` | Which system calls does this process make on a folder, and which of them fails or is the last? |
//! | `disk.rs` | What may a disk hold after a power cut? |
//! | `workload.rs` | What is done to an index, and what must be in it then? |
//! | `check.rs` | Is it? |
//! | `power.rs`, `faults.rs`, `kills.rs`, `crowds.rs` | Each of the four dangers |
//! | `workers.rs` | How do other processes of this program report? |
//!
//! # To add an operation
//!
//! Write a function beside the others of `workload.rs` that calls the engine and tells the oracle, and add it to
//! `workload::OPERATIONS`: power cuts, faults and kills then meet it. One that changes what the next commit shows
//! changes `Session::next`; one that publishes says so before (`Mark::Publishing`) and after
//! (`Session::acknowledged`). If readers see something new (an attached segment, say), add it to
//! `workload::Content` and to `Mark::to_line`, and compare it in `check::compare`. If the engine makes a system
//! call that the recorder does not know, the program says which.
//!
//! # Long runs
//!
//! `make torture` sets what the tests ask the environment for: `GRADIX_TORTURE_STATES`, `_SEED`, `_PAGE` (what does
//! not tear, in bytes), `_ANY_ORDER` (1: names in RocksDB's folder are saved in any order), `_FAULTS` (0: all), `_KILLS`, `_CYCLES`, `_SECONDS` and `_EXAMPLES`.
#![cfg(target_os = "linux")]

mod calls;
mod check;
mod crowds;
mod disk;
mod faults;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod kills;
mod power;
mod workers;
mod workload;

use std::path::Path;
use std::time::Instant;

use workers::{Tally, setting};

/// Not a test by itself: what the other processes of this program do.
#[test]
fn worker() {
    let Some((role, arguments)) = workers::role() else { return };
    let number = |at: usize| arguments[at].parse::<u64>().unwrap();
    let path = |at: usize| Path::new(&arguments[at]);
    let tally: Tally = match role.as_str() {
        "power" => power::examine(number(0), number(1)),
        "faults" => faults::examine(number(0), number(1) as usize, number(2) as usize, number(3) as usize),
        "victim" => return kills::victim(path(0), path(1), number(2), number(3)),
        "reader" => return crowds::read_until_killed(path(0)),
        other => panic!("no role {other}"),
    };
    tally.tell();
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

fn seed() -> u64 {
    setting("GRADIX_TORTURE_SEED", 1)
}

/// Prints the summary, and fails if there was a failure.
fn finish(what: &str, tally: &Tally, started: Instant) {
    println!("{what}: {tally}; seed {}, {:.0} s", seed(), started.elapsed().as_secs_f64());
    assert!(tally.failures.is_empty(), "{what}: {:?}, see above", tally.failures);
}

/// Catches a commit that a power cut loses or halves, a name or a page that was not synced, a generation that is
/// shown before it is durable, an index that does not open again, and a writer that cannot go on.
#[test]
fn power_cut_at_any_moment_keeps_what_was_acknowledged() {
    let (started, workers) = (Instant::now(), processors());
    let states = setting("GRADIX_TORTURE_STATES", 800).div_ceil(workers);
    let arguments = |worker: u64| vec![(seed() + 1_000_000 * worker).to_string(), states.to_string()];
    let arguments: Vec<_> = (0..workers).map(arguments).collect();
    let tally = workers::run("power", &arguments);
    println!("{:.0} states/s", tally.of("states") as f64 / started.elapsed().as_secs_f64());
    finish("power cuts", &tally, started);
}

/// Catches a failed call that is swallowed, that hangs, panics or spreads, that loses a commit, or after which
/// the index cannot be opened; and a writer that goes on after it should not.
#[test]
fn call_that_fails_once_loses_nothing() {
    let (started, workers) = (Instant::now(), processors());
    let limit = match setting("GRADIX_TORTURE_FAULTS", 120) {
        0 => u64::MAX,
        limit => limit,
    };
    let arguments = |worker: u64| [seed(), limit, worker, workers].map(|number| number.to_string()).to_vec();
    let arguments: Vec<_> = (0..workers).map(arguments).collect();
    let tally = workers::run("faults", &arguments);
    finish("faults", &tally, started);
}

/// Catches a commit that is acknowledged and lost, one that is half there, and files that nobody owns, after kills
/// at any call of a writer's life and at any time.
#[test]
fn killed_writers_lose_nothing_and_leave_nothing() {
    let started = Instant::now();
    let tally = kills::examine(setting("GRADIX_TORTURE_KILLS", 40), seed());
    finish("kills", &tally, started);
}

/// Catches files that each writer leaves behind.
#[test]
fn short_lived_writers_leave_nothing() {
    let started = Instant::now();
    let tally = kills::short_lives(setting("GRADIX_TORTURE_CYCLES", 100));
    finish("short lives", &tally, started);
}

/// Catches a reader in another process that sees half a commit, goes back in time, fails or leaks, while the
/// writer commits, compacts, collects without any grace, closes and opens again.
#[test]
fn reader_process_never_sees_half_a_commit() {
    crowds::processes(crowds::seconds(4));
}

/// Catches a reader of the same process that sees half a commit, and a snapshot whose files are collected under
/// it.
#[test]
fn reader_thread_keeps_its_snapshot() {
    crowds::threads(crowds::seconds(3));
}

/// Catches a commit of many examples that a reader beside it cannot read. A million each in the long run.
#[test]
fn great_commit_is_read_beside_its_writer() {
    crowds::great_commits(setting("GRADIX_TORTURE_EXAMPLES", 10_000));
}

/// Catches a recorder that misses a call: what it recorded gives the files of the folder, byte by byte.
#[test]
fn log_replays_to_the_folder() {
    let scratch = workers::scratch();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let before = calls::start(&disk, calls::Plan::Nothing, true);
    let mut session = workload::Session::create(&disk.join("x.gradix"), 1, calls::mark).unwrap();
    for operation in workload::script(1, 20) {
        (operation.run)(&mut session).unwrap();
    }
    drop(session);
    let recording = calls::stop();
    let mut model = disk::Disk::new(&before, power::model());
    for event in &recording.log {
        model.apply(event);
    }
    let unsynced = model.unsynced();
    let replayed = model.after_cut(&unsynced, &unsynced.everything());
    let found = disk::Tree::read(&disk).without_logs();
    assert!(replayed == found, "{:?}", replayed.difference(&found));
    assert!(recording.log.len() > 500, "only {} events", recording.log.len());
}
