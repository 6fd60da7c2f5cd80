//! Writers that are killed, and writers that live shortly, all on one index.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gradix::Index;

use crate::calls::{self, Plan};
use crate::check::{self, as_reader, as_writer, assert_no_orphans};
use crate::fixtures::random::Random;
use crate::fixtures::sketches::sketch;
use crate::fixtures::told;
use crate::workers::{Tally, deadline, scratch, start};
use crate::workload::{Mark, Oracle, Session, operation, schema, script};

/// Files that the manifest's folder may have at rest, however many writers there were: RocksDB merges the tables
/// of a column family when there are four, and there are six families; then logs, options and lists.
pub const MANIFEST_FILES: usize = 48;

static MARKS: OnceLock<fs::File> = OnceLock::new();

/// One write for each mark, to a file outside of the index: what a kill leaves of it is whole lines.
fn tell(mark: &Mark) {
    MARKS.get().expect("the file is open").write_all(mark.to_line().as_bytes()).unwrap();
}

fn observe(oracle: &mut Oracle, lines: &str) {
    for line in lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        oracle.observe(&Mark::from_line(line).unwrap_or_else(|| panic!("no mark: {line}")));
    }
}

/// What the child does: it works on the index until its n-th call that changes something, or until it is killed
/// from outside.
pub fn victim(index: &Path, state: &Path, nth: u64, seed: u64) {
    let mut oracle = Oracle::default();
    observe(&mut oracle, &fs::read_to_string(state).unwrap());
    let marks = fs::File::options().create(true).append(true).open(state.with_extension("marks")).unwrap();
    MARKS.set(marks).unwrap();
    calls::start(index.parent().unwrap(), Plan::Kill(nth), false);
    let session = if oracle.created {
        Session::open(index, oracle, seed, tell)
    } else {
        Session::create(index, seed, tell)
    };
    let mut session = session.unwrap();
    for round in 0..20 {
        for operation in script(seed + round, 10) {
            (operation.run)(&mut session).unwrap();
        }
    }
}

/// Kills writers of one index, one after the other, and looks at it after each.
pub fn examine(kills: u64, seed: u64) -> Tally {
    let (mut tally, scratch) = (Tally::default(), scratch());
    let (disk, state) = (scratch.path().join("disk"), scratch.path().join("state"));
    let (index, marks) = (disk.join("x.gradix"), state.with_extension("marks"));
    fs::create_dir(&disk).unwrap();
    let mut random = Random(seed);
    let mut oracle = Oracle::default();
    let (mut shown, mut first_open) = (0, None);
    let deadline = deadline();
    for kill in 0..kills {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let lines: String = oracle.to_marks().iter().map(Mark::to_line).collect();
        fs::write(&state, lines).unwrap();
        fs::write(&marks, "").unwrap();
        // Most die at a certain call, the others at a certain time.
        let at_call = kill % 4 != 3;
        let nth = if at_call { random.next() % 300 } else { u64::MAX };
        let seed = random.next();
        let arguments =
            [index.display().to_string(), state.display().to_string(), nth.to_string(), seed.to_string()];
        let mut child = start("victim", &arguments);
        if !at_call {
            std::thread::sleep(Duration::from_millis(random.next() % 250));
            // It may have died already, which shows below.
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        tally.count("kills", 1);
        let name = || format!("kill {kill}, seed {seed}, at call {nth}");
        if output.status.signal() != Some(libc::SIGKILL) {
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            tally.fail("died otherwise", &format!("{}: {}: {complaints}", name(), output.status));
            break;
        }
        let before = oracle.acknowledged;
        observe(&mut oracle, &fs::read_to_string(&marks).unwrap());
        tally.count("commits", oracle.acknowledged - before);
        tally.case(name, || {
            shown = as_reader(&index, &oracle)?.unwrap_or(0).max(shown);
            if kill % 3 == 0 && Index::open(&index).is_ok() {
                let opening = Instant::now();
                let mut session = Session::open(&index, oracle.once_opened(), seed, |_| ())
                    .map_err(|error| check::failure("cannot write", told(&error)))?;
                first_open.get_or_insert(opening.elapsed());
                check::newest(&session.index, &session.oracle, shown)?;
                (operation("collect").run)(&mut session)
                    .map_err(|error| check::failure("cannot go on", told(&error)))?;
                oracle = session.oracle.clone();
                assert_no_orphans(&index, &session.index)?;
            }
            Ok(())
        });
        if tally.failures.keys().any(|kind| kind != "left over") {
            break;
        }
        if !oracle.created && Index::open(&index).is_err() && index.exists() {
            // Killed while it was created.
            fs::remove_dir_all(&index).unwrap();
            tally.count("kills of a creation", 1);
        } else if !oracle.created && index.exists() {
            oracle = oracle.once_opened();
        }
    }
    tally.case(
        || "after all kills".into(),
        || {
            as_writer(&index, &oracle, shown, seed)?;
            let opening = Instant::now();
            let opened = Index::open(&index).map_err(|error| check::failure("cannot open", told(&error)))?;
            drop(opened.writer().map_err(|error| check::failure("cannot write", told(&error)))?);
            println!(
                "kills: the first writer opened in {:?}, the last in {:?}; {} files in the manifest's folder",
                first_open.unwrap_or_default(),
                opening.elapsed(),
                manifest_files(&index)
            );
            assert_bounded(&index)
        },
    );
    tally
}

fn manifest_files(index: &Path) -> usize {
    fs::read_dir(index.join("manifest")).unwrap().count()
}

fn assert_bounded(index: &Path) -> Result<(), check::Failure> {
    let (count, opened) = (manifest_files(index), Index::open(index));
    if count > MANIFEST_FILES {
        return Err(check::failure("left over", format!("{count} files in the manifest's folder")));
    }
    assert_no_orphans(index, &opened.map_err(|error| check::failure("cannot open", told(&error)))?)
}

/// Writers that open, append, commit and go, as a nightly job's do.
pub fn short_lives(cycles: u64) -> Tally {
    let (mut tally, scratch) = (Tally::default(), scratch());
    let path = scratch.path().join("x.gradix");
    Index::create(&path, &schema()).unwrap();
    let (mut times, mut most) = (Vec::new(), 0);
    for cycle in 0..cycles {
        let opening = Instant::now();
        let mut writer = Index::open(&path).unwrap().writer().unwrap();
        times.push(opening.elapsed());
        writer.append(cycle.to_string(), &sketch(cycle)).unwrap();
        writer.commit().unwrap();
        drop(writer);
        most = most.max(manifest_files(&path));
    }
    let middle = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let tenth = (times.len() / 10).max(1);
    println!(
        "short-lived writers: {cycles}; the first opened in {:?}, the last in {:?} (medians of a tenth each); at \
         most {most} files in the manifest's folder, {} at the end",
        middle(&times[..tenth]),
        middle(&times[times.len() - tenth..]),
        manifest_files(&path)
    );
    tally.count("short-lived writers", cycles);
    tally.case(
        || "after short-lived writers".into(),
        || {
            assert_bounded(&path)?;
            let rows = Index::open(&path).unwrap().snapshot().unwrap().rows();
            if rows == cycles { Ok(()) } else { Err(check::failure("wrong content", format!("{rows} rows"))) }
        },
    );
    tally
}
