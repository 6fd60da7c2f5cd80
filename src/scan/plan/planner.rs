//! Chooses the cheapest scan path for a batch and an index.
//!
//! The cost of a path is the time to read its bytes at the memory bandwidth, or the time to compute its
//! products at the kernel's speed, whichever is longer. Both rates are constants of this version
//! (`kernel/speeds.rs`, and [`BANDWIDTH`]), corrected by the measured times of scans of the same index. The
//! number of candidates is only known after a screen: here it is assumed, and the screen measures it.

use super::explain::{Explanation, PathCost};
use super::feedback::Feedback;
use super::{Limits, Pass, Plan};
use crate::codec::{Encoding, Tier};
use crate::curvature::CurvatureState;
use crate::scan::batch::Batch;
use crate::scan::error::ScanError;
use crate::scan::kernel::{ByteQueries, Kernel, Speed, Speeds};
use crate::scan::options::{Ends, Grouping, Guarantee, Reading, ScanPath};
use crate::schema::Schema;

/// What is to be scanned.
pub(in crate::scan) struct Planner<'t> {
    pub schema: &'t Schema,
    pub batch: Batch,
    pub grouping: Grouping,
    pub guarantee: Guarantee,
    pub kernel: &'static dyn Kernel,
    pub threads: usize,
    pub rows: u64,
    /// Whether every score is requested, not only the best.
    pub all_scores: bool,
    pub feedback: &'t Feedback,
    /// What the queries were preconditioned with, if they were.
    pub curvature: Option<CurvatureState>,
}

/// Requests of the caller that the plan passes on.
pub(in crate::scan) struct Wishes {
    pub path: ScanPath,
    pub ends: Ends,
    pub limits: Limits,
    pub reading: Reading,
    pub keep_cache: bool,
}

/// Bytes per second that one thread reads from memory, and the number of threads that saturate the memory.
/// Typical of servers; the choice of path depends little on it, and feedback corrects it.
const BANDWIDTH: f64 = 16e9;
const BANDWIDTH_THREADS: usize = 4;

/// Scans of fewer bytes and products than this take the full path without planning.
const SMALL_BYTES: u64 = 16 << 20;
const SMALL_PRODUCTS: f64 = 2e8;

impl Planner<'_> {
    /// The plan for the chosen path.
    pub fn plan(self, wishes: &Wishes) -> Result<Plan, ScanError> {
        let path = self.choose(wishes.path)?;
        let cost = self.cost(path);
        let seconds = cost.read_seconds.max(cost.compute_seconds);
        let delta = match self.guarantee {
            Guarantee::Probable { delta } if path.is_probable() => Some(delta),
            Guarantee::Probable { .. } | Guarantee::Exact => None,
        };
        let Wishes { ends, limits, reading, keep_cache, .. } = *wishes;
        Ok(Plan {
            grouping: self.grouping,
            kernel: self.kernel,
            ends,
            path,
            passes: self.passes(path),
            delta,
            break_even: limits.break_even.unwrap_or_else(|| self.break_even(path)),
            row_seconds: seconds * self.threads as f64 / (self.rows as f64).max(1.0),
            limits,
            reading,
            keep_cache,
            batch: self.batch,
            curvature: self.curvature,
        })
    }

    /// The path to take; an error if the requested one is not possible.
    fn choose(&self, asked: ScanPath) -> Result<ScanPath, ScanError> {
        let has_sign = self.schema.tiers().iter().any(|tier| matches!(tier, Tier::Sign { .. }));
        if matches!(self.guarantee, Guarantee::Probable { .. }) && !has_sign {
            return Err(ScanError::NoSignTier);
        }
        if asked == ScanPath::Auto {
            let bytes = self.rows.saturating_mul(self.batch.row_bytes() as u64);
            let products = self.rows as f64 * self.batch.dims() as f64 * self.batch.queries as f64;
            let small = bytes < SMALL_BYTES && products < SMALL_PRODUCTS;
            return Ok(if small { ScanPath::Full } else { self.cheapest() });
        }
        match self.impossible(asked) {
            Some(reason) => Err(ScanError::ImpossiblePath { path: asked, reason }),
            None => Ok(asked),
        }
    }

    pub fn explain(&self, asked: ScanPath) -> Result<Explanation, ScanError> {
        Ok(Explanation {
            chosen: self.choose(asked)?,
            paths: ScanPath::ALL.iter().map(|&path| self.cost(path)).collect(),
            kernel: self.kernel.name(),
            threads: self.threads,
            rows: self.rows,
            queries: self.batch.queries,
            memory_bandwidth: self.bandwidth(),
        })
    }

    fn cheapest(&self) -> ScanPath {
        let is_fast = |path| match path {
            ScanPath::Bytes => self.kernel.has_bytes(),
            ScanPath::Auto | ScanPath::Full | ScanPath::I8Tier | ScanPath::SignTier => true,
        };
        let possible = ScanPath::ALL.iter().copied();
        let possible = possible.filter(|&path| self.impossible(path).is_none() && is_fast(path));
        let cheapest = possible.min_by(|&a, &b| self.cost(a).seconds().total_cmp(&self.cost(b).seconds()));
        cheapest.unwrap_or(ScanPath::Full)
    }

    fn impossible(&self, path: ScanPath) -> Option<&'static str> {
        let tiers = self.schema.tiers();
        let probable = matches!(self.guarantee, Guarantee::Probable { .. });
        match path {
            ScanPath::Auto | ScanPath::Full => None,
            _ if self.all_scores => Some("every score is requested"),
            _ if self.grouping.by_example() => Some("rows are grouped, so each of them counts"),
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

    fn passes(&self, path: ScanPath) -> Vec<Pass> {
        self.batch.blocks.iter().map(|block| Pass::new(self.schema, path, block.encoding)).collect()
    }

    /// The fraction of rows that may be candidates of a query before scoring all rows is cheaper.
    fn break_even(&self, path: ScanPath) -> f64 {
        if !path.screens() {
            return 1.0;
        }
        let (full, screen) = (self.cost(ScanPath::Full), self.parts(path));
        let spare = full.seconds() - screen.0.max(screen.1) * self.correction(path);
        let all = self.rows as f64 * self.score_seconds(path) * self.batch.queries as f64;
        (spare / all).clamp(0.02, 0.9)
    }

    /// Seconds to score a single candidate for one query, after a path has screened it.
    fn score_seconds(&self, path: ScanPath) -> f64 {
        let speeds = self.kernel.speeds();
        let compute: f64 =
            self.batch.blocks.iter().map(|block| exact(&speeds, block.encoding, block.dims, 1)).sum();
        // The row's own codes that the path has read are in the cache.
        let unread = self.batch.row_bytes() - self.code_bytes(path);
        (unread as f64 / self.bandwidth()).max(compute / self.threads as f64)
    }

    fn cost(&self, path: ScanPath) -> PathCost {
        // Measured on gradients; on noise, all rows are candidates or none. The best rows of a preconditioned query have
        // smaller cosines with it, so that coarse products leave more of them.
        let candidates = match (path, self.curvature.is_some()) {
            (ScanPath::Auto | ScanPath::Full, _) => 0.0,
            (ScanPath::Bytes | ScanPath::I8Tier, false) => 0.01,
            (ScanPath::Bytes | ScanPath::I8Tier, true) => 0.03,
            (ScanPath::SignTier, false) => 0.02,
            (ScanPath::SignTier, true) => 0.4,
        };
        let (read, compute) = self.parts(path);
        let again = candidates * self.rows as f64;
        let queries = self.batch.queries as f64;
        let again_bytes = again * self.batch.row_bytes() as f64;
        PathCost {
            path,
            impossible: self.impossible(path),
            bytes: self.rows.saturating_mul(self.pass_bytes(path) as u64).saturating_add(again_bytes as u64),
            read_seconds: read + again_bytes / self.bandwidth(),
            compute_seconds: compute + again * queries * self.score_seconds(path),
            candidates,
            correction: self.correction(path),
        }
    }

    /// Seconds to read and to compute, without candidates.
    fn parts(&self, path: ScanPath) -> (f64, f64) {
        let (speeds, queries) = (self.kernel.speeds(), self.batch.queries);
        let mut compute = 0.0;
        for (block, pass) in self.batch.blocks.iter().zip(self.passes(path)) {
            let dims = block.dims;
            compute += match path {
                ScanPath::Auto | ScanPath::Full => exact(&speeds, block.encoding, dims, queries),
                ScanPath::Bytes => seconds(speeds.bytes, dims, queries),
                ScanPath::I8Tier => exact(&speeds, Encoding::I8, dims, queries),
                ScanPath::SignTier => seconds(speeds.planes, dims, queries),
            };
            if pass == Pass::Narrowed {
                compute += speeds.narrow * dims as f64;
            }
        }
        if path.screens() {
            compute += speeds.pair * (queries * self.batch.blocks.len()) as f64;
        }
        let rows = self.rows as f64;
        (rows * self.pass_bytes(path) as f64 / self.bandwidth(), rows * compute / self.threads as f64)
    }

    /// Bytes per row that the pass over all rows reads.
    fn pass_bytes(&self, path: ScanPath) -> usize {
        let blocks = self.batch.blocks.iter().zip(self.passes(path));
        blocks.map(|(block, pass)| pass.tier_bytes(block.dims) + pass.code_bytes(block)).sum()
    }

    /// Bytes of the rows' own codes among them.
    fn code_bytes(&self, path: ScanPath) -> usize {
        self.batch.blocks.iter().zip(self.passes(path)).map(|(block, pass)| pass.code_bytes(block)).sum()
    }

    fn correction(&self, path: ScanPath) -> f64 {
        self.feedback.correction(path, self.curvature.is_some(), self.batch.queries)
    }

    fn bandwidth(&self) -> f64 {
        BANDWIDTH * self.threads.clamp(1, BANDWIDTH_THREADS) as f64
    }
}

/// Seconds to score one row for `queries` queries from its codes.
fn exact(speeds: &Speeds, encoding: Encoding, dims: usize, queries: usize) -> f64 {
    let speed = match encoding {
        Encoding::F32 => speeds.f32,
        Encoding::F16 => speeds.f16,
        Encoding::I8 => speeds.i8,
    };
    seconds(speed, dims, queries)
}

/// Seconds to compute the products of one row with `queries` queries.
fn seconds(speed: Speed, dims: usize, queries: usize) -> f64 {
    dims as f64 * (speed.first + speed.further * (queries as f64 - 1.0))
}
