//! Which path through the rows is the cheapest for a batch and an index.
//!
//! The rule is small: a path costs what it reads by the memory's bandwidth, or what it computes by the
//! kernel's speed, whichever is more. Both are measured in this process, once. What a screen keeps is
//! only known when it has run, so it is guessed here and watched there ([`super::screen::Screen`]).

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::builder::{Grouping, Guarantee};
use super::kernel::{ByteQueries, FloatQueries, IntegerQueries, Kernel, Narrow, PlaneQueries, Rows, Select};
use super::query::Batch;
use crate::codec::Encoding;
use crate::codec::Tier;
use crate::schema::Schema;

/// A path through the rows. All give the same ranking, but for [`ScanPath::SignTier`], which does with
/// the probability that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ScanPath {
    /// The one that [`Scan::explain`](super::Scan::explain) finds the cheapest.
    #[default]
    Auto,
    /// Scores every row exactly.
    Full,
    /// Multiplies rows and queries as signed bytes, and scores exactly what may be among the best: for
    /// many queries. Reads the `i8` tier where there is one, else the rows' own codes.
    Bytes,
    /// Reads the `i8` tier of all rows, and scores exactly what may be among the best: for few queries.
    I8Tier,
    /// Reads the sign tier of all rows, and scores exactly what may be among the best, with
    /// [`Guarantee::Probable`].
    SignTier,
}

impl ScanPath {
    const ALL: [Self; 4] = [Self::Full, Self::Bytes, Self::I8Tier, Self::SignTier];

    /// Its name: `auto`, `full`, `bytes`, `i8 tier`, `sign tier`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Bytes => "bytes",
            Self::I8Tier => "i8 tier",
            Self::SignTier => "sign tier",
        }
    }
}

impl fmt::Display for ScanPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a scan would do, and why. Its `Display` is a small table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The path that is taken.
    pub chosen: ScanPath,
    /// All paths, with what they are expected to cost.
    pub paths: Vec<PathCost>,
    /// The kernel that computes.
    pub kernel: &'static str,
    /// Threads that take part.
    pub threads: usize,
    /// Rows of the snapshot's segments.
    pub rows: u64,
    /// Queries of the batch.
    pub queries: usize,
    /// Bytes a second that the memory gives to all threads, as measured in this process.
    pub memory_bandwidth: f64,
}

/// A path through the rows, and what it is expected to cost.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathCost {
    /// The path.
    pub path: ScanPath,
    /// Why it cannot be taken.
    pub impossible: Option<&'static str>,
    /// Bytes of codes and tiers to read.
    pub bytes: u64,
    /// Seconds for reading them from memory.
    pub read_seconds: f64,
    /// Seconds of computing, with all threads.
    pub compute_seconds: f64,
    /// The share of rows that a screen is guessed to keep for each query, which is in both.
    pub kept: f64,
}

impl PathCost {
    /// The longer of reading and computing: they overlap.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.read_seconds.max(self.compute_seconds)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chosen, kernel, threads, rows, queries, memory_bandwidth, .. } = self;
        writeln!(
            f,
            "{queries} queries, {rows} rows, {kernel} kernel, {threads} threads, memory {:.1} GB/s",
            memory_bandwidth / 1e9
        )?;
        for path in &self.paths {
            let mark = if path.path == *chosen { "->" } else { "  " };
            write!(f, "{mark} {:<9} ", path.path)?;
            match path.impossible {
                Some(reason) => writeln!(f, "not possible: {reason}")?,
                None => writeln!(
                    f,
                    "{:9.3} ms: reads {:8.1} MB in {:.3} ms, computes {:.3} ms",
                    path.seconds() * 1e3,
                    path.bytes as f64 / 1e6,
                    path.read_seconds * 1e3,
                    path.compute_seconds * 1e3
                )?,
            }
        }
        Ok(())
    }
}

/// What there is to be scanned.
pub(super) struct Task<'t> {
    pub schema: &'t Schema,
    pub batch: &'t Batch,
    pub grouping: Grouping,
    pub guarantee: Guarantee,
    pub kernel: &'static dyn Kernel,
    pub threads: usize,
    pub rows: u64,
}

/// Below so many bytes, and products of numbers, nothing is worth planning.
const SMALL_BYTES: u64 = 16 << 20;
const SMALL_PRODUCTS: f64 = 2e8;

impl Task<'_> {
    /// The path to take, without measuring anything for a small scan.
    pub fn choose(&self, asked: ScanPath) -> (ScanPath, f64) {
        let path = match asked {
            ScanPath::Auto => {
                let bytes = self.rows * self.batch.row_bytes() as u64;
                let products = self.rows as f64 * self.batch.dims() as f64 * self.batch.queries as f64;
                if bytes < SMALL_BYTES && products < SMALL_PRODUCTS {
                    return (ScanPath::Full, 1.0);
                }
                self.cheapest()
            }
            path => path,
        };
        if self.impossible(path).is_some() { (ScanPath::Full, 1.0) } else { (path, self.break_even(path)) }
    }

    pub fn explain(&self, asked: ScanPath) -> Explanation {
        Explanation {
            chosen: self.choose(asked).0,
            paths: ScanPath::ALL.map(|path| self.path(path)).to_vec(),
            kernel: self.kernel.name(),
            threads: self.threads,
            rows: self.rows,
            queries: self.batch.queries,
            memory_bandwidth: memory_bandwidth(self.threads),
        }
    }

    fn cheapest(&self) -> ScanPath {
        let possible = ScanPath::ALL.into_iter().filter(|&path| {
            self.impossible(path).is_none() && (path != ScanPath::Bytes || self.kernel.has_bytes())
        });
        let cheapest = possible.min_by(|&a, &b| self.path(a).seconds().total_cmp(&self.path(b).seconds()));
        cheapest.unwrap_or(ScanPath::Full)
    }

    fn impossible(&self, path: ScanPath) -> Option<&'static str> {
        let tiers = self.schema.tiers();
        let probable = matches!(self.guarantee, Guarantee::Probable { .. });
        match path {
            ScanPath::Auto | ScanPath::Full => None,
            _ if self.grouping != Grouping::Rows => Some("rows are grouped, so each of them counts"),
            ScanPath::Bytes => {
                let wide = self.batch.blocks.iter().any(|block| block.dims > ByteQueries::MOST_DIMS);
                wide.then_some("a block has more than 131,071 dims")
            }
            ScanPath::I8Tier => (!tiers.contains(&Tier::I8)).then_some("the index has no i8 tier"),
            ScanPath::SignTier if !tiers.iter().any(|tier| matches!(tier, Tier::Sign { .. })) => {
                Some("the index has no sign tier")
            }
            ScanPath::SignTier => (!probable).then_some("the guarantee is exact"),
        }
    }

    /// The share of rows that a screen may keep for each query before scoring all rows is cheaper.
    fn break_even(&self, path: ScanPath) -> f64 {
        if path == ScanPath::Full {
            return 1.0;
        }
        let (full, screen) = (self.path(ScanPath::Full), self.parts(path));
        let left = full.seconds() - screen.0.max(screen.1);
        let all = self.rows as f64 * self.score_seconds(path) * self.batch.queries as f64;
        (left / all).clamp(0.02, 0.9)
    }

    /// Seconds to score a row exactly for one query, far from the rows before it, after a path has looked
    /// at it.
    fn score_seconds(&self, path: ScanPath) -> f64 {
        let speeds = Speeds::of(self.kernel);
        let compute: f64 =
            self.batch.blocks.iter().map(|block| speeds.exact(block.encoding, block.dims, 1)).sum();
        // What the path has read of the row's own codes is in the cache.
        let unread = if self.tier_bytes(path) == 0 { 0 } else { self.batch.row_bytes() };
        (unread as f64 / memory_bandwidth(self.threads)).max(compute / self.threads as f64)
    }

    fn path(&self, path: ScanPath) -> PathCost {
        // What was seen on gradients; on noise it is all or nothing.
        let kept = match path {
            ScanPath::Auto | ScanPath::Full => 0.0,
            ScanPath::Bytes | ScanPath::I8Tier => 0.01,
            ScanPath::SignTier => 0.02,
        };
        let (read, compute) = self.parts(path);
        let again = kept * self.rows as f64;
        let queries = self.batch.queries as f64;
        PathCost {
            path,
            impossible: self.impossible(path),
            bytes: self.rows * self.read_bytes(path) as u64 + (again * self.batch.row_bytes() as f64) as u64,
            read_seconds: read + again * self.batch.row_bytes() as f64 / memory_bandwidth(self.threads),
            compute_seconds: compute + again * queries * self.score_seconds(path),
            kept,
        }
    }

    /// Seconds of reading and of computing, without what a screen keeps.
    fn parts(&self, path: ScanPath) -> (f64, f64) {
        let (speeds, queries) = (Speeds::of(self.kernel), self.batch.queries);
        let mut compute = 0.0;
        for block in &self.batch.blocks {
            let dims = block.dims;
            compute += match path {
                ScanPath::Auto | ScanPath::Full => speeds.exact(block.encoding, dims, queries),
                ScanPath::Bytes => {
                    let narrows = block.encoding != Encoding::I8 && self.tier_bytes(path) == 0;
                    speeds.bytes.seconds(dims, queries)
                        + if narrows { speeds.narrow * dims as f64 } else { 0.0 }
                }
                ScanPath::I8Tier => speeds.exact(Encoding::I8, dims, queries),
                ScanPath::SignTier => speeds.planes.seconds(dims, queries),
            };
        }
        if path != ScanPath::Full {
            compute += speeds.pair * (queries * self.batch.blocks.len()) as f64;
        }
        let rows = self.rows as f64;
        (
            rows * self.read_bytes(path) as f64 / memory_bandwidth(self.threads),
            rows * compute / self.threads as f64,
        )
    }

    /// Bytes that a path reads of every row.
    fn read_bytes(&self, path: ScanPath) -> usize {
        match self.tier_bytes(path) {
            0 => self.batch.row_bytes(),
            bytes => bytes,
        }
    }

    /// Bytes of the tier of a row that a path reads: codes and factors, and the norms; 0 where it reads
    /// the row's own codes.
    pub fn tier_bytes(&self, path: ScanPath) -> usize {
        let has_i8 = self.schema.tiers().contains(&Tier::I8);
        let of = |sign: bool| {
            let blocks = self.batch.blocks.iter();
            blocks
                .map(|block| {
                    12 + (if sign { block.dims.div_ceil(8) } else { block.dims }).next_multiple_of(64)
                })
                .sum()
        };
        match path {
            ScanPath::Bytes | ScanPath::I8Tier if has_i8 => of(false),
            ScanPath::SignTier => of(true),
            _ => 0,
        }
    }
}

/// Seconds for each dim: of one query, and of each further one.
#[derive(Debug, Clone, Copy)]
struct Speed {
    first: f64,
    further: f64,
}

impl Speed {
    fn seconds(self, dims: usize, queries: usize) -> f64 {
        dims as f64 * (self.first + self.further * (queries as f64 - 1.0))
    }
}

/// How fast a kernel computes on one thread, from cache.
#[derive(Debug, Clone, Copy)]
struct Speeds {
    f32: Speed,
    f16: Speed,
    i8: Speed,
    bytes: Speed,
    planes: Speed,
    /// Seconds for each number.
    narrow: f64,
    /// Seconds for each interval of a row and a query.
    pair: f64,
}

const DIMS: usize = 4096;
const ROWS: usize = 24;
const MANY: usize = 64;

impl Speeds {
    fn exact(&self, encoding: Encoding, dims: usize, queries: usize) -> f64 {
        let speed = match encoding {
            Encoding::F32 => self.f32,
            Encoding::F16 => self.f16,
            Encoding::I8 => self.i8,
        };
        speed.seconds(dims, queries)
    }

    /// Measured when they are first asked for: some milliseconds.
    fn of(kernel: &'static dyn Kernel) -> Self {
        static KNOWN: Mutex<Option<HashMap<&'static str, Speeds>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let speeds = known.get_or_insert_default().entry(kernel.name());
        *speeds.or_insert_with(|| if kernel.has_bytes() { Self::measure(kernel) } else { Self::UNKNOWN })
    }

    fn measure(kernel: &dyn Kernel) -> Self {
        // Small numbers in each encoding, so that nothing overflows.
        let bytes = vec![0x11u8; ROWS * DIMS * 4];
        let rows = |code_bytes: usize| {
            let width = DIMS * code_bytes;
            Rows::new(&bytes, width, width, Select::First(ROWS))
        };
        let mut floats = FloatQueries::new(DIMS);
        let (mut integers, mut planes) = (IntegerQueries::new(DIMS), PlaneQueries::new(DIMS));
        for _ in 0..MANY {
            floats.push(&[0.5; DIMS]);
            integers.push(&[3; DIMS]);
            planes.push(&[3; DIMS]);
        }
        let signed = ByteQueries::new(DIMS, &vec![vec![3; DIMS]; MANY]);
        let (mut of_f32, mut of_i64, mut of_i32) =
            (vec![0.0; ROWS * MANY], vec![0; ROWS * MANY], vec![0; ROWS * MANY]);
        let speed = |call: &mut dyn FnMut(usize)| {
            let (one, many) = (seconds(|| call(1)), seconds(|| call(MANY)));
            let numbers = (ROWS * DIMS) as f64;
            Speed { first: one / numbers, further: ((many - one) / (MANY - 1) as f64 / numbers).max(0.0) }
        };
        let (Some(singles), Some(halves), Some(codes)) = (rows(4), rows(2), rows(1)) else {
            return Self::UNKNOWN;
        };
        let Some(bits) = Rows::new(&bytes, DIMS / 8, DIMS / 8, Select::First(ROWS)) else {
            return Self::UNKNOWN;
        };
        let f32 = speed(&mut |n| kernel.f32(&singles, &floats, 0..n, &mut of_f32[..n * ROWS]));
        let f16 = speed(&mut |n| kernel.f16(&halves, &floats, 0..n, &mut of_f32[..n * ROWS]));
        let i8 = speed(&mut |n| kernel.i8(&codes, &integers, 0..n, &mut of_i64[..n * ROWS]));
        let of_bytes = speed(&mut |n| kernel.bytes(&codes, &signed, 0..n, &mut of_i32[..n * ROWS]));
        let planes = speed(&mut |n| kernel.planes(&bits, &planes, 0..n, &mut of_i32[..n * ROWS]));
        let mut narrow = Narrow::default();
        let narrow = seconds(|| kernel.narrow_f16(&halves, &mut narrow)) / (ROWS * DIMS) as f64;
        Self { f32, f16, i8, bytes: of_bytes, planes, narrow, pair: Self::UNKNOWN.pair }
    }

    /// Of kernels that screen little: about right for any machine.
    const UNKNOWN: Self = {
        let speed = Speed { first: 5e-11, further: 5e-11 };
        Self { f32: speed, f16: speed, i8: speed, bytes: speed, planes: speed, narrow: 2e-10, pair: 2e-9 }
    };
}

/// The least of three.
fn seconds(mut call: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        call();
        least = least.min(started.elapsed().as_secs_f64());
    }
    least
}

/// Bytes a second that the memory gives to some threads at once; measured when it is first asked for, in
/// some ten milliseconds, for one thread and for all there are.
fn memory_bandwidth(threads: usize) -> f64 {
    static ONE: OnceLock<f64> = OnceLock::new();
    static ALL: OnceLock<f64> = OnceLock::new();
    let measure = |threads: usize| {
        // Beyond most last caches.
        let words = vec![1u64; 8 << 20];
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(|| {
                    let mut sums = [0u64; 32];
                    for chunk in part.as_chunks::<32>().0 {
                        for (sum, word) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*word);
                        }
                    }
                    black_box(sums);
                });
            }
        });
        (words.len() * 8) as f64 / started.elapsed().as_secs_f64()
    };
    if threads <= 1 {
        *ONE.get_or_init(|| measure(1))
    } else {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        *ALL.get_or_init(|| measure(cores))
    }
}
