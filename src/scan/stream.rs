//! Brings codes to the workers: out of mapped files, with advice ahead of them, or read past the page
//! cache into a few buffers that threads of their own fill ahead of the workers.
//!
//! Disks give their full speed to a few large reads at a time. A mapped file that is not in memory gives
//! less: each page costs a fault, memory and its place in the page cache besides the read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::columns::GroupColumns;
use super::engine::{Engine, lock};
use super::error::ScanError;
use crate::segment::storage::{Advice, Pages};
use crate::segment::{Checking, CodeColumn, Codes, Extent, SegmentError, SegmentReader};

/// How a scan gets at the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reading {
    /// `Mapped` if the codes are in the page cache; `Buffered` if they fit into half of the memory that is
    /// free and the cache may keep them, so that the next scan finds them there; else `Direct`.
    #[default]
    Auto,
    /// Through mapped files and the page cache; what is not there yet is asked for some pieces ahead.
    /// A chunk's checksum is checked when the snapshot first touches it.
    Mapped,
    /// Through the page cache into buffers, by threads that read ahead; else as `Direct`. Faster than
    /// `Mapped` if the disk has to be read, for no page is missed.
    Buffered,
    /// Past the page cache into buffers, by threads that read ahead; each chunk's checksum is checked
    /// each time. The buffers take some megabytes for each thread of the scan. Storages that have no
    /// such way read plainly. A scan of a tier is `Mapped` all the same.
    Direct,
}

/// Threads that read ahead: enough to keep a disk busy.
const READERS: usize = 2;
/// Pieces ahead of the workers for which mapped reading asks.
const AHEAD: usize = 8;
/// One read is at most so large; a scan that was cancelled waits for no more.
const READ_BYTES: usize = 4 << 20;
/// Besides one for each thread, so many bytes of buffers are filled ahead.
const POOL_BYTES: usize = 16 << 20;
/// Workers and readers that wait look whether the scan was cancelled at least this often.
const PATIENCE: Duration = Duration::from_millis(10);
/// Pages that are looked at to know whether codes are in memory.
const SAMPLES: usize = 64;

/// A piece that a worker is to score, with its codes.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub ordinal: usize,
    pub columns: Arc<GroupColumns<'a>>,
    /// Ordinals in the row group.
    pub rows: Range<u32>,
    pub codes: PieceCodes,
    /// What is to leave the page cache with it.
    leaving: Vec<Extent>,
}

/// Where the codes of a piece are.
#[derive(Debug)]
pub(super) enum PieceCodes {
    Mapped,
    Read { buffer: Buffer, spare: Buffer, reading: Reading },
}

impl PieceCodes {
    /// Some rows of a block in a row group, from wherever they are, yet to be checked. Rows that were not
    /// foreseen are read now.
    pub fn of<'c>(
        &'c mut self,
        reader: &'c SegmentReader,
        group: usize,
        block: usize,
        rows: Range<usize>,
    ) -> Result<Checking<'c>, SegmentError> {
        let column = CodeColumn { group, tier: None, block };
        let (buffer, spare, reading) = match self {
            Self::Mapped => return reader.checking(column, rows),
            Self::Read { buffer, spare, reading } => (buffer, spare, reading),
        };
        let held = |part: &Part| reader.holds(&part.extent, column, rows.clone());
        if let Some(part) = buffer.parts.iter().position(held) {
            return buffer.codes(part, reader, column, rows);
        }
        if !spare.parts.iter().any(held) {
            spare.parts.clear();
            let extents = vec![reader.extent(column, rows.clone())?];
            spare.fill(reader, extents, *reading, || Ok(()))?;
        }
        spare.codes(0, reader, column, rows)
    }

    /// Rows of a block in a row group, ascending and at least one, from wherever they are; the bytes go from
    /// the first of them to the last. Of mapped codes only the chunks that hold the rows are checked.
    pub fn checked<'c>(
        &'c mut self,
        reader: &'c SegmentReader,
        group: usize,
        block: usize,
        rows: &[u32],
    ) -> Result<Codes<'c>, SegmentError> {
        if matches!(self, Self::Mapped) {
            return reader.codes_at(CodeColumn { group, tier: None, block }, rows);
        }
        let rows = rows[0] as usize..rows[rows.len() - 1] as usize + 1;
        self.of(reader, group, block, rows)?.into_codes()
    }
}

/// Memory with the bytes of some extents of one segment.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    memory: Option<Pages>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Where it begins in the memory.
    at: usize,
    /// For each chunk: whether it was checked.
    sound: Vec<bool>,
}

impl Buffer {
    fn fill<E: From<SegmentError>>(
        &mut self,
        reader: &SegmentReader,
        extents: Vec<Extent>,
        reading: Reading,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        self.parts.clear();
        let length = extents.iter().map(Extent::len).sum();
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= length => memory,
            _ => Pages::new(length).map_err(|source| SegmentError::Io {
                file: reader.file().to_owned(),
                operation: "take memory to read",
                source,
            })?,
        };
        let memory = self.memory.insert(memory);
        let mut at = 0;
        for extent in extents {
            let bytes = &mut memory[at..at + extent.len()];
            for (i, bytes) in bytes.chunks_mut(READ_BYTES).enumerate() {
                check()?;
                let offset = extent.range.start + (i * READ_BYTES) as u64;
                match reading {
                    Reading::Direct => reader.read_direct(offset, bytes)?,
                    _ => reader.read(offset, bytes)?,
                }
            }
            let (length, chunks) = (extent.len(), extent.chunks());
            self.parts.push(Part { extent, at, sound: vec![false; chunks] });
            at += length;
        }
        Ok(())
    }

    fn codes<'c>(
        &'c mut self,
        part: usize,
        reader: &'c SegmentReader,
        column: CodeColumn,
        rows: Range<usize>,
    ) -> Result<Checking<'c>, SegmentError> {
        let Part { extent, at, sound } = &mut self.parts[part];
        let memory = self.memory.as_deref().unwrap_or_default();
        reader.checking_read(extent, &memory[*at..*at + extent.len()], sound, column, rows)
    }
}

/// Hands out the pieces of a scan in order.
pub(super) struct Stream<'e, 'a> {
    engine: &'e Engine<'a>,
    /// Any but `Auto`.
    pub reading: Reading,
    keep_cache: bool,
    /// Whether there may be something to fetch.
    cold: bool,
    pieces: usize,
    /// The next piece for a reader, or without readers for a worker.
    next: AtomicUsize,
    /// The columns that advice was last given on.
    ahead: Mutex<Option<Arc<GroupColumns<'a>>>>,
    pool: Mutex<Pool<'a>>,
    /// A piece is there, or there are no more.
    filled: Condvar,
    /// A buffer is free, or nothing is to be read any more.
    emptied: Condvar,
}

struct Pool<'a> {
    filled: BTreeMap<usize, Result<Load<'a>, ScanError>>,
    free: Vec<Buffer>,
    spares: Vec<Buffer>,
    readers: usize,
    /// Pieces that readers have taken and not brought yet.
    in_flight: usize,
    closed: bool,
}

impl<'e, 'a> Stream<'e, 'a> {
    pub fn new(engine: &'e Engine<'a>, threads: usize) -> Self {
        let (reading, cold) = choose(engine);
        let mut stream = Self {
            engine,
            reading,
            keep_cache: engine.plan.keep_cache,
            cold,
            pieces: engine.pieces(),
            next: AtomicUsize::new(0),
            ahead: Mutex::new(None),
            pool: Mutex::new(Pool {
                filled: BTreeMap::new(),
                free: Vec::new(),
                spares: Vec::new(),
                readers: 0,
                in_flight: 0,
                closed: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        };
        if reading != Reading::Mapped {
            let ahead = (POOL_BYTES / engine.piece_bytes().max(1)).clamp(1, AHEAD);
            let buffers = (threads + ahead).min(stream.pieces);
            let pool = stream.pool.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            pool.free.resize_with(buffers, Buffer::default);
        }
        stream
    }

    /// Runs `work`, with threads beside it that read if that is called for.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.reading == Reading::Mapped {
            return work();
        }
        std::thread::scope(|scope| {
            for _ in 0..READERS.min(self.pieces) {
                lock(&self.pool).readers += 1;
                let name = "gradix read-ahead".to_owned();
                if std::thread::Builder::new().name(name).spawn_scoped(scope, || self.read_ahead()).is_err() {
                    // Without any of them, workers read for themselves.
                    lock(&self.pool).readers -= 1;
                }
            }
            // Also when a callback panics.
            let _closing = Closing(self);
            work()
        })
    }

    /// The next piece; none if there are no more, or with its ordinal what went wrong.
    pub fn next(&self) -> Option<Result<Load<'a>, (usize, ScanError)>> {
        if self.reading == Reading::Mapped {
            return self.next_mapped();
        }
        let mut pool = lock(&self.pool);
        loop {
            if let Some((ordinal, load)) = pool.filled.pop_first() {
                return Some(load.map_err(|error| (ordinal, error)));
            }
            if let Err(error) = self.engine.check() {
                return Some(Err((self.pieces, error)));
            }
            if pool.in_flight == 0 && (pool.closed || self.next.load(Ordering::Relaxed) >= self.pieces) {
                return None;
            }
            if pool.readers == 0 {
                let buffer = pool.free.pop().unwrap_or_default();
                drop(pool);
                let ordinal = self.next.fetch_add(1, Ordering::Relaxed);
                let load = (ordinal < self.pieces).then(|| self.read(ordinal, buffer))?;
                return Some(load.map_err(|error| (ordinal, error)));
            }
            pool = wait(&self.filled, pool);
        }
    }

    /// Takes back what a piece that was scored has held.
    pub fn done(&self, load: Load<'a>) {
        for extent in &load.leaving {
            load.columns.live().reader.storage().advise(extent.range.clone(), Advice::Done);
        }
        if let PieceCodes::Read { buffer, spare, .. } = load.codes {
            let mut pool = lock(&self.pool);
            pool.free.push(buffer);
            pool.spares.push(spare);
            drop(pool);
            self.emptied.notify_one();
        }
    }

    fn next_mapped(&self) -> Option<Result<Load<'a>, (usize, ScanError)>> {
        let ordinal = self.next.fetch_add(1, Ordering::Relaxed);
        if ordinal >= self.pieces {
            return None;
        }
        let mut leaving = Vec::new();
        if self.cold {
            let ahead = if ordinal == 0 { 1..AHEAD + 1 } else { ordinal + AHEAD..ordinal + AHEAD + 1 };
            for ordinal in ahead.start..ahead.end.min(self.pieces) {
                self.advise(ordinal);
            }
            if !self.keep_cache
                && let Ok((_, _, extents)) = self.extents(ordinal)
            {
                leaving = extents;
            }
        }
        let columns = self.engine.columns(ordinal);
        let load = self.engine.rows(ordinal, &columns).map(|rows| Load {
            ordinal,
            rows,
            columns,
            codes: PieceCodes::Mapped,
            leaving,
        });
        Some(load.map_err(|error| (ordinal, error)))
    }

    /// Asks for a piece that will be scored soon. What is wrong with it is told when it is.
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

    /// The rows of a piece, and what of its codes the rows that take part lie in.
    #[expect(clippy::type_complexity, reason = "named where it is taken apart")]
    fn extents(&self, ordinal: usize) -> Result<(Arc<GroupColumns<'a>>, Range<u32>, Vec<Extent>), ScanError> {
        let columns = self.engine.columns(ordinal);
        let rows = self.engine.rows(ordinal, &columns)?;
        let (live, plan) = (columns.live(), &self.engine.plan);
        let mut selected = Vec::new();
        plan.filter.select(live, &columns, rows.clone(), &mut selected)?;
        let mut extents = Vec::new();
        if let (Some(&first), Some(&last)) = (selected.first(), selected.last()) {
            for (i, block) in plan.batch.ordinals().enumerate() {
                let rows = first as usize..last as usize + 1;
                let tier = plan.screen.as_ref().and_then(|screen| screen.blocks[i].tier());
                extents.push(live.reader.extent(CodeColumn { group: columns.group(), tier, block }, rows)?);
            }
        }
        Ok((columns, rows, extents))
    }

    fn read(&self, ordinal: usize, mut buffer: Buffer) -> Result<Load<'a>, ScanError> {
        let (columns, rows, extents) = self.extents(ordinal)?;
        buffer.fill(&columns.live().reader, extents, self.reading, || self.engine.check())?;
        let spare = lock(&self.pool).spares.pop().unwrap_or_default();
        let codes = PieceCodes::Read { buffer, spare, reading: self.reading };
        Ok(Load { ordinal, columns, rows, codes, leaving: Vec::new() })
    }

    fn read_ahead(&self) {
        loop {
            let mut pool = lock(&self.pool);
            let buffer = loop {
                if pool.closed || self.engine.check().is_err() {
                    break None;
                }
                if let Some(buffer) = pool.free.pop() {
                    break Some(buffer);
                }
                pool = wait(&self.emptied, pool);
            };
            let ordinal = self.next.load(Ordering::Relaxed);
            let Some(buffer) = buffer.filter(|_| ordinal < self.pieces) else {
                pool.closed = true;
                pool.readers -= 1;
                break;
            };
            // Under the lock, so that pieces get buffers in their order.
            self.next.store(ordinal + 1, Ordering::Relaxed);
            pool.in_flight += 1;
            drop(pool);
            let load = self.read(ordinal, buffer);
            let mut pool = lock(&self.pool);
            pool.in_flight -= 1;
            pool.filled.insert(ordinal, load);
            drop(pool);
            self.filled.notify_one();
        }
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

/// Ends the readers.
struct Closing<'s, 'e, 'a>(&'s Stream<'e, 'a>);

impl Drop for Closing<'_, '_, '_> {
    fn drop(&mut self) {
        lock(&self.0.pool).closed = true;
        self.0.emptied.notify_all();
    }
}

fn wait<'p, 'a>(
    on: &Condvar,
    pool: std::sync::MutexGuard<'p, Pool<'a>>,
) -> std::sync::MutexGuard<'p, Pool<'a>> {
    on.wait_timeout(pool, PATIENCE).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

/// How to read, and whether something may have to be fetched.
fn choose(engine: &Engine<'_>) -> (Reading, bool) {
    let asked = engine.plan.reading;
    let (resident, sampled) = residency(engine);
    let cold = resident < sampled;
    let reading = match asked {
        // Of the rows' own codes only a few are read then, here and there.
        _ if engine.plan.reads_tier() => Reading::Mapped,
        Reading::Auto if !(0..engine.pieces()).all(|piece| engine.place(piece).0.is_mapped()) => {
            Reading::Buffered
        }
        // Some pages of a file that was all read may have gone again.
        Reading::Auto if sampled == 0 || resident >= sampled - sampled / 8 => Reading::Mapped,
        Reading::Auto if engine.plan.keep_cache && free_memory() / 2 >= engine.code_bytes() => {
            Reading::Mapped
        }
        Reading::Auto => Reading::Direct,
        asked => asked,
    };
    (reading, cold)
}

/// Of some pages of the codes of segments on disks, spread evenly, how many are in memory; and how many
/// were looked at.
fn residency(engine: &Engine<'_>) -> (usize, usize) {
    let (mut resident, mut sampled) = (0, 0);
    let blocks: Vec<usize> = engine.plan.batch.ordinals().collect();
    let pieces = engine.pieces();
    for i in 0..SAMPLES.min(pieces) {
        let ordinal = i * pieces / SAMPLES.min(pieces);
        let (reader, group, rows) = engine.place(ordinal);
        let rows = rows.start as usize..rows.end as usize;
        let column = CodeColumn { group, tier: None, block: blocks[i % blocks.len()] };
        let extent = reader.extent(column, rows);
        if let Ok(extent) = extent
            && reader.storage().is_on_disk()
        {
            sampled += 1;
            resident += usize::from(reader.storage().is_resident(extent.range.start));
        }
    }
    (resident, sampled)
}

/// Bytes of memory that are free or that caches give up; unknown means enough.
fn free_memory() -> u64 {
    let kilobytes = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    kilobytes().map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}
