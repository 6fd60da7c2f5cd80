//! What is done to an index, and what must be in it afterwards: the operations, and an oracle that knows their
//! effects without the index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use gradix::sketch::Sketch;
use gradix::{
    Attach, CompactOptions, Curvature, Encoding, FitOptions, GcOptions, Index, IndexOptions, Part, PartError,
    Result, Row, Schema, SelfInfluenceOptions, Span, Tier, Writer,
};

use crate::fixtures::random::Random;
use crate::fixtures::sketches::{sketch_of, spec};

/// The oracle remembers generations that were collected, as an interrupted collection leaves them readable.
const KEPT: u64 = 100;
/// About as many examples are kept.
const EXAMPLES: usize = 40;

/// Something that a caller can do. It does it, and tells the oracle.
pub struct Operation {
    pub name: &'static str,
    pub run: fn(&mut Session) -> Result<()>,
}

/// All operations, in an order in which they make sense. A workload does each of them once in this order, then
/// more of them at random. A new one needs a line here, and no change elsewhere unless there is something new to
/// compare: that goes into [`Content`].
pub const OPERATIONS: &[Operation] = &[
    Operation { name: "append", run: append },
    Operation { name: "append spans", run: append_spans },
    Operation { name: "append batch", run: append_batch },
    Operation { name: "commit", run: commit },
    Operation { name: "append", run: append },
    Operation { name: "prepare, then go on", run: prepare_and_go_on },
    Operation { name: "delete", run: delete },
    Operation { name: "commit with payload", run: commit_with_payload },
    Operation { name: "replace", run: replace },
    Operation { name: "reopen the writer", run: reopen_writer },
    Operation { name: "append", run: append },
    Operation { name: "abort", run: abort },
    Operation { name: "replace", run: replace },
    Operation { name: "append much", run: append_much },
    Operation { name: "commit", run: commit },
    Operation { name: "compact", run: compact },
    Operation { name: "append spans", run: append_spans },
    Operation { name: "abort when prepared", run: abort_when_prepared },
    Operation { name: "collect", run: collect },
    Operation { name: "append", run: append },
    Operation { name: "attach links", run: attach_links },
    Operation { name: "attach, then abort", run: attach_then_abort },
    Operation { name: "append", run: append },
    Operation { name: "delete", run: delete },
    Operation { name: "attach and move", run: attach_and_move },
    Operation { name: "attach a copy", run: attach_copy },
    Operation { name: "attach what was never synced", run: attach_unsynced },
    Operation { name: "compact", run: compact },
    Operation { name: "collect", run: collect },
    Operation { name: "append", run: append },
    Operation { name: "fit", run: fit },
    Operation { name: "append", run: append },
    Operation { name: "observe", run: observe },
    Operation { name: "delete", run: delete },
    Operation { name: "fit", run: fit },
    Operation { name: "fit the self-influence", run: fit_self_influence },
    Operation { name: "observe, then abort", run: observe_then_abort },
    Operation { name: "compact", run: compact },
    Operation { name: "reopen the index", run: reopen_index },
];

/// What a generation shows. Whatever an operation adds to an index that a reader can see belongs in here, and is
/// compared in `check::compare`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The number of each example; [`rows_of`] makes its rows from it.
    pub examples: BTreeMap<String, u64>,
    pub payload: String,
    /// The rows in the sums of the curvature; 0 if there is none.
    pub fitted: u64,
    /// The sketches in the sums of those that were observed.
    pub observed: u64,
}

/// What a workload says about itself, for an oracle that watches from elsewhere.
#[derive(Debug, Clone)]
pub enum Mark {
    /// An index is about to be created, in a folder that is empty or not there.
    Creating,
    /// It was created.
    Created,
    /// Generations up to this one are about to be published, all with this content.
    Publishing { upto: u64, content: Arc<Content> },
    /// Everything up to this generation was acknowledged.
    Acknowledged { generation: u64 },
    /// After a failure, the index was found to be at this generation.
    Found { generation: u64 },
    /// Generations before this one are about to be collected.
    Collecting { oldest: u64 },
    /// From now on, this finished part (its folder, from that of the index's folder on) is whole until the generation is
    /// published that takes it; or none is.
    Offering(Option<Offer>),
}

/// A part that is somebody's only copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub part: String,
    pub generation: u64,
}

impl Mark {
    /// A line for a file outside of the index.
    pub fn to_line(&self) -> String {
        match self {
            Self::Creating => "creating\n".into(),
            Self::Created => "created\n".into(),
            Self::Publishing { upto, content } => {
                let Content { payload, fitted, observed, .. } = &**content;
                let mut line = format!("publishing {upto} {fitted} {observed} {payload}");
                for (id, number) in &content.examples {
                    line.push_str(&format!(" {id}={number}"));
                }
                line + "\n"
            }
            Self::Acknowledged { generation } => format!("acknowledged {generation}\n"),
            Self::Found { generation } => format!("found {generation}\n"),
            Self::Collecting { oldest } => format!("collecting {oldest}\n"),
            Self::Offering(None) => "withdrawing\n".into(),
            Self::Offering(Some(Offer { part, generation })) => format!("offering {generation} {part}\n"),
        }
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some(match word {
            "creating" => Self::Creating,
            "created" => Self::Created,
            "publishing" => {
                let (upto, fitted, observed) = (number()?, number()?, number()?);
                let payload = words.next()?.to_owned();
                let example = |word: &str| {
                    let (id, number) = word.split_once('=')?;
                    Some((id.to_owned(), number.parse().ok()?))
                };
                let examples = words.map(example).collect::<Option<_>>()?;
                Self::Publishing { upto, content: Arc::new(Content { examples, payload, fitted, observed }) }
            }
            "acknowledged" => Self::Acknowledged { generation: number()? },
            "found" => Self::Found { generation: number()? },
            "collecting" => Self::Collecting { oldest: number()? },
            "withdrawing" => Self::Offering(None),
            "offering" => {
                let generation = number()?;
                Self::Offering(Some(Offer { part: words.next()?.to_owned(), generation }))
            }
            _ => return None,
        })
    }
}

/// What an index may show, from the marks so far.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    pub created: bool,
    /// The newest acknowledged generation.
    pub acknowledged: u64,
    contents: BTreeMap<u64, Arc<Content>>,
    /// Of a commit that has not returned: up to which generation, and what they show.
    publishing: Option<(u64, Arc<Content>)>,
    /// Generations before this one may have been collected.
    pub oldest: u64,
    /// A part that must be whole.
    pub offered: Option<Offer>,
}

impl Oracle {
    pub fn observe(&mut self, mark: &Mark) {
        match mark {
            Mark::Creating => *self = Self::default(),
            Mark::Created => self.created = true,
            Mark::Publishing { upto, content } => self.publishing = Some((*upto, Arc::clone(content))),
            Mark::Acknowledged { generation } | Mark::Found { generation } => {
                if let Some((_, content)) = self.publishing.take() {
                    for published in self.acknowledged + 1..=*generation {
                        self.contents.insert(published, Arc::clone(&content));
                    }
                }
                self.acknowledged = *generation;
                self.offered = None;
            }
            Mark::Offering(offer) => self.offered.clone_from(offer),
            Mark::Collecting { oldest } => {
                self.oldest = *oldest;
                self.contents.retain(|&generation, _| generation + KEPT >= *oldest);
            }
        }
    }

    /// Marks from which another oracle knows as much about the newest generation.
    pub fn to_marks(&self) -> Vec<Mark> {
        if !self.created {
            return Vec::new();
        }
        let content = self.contents.get(&self.acknowledged).cloned().unwrap_or_default();
        let mut marks = vec![
            Mark::Creating,
            Mark::Created,
            Mark::Publishing { upto: self.acknowledged, content },
            Mark::Acknowledged { generation: self.acknowledged },
        ];
        if let Some((upto, content)) = &self.publishing {
            marks.push(Mark::Publishing { upto: *upto, content: Arc::clone(content) });
        }
        marks
    }

    /// What a generation shows; `None` if nobody may see it.
    pub fn content(&self, generation: u64) -> Option<Arc<Content>> {
        if generation == 0 {
            return Some(Arc::default());
        }
        match &self.publishing {
            Some((upto, content)) if (self.acknowledged + 1..=*upto).contains(&generation) => {
                Some(Arc::clone(content))
            }
            _ => self.contents.get(&generation).cloned(),
        }
    }

    /// From now on the index must stay one, even if the creation was cut off: somebody has opened it.
    pub fn once_opened(&self) -> Self {
        Self { created: true, ..self.clone() }
    }

    /// The newest generation that may be seen.
    pub fn newest(&self) -> u64 {
        self.publishing.as_ref().map_or(self.acknowledged, |(upto, _)| *upto)
    }
}

/// One row, as it is appended and as it must come back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    pub sketch: Sketch,
    pub span: Span,
    pub source: Option<String>,
    pub metadata: Vec<u8>,
}

/// Seventeen of these need more than one segment.
fn is_great(number: u64) -> bool {
    number % 1000 == 77
}

/// The rows of the example with this number: some have several, some several pages of metadata.
pub fn rows_of(number: u64) -> Vec<StoredRow> {
    let mut random = Random(number);
    let count = if number.is_multiple_of(3) { 3 } else { 1 };
    let row = |ordinal: u32| {
        let sketch = sketch_of(&spec(), random.next());
        let length = match random.below(4) {
            _ if is_great(number) => 65_000,
            0 => 3000 + random.below(6000),
            _ => random.below(40),
        };
        let metadata = (0..length).map(|_| random.next() as u8).collect();
        let source = (random.below(2) == 0).then(|| format!("source {}", random.below(3)));
        let span = if count == 1 { Span::WHOLE } else { Span::tokens(ordinal * 8, ordinal * 8 + 8) };
        StoredRow { sketch, span, source, metadata }
    };
    (0..count).map(row).collect()
}

fn lend(row: &StoredRow) -> Row<'_> {
    let lent = Row::new(&row.sketch).span(row.span).metadata(&row.metadata);
    match &row.source {
        Some(source) => lent.source(source),
        None => lent,
    }
}

pub fn schema() -> Schema {
    Schema::new(spec(), Encoding::F32).unwrap().with_tiers([Tier::I8]).unwrap()
}

/// The smallest segments that there are.
fn options() -> IndexOptions {
    Index::options().segment_bytes(1 << 20)
}

/// A caller at work, and the oracle that it keeps.
pub struct Session {
    path: PathBuf,
    pub index: Index,
    writer: Option<Writer>,
    pub oracle: Oracle,
    /// What the next commit will show.
    next: Content,
    is_changed: bool,
    random: Random,
    tell: fn(&Mark),
}

impl Session {
    /// Creates an index. `tell` is told each mark at its time.
    pub fn create(path: &Path, seed: u64, tell: fn(&Mark)) -> Result<Self> {
        tell(&Mark::Creating);
        let index = options().create(path, &schema())?;
        tell(&Mark::Created);
        let mut oracle = Oracle::default();
        oracle.observe(&Mark::Creating);
        oracle.observe(&Mark::Created);
        Ok(Self::with(path, index, oracle, seed, tell))
    }

    /// Goes on with an index of which `oracle` says what may be in it. The writer is opened.
    pub fn open(path: &Path, oracle: Oracle, seed: u64, tell: fn(&Mark)) -> Result<Self> {
        let index = options().open(path)?;
        let mut session = Self::with(path, index, oracle, seed, tell);
        session.find()?;
        Ok(session)
    }

    fn with(path: &Path, index: Index, oracle: Oracle, seed: u64, tell: fn(&Mark)) -> Self {
        let (path, random) = (path.to_owned(), Random(seed));
        let next = Content::default();
        Self { path, index, writer: None, oracle, next, is_changed: false, random, tell }
    }

    /// Opens a writer after a failure, and takes what it finds for the truth. What that may be, the caller
    /// checks.
    pub fn find(&mut self) -> Result<()> {
        let generation = self.open_writer()?.generation();
        assert!(
            generation >= self.oracle.acknowledged && generation <= self.oracle.newest(),
            "the writer found generation {generation}, where {} was acknowledged and {} is the newest",
            self.oracle.acknowledged,
            self.oracle.newest()
        );
        self.found(generation);
        Ok(())
    }

    /// A writer that failed without harm goes on from this generation.
    pub fn found(&mut self, generation: u64) {
        self.mark(&Mark::Found { generation });
        self.forget();
    }

    /// Uncommitted changes are gone.
    pub fn forget(&mut self) {
        let content = self.oracle.content(self.oracle.acknowledged).unwrap_or_default();
        self.next = Content { payload: String::new(), ..(*content).clone() };
        self.is_changed = false;
    }

    /// Drops writer and handle.
    pub fn close(self) -> Oracle {
        self.oracle
    }

    pub fn drop_writer(&mut self) {
        self.writer = None;
        self.forget();
    }

    pub fn writer(&mut self) -> Option<&mut Writer> {
        self.writer.as_mut()
    }

    fn mark(&mut self, mark: &Mark) {
        self.oracle.observe(mark);
        (self.tell)(mark);
    }

    fn open_writer(&mut self) -> Result<&mut Writer> {
        if self.writer.is_none() {
            self.writer = Some(self.index.writer()?);
        }
        Ok(self.writer.as_mut().expect("it was just opened"))
    }

    fn new_id(&mut self) -> (String, u64) {
        let number = self.random.next() >> 16;
        (format!("example-{number}"), number)
    }

    fn some_id(&mut self) -> Option<String> {
        let ids: Vec<&String> = self.next.examples.keys().collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len())].clone())
    }

    fn append_number(&mut self, id: String, number: u64) -> Result<()> {
        self.make_room()?;
        let rows = rows_of(number);
        let rows: Vec<Row<'_>> = rows.iter().map(lend).collect();
        self.open_writer()?.append_rows(&id, &rows)?;
        self.next.examples.insert(id, number);
        self.is_changed = true;
        Ok(())
    }

    /// Keeps the index small, however long the workload is.
    fn make_room(&mut self) -> Result<()> {
        while self.next.examples.len() > EXAMPLES {
            delete(self)?;
        }
        Ok(())
    }

    fn publish(&mut self, payload: &str) -> Result<()> {
        self.open_writer()?;
        self.next.payload = payload.into();
        let (upto, content) = (self.oracle.acknowledged + 1, Arc::new(self.next.clone()));
        self.mark(&Mark::Publishing { upto, content });
        let writer = self.open_writer()?;
        let commit = if payload.is_empty() {
            writer.commit()?
        } else {
            writer.prepare_commit()?.payload(payload).commit()?
        };
        self.acknowledged(commit.generation);
        Ok(())
    }

    fn acknowledged(&mut self, generation: u64) {
        assert!(generation <= self.oracle.newest(), "generation {generation} was never asked for");
        self.mark(&Mark::Acknowledged { generation });
        self.next.payload.clear();
        self.is_changed = false;
    }
}

/// The operation with this name.
pub fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).expect("a name in the list")
}

/// The operations of a workload: all, in their order, then `more` at random.
pub fn script(seed: u64, more: usize) -> Vec<&'static Operation> {
    let mut random = Random(seed);
    let mut script: Vec<_> = OPERATIONS.iter().collect();
    script.extend((0..more).map(|_| &OPERATIONS[random.below(OPERATIONS.len())]));
    script
}

fn append(session: &mut Session) -> Result<()> {
    let (id, number) = session.new_id();
    session.append_number(id, number)
}

fn append_spans(session: &mut Session) -> Result<()> {
    let (id, number) = session.new_id();
    session.append_number(id, number / 3 * 3)
}

fn append_batch(session: &mut Session) -> Result<()> {
    session.make_room()?;
    let mut batch = Vec::new();
    while batch.len() < 5 {
        let (id, number) = session.new_id();
        let mut rows = rows_of(number);
        if rows.len() == 1 {
            batch.push((id, number, rows.remove(0)));
        }
    }
    let lent: Vec<(&str, Row<'_>)> = batch.iter().map(|(id, _, row)| (&id[..], lend(row))).collect();
    session.open_writer()?.append_batch(&lent)?;
    session.next.examples.extend(batch.into_iter().map(|(id, number, _)| (id, number)));
    session.is_changed = true;
    Ok(())
}

/// More than a segment.
fn append_much(session: &mut Session) -> Result<()> {
    for _ in 0..17 {
        let (id, number) = session.new_id();
        session.append_number(id, number / 3000 * 3000 + 77)?;
    }
    Ok(())
}

fn replace(session: &mut Session) -> Result<()> {
    let (Some(id), (_, number)) = (session.some_id(), session.new_id()) else { return append(session) };
    let rows = rows_of(number);
    let rows: Vec<Row<'_>> = rows.iter().map(lend).collect();
    session.open_writer()?.replace(&id, &rows)?;
    session.next.examples.insert(id, number);
    session.is_changed = true;
    Ok(())
}

fn delete(session: &mut Session) -> Result<()> {
    let Some(id) = session.some_id() else { return Ok(()) };
    assert!(session.open_writer()?.delete(&id)?, "{id} is not there");
    session.next.examples.remove(&id);
    session.is_changed = true;
    Ok(())
}

fn commit(session: &mut Session) -> Result<()> {
    session.publish("")
}

fn commit_with_payload(session: &mut Session) -> Result<()> {
    // Of several pages, so that the manifest's log record is too: pages of it can be lost one by one.
    let payload = format!("payload-{}", session.random.next());
    session.publish(&payload.repeat(400))
}

/// A prepared commit that is dropped leaves the changes in the writer.
fn prepare_and_go_on(session: &mut Session) -> Result<()> {
    drop(session.open_writer()?.prepare_commit()?);
    Ok(())
}

fn abort(session: &mut Session) -> Result<()> {
    session.open_writer()?.abort()?;
    session.forget();
    Ok(())
}

fn abort_when_prepared(session: &mut Session) -> Result<()> {
    session.open_writer()?.prepare_commit()?.abort()?;
    session.forget();
    Ok(())
}

fn compact(session: &mut Session) -> Result<()> {
    if session.is_changed {
        session.publish("")?;
    }
    session.open_writer()?;
    // At most one generation for each segment; each shows what the last one does.
    let upto = session.oracle.acknowledged + session.index.stats()?.segments.len() as u64;
    let content = Arc::new(Content { payload: String::new(), ..session.next.clone() });
    session.mark(&Mark::Publishing { upto, content });
    let writer = session.open_writer()?;
    writer.compact(CompactOptions::all())?;
    let generation = writer.generation();
    session.acknowledged(generation);
    Ok(())
}

/// Sums up the live rows.
fn fit(session: &mut Session) -> Result<()> {
    if session.is_changed {
        session.publish("")?;
    }
    session.open_writer()?;
    let rows = |number: &u64| rows_of(*number).len() as u64;
    let fitted = session.next.examples.values().map(rows).sum();
    session.next = Content { payload: String::new(), fitted, ..session.next.clone() };
    let (upto, content) = (session.oracle.acknowledged + 1, Arc::new(session.next.clone()));
    session.mark(&Mark::Publishing { upto, content });
    let fit = session.open_writer()?.fit_curvature(FitOptions::default())?;
    session.acknowledged(fit.generation);
    Ok(())
}

fn fit_self_influence(session: &mut Session) -> Result<()> {
    if session.is_changed {
        session.publish("")?;
    }
    if session.next.fitted == 0 {
        return Ok(());
    }
    session.open_writer()?;
    session.next.payload.clear();
    let (upto, content) = (session.oracle.acknowledged + 1, Arc::new(session.next.clone()));
    session.mark(&Mark::Publishing { upto, content });
    let curvature = Curvature::default().allow_missing(1.0);
    let options = SelfInfluenceOptions::default().curvature(curvature);
    let fit = session.open_writer()?.fit_self_influence(options)?;
    session.acknowledged(fit.generation);
    Ok(())
}

/// Adds sketches to sums without storing them.
fn observe_one(session: &mut Session) -> Result<()> {
    let Some(id) = session.some_id() else { return append(session) };
    let sketches: Vec<Sketch> = (0..3).map(|_| sketch_of(&spec(), session.random.next())).collect();
    session.open_writer()?.observe("observed", &id, &sketches)?;
    session.next.observed += 3;
    session.is_changed = true;
    Ok(())
}

fn observe(session: &mut Session) -> Result<()> {
    observe_one(session)?;
    observe_one(session)?;
    session.publish("")
}

fn observe_then_abort(session: &mut Session) -> Result<()> {
    observe_one(session)?;
    abort(session)
}

fn collect(session: &mut Session) -> Result<()> {
    if session.is_changed {
        session.publish("")?;
    }
    session.open_writer()?;
    let oldest = session.oracle.acknowledged;
    session.mark(&Mark::Collecting { oldest });
    session.open_writer()?.gc(GcOptions::default().grace(Duration::ZERO))?;
    Ok(())
}

fn reopen_writer(session: &mut Session) -> Result<()> {
    session.drop_writer();
    session.open_writer()?;
    Ok(())
}

fn reopen_index(session: &mut Session) -> Result<()> {
    session.drop_writer();
    session.index = options().open(&session.path)?;
    session.open_writer()?;
    Ok(())
}

/// What the workload itself does to files; its calls are made to fail too.
fn own(path: &Path, done: io::Result<()>) -> Result<()> {
    let path = path.to_owned();
    Ok(done.map_err(|source| PartError::Io { path, operation: "work on", source })?)
}

/// Removes finished and moved parts of earlier operations; what is unfinished the next detached writer removes.
fn remove_parts(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.extension().is_none_or(|end| end != "unfinished") {
            // Its description last: files without one are never attached.
            let mut files =
                fs::read_dir(&path)?.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>()?;
            files.sort_by_key(|file| file.ends_with("PART"));
            files.into_iter().try_for_each(fs::remove_file)?;
            fs::remove_dir(path)?;
        }
    }
    Ok(())
}

/// Builds a part with some examples, beside the index, and says what is in it.
fn build(session: &mut Session) -> Result<(Part, Vec<(String, u64)>)> {
    session.make_room()?;
    let folder = session.path.with_extension("parts");
    session.mark(&Mark::Offering(None));
    own(&folder, remove_parts(&folder))?;
    let mut detached = session.index.detached(&folder)?;
    detached.fit_curvature("curvature", &[])?;
    let mut examples = Vec::new();
    for _ in 0..3 {
        let (id, number) = session.new_id();
        let rows = rows_of(number);
        let rows: Vec<Row<'_>> = rows.iter().map(lend).collect();
        detached.append_rows(&id, &rows)?;
        examples.push((id, number));
    }
    let part = detached.finish(format!("payload of {}", examples[0].0))?;
    let name = part.path.strip_prefix(folder.parent().expect("a folder in another")).expect("within it");
    let (part_name, generation) = (name.to_str().expect("ASCII").to_owned(), session.oracle.acknowledged + 1);
    session.mark(&Mark::Offering(Some(Offer { part: part_name, generation })));
    Ok((part, examples))
}

fn attach(session: &mut Session, part: &Path, examples: Vec<(String, u64)>, how: Attach) -> Result<()> {
    session.open_writer()?.attach(part, how)?;
    session.next.fitted += examples.iter().map(|(_, number)| rows_of(*number).len() as u64).sum::<u64>();
    session.next.examples.extend(examples);
    session.is_changed = true;
    session.publish("")
}

fn attach_links(session: &mut Session) -> Result<()> {
    let (part, examples) = build(session)?;
    attach(session, &part.path, examples, Attach::Link)?;
    // The builder's files may go at any time now.
    let folder = session.path.with_extension("parts");
    own(&folder, remove_parts(&folder))
}

fn attach_and_move(session: &mut Session) -> Result<()> {
    let (part, examples) = build(session)?;
    attach(session, &part.path, examples, Attach::Move)
}

fn attach_copy(session: &mut Session) -> Result<()> {
    let (part, examples) = build(session)?;
    attach(session, &part.path, examples, Attach::Copy)
}

/// A part that came from another machine, by a program that does not sync.
fn attach_unsynced(session: &mut Session) -> Result<()> {
    let (part, examples) = build(session)?;
    let inbox = session.path.with_extension("inbox");
    let target = inbox.join("00000001.part");
    let copy = || {
        remove_parts(&inbox)?;
        for folder in [&inbox, &target] {
            if !folder.exists() {
                fs::create_dir(folder)?;
            }
        }
        for entry in fs::read_dir(&part.path)? {
            let path = entry?.path();
            fs::write(target.join(path.file_name().expect("a file")), fs::read(&path)?)?;
        }
        Ok(())
    };
    own(&inbox, copy())?;
    attach(session, &inbox, examples, Attach::Link)
}

fn attach_then_abort(session: &mut Session) -> Result<()> {
    let (part, _) = build(session)?;
    session.open_writer()?.attach(&part.path, Attach::Move)?;
    session.open_writer()?.abort()?;
    session.forget();
    Ok(part.verify()?)
}
