//! What a child process does with one damaged folder, and what it says of it.
//!
//! It is given one folder a line and answers with one line: the class, a tab, and a message. A folder that
//! makes it hang, die or take too much memory is noticed by its parent, `pool`.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use gradix::{CompactOptions, Example, GcOptions, Index, Row, Snapshot, SourceCount, Span, StoredRow};

use super::folder::{self, sketch_for};
use crate::fixtures::told;

/// The path of a sound folder, from which the child learns what is right.
pub const SOUND: &str = "GRADIX_DAMAGE_SOUND";
/// How much more memory than at its start the child may take.
const MEMORY: u64 = 512 << 20;

/// What is done with a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// All that a reader does.
    Read,
    /// The same, then all that a writer does, and a reader after it.
    Write,
    /// A file changes while the index is open. Nothing is read through the map.
    Changed(Change),
}

/// What happens to the file whose name is given, while the index is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Shrinks,
    Empties,
    Grows,
    IsOverwritten,
}

const CHANGES: [Change; 4] = [Change::Shrinks, Change::Empties, Change::Grows, Change::IsOverwritten];

impl Use {
    pub fn to_text(self) -> String {
        match self {
            Self::Read => "read".into(),
            Self::Write => "write".into(),
            Self::Changed(change) => format!("{change:?}"),
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "read" => Self::Read,
            "write" => Self::Write,
            other => {
                Self::Changed(CHANGES.into_iter().find(|change| format!("{change:?}") == other).unwrap())
            }
        }
    }
}

/// What was seen of a folder.
#[derive(Debug, Default)]
struct Seen {
    /// Errors and findings, each with what it answered to.
    errors: Vec<String>,
    /// Wrong answers.
    wrong: Vec<String>,
}

impl Seen {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.wrong.push(format!("{what}: {found:.200?} where {expected:.200?} was stored"));
        }
    }

    /// The value, or `None` after the error was noted.
    fn ok<T>(&mut self, what: &str, result: Result<T, impl std::error::Error>) -> Option<T> {
        result.map_err(|error| self.errors.push(format!("{what}: {}", told(&error)))).ok()
    }
}

/// All that a snapshot answers.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    generation: u64,
    payload: Vec<u8>,
    examples: Vec<Example>,
    gone: Vec<Vec<u8>>,
    rows: Vec<StoredRow>,
    sources: Vec<SourceCount>,
    hits: Vec<(Vec<u8>, u64)>,
}

fn hits(snapshot: &Snapshot) -> Result<Vec<(Vec<u8>, u64)>, gradix::ScanError> {
    let queries = [sketch_for(77)];
    let ranking = snapshot.scan(&queries)?.top_k(1000).threads(1).run()?;
    Ok(ranking.proponents(0).iter().map(|hit| (hit.id.clone(), hit.score.to_bits())).collect())
}

impl State {
    fn of(index: &Index, gone: &[&str]) -> Self {
        let snapshot = index.snapshot().unwrap();
        let examples = snapshot.ids().map(|id| snapshot.get(id.unwrap()).unwrap().unwrap());
        Self {
            generation: snapshot.generation(),
            payload: snapshot.payload().unwrap(),
            examples: examples.collect(),
            gone: gone.iter().map(|id| id.as_bytes().to_vec()).collect(),
            rows: snapshot.iter().with_sketches().map(Result::unwrap).collect(),
            sources: snapshot.sources().unwrap(),
            hits: hits(&snapshot).unwrap(),
        }
    }

    /// Compares every answer of a reader with this state.
    fn compare(&self, index: &Index, through_map: bool, seen: &mut Seen) {
        let before = seen.errors.len();
        if let Some(snapshot) = seen.ok("snapshot", index.snapshot()) {
            seen.check("generation", &snapshot.generation(), &self.generation);
            seen.check("count of rows", &snapshot.rows(), &(self.rows.len() as u64));
            if let Some(payload) = seen.ok("payload", snapshot.payload()) {
                seen.check("payload", &payload, &self.payload);
            }
            for example in &self.examples {
                if let Some(found) = seen.ok("get", snapshot.get(&example.id)) {
                    seen.check("get", &found.as_ref(), &Some(example));
                }
            }
            for id in &self.gone {
                if let Some(found) = seen.ok("get", snapshot.get(id)) {
                    seen.check("a deleted example", &found, &None);
                }
            }
            let ids: Result<Vec<_>, _> = snapshot.ids().collect();
            if let Some(ids) = seen.ok("ids", ids) {
                seen.check("ids", &ids, &self.examples.iter().map(|example| example.id.clone()).collect());
            }
            if let Some(stats) = seen.ok("stats", snapshot.stats()) {
                seen.check("rows of the statistics", &stats.rows, &(self.rows.len() as u64));
            }
            if through_map {
                let rows: Result<Vec<_>, _> = snapshot.iter().with_sketches().collect();
                if let Some(rows) = seen.ok("iterate", rows) {
                    // In order of segments, which compaction changes.
                    let sorted = |rows: &[StoredRow]| {
                        let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                        rows.sort();
                        rows
                    };
                    seen.check("rows", &sorted(&rows), &sorted(&self.rows));
                }
                if let Some(sources) = seen.ok("sources", snapshot.sources()) {
                    seen.check("sources", &sources, &self.sources);
                }
                if let Some(hits) = seen.ok("scan", hits(&snapshot)) {
                    seen.check("ranking", &hits, &self.hits);
                }
            }
        }
        let noticed = seen.errors.len() > before;
        if let Some(report) = seen.ok("verify", index.verify()) {
            if noticed && report.is_sound() {
                seen.wrong.push(format!("verification missed {}", seen.errors[before]));
            }
            let findings = report.findings.iter();
            seen.errors
                .extend(findings.map(|finding| format!("verify: {}: {}", finding.file, finding.message)));
        }
    }
}

/// How far [`change`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// Nothing was committed.
    Refused,
    /// The commit failed: it may have happened or not.
    Unknown,
    Committed,
    /// Compacted and collected too.
    Compacted,
}

const PAYLOAD: &str = "after";

/// The same changes each time: one of each kind.
fn change(index: &Index, seen: &mut Seen) -> Changes {
    let Some(mut writer) = seen.ok("writer", index.writer()) else { return Changes::Refused };
    let sketches = [sketch_for(501), sketch_for(502)];
    let row = Row::new(&sketches[0]).source("late").metadata(b"metadata of a late row");
    let appended = seen.ok("append", writer.append_rows("new", &[row, row.span(Span::tokens(3, 9))]));
    let replaced = seen.ok("replace", writer.replace("0-0", &[Row::new(&sketches[1])]));
    let deleted = seen.ok("delete", writer.delete("1-1"));
    if deleted == Some(false) {
        seen.wrong.push("delete: 1-1 is not there".into());
    }
    if (appended, replaced, deleted) != (Some(()), Some(()), Some(true)) {
        return Changes::Refused;
    }
    let Some(prepared) = seen.ok("prepare", writer.prepare_commit()) else { return Changes::Refused };
    if seen.ok("commit", prepared.payload(PAYLOAD).commit()).is_none() {
        return Changes::Unknown;
    }
    if seen.ok("compact", writer.compact(CompactOptions::all())).is_none() {
        return Changes::Committed;
    }
    seen.ok("gc", writer.gc(GcOptions::default().grace(Duration::ZERO)));
    Changes::Compacted
}

/// Before and after [`change`].
struct Expected {
    before: State,
    after: State,
}

impl Expected {
    fn learn(sound: &Path) -> Self {
        let index = Index::open(sound).unwrap();
        let before = State::of(&index, &["0-2"]);
        let mut seen = Seen::default();
        let changes = change(&index, &mut seen);
        assert!(changes == Changes::Compacted && seen.errors.is_empty(), "{seen:?}");
        drop(index);
        let after = State::of(&Index::open(sound).unwrap(), &["0-2", "1-1"]);
        Self { before, after }
    }

    fn try_folder(&self, how: Use, path: &Path, file: &str) -> Seen {
        let mut seen = Seen::default();
        let Some(index) = seen.ok("open", Index::open(path)) else {
            // A folder that no reader can open must not be taken by a writer either; there is no way to ask
            // for one without the other.
            return seen;
        };
        if let Use::Changed(change) = how {
            // Taken before: its segments are open.
            let snapshot = index.snapshot().unwrap();
            apply(change, &path.join(file));
            for example in &self.before.examples {
                if let Some(found) = seen.ok("get", snapshot.get(&example.id)) {
                    seen.check("get", &found.as_ref(), &Some(example));
                }
            }
        }
        self.before.compare(&index, !matches!(how, Use::Changed(_)), &mut seen);
        if how == Use::Read {
            return seen;
        }
        let changes = change(&index, &mut seen);
        drop(index);
        let Some(index) = seen.ok("open again", Index::open(path)) else { return seen };
        let committed =
            State { generation: self.before.generation + 1, payload: PAYLOAD.into(), ..self.after.clone() };
        let expected = match changes {
            Changes::Compacted => &self.after,
            Changes::Committed => &committed,
            Changes::Refused => &self.before,
            // Whole or not at all.
            Changes::Unknown => match index.snapshot() {
                Ok(snapshot) if snapshot.generation() > self.before.generation => &committed,
                _ => &self.before,
            },
        };
        expected.compare(&index, !matches!(how, Use::Changed(_)), &mut seen);
        seen
    }
}

fn apply(change: Change, path: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    match change {
        Change::Shrinks => file.set_len(length / 2).unwrap(),
        Change::Empties => file.set_len(0).unwrap(),
        Change::Grows => file.set_len(length + 4096).unwrap(),
        Change::IsOverwritten => {
            use std::os::unix::fs::FileExt as _;
            file.write_all_at(&vec![0xA5; usize::try_from(length).unwrap() / 2], length / 4).unwrap();
        }
    }
}

/// No allocation beyond what is there now and [`MEMORY`].
fn limit_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let now: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = (now << 10) + MEMORY;
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the call reads the struct that it is given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    // No core files of what is expected to die.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }, 0);
}

/// Reads cases from the standard input until it ends.
pub fn work(sound: &Path) {
    let expected = Expected::learn(sound);
    limit_memory();
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n@{line}").unwrap();
        out.flush().unwrap();
    };
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut fields = line.split('\t');
        let (how, path, file) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let seen = expected.try_folder(Use::parse(how), Path::new(path), file);
        let vague = seen.errors.iter().find(|message| !folder::names_a_place(message));
        let one_line = |message: &str| message.replace(['\n', '\t'], " ");
        match (seen.wrong.first(), vague, seen.errors.first()) {
            (Some(wrong), ..) => say(&format!("wrong\t{} | {:?}", one_line(wrong), seen.errors)),
            (None, Some(vague), _) => say(&format!("vague\t{}", one_line(vague))),
            (None, None, Some(error)) => say(&format!("error\t{}", one_line(error))),
            (None, None, None) => say("unharmed\t"),
        }
    }
}
