//! Power cuts: a workload is recorded; at many moments of it, what the disk may then hold is made and opened.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::calls::{self, Event, Plan};
use crate::check::{Failure, as_reader, as_writer, failure};
use crate::disk::{Disk, Model, PAGE, Tree};
use crate::fixtures::random::Random;
use crate::fixtures::told;
use crate::workers::{Tally, begin, deadline, setting};
use crate::workload::{Mark, Oracle, Session, operation, script};

/// The index's folder on the disk. Its own name must be durable too.
const INDEX: &str = "x.gradix";
/// States of one moment in one round, at least and at most; a longer run makes more rounds, with other operations.
const FEW: usize = 6;
const MANY: usize = 40;

/// What is recorded, and what was true before.
struct Run<'a> {
    before: &'a [Event],
    log: &'a [Event],
    oracle: Oracle,
    /// A reader has seen this generation before it began.
    shown: u64,
    /// For messages.
    name: String,
}

struct Examiner {
    model: Model,
    random: Random,
    folder: PathBuf,
    tally: Tally,
    /// What a folder with this hash shows to readers.
    live: HashMap<u64, Option<u64>>,
    tried: HashSet<(u64, u64, u64, u64, bool)>,
    deadline: Option<Instant>,
}

/// Records and examines until enough states were tried.
pub fn examine(seed: u64, states: u64) -> Tally {
    let scratch = crate::workers::scratch();
    let mut examiner = Examiner {
        model: model(),
        random: Random(seed),
        folder: scratch.path().to_owned(),
        tally: Tally::default(),
        live: HashMap::new(),
        tried: HashSet::new(),
        deadline: deadline(),
    };
    let mut round = 0;
    while examiner.tally.of("states") < states && !examiner.is_late() {
        let seed = seed + 1000 * round;
        begin(&format!("recording, seed {seed}"));
        let (before, log) = match record(&scratch.path().join("recorded"), seed) {
            Ok(recorded) => recorded,
            Err(error) => {
                examiner.tally.fail("workload", &format!("seed {seed}: {error}"));
                break;
            }
        };
        let left = states - examiner.tally.of("states");
        let name = format!("seed {seed}");
        let run = Run { before: &before, log: &log, oracle: Oracle::default(), shown: 0, name };
        examiner.walk(&run, left, true);
        examiner.live.clear();
        examiner.tried.clear();
        round += 1;
    }
    examiner.tally
}

/// A workload with everything, from the creation on.
pub fn record(disk: &Path, seed: u64) -> Result<(Vec<Event>, Vec<Event>), String> {
    fs::create_dir(disk).unwrap();
    let before = calls::start(disk, Plan::Nothing, true);
    let done: gradix::Result<()> = (|| {
        let mut session = Session::create(&disk.join(INDEX), seed, calls::mark)?;
        for operation in script(seed, 12) {
            (operation.run)(&mut session)?;
        }
        Ok(())
    })();
    let recording = calls::stop();
    fs::remove_dir_all(disk).unwrap();
    done.map_err(|error| told(&error))?;
    Ok((before, recording.log))
}

impl Examiner {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Goes through a log, and tries about `budget` states of moments in it.
    fn walk(&mut self, run: &Run<'_>, budget: u64, first: bool) {
        let mut disk = Disk::new(run.before, self.model);
        let mut oracle = run.oracle.clone();
        // Until the next sync a disk may hold ever more, and again what it could before; so the moments that matter
        // are those before a sync, and those at which something else is expected.
        let matters = |at: usize| {
            matches!(run.log[at], Event::Mark(_))
                || matches!(run.log.get(at + 1), None | Some(Event::Sync { .. }))
        };
        let moments = (0..run.log.len()).filter(|&at| matters(at)).count().max(1);
        let each = if first { (budget as usize / moments).clamp(FEW, MANY) } else { 2 };
        let share = budget as f64 / (moments * each) as f64;
        let mut publications = 0;
        for (at, event) in run.log.iter().enumerate() {
            disk.apply(event);
            if let Event::Mark(mark) = event {
                oracle.observe(mark);
            }
            if first && matches!(event, Event::Mark(Mark::Publishing { .. })) && !self.is_late() {
                publications += 1;
                if publications % 8 == 1 {
                    // The next writer has segments to remove; it is cut off too, at every moment.
                    let unsynced = disk.unsynced();
                    let tree = disk.after_cut(&unsynced, &unsynced.everything());
                    let name = || format!("{}, after call {at} ({})", run.name, describe(&disk, event));
                    self.again(&tree, &oracle, run.shown, &name, 120);
                }
            }
            if !matters(at) || self.is_late() {
                continue;
            }
            if first && disk.unsynced().is_torn_record() || self.random.uniform() < share {
                let moment = format!("{}, after call {at} ({})", run.name, describe(&disk, event));
                self.moment(&disk, &oracle, run.shown, each, &moment, first);
            }
        }
    }

    fn moment(&mut self, disk: &Disk, oracle: &Oracle, shown: u64, each: usize, moment: &str, first: bool) {
        if first {
            self.tally.count("moments", 1);
        }
        let unsynced = disk.unsynced();
        // What a reader of another process sees at this moment, with all that was written before it.
        let live = disk.after_cut(&unsynced, &unsynced.everything());
        let hash = live.hash();
        let live = match self.live.get(&hash) {
            Some(&live) => live,
            None => {
                let (mut found, folder) = (None, self.place(&live));
                self.tally.case(
                    || format!("{moment}, power on"),
                    || {
                        found = as_reader(&folder, oracle)?;
                        Ok(())
                    },
                );
                self.live.insert(hash, found);
                found
            }
        };
        let shown = shown.max(live.unwrap_or(0));
        for choice in unsynced.choices(each, &mut self.random) {
            let tree = disk.after_cut(&unsynced, &choice);
            self.tally.count("states", 1);
            let known = (tree.hash(), shown, oracle.acknowledged, oracle.newest(), oracle.created);
            if !self.tried.insert(known) {
                continue;
            }
            self.tally.count("distinct", 1);
            let name = || format!("{moment}; {}", disk.describe(&unsynced, &choice));
            self.state(&tree, oracle, shown, &name, first);
        }
    }

    fn state(&mut self, tree: &Tree, oracle: &Oracle, shown: u64, name: &dyn Fn() -> String, first: bool) {
        let number = self.tally.of("distinct");
        if number.is_multiple_of(16) {
            begin(&name());
        }
        let folder = self.place(tree);
        let (mut readable, mut found) = (false, None);
        self.tally.case(name, || {
            found = as_reader(&folder, oracle)?;
            readable = true;
            Ok(())
        });
        if !readable {
            return;
        }
        let behind = found.unwrap_or(0) < shown;
        if behind {
            self.tally.count("readers behind until a writer opens", 1);
        }
        let shown = shown.max(found.unwrap_or(0));
        if behind || number.is_multiple_of(2) {
            self.tally.count("opened to write", 1);
            let seed = self.random.next();
            self.tally.case(name, || as_writer(&folder, oracle, shown, seed));
        }
        if first && found.is_some() && number.is_multiple_of(48) {
            self.again(tree, oracle, shown, name, 24);
        }
    }

    /// Lets a writer open and go on, records it in its turn, and tries states of that.
    fn again(&mut self, tree: &Tree, oracle: &Oracle, shown: u64, name: &dyn Fn() -> String, budget: u64) {
        self.tally.count("second recordings", 1);
        let seed = self.random.next();
        match self.record_again(tree, oracle, seed) {
            Ok((before, log)) => {
                let oracle = oracle.once_opened();
                let name = format!("{}, again", name());
                self.walk(&Run { before: &before, log: &log, oracle, shown, name }, budget, false);
            }
            Err(Failure { kind, message }) => self.tally.fail(kind, &format!("{}: {message}", name())),
        }
    }

    /// Writes a disk; the path of the index on it.
    fn place(&self, tree: &Tree) -> PathBuf {
        let disk = self.folder.join("disk");
        if disk.exists() {
            fs::remove_dir_all(&disk).unwrap();
        }
        fs::create_dir(&disk).unwrap();
        tree.write(&disk);
        disk.join(INDEX)
    }

    /// A writer that opens after the cut and goes on, recorded in its turn.
    fn record_again(
        &self,
        tree: &Tree,
        oracle: &Oracle,
        seed: u64,
    ) -> Result<(Vec<Event>, Vec<Event>), Failure> {
        let folder = self.place(tree);
        let before = calls::start(&self.folder.join("disk"), Plan::Nothing, true);
        let oracle = oracle.once_opened();
        let done: gradix::Result<()> = (|| {
            let mut session = Session::open(&folder, oracle, seed, calls::mark)?;
            for name in [
                "append",
                "commit",
                "replace",
                "commit with payload",
                "attach and move",
                "compact",
                "collect",
            ] {
                (operation(name).run)(&mut session)?;
            }
            Ok(())
        })();
        let recording = calls::stop();
        match done {
            Ok(()) => Ok((before, recording.log)),
            Err(error) => Err(failure("cannot go on", told(&error))),
        }
    }
}

fn describe(disk: &Disk, event: &Event) -> String {
    match event {
        Event::Create { name, .. } => format!("create {}", String::from_utf8_lossy(name)),
        Event::Write { inode, offset, bytes } => {
            format!("write {} bytes at {offset} of {}", bytes.len(), disk.name(*inode))
        }
        Event::Truncate { inode, length } => format!("truncate {} to {length}", disk.name(*inode)),
        Event::Sync { inode } => format!("sync {}", disk.name(*inode)),
        Event::FailedSync { inode } => format!("failed sync of {}", disk.name(*inode)),
        Event::Link { name, .. } => format!("link {}", String::from_utf8_lossy(name)),
        Event::Rename { to, .. } => format!("rename to {}", String::from_utf8_lossy(to)),
        Event::Unlink { name, .. } => format!("unlink {}", String::from_utf8_lossy(name)),
        Event::Mark(Mark::Publishing { upto, .. }) => format!("publishing {upto}"),
        Event::Mark(mark) => mark.to_line().trim_end().into(),
    }
}

/// The usual one, or what the environment says.
pub fn model() -> Model {
    let page = setting("GRADIX_TORTURE_PAGE", PAGE as u64) as usize;
    Model { page, any_order: setting("GRADIX_TORTURE_ANY_ORDER", 0) != 0 }
}
