//! Gives out the pieces of a scan with their codes: in mapped files, with `madvise` ahead of the workers, or
//! in a few buffers that read-ahead threads fill.
//!
//! Disks reach their full speed with a few large concurrent reads. A mapped file that is not in memory is
//! slower: each page costs a fault, and the page cache that `madvise` fills consists of single pages, which
//! slows later scans too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::buffer::{Buffer, PieceCodes};
use super::columns::GroupColumns;
use super::pieces::Pieces;
use super::selection::RowFilter;
use crate::lock::lock;
use crate::scan::control::Control;
use crate::scan::error::ScanError;
use crate::scan::options::Reading;
use crate::scan::plan::Plan;
use crate::segment::storage::Advice;
use crate::segment::{CodeColumn, Extent, LiveSegment};

/// The number of read-ahead threads: enough to keep a disk busy.
const READERS: usize = 2;
/// The distance of read-ahead in pieces.
const AHEAD: usize = 8;
/// Bytes of buffers to read ahead, in addition to one buffer per thread.
const POOL_BYTES: usize = 16 << 20;
/// The interval at which waiting workers and readers check for cancellation.
const PATIENCE: Duration = Duration::from_millis(10);
/// The number of pages sampled to estimate whether codes are in memory.
const SAMPLES: u64 = 64;

/// A piece for a worker to score, with its codes.
#[derive(Debug)]
pub(in crate::scan) struct Load<'a> {
    pub ordinal: usize,
    pub columns: Arc<GroupColumns<'a>>,
    /// Ordinals in the row group.
    pub rows: Range<u32>,
    pub codes: PieceCodes,
    /// Extents to drop from the page cache after the piece.
    leaving: Vec<Extent>,
}

/// Where the codes are, and how they are read.
#[derive(Debug, Clone, Copy)]
pub(in crate::scan) struct Source {
    /// Any but `Auto`.
    pub reading: Reading,
    /// Whether some codes may not be in memory.
    cold: bool,
    /// Whether all sampled codes were in memory and their chunks checked.
    pub warm: bool,
}

impl Source {
    /// Chooses by sampling the plan's codes in the segments.
    pub fn choose(plan: &Plan, segments: &[LiveSegment]) -> Result<Self, ScanError> {
        let mapped = segments.iter().all(|segment| segment.reader.is_mapped());
        let direct = segments.iter().all(|segment| segment.reader.storage().reads_directly());
        let Samples { taken, resident, checked } = Samples::take(plan, segments);
        let reading = match plan.reading {
            Reading::Mapped if !mapped => {
                return Err(ScanError::ImpossibleReading {
                    reading: plan.reading,
                    reason: "it does not map files",
                });
            }
            Reading::Direct if !direct => {
                let reason = "it cannot bypass the page cache";
                return Err(ScanError::ImpossibleReading { reading: plan.reading, reason });
            }
            Reading::Auto if !mapped => Reading::Buffered,
            // Some pages of a file that was read completely may have been evicted.
            Reading::Auto if resident >= taken - taken / 8 => Reading::Mapped,
            Reading::Auto => {
                let rows: u64 = segments.iter().map(|segment| u64::from(segment.reader.rows())).sum();
                let bytes = rows.saturating_mul(plan.pass_bytes() as u64);
                let fits = plan.keep_cache && free_memory() / 2 >= bytes;
                if fits || !direct { Reading::Buffered } else { Reading::Direct }
            }
            requested @ (Reading::Mapped | Reading::Buffered | Reading::Direct) => requested,
        };
        let warm = reading == Reading::Mapped && resident == taken && checked == taken;
        Ok(Self { reading, cold: resident < taken, warm })
    }
}

/// A sample of rows, evenly spaced.
#[derive(Default)]
struct Samples {
    taken: usize,
    /// Sampled rows whose codes are in memory.
    resident: usize,
    /// Sampled rows whose chunks have been checked.
    checked: usize,
}

impl Samples {
    fn take(plan: &Plan, segments: &[LiveSegment]) -> Self {
        let mut samples = Self::default();
        let rows: u64 = segments.iter().map(|segment| u64::from(segment.reader.rows())).sum();
        let (mut segment, mut before) = (0, 0);
        for i in 0..SAMPLES.min(rows) {
            let row = i * rows / SAMPLES.min(rows);
            while row - before >= u64::from(segments[segment].reader.rows()) {
                before += u64::from(segments[segment].reader.rows());
                segment += 1;
            }
            let reader = &segments[segment].reader;
            let place = u32::try_from(row - before).ok().and_then(|row| reader.locate(row));
            let Some((group, row)) = place else { continue };
            let which = usize::try_from(i).unwrap_or(0) % plan.passes.len();
            let (block, pass) = (plan.batch.blocks[which].block, plan.passes[which]);
            let column = CodeColumn { group, tier: pass.tier(), block };
            if let Ok(extent) = reader.extent(column, row..row + 1) {
                let storage = reader.storage();
                let resident = !storage.is_on_disk() || storage.is_resident(extent.range.start);
                let checked =
                    || reader.checking(column, row..row + 1).is_ok_and(|checking| checking.is_sound());
                samples.taken += 1;
                samples.resident += usize::from(resident);
                samples.checked += usize::from(resident && reader.is_mapped() && checked());
            }
        }
        samples
    }
}

/// Gives out the pieces of a scan in order.
pub(in crate::scan) struct Stream<'e, 'a> {
    plan: &'e Plan,
    pieces: &'e Pieces<'a>,
    filter: &'e RowFilter,
    control: &'e Control<'a>,
    source: Source,
    /// Whether pieces must be given out strictly in order.
    strictly: bool,
    /// The next piece for a read-ahead thread, or for a worker if there are none.
    next: AtomicUsize,
    /// The columns of the last piece that was advised.
    ahead: Mutex<Option<Arc<GroupColumns<'a>>>>,
    pool: Mutex<Pool<'a>>,
    /// Signals that a piece has been read, or that there are no more.
    filled: Condvar,
    /// Signals that a buffer is free, or that there is nothing more to read.
    emptied: Condvar,
}

struct Pool<'a> {
    filled: BTreeMap<usize, Result<Load<'a>, ScanError>>,
    free: Vec<Buffer>,
    readers: usize,
    /// The number of pieces given out to workers.
    given: usize,
    /// The number of pieces that are being read ahead.
    in_flight: usize,
    closed: bool,
}

impl<'e, 'a> Stream<'e, 'a> {
    /// For `threads` workers. Buffered pieces are given out as they are read, or, if `strictly`, in order.
    pub fn new(
        plan: &'e Plan,
        pieces: &'e Pieces<'a>,
        filter: &'e RowFilter,
        control: &'e Control<'a>,
        source: Source,
        threads: usize,
        strictly: bool,
    ) -> Self {
        let mut free = Vec::new();
        if source.reading != Reading::Mapped {
            let piece_bytes = (pieces.piece_rows as usize).saturating_mul(plan.pass_bytes());
            let ahead = (POOL_BYTES / piece_bytes.max(1)).clamp(1, AHEAD);
            free.resize_with((threads + ahead).min(pieces.len()), Buffer::default);
        }
        let pool = Pool { filled: BTreeMap::new(), free, readers: 0, given: 0, in_flight: 0, closed: false };
        Self {
            plan,
            pieces,
            filter,
            control,
            source,
            strictly,
            next: AtomicUsize::new(0),
            ahead: Mutex::new(None),
            pool: Mutex::new(pool),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Runs `work`, with read-ahead threads unless files are mapped.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.source.reading == Reading::Mapped {
            return work();
        }
        std::thread::scope(|scope| {
            for _ in 0..READERS.min(self.pieces.len()) {
                lock(&self.pool).readers += 1;
                let name = "gradix read-ahead".to_owned();
                if std::thread::Builder::new().name(name).spawn_scoped(scope, || self.read_ahead()).is_err() {
                    // Without read-ahead threads, workers read themselves.
                    lock(&self.pool).readers -= 1;
                }
            }
            let _closing = Closing(self);
            work()
        })
    }

    /// The next piece, or an error with the piece's ordinal; `None` if there are no more.
    pub fn next(&self) -> Option<Result<Load<'a>, (usize, ScanError)>> {
        if self.source.reading == Reading::Mapped {
            return self.next_mapped();
        }
        let mut pool = lock(&self.pool);
        loop {
            let given = pool.given;
            if let Some(entry) = pool.filled.first_entry()
                && (!self.strictly || *entry.key() == given)
            {
                let (ordinal, load) = entry.remove_entry();
                pool.given += 1;
                if self.strictly {
                    // Wake workers that wait for the next piece.
                    self.filled.notify_all();
                }
                return Some(load.map_err(|error| (ordinal, error)));
            }
            if let Err(error) = self.control.check() {
                return Some(Err((self.pieces.len(), error)));
            }
            if pool.in_flight == 0
                && pool.filled.is_empty()
                && (pool.closed || self.next.load(Ordering::Relaxed) >= self.pieces.len())
            {
                return None;
            }
            if pool.readers == 0 {
                let buffer = pool.free.pop().unwrap_or_default();
                drop(pool);
                let ordinal = self.next.fetch_add(1, Ordering::Relaxed);
                let load = (ordinal < self.pieces.len()).then(|| self.read(ordinal, buffer))?;
                return Some(load.map_err(|error| (ordinal, error)));
            }
            pool = wait(&self.filled, pool);
        }
    }

    /// Releases the resources of a scored piece.
    pub fn done(&self, load: Load<'a>) {
        for extent in &load.leaving {
            load.columns.live().reader.storage().advise(extent.range.clone(), Advice::Done);
        }
        if let PieceCodes::Read(buffer) = load.codes {
            lock(&self.pool).free.push(buffer);
            self.emptied.notify_one();
        }
    }

    fn next_mapped(&self) -> Option<Result<Load<'a>, (usize, ScanError)>> {
        let ordinal = self.next.fetch_add(1, Ordering::Relaxed);
        if ordinal >= self.pieces.len() {
            return None;
        }
        let mut leaving = Vec::new();
        if self.source.cold {
            let ahead = if ordinal == 0 { 1..AHEAD + 1 } else { ordinal + AHEAD..ordinal + AHEAD + 1 };
            for ordinal in ahead.start..ahead.end.min(self.pieces.len()) {
                self.advise(ordinal);
            }
            if !self.plan.keep_cache
                && let Ok((_, _, extents)) = self.extents(ordinal)
            {
                leaving = extents;
            }
        }
        let columns = self.pieces.columns(ordinal);
        let load = self.pieces.rows(ordinal, &columns).map(|rows| Load {
            ordinal,
            rows,
            columns,
            codes: PieceCodes::InPlace,
            leaving,
        });
        Some(load.map_err(|error| (ordinal, error)))
    }

    /// Advises the storage to read a piece that will be scored soon. Errors are reported when it is scored.
    fn advise(&self, ordinal: usize) {
        let Ok((columns, _, extents)) = self.extents(ordinal) else { return };
        let storage = columns.live().reader.storage();
        for extent in extents {
            if !storage.is_resident(extent.range.start) || !storage.is_resident(extent.range.end - 1) {
                storage.advise(extent.range, Advice::Soon);
            }
        }
        *lock(&self.ahead) = Some(columns);
    }

    /// The rows of a piece, and the extents of codes that contain its selected rows.
    #[expect(clippy::type_complexity, reason = "destructured at both uses")]
    fn extents(&self, ordinal: usize) -> Result<(Arc<GroupColumns<'a>>, Range<u32>, Vec<Extent>), ScanError> {
        let columns = self.pieces.columns(ordinal);
        let rows = self.pieces.rows(ordinal, &columns)?;
        let mut selected = Vec::new();
        self.filter.select(&columns, rows.clone(), &mut selected)?;
        let mut extents = Vec::new();
        if let (Some(&first), Some(&last)) = (selected.first(), selected.last()) {
            for (block, pass) in self.plan.blocks() {
                let rows = first as usize..last as usize + 1;
                let column = CodeColumn { group: columns.group(), tier: pass.tier(), block: block.block };
                extents.push(columns.live().reader.extent(column, rows)?);
            }
        }
        Ok((columns, rows, extents))
    }

    fn read(&self, ordinal: usize, mut buffer: Buffer) -> Result<Load<'a>, ScanError> {
        let (columns, rows, extents) = self.extents(ordinal)?;
        buffer.fill(&columns.live().reader, extents, self.source.reading, || self.control.check())?;
        Ok(Load { ordinal, columns, rows, codes: PieceCodes::Read(buffer), leaving: Vec::new() })
    }

    fn read_ahead(&self) {
        loop {
            let mut pool = lock(&self.pool);
            let buffer = loop {
                if pool.closed || self.control.check().is_err() {
                    break None;
                }
                if let Some(buffer) = pool.free.pop() {
                    break Some(buffer);
                }
                pool = wait(&self.emptied, pool);
            };
            let ordinal = self.next.load(Ordering::Relaxed);
            let Some(buffer) = buffer.filter(|_| ordinal < self.pieces.len()) else {
                pool.closed = true;
                pool.readers -= 1;
                break;
            };
            // Under the lock, so that pieces get buffers in order.
            self.next.store(ordinal + 1, Ordering::Relaxed);
            pool.in_flight += 1;
            drop(pool);
            let load = self.read(ordinal, buffer);
            let mut pool = lock(&self.pool);
            pool.in_flight -= 1;
            pool.filled.insert(ordinal, load);
            drop(pool);
            self.filled.notify_all();
        }
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

/// Stops the read-ahead threads, also when a callback panics.
struct Closing<'s, 'e, 'a>(&'s Stream<'e, 'a>);

impl Drop for Closing<'_, '_, '_> {
    fn drop(&mut self) {
        lock(&self.0.pool).closed = true;
        self.0.emptied.notify_all();
    }
}

fn wait<'p, 'a>(on: &Condvar, pool: MutexGuard<'p, Pool<'a>>) -> MutexGuard<'p, Pool<'a>> {
    on.wait_timeout(pool, PATIENCE).unwrap_or_else(PoisonError::into_inner).0
}

/// Bytes of memory that are available, including caches that can be dropped; `u64::MAX` if unknown.
fn free_memory() -> u64 {
    let kilobytes = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    kilobytes().map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}
