//! The promises of durability, put to the test: power cuts at any moment, every system call failing once, kills,
//! crowds of readers.
#![cfg(target_os = "linux")]

mod calls;
mod check;
mod disk;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod power;
mod workers;
mod workload;

use workers::{Tally, setting};

/// Not a test by itself: what the other processes of this program do.
#[test]
fn worker() {
    let Some((role, arguments)) = workers::role() else { return };
    let number = |at: usize| arguments[at].parse::<u64>().unwrap();
    let tally: Tally = match role.as_str() {
        "power" => power::examine(&power::Settings {
            seed: number(0),
            states: number(1),
            page: power::page(),
        }),
        other => panic!("no role {other}"),
    };
    tally.tell();
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// Catches a recorder that misses calls.
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
    let mut model = disk::Disk::new(&before, disk::PAGE);
    for event in &recording.log {
        model.apply(event);
    }
    let unsynced = model.unsynced();
    let replayed = model.after_cut(&unsynced, &unsynced.everything());
    let found = disk::Tree::read(&disk).without_logs();
    println!("{} events, calls {:?}, {} mutations", recording.log.len(), recording.calls, recording.mutations);
    assert!(replayed == found, "{replayed:?}\n{found:?}");
}

/// Power cuts.
#[test]
fn power_cut_at_any_moment_keeps_what_was_acknowledged() {
    let started = std::time::Instant::now();
    let (states, seed) = (setting("GRADIX_TORTURE_STATES", 1600), setting("GRADIX_TORTURE_SEED", 1));
    let workers = processors();
    let arguments: Vec<_> = (0..workers)
        .map(|worker| vec![(seed + 1_000_000 * worker).to_string(), states.div_ceil(workers).to_string()])
        .collect();
    let tally = workers::run("power", &arguments);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "power cuts: {tally}; seed {seed}, {seconds:.0} s, {:.0} states/s",
        tally.of("states") as f64 / seconds
    );
    assert!(tally.failures.is_empty());
}
