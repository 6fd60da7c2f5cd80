//! From inputs to commits: one thread reads and converts, the others encode, and rows become durable commit by commit.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use gradix::formats::{Batch, RowSource};
use gradix::scan::CancelToken;
use gradix::{AppendError, Existing, Row, Schema};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;
use crate::record::{Payloads as _, Position, Record, id_digits, path_text, value_digits};
use crate::target::Target;

/// The bytes of a batch, from which its number of rows follows.
const BATCH_BYTES: usize = 8 << 20;
/// The most rows of a batch.
const BATCH_ROWS: usize = 8192;
/// The rows that are read at a time while it is not known how long one is, or if their metadata may be 64 KiB each.
const FEW_ROWS: usize = 64;
/// The most rows of an example, and the most bytes of its ids and metadata, that the engine takes.
const EXAMPLE_ROWS: usize = 65_536;
const EXAMPLE_BYTES: usize = 256 << 20;
/// The batches that are read ahead.
const READ_AHEAD: usize = 2;
/// The most examples of a commit, which it has in memory at about 400 bytes each.
pub const MOST_EXAMPLES: usize = 250_000;
/// The bytes of codes from which on a commit comes sooner, so that a kill does not cost many minutes.
const COMMIT_BYTES: usize = 4 << 30;
/// How often Ctrl-C is looked for while an input is waited for.
const POLL: Duration = Duration::from_millis(100);

/// The default number of examples of a commit.
pub fn commit_examples(schema: &Schema) -> usize {
    (COMMIT_BYTES / schema.row_bytes().max(1)).clamp(1, MOST_EXAMPLES)
}

/// Opens an input by its ordinal.
pub type Opener = Box<dyn FnMut(usize) -> Result<Box<dyn RowSource>> + Send>;

/// What an append has done.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Done {
    /// The generation of the last commit, or the number of the last part.
    pub last: u64,
    pub commits: u64,
    pub rows: u64,
    pub examples: u64,
    pub replaced: u64,
    pub skipped: u64,
}

/// An append: what becomes of the rows that are read.
pub struct Ingest<'a> {
    pub paths: &'a [PathBuf],
    pub schema: &'a Schema,
    /// A source label for all rows, in place of the inputs' own.
    pub source: Option<&'a str>,
    pub existing: Existing,
    pub commit_every: usize,
    pub target: Target,
    /// How far an append of these inputs is.
    pub record: Record,
    /// The examples since the last commit.
    pub uncommitted: usize,
    /// Those of them that were appended, where examples that are there may be skipped or replaced.
    pub fresh: HashSet<Vec<u8>>,
    /// What is appended since the last commit.
    pub pending: Done,
    pub done: Done,
}

/// Rows that can be appended, as none of their examples has rows behind them.
#[derive(Default)]
struct Ready<'b> {
    ids: Vec<&'b [u8]>,
    values: Vec<&'b [f32]>,
    rows: Vec<Row<'b>>,
    places: Vec<Position>,
}

/// The last example that was read, of which more rows may come.
#[derive(Default)]
struct Held {
    rows: Batch,
    at: Position,
}

impl Ingest<'_> {
    /// Appends all that is behind the record's position.
    pub fn run(mut self, open: Opener, output: &Output) -> Result<Done> {
        let token = interrupt::token()?;
        self.done.last = self.target.last();
        match self.append_all(open, &token, output) {
            Ok(true) => Ok(self.done),
            Ok(false) => Err(Failure::Interrupted(format!("interrupted; {}", self.kept()))),
            Err(failure) => Err(failure.and(self.kept())),
        }
    }

    /// What an append that ends early has made durable.
    fn kept(&self) -> String {
        if let Target::Dry(_) = self.target {
            return "nothing was to be appended".into();
        }
        let (now, all) = (self.done.rows, self.record.rows_in_all);
        let resume =
            if all > 0 { "; with --resume, an append of the same inputs goes on behind them" } else { "" };
        let before = if all > now { format!(" after {} by earlier runs", all - now) } else { String::new() };
        format!("{now} rows are committed{before}{resume}")
    }

    /// Returns whether it came to the end, and was not interrupted.
    fn append_all(&mut self, open: Opener, token: &CancelToken, output: &Output) -> Result<bool> {
        let (receiver, back) = Reader::start(self, open)?;
        let mut progress = output.progress("appending", "rows", None);
        let mut held = Held { rows: Batch::default(), at: self.record.at };
        let (mut ended, mut read) = (self.record.at.input, 0);
        loop {
            if token.is_cancelled() {
                // What is appended is whole: it may as well stay.
                self.commit(held.at, false)?;
                return Ok(false);
            }
            match receiver.recv_timeout(POLL) {
                Ok(Read::Rows { input, first_row, total, batch }) => {
                    self.take(&mut held, Position { input, row: first_row }, &batch)?;
                    read += batch.rows as u64;
                    progress.set(read, total);
                    // The reader may have ended.
                    let _ = back.send(batch);
                }
                Ok(Read::End) => {
                    ended += 1;
                    self.append(&self.ready(&held, None), Position { input: ended, row: 0 })?;
                    held = Held { rows: Batch::default(), at: Position { input: ended, row: 0 } };
                }
                Ok(Read::Failed(failure)) => return Err(failure),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if ended >= self.paths.len() => break,
                Err(RecvTimeoutError::Disconnected) => {
                    let source = std::io::Error::other("the reading thread has ended");
                    return Err(Failure::Io { what: "read the inputs".into(), source });
                }
            }
        }
        self.commit(Position { input: ended, row: 0 }, true)?;
        Ok(true)
    }

    /// Appends the examples of a batch that begins at a place, but for the last, which is held.
    fn take(&mut self, held: &mut Held, at: Position, batch: &Batch) -> Result {
        let dims = self.schema.spec().dims();
        let same = |id: Option<&Vec<u8>>| batch.ids.iter().take_while(|&other| Some(other) == id).count();
        let lead = if held.rows.rows > 0 { same(held.rows.ids.first()) } else { 0 };
        hold(batch, 0..lead, dims, &mut held.rows);
        self.check_held(held)?;
        if lead == batch.rows {
            return Ok(());
        }
        let tail = batch.ids.iter().rev().take_while(|&id| Some(id) == batch.ids.last()).count();
        let end = batch.rows - tail;
        let next = Position { row: at.row + end as u64, ..at };
        let ready = self.ready(held, Some((batch, lead..end, at)));
        self.append(&ready, next)?;
        held.rows.clear();
        hold(batch, end..batch.rows, dims, &mut held.rows);
        held.at = next;
        Ok(())
    }

    /// Fails as soon as the held example is more than the engine takes, so that it is not in memory as a whole.
    fn check_held(&self, held: &Held) -> Result {
        let Held { rows: Batch { rows, ids, metadata, .. }, .. } = held;
        let bytes = ids.iter().chain(metadata).map(Vec::len).sum();
        let Some(id) = ids.first().filter(|_| *rows > EXAMPLE_ROWS || bytes > EXAMPLE_BYTES) else {
            return Ok(());
        };
        let error = AppendError::TooLarge { id: id.clone(), rows: *rows, bytes };
        let ready = self.ready(held, None);
        Err(self.located(error.into(), &ready, std::slice::from_ref(&(0..*rows))))
    }

    /// What was held, and some rows of a batch that begins at a place.
    fn ready<'b>(&self, held: &'b Held, more: Option<(&'b Batch, Range<usize>, Position)>) -> Ready<'b>
    where
        Self: 'b,
    {
        let mut ready = Ready::default();
        let dims = self.schema.spec().dims();
        let first = (&held.rows, 0..held.rows.rows, held.at);
        for (batch, rows, at) in std::iter::once(first).chain(more) {
            for row in rows {
                ready.ids.push(&batch.ids[row]);
                ready.values.push(&batch.values[row * dims..(row + 1) * dims]);
                ready.rows.push(row_of(batch, row, dims));
                ready.places.push(Position { row: at.row + row as u64, ..at });
            }
        }
        ready
    }

    /// Appends rows, and commits whenever so many examples are there; `next` is the place behind the rows.
    fn append(&mut self, ready: &Ready<'_>, next: Position) -> Result {
        let mut start = 0;
        let runs = ready.ids.chunk_by(|a, b| a == b).map(|run| {
            start += run.len();
            start - run.len()..start
        });
        let runs: Vec<Range<usize>> = runs.collect();
        let rows: Vec<Row<'_>> = match self.source {
            Some(label) => ready.rows.iter().map(|row| row.source(label)).collect(),
            None => ready.rows.clone(),
        };
        let mut runs = &runs[..];
        while !runs.is_empty() {
            let (now, later) =
                runs.split_at(runs.len().min(self.commit_every.saturating_sub(self.uncommitted)));
            let batch: Vec<_> = now.iter().map(|run| (ready.ids[run.start], &rows[run.clone()])).collect();
            self.check_once(ready, now)?;
            let done = self.target.append(&batch, self.existing);
            let done = done.map_err(|failure| self.located(failure, ready, now))?;
            self.pending.rows += done.rows;
            self.pending.examples += done.examples;
            self.pending.replaced += done.replaced;
            self.done.skipped += done.skipped;
            self.uncommitted += now.len();
            if let Some(last) = now.last() {
                self.record.last = Some(id_digits(ready.ids[last.start]));
                self.record.values = Some(value_digits(ready.values[last.end - 1]));
            }
            if self.uncommitted >= self.commit_every {
                self.commit(later.first().map_or(next, |run| ready.places[run.start]), false)?;
            }
            runs = later;
        }
        Ok(())
    }

    /// Checks that no example comes for a second time in one commit, whose rows would take the place of the first, or be left
    /// out, in silence.
    fn check_once(&mut self, ready: &Ready<'_>, runs: &[Range<usize>]) -> Result {
        // Otherwise the writer refuses it.
        if self.existing == Existing::Refuse {
            return Ok(());
        }
        for run in runs {
            let id = ready.ids[run.start];
            if self.fresh.contains(id) {
                let place = ready.places[run.start];
                let path = self.paths.get(place.input).map_or_else(String::new, |path| path_text(path));
                let why = "the same commit appends an example of this id already, and neither --replace nor \
                           --skip-existing is for those: give each its own id, or put its rows one behind the other";
                return Err(Failure::from(AppendError::DuplicateId { id: id.to_owned() })
                    .at(format!("{path}, row {}", place.row))
                    .and(why.into()));
            }
            if self.existing == Existing::Replace || !self.target.contains(id)? {
                self.fresh.insert(id.to_owned());
            }
        }
        Ok(())
    }

    /// Makes durable what is appended, if there is something, or if the append is done that commits have begun.
    fn commit(&mut self, at: Position, done: bool) -> Result {
        self.uncommitted = 0;
        self.fresh.clear();
        let ends = done && self.record.rows_in_all > 0 && !self.record.done;
        if self.pending.rows == 0 && !ends {
            return Ok(());
        }
        let rows = self.pending.rows;
        self.record.rows = rows;
        self.record.rows_in_all += rows;
        (self.record.at, self.record.done) = (at, done);
        self.record.path = self.paths.get(at.input).map_or_else(String::new, |path| path_text(path));
        if at.row == 0 {
            (self.record.last, self.record.values) = (None, None);
        }
        let committed = self.record.to_payload().and_then(|payload| self.target.commit(payload));
        // What is not committed is not to be counted.
        self.done.last = committed.inspect_err(|_| self.record.rows_in_all -= rows)?;
        self.done.commits += 1;
        self.done.rows += rows;
        self.done.examples += self.pending.examples;
        self.done.replaced += self.pending.replaced;
        self.pending = Done::default();
        Ok(())
    }

    /// Says in which input and row an error is, and what can be done about it.
    fn located(&self, failure: Failure, ready: &Ready<'_>, runs: &[Range<usize>]) -> Failure {
        let Some(error) = failure.of_append() else { return failure };
        let mut own = runs.iter().filter(|run| match error.example() {
            Some((id, _)) => ready.ids[run.start] == id,
            None => {
                matches!(error, AppendError::IdLength { length } if *length == ready.ids[run.start].len())
            }
        });
        // Of an id that stands twice, the second is too many.
        let run = match error {
            AppendError::DuplicateId { .. } => own.next_back(),
            _ => own.next(),
        };
        let advice = match error {
            AppendError::DuplicateId { .. } => {
                "--skip-existing leaves the rows that are there as they are, --replace puts the new ones in their place"
            }
            AppendError::Encode { .. } => "leave the row out, or look for what made its values",
            AppendError::IdLength { .. } => "--id-column or --ids say where ids are",
            _ => "",
        };
        let Some(run) = run else { return failure };
        let row = run.start + error.example().map_or(0, |(_, row)| row);
        let place = ready.places.get(row).copied().unwrap_or_default();
        let path = self.paths.get(place.input).map_or_else(String::new, |path| path_text(path));
        let failure = failure.at(format!("{path}, row {}", place.row));
        if advice.is_empty() { failure } else { failure.and(advice.into()) }
    }
}

/// A row of a batch.
fn row_of(batch: &Batch, row: usize, dims: usize) -> Row<'_> {
    let mut made = Row::of_values(&batch.values[row * dims..(row + 1) * dims]);
    if let Some(&span) = batch.spans.get(row) {
        made = made.span(span);
    }
    if let Some(source) = batch.sources.get(row).and_then(Option::as_deref) {
        made = made.source(source);
    }
    match batch.metadata.get(row) {
        Some(metadata) => made.metadata(metadata),
        None => made,
    }
}

/// The bytes of a batch's values, ids and metadata.
fn bytes_of(batch: &Batch) -> usize {
    let strings: usize = batch.ids.iter().chain(&batch.metadata).map(Vec::len).sum();
    size_of_val(&*batch.values) + strings
}

/// Moves all rows of a batch behind those of another.
fn join(to: &mut Batch, from: &mut Batch) {
    to.rows += from.rows;
    to.values.append(&mut from.values);
    to.ids.append(&mut from.ids);
    to.spans.append(&mut from.spans);
    to.sources.append(&mut from.sources);
    to.metadata.append(&mut from.metadata);
}

/// Copies rows of a batch behind those that are held.
fn hold(from: &Batch, rows: Range<usize>, dims: usize, to: &mut Batch) {
    to.rows += rows.len();
    to.values.extend_from_slice(&from.values[rows.start * dims..rows.end * dims]);
    to.ids.extend_from_slice(&from.ids[rows.clone()]);
    to.spans.extend(from.spans.get(rows.clone()).unwrap_or_default());
    to.sources.extend_from_slice(from.sources.get(rows.clone()).unwrap_or_default());
    to.metadata.extend_from_slice(from.metadata.get(rows).unwrap_or_default());
}

/// What the reading thread sends.
enum Read {
    /// Rows of an input from one on, and how many all inputs have, if that is known.
    Rows {
        input: usize,
        first_row: u64,
        total: Option<u64>,
        batch: Batch,
    },
    /// An input has ended.
    End,
    Failed(Failure),
}

/// The reading thread.
struct Reader {
    paths: Vec<PathBuf>,
    from: Position,
    last: Option<String>,
    values: Option<String>,
    dims: usize,
    open: Opener,
    sender: SyncSender<Read>,
    returned: Receiver<Batch>,
}

impl Reader {
    /// Starts the thread. It may wait for a pipe for ever, so nobody waits for it.
    fn start(ingest: &Ingest<'_>, open: Opener) -> Result<(Receiver<Read>, Sender<Batch>)> {
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let (back, returned) = channel();
        let mut reader = Self {
            paths: ingest.paths.to_vec(),
            from: ingest.record.at,
            last: ingest.record.last.clone(),
            values: ingest.record.values.clone(),
            dims: ingest.schema.spec().dims(),
            open,
            sender,
            returned,
        };
        let run = move || {
            for input in reader.from.input..reader.paths.len() {
                let done = reader.read(input);
                let is_last = !matches!(done, Ok(true));
                let message = match done {
                    Err(failure) => Read::Failed(failure),
                    Ok(_) => Read::End,
                };
                if reader.sender.send(message).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("read".into()).spawn(run).map_err(Failure::io("start a thread"))?;
        Ok((receiver, back))
    }

    /// Reads an input to its end. Returns false if nobody takes its rows any more.
    fn read(&mut self, input: usize) -> Result<bool> {
        let mut source = (self.open)(input)?;
        let mut row = if input == self.from.input { self.from.row } else { 0 };
        if row > 0 {
            self.pass(&mut *source, row, input)?;
        }
        let total = if self.paths.len() == 1 { source.rows() } else { None };
        let most = |row_bytes: usize| (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS);
        let mut rows = most(self.dims * size_of::<f32>()).min(FEW_ROWS);
        let (mut piece, mut ended) = (Batch::default(), false);
        while !ended {
            let mut batch = self.returned.try_recv().unwrap_or_default();
            source.read(rows, &mut batch)?;
            if batch.rows == 0 {
                return Ok(true);
            }
            self.check(&batch, input)?;
            let mut bytes = bytes_of(&batch);
            if batch.metadata.is_empty() {
                rows = most(bytes / batch.rows);
            } else {
                // Of metadata, the rows before do not tell how long the next are.
                rows = most(self.dims * size_of::<f32>()).min(FEW_ROWS);
                while !ended && bytes < BATCH_BYTES && batch.rows + rows <= BATCH_ROWS {
                    source.read(rows, &mut piece)?;
                    self.check(&piece, input)?;
                    ended = piece.rows == 0;
                    bytes += bytes_of(&piece);
                    join(&mut batch, &mut piece);
                }
            }
            let first_row = row;
            row += batch.rows as u64;
            if self.sender.send(Read::Rows { input, first_row, total, batch }).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes over the rows that an earlier run has appended, and compares the last of them with what that has recorded.
    fn pass(&self, source: &mut dyn RowSource, rows: u64, input: usize) -> Result {
        let mut batch = Batch::default();
        source.skip(rows - 1)?;
        source.read(1, &mut batch)?;
        let found = batch.ids.first().map(|id| id_digits(id));
        let what = if found.is_none() || found != self.last {
            "another id"
        } else if self.values.as_ref().is_some_and(|values| *values != value_digits(&batch.values)) {
            "other values"
        } else {
            return Ok(());
        };
        Err(Failure::Wrong(format!(
            "cannot go on with the append: row {} of {} has {what} than when it was appended; give the same input, or leave \
             --resume out",
            rows - 1,
            path_text(&self.paths[input])
        )))
    }

    /// Checks that a batch is whole.
    fn check(&self, batch: &Batch, input: usize) -> Result {
        let path = || path_text(&self.paths[input]);
        if batch.ids.len() != batch.rows {
            return Err(Failure::Wrong(format!(
                "{} has no ids; --id-column says where they are, --ids makes them, as with --ids '{{stem}}/{{row}}'",
                path()
            )));
        }
        if batch.values.len() != batch.rows * self.dims {
            return Err(Failure::Wrong(format!("{} has rows of another width than {}", path(), self.dims)));
        }
        Ok(())
    }
}
