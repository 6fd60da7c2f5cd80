//! Walks the rows: workers take pieces of row groups in order until there are none left.
//!
//! No worker waits for another. What a scan gives back depends on the rows alone, because rankings
//! have one total order, whichever worker saw a row.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::bars::Bars;
use super::best::{Best, Candidate};
use super::builder::Grouping;
use super::columns::GroupColumns;
use super::control::{CancelToken, Progress};
use super::error::ScanError;
use super::filter::RowFilter;
use super::kernel::Kernel;
use super::planner::ScanPath;
use super::query::Batch;
use super::ranking::{Hit, Ranking, Statistics};
use super::screen::Screen;
use super::stream::{Reading, Stream};
use super::worker::{Found, Worker, after_example};
use crate::segment::{LiveSegment, SegmentReader};

/// How finely the rows are cut. Nothing in a ranking depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// About as many bytes of codes make a piece: enough to hide the cost of taking it, and few
    /// enough that the last pieces keep all workers busy.
    pub piece_bytes: usize,
    /// If codes are read directly, a piece has about as many bytes of each block, or more: whole chunks
    /// are read, and what two pieces share is read twice.
    pub block_bytes: usize,
    /// The most rows that are scored at once.
    pub tile_rows: u32,
    /// The share of pairs that a screen may keep; planned if not given.
    pub break_even: Option<f64>,
}

impl Limits {
    pub const DEFAULT: Self =
        Self { piece_bytes: 2 << 20, block_bytes: 1 << 20, tile_rows: 1 << 14, break_even: None };
}

/// Rows of one row group that a worker takes at once.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Ordinal among all row groups of the snapshot.
    group: usize,
    /// Ordinals in the row group.
    rows: Range<u32>,
}

/// A row group, and its columns while workers are in it.
#[derive(Debug)]
struct Slot<'a> {
    segment: usize,
    group: usize,
    columns: Mutex<Weak<GroupColumns<'a>>>,
}

/// What is to be done with each row.
#[derive(Debug)]
pub(super) struct Plan {
    pub batch: Batch,
    pub filter: RowFilter,
    pub grouping: Grouping,
    pub kernel: &'static dyn Kernel,
    /// How many proponents and opponents.
    pub ends: (usize, usize),
    pub limits: Limits,
    pub path: ScanPath,
    /// What leaves rows out before they are scored.
    pub screen: Option<Screen>,
    /// The probability that the screen leaves out one too many.
    pub delta: Option<f64>,
    pub reading: Reading,
    /// Whether the page cache may keep what was read.
    pub keep_cache: bool,
}

impl Plan {
    /// Whether a tier is read before the rows' own codes.
    pub fn reads_tier(&self) -> bool {
        self.screen.as_ref().is_some_and(|screen| !screen.reads_codes)
    }

    /// Bytes of a row that each pass over it reads.
    pub fn row_bytes(&self) -> usize {
        match &self.screen {
            Some(screen) if self.reads_tier() => screen.tier_bytes,
            _ => self.batch.row_bytes(),
        }
    }

    /// The more rows a screen sees at once, the higher is the bar when it scores what it has kept; but no
    /// worker must be left without rows.
    fn piece_rows(&self, rows: u64, threads: usize) -> u32 {
        let mut bytes = self.limits.piece_bytes;
        if self.reading != Reading::Mapped {
            bytes = bytes.max(self.limits.block_bytes.saturating_mul(self.batch.blocks.len()));
        }
        let mut fit = bytes / self.row_bytes();
        if self.reads_tier() {
            let fair = usize::try_from(rows).unwrap_or(usize::MAX) / (8 * threads);
            fit = (4 * fit).min(fair.max(fit.min(512)));
        }
        u32::try_from(fit).unwrap_or(u32::MAX).max(1)
    }
}

pub(super) struct Engine<'a> {
    segments: &'a [LiveSegment],
    pub plan: Plan,
    watch: Watch<'a>,
    slots: Vec<Slot<'a>>,
    pieces: Vec<Piece>,
    piece_bytes: usize,
    pub bars: Bars,
}

impl<'a> Engine<'a> {
    pub fn new(segments: &'a [LiveSegment], plan: Plan, watch: Watch<'a>, threads: usize) -> Self {
        let rows: u64 = segments.iter().map(|segment| u64::from(segment.reader.rows())).sum();
        let piece_rows = plan.piece_rows(rows, threads);
        let piece_bytes = (piece_rows as usize).saturating_mul(plan.row_bytes());
        let (mut slots, mut pieces) = (Vec::new(), Vec::new());
        for (segment, live) in segments.iter().enumerate() {
            for (group, found) in live.reader.groups().iter().enumerate() {
                let mut start = 0;
                while start < found.rows {
                    let end = start.saturating_add(piece_rows).min(found.rows);
                    pieces.push(Piece { group: slots.len(), rows: start..end });
                    start = end;
                }
                slots.push(Slot { segment, group, columns: Mutex::new(Weak::new()) });
            }
        }
        let bars = Bars::new(plan.batch.queries, plan.ends);
        Self { segments, plan, watch, slots, pieces, piece_bytes, bars }
    }

    /// Runs up to `threads` workers on the current thread pool.
    pub fn run(&self, threads: usize, started: Instant) -> Result<Ranking, ScanError> {
        let threads = threads.min(self.pieces.len()).max(1);
        let found = Mutex::new(Found::new(self.plan.batch.queries, self.plan.ends));
        self.check()?;
        let stream = Stream::new(self, threads);
        stream.run(|| {
            rayon::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|_| {
                        let mut worker = Worker::new(self);
                        self.work(&mut worker, &stream);
                        lock(&found).merge(worker.into_found());
                    });
                }
            });
        });
        if let Some((_, error)) = lock(&self.watch.failure).take() {
            return Err(error);
        }
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let counts = found.counts;
        let statistics = Statistics {
            kernel: self.plan.kernel.name(),
            path: self.plan.path,
            delta: self.plan.delta,
            threads,
            reading: stream.reading,
            rows_scored: counts.rows,
            rows_skipped: self.watch.rows_total - counts.rows,
            rows_left_by_norm: counts.rows_by_norm,
            rows_screened: counts.rows_screened,
            rows_kept: counts.rows_kept,
            scores_kept: counts.scores,
            bytes_read: counts.code_bytes,
            tier_bytes_read: counts.tier_bytes,
            ids_missing: self.plan.filter.ids_missing,
            elapsed: started.elapsed(),
        };
        Ok(Ranking {
            proponents: found.top.into_iter().map(|best| self.hits(best, 1.0)).collect(),
            opponents: found.bottom.into_iter().map(|best| self.hits(best, -1.0)).collect(),
            statistics,
        })
    }

    fn work(&self, worker: &mut Worker<'_, 'a>, stream: &Stream<'_, 'a>) {
        // Kept from piece to piece, so that a row group's columns are decoded once.
        let mut columns = None;
        while let Some(load) = stream.next() {
            let mut load = match load {
                Ok(load) => load,
                Err((ordinal, error)) => return self.watch.fail(ordinal, error),
            };
            let piece = &self.pieces[load.ordinal];
            match worker.piece(load.rows.clone(), &load.columns, &mut load.codes) {
                Ok(()) => self.watch.advance(u64::from(piece.rows.end - piece.rows.start)),
                Err(error) => return self.watch.fail(load.ordinal, error),
            }
            drop(columns.replace(Arc::clone(&load.columns)));
            stream.done(load);
        }
    }

    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// About how many bytes of codes a piece has.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// All the bytes of codes that the scan could read.
    pub fn code_bytes(&self) -> u64 {
        self.watch.rows_total.saturating_mul(self.plan.batch.row_bytes() as u64)
    }

    /// Where a piece's codes are: its segment, row group and rows there.
    pub fn place(&self, ordinal: usize) -> (&'a SegmentReader, usize, Range<u32>) {
        let piece = &self.pieces[ordinal];
        let slot = &self.slots[piece.group];
        (&self.segments[slot.segment].reader, slot.group, piece.rows.clone())
    }

    /// The rows that belong to a piece: of examples, those that begin in it.
    pub fn rows(&self, ordinal: usize, columns: &GroupColumns<'_>) -> Result<Range<u32>, ScanError> {
        let rows = self.pieces[ordinal].rows.clone();
        if self.plan.grouping == Grouping::Rows {
            return Ok(rows);
        }
        let ids = columns.ids()?;
        Ok(after_example(ids, rows.start)..after_example(ids, rows.end))
    }

    pub fn columns(&self, ordinal: usize) -> Arc<GroupColumns<'a>> {
        let slot = &self.slots[self.pieces[ordinal].group];
        let mut columns = lock(&slot.columns);
        columns.upgrade().unwrap_or_else(|| {
            let live = &self.segments[slot.segment];
            let made = Arc::new(GroupColumns::new(live, slot.segment, slot.group));
            *columns = Arc::downgrade(&made);
            made
        })
    }

    /// Whether to go on; asked before each call of a kernel.
    pub fn check(&self) -> Result<(), ScanError> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(ScanError::Cancelled);
        }
        self.watch.cancel.check()
    }

    fn hits(&self, best: Best, sign: f64) -> Vec<Hit> {
        let hit = |candidate: Candidate| Hit {
            score: sign * candidate.key,
            span: candidate.span,
            source: {
                let names = self.segments[candidate.segment].reader.source_names();
                names.get(candidate.source as usize).cloned()
            },
            id: candidate.id.into_vec(),
        };
        best.into_ranked().into_iter().map(hit).collect()
    }
}

type Callback<'a> = Box<dyn FnMut(Progress) + Send + 'a>;

/// What the caller sees of a scan that runs, and how it ends early.
pub(super) struct Watch<'a> {
    cancel: CancelToken,
    /// The callback, and how many rows it has been told of.
    progress: Option<Mutex<(Callback<'a>, u64)>>,
    rows_total: u64,
    stop: AtomicBool,
    /// The first failure in the order of pieces among those that were met.
    failure: Mutex<Option<(usize, ScanError)>>,
}

impl<'a> Watch<'a> {
    pub fn new(cancel: CancelToken, progress: Option<Callback<'a>>, segments: &[LiveSegment]) -> Self {
        let rows_total = segments.iter().map(|segment| u64::from(segment.reader.rows())).sum();
        let progress = progress.map(|callback| Mutex::new((callback, 0)));
        Self { cancel, progress, rows_total, stop: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    fn advance(&self, rows: u64) {
        if let Some(progress) = &self.progress {
            let (callback, rows_done) = &mut *lock(progress);
            *rows_done += rows;
            callback(Progress { rows_done: *rows_done, rows_total: self.rows_total });
        }
    }

    fn fail(&self, ordinal: usize, error: ScanError) {
        let mut failure = lock(&self.failure);
        // Workers that stop because another one failed say `Cancelled`; that must not hide the cause.
        let replaces = match &*failure {
            None | Some((_, ScanError::Cancelled)) => true,
            Some((first, _)) => ordinal < *first && !matches!(error, ScanError::Cancelled),
        };
        if replaces {
            *failure = Some((ordinal, error));
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A panic in the caller's callback leaves nothing half done behind these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
