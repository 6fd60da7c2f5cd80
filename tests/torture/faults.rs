//! Each call on the index's folder fails once, RocksDB's included.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use gradix::ErrorKind;
use libc::{EIO, EMFILE, ENOSPC};

use crate::calls::{self, Class, Event, Plan};
use crate::check::{Failure, as_reader, as_writer, failure, newest};
use crate::disk::Disk;
use crate::fixtures::random::Random;
use crate::fixtures::told;
use crate::power;
use crate::workers::{Tally, begin, deadline};
use crate::workload::{Mark, Oracle, Session, script};

/// What is failed: one of the calls of a class, with an error that this call can have.
type Case = (Class, u64, i32);

/// All faults of the workload, or `limit` of them at random; of those, the share of one worker.
pub fn examine(seed: u64, limit: usize, worker: usize, workers: usize) -> Tally {
    let (mut tally, scratch) = (Tally::default(), crate::workers::scratch());
    let folder = scratch.path().join("disk");
    let mut made = Vec::new();
    begin("counting the calls");
    tally.case(
        || "without a fault".into(),
        || {
            made = run(&folder, seed, Plan::Nothing, &mut 0)?.made;
            Ok(())
        },
    );
    let cases = choose(&made, limit, seed);
    let deadline = deadline();
    for (number, &(class, nth, error)) in cases.iter().enumerate() {
        if number % workers != worker {
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let mut name = format!("{class:?} {nth} fails with {error}");
        begin(&name);
        let mut failed = false;
        tally.count("faults", 1);
        let (mut complaint, mut errors) = (None, 0);
        let plan = Plan::Fail(class, nth, error);
        let done =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&folder, seed, plan, &mut errors)));
        let left = calls::stop_if_watching();
        let what = match done {
            Ok(Ok(recording)) => recording.failed,
            Ok(Err(error)) => {
                complaint = Some(error);
                left.and_then(|recording| recording.failed)
            }
            Err(_) => {
                complaint = Some(failure("panic", "its message stands above"));
                left.and_then(|recording| recording.failed)
            }
        };
        if let Some(what) = what {
            failed = true;
            name = format!("{name} ({what})");
        }
        tally.count(if failed { "reached" } else { "not reached" }, 1);
        tally.count("returned as errors", errors);
        if let Some(Failure { kind, message }) = complaint {
            tally.fail(kind, &format!("{name}: {message}"));
        }
    }
    tally
}

/// A limited run takes as many of each kind: a class of calls on a kind of files, with an error.
fn choose(made: &[(Class, String)], limit: usize, seed: u64) -> Vec<Case> {
    let mut kinds: BTreeMap<(Class, String, i32), Vec<Case>> = BTreeMap::new();
    let mut numbers: BTreeMap<Class, u64> = BTreeMap::new();
    for (class, what) in made {
        let number = numbers.entry(*class).or_default();
        for &error in errors(*class) {
            kinds.entry((*class, kind(what), error)).or_default().push((*class, *number, error));
        }
        *number += 1;
    }
    let (mut random, mut cases) = (Random(seed), Vec::new());
    while cases.len() < limit && !kinds.is_empty() {
        for of_a_kind in kinds.values_mut() {
            cases.push(of_a_kind.swap_remove(random.below(of_a_kind.len())));
        }
        kinds.retain(|_, of_a_kind| !of_a_kind.is_empty());
    }
    cases.truncate(limit);
    cases
}

/// The end of a file's name, or its beginning if there are numbers behind.
fn kind(what: &str) -> String {
    let name = what.rsplit(' ').next().unwrap_or_default();
    let end = name.rsplit('.').next().unwrap_or_default();
    let letters = |text: &str| text.chars().take_while(|letter| !letter.is_ascii_digit()).collect::<String>();
    if name.starts_with("LOG") { "LOG".into() } else { letters(end) }
}

fn errors(class: Class) -> &'static [i32] {
    match class {
        Class::Open | Class::List => &[EIO, EMFILE],
        Class::Read | Class::Sync | Class::Unlink => &[EIO],
        Class::Write | Class::Truncate | Class::Rename => &[EIO, ENOSPC],
        Class::Mkdir => &[ENOSPC],
    }
}

/// A workload in which a call fails: it goes on, whatever the failure was.
fn run(folder: &Path, seed: u64, plan: Plan, errors: &mut u64) -> Result<calls::Recording, Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
    fs::create_dir(folder).unwrap();
    let path = folder.join("x.gradix");
    let before = calls::start(folder, plan, true);
    let mut session = match Session::create(&path, seed, calls::mark) {
        Ok(session) => session,
        Err(error) => {
            *errors += 1;
            typed(&error)?;
            if path.exists() {
                remove(&path);
            }
            let again = Session::create(&path, seed, calls::mark);
            again.map_err(|error| failure("cannot go on", format!("creating again: {}", told(&error))))?
        }
    };
    for operation in script(seed, 3) {
        if let Err(error) = (operation.run)(&mut session) {
            *errors += 1;
            if *errors > 1 {
                return Err(failure("fails again", format!("{}: {}", operation.name, told(&error))));
            }
            typed(&error)?;
            recover(&mut session).map_err(|other| Failure {
                message: format!("{} ({}): {}", operation.name, told(&error), other.message),
                ..other
            })?;
        }
    }
    let oracle = session.close();
    let recording = calls::stop();
    as_reader(&path, &oracle)?;
    assert_durable(folder, &before, &recording.log)?;
    // Other ids than those of the workload.
    as_writer(&path, &oracle, 0, !seed)?;
    Ok(recording)
}

/// After a sync that failed, each acknowledged commit is durable all the same: a disk that keeps nothing but what was
/// synced since, and not what the failed one should have saved, has it.
fn assert_durable(folder: &Path, before: &[Event], log: &[Event]) -> Result<(), Failure> {
    let (mut disk, mut oracle) = (Disk::new(before, power::model()), Oracle::default());
    let (mut failed, cut) = (false, folder.with_file_name("cut"));
    for event in log {
        disk.apply(event);
        failed |= matches!(event, Event::FailedSync { .. });
        let Event::Mark(mark) = event else { continue };
        oracle.observe(mark);
        if failed && matches!(mark, Mark::Acknowledged { .. } | Mark::Found { .. }) {
            let unsynced = disk.unsynced();
            if cut.exists() {
                fs::remove_dir_all(&cut).unwrap();
            }
            fs::create_dir(&cut).unwrap();
            disk.after_cut(&unsynced, &unsynced.nothing()).write(&cut);
            as_reader(&cut.join("x.gradix"), &oracle).map_err(|other| Failure {
                message: format!("a power cut after generation {}: {}", oracle.acknowledged, other.message),
                ..other
            })?;
        }
    }
    Ok(())
}

/// `remove_dir_all`, in calls that the recorder knows.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            remove(&entry.path());
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::remove_dir(folder).unwrap();
}

/// The error comes from the fault, and says so.
fn typed(error: &gradix::Error) -> Result<(), Failure> {
    if !calls::has_failed() {
        return Err(failure("error without a fault", told(error)));
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Poisoned => Ok(()),
        kind => Err(failure("wrong kind of error", format!("{kind:?}: {}", told(error)))),
    }
}

/// After an error readers go on; the writer either goes on too, or is poisoned, and another one does.
fn recover(session: &mut Session) -> Result<(), Failure> {
    newest(&session.index, &session.oracle, 0)?;
    let aborted = session.writer().map(|writer| (writer.abort(), writer.generation()));
    match aborted {
        Some((Ok(()), generation)) => session.found(generation),
        Some((Err(error), _)) => {
            let error = gradix::Error::from(error);
            if error.kind() != ErrorKind::Poisoned {
                return Err(failure("fails again", format!("abort: {}", told(&error))));
            }
            session.drop_writer();
            newest(&session.index, &session.oracle, 0)?;
            session
                .find()
                .map_err(|error| failure("cannot go on", format!("reopening: {}", told(&error))))?;
        }
        None => {
            session
                .find()
                .map_err(|error| failure("cannot go on", format!("opening again: {}", told(&error))))?;
        }
    }
    newest(&session.index, &session.oracle, 0)?;
    Ok(())
}
