//! What will be done with each row: which path is taken, what it reads and what it costs.
//!
//! - Which path is the cheapest? `planner`, by the kernel's speeds and what earlier scans of the index
//!   really took (`feedback`).
//! - What does the caller see of it? [`Explanation`].
//!
//! A [`Plan`] says nothing of threads, files or hits: another executor, on a GPU say, would take the
//! same one.

mod explain;
mod feedback;
mod planner;

pub use explain::{Explanation, PathCost};
pub(crate) use feedback::Feedback;
pub(super) use planner::{Planner, Wishes};

use super::batch::{Batch, BlockQueries};
use super::kernel::Kernel;
use super::options::{Ends, Grouping, Reading, ScanPath};
use crate::codec::{Encoding, Tier};
use crate::schema::Schema;

/// How finely the rows are cut. Nothing in a ranking depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// About as many bytes of codes make a piece: enough to hide the cost of taking it, and few
    /// enough that the last pieces keep all workers busy.
    pub piece_bytes: usize,
    /// If codes are read into buffers, a piece has about as many bytes of each block, or more: whole
    /// chunks are read, and what two pieces share is read twice.
    pub block_bytes: usize,
    /// The most rows that are scored at once.
    pub tile_rows: u32,
    /// The share of pairs of a row and a query that may be candidates before a screen is put aside;
    /// planned if not given.
    pub break_even: Option<f64>,
}

impl Limits {
    pub const DEFAULT: Self =
        Self { piece_bytes: 2 << 20, block_bytes: 1 << 20, tile_rows: 1 << 14, break_even: None };
}

/// What the pass over all rows reads of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The rows' own codes, as they are.
    Codes,
    /// The rows' own codes of floats, narrowed to signed bytes tile by tile.
    Narrowed,
    /// A tier.
    Tier(Tier),
}

impl Pass {
    /// Of a block on a path that the schema has the tiers for.
    fn new(schema: &Schema, path: ScanPath, encoding: Encoding) -> Self {
        let sign = schema.tiers().iter().copied().find(|tier| matches!(tier, Tier::Sign { .. }));
        match (path, encoding) {
            (ScanPath::Auto | ScanPath::Full, _) => Self::Codes,
            (ScanPath::SignTier, _) => sign.map_or(Self::Codes, Self::Tier),
            (ScanPath::Bytes | ScanPath::I8Tier, Encoding::I8) => Self::Codes,
            (ScanPath::Bytes | ScanPath::I8Tier, Encoding::F16 | Encoding::F32) => {
                if schema.tiers().contains(&Tier::I8) { Self::Tier(Tier::I8) } else { Self::Narrowed }
            }
        }
    }

    /// The tier that is read, if it is one.
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Tier(tier) => Some(tier),
            Self::Codes | Self::Narrowed => None,
        }
    }

    /// Bytes that are read of a row in a tier: codes, two factors and the norm.
    fn tier_bytes(self, dims: usize) -> usize {
        self.tier().map_or(0, |tier| tier.stride(dims) + 12)
    }

    /// Bytes that are read of a row's own codes.
    fn code_bytes(self, block: &BlockQueries) -> usize {
        if self.tier().is_some() { 0 } else { block.encoding.stride(block.dims) }
    }
}

/// What is to be done with each row.
#[derive(Debug)]
pub(super) struct Plan {
    pub batch: Batch,
    pub grouping: Grouping,
    pub kernel: &'static dyn Kernel,
    pub ends: Ends,
    /// Any but `Auto`.
    pub path: ScanPath,
    /// One for each block of the batch.
    pub passes: Vec<Pass>,
    /// The probability that a row is pruned that should not have been; none where bounds always hold.
    pub delta: Option<f64>,
    /// The share of pairs that may be candidates before a full pass is cheaper.
    pub break_even: f64,
    /// Seconds that a row is expected to take one thread.
    pub row_seconds: f64,
    pub limits: Limits,
    pub reading: Reading,
    /// Whether the page cache may keep what was read.
    pub keep_cache: bool,
}

impl Plan {
    /// Whether candidates are looked for before rows are scored.
    pub fn screens(&self) -> bool {
        self.path != ScanPath::Full
    }

    /// Whether a tier is read before the rows' own codes.
    pub fn reads_tier(&self) -> bool {
        self.tier_bytes() > 0
    }

    /// Bytes of tiers that the pass over all rows reads of each.
    pub fn tier_bytes(&self) -> usize {
        self.blocks().map(|(block, pass)| pass.tier_bytes(block.dims)).sum()
    }

    /// Bytes of its own codes that the pass over all rows reads of each.
    pub fn code_bytes(&self) -> usize {
        self.blocks().map(|(block, pass)| pass.code_bytes(block)).sum()
    }

    /// Bytes that the pass over all rows reads of each.
    pub fn pass_bytes(&self) -> usize {
        self.tier_bytes() + self.code_bytes()
    }

    /// The blocks of the batch, with what is read of them.
    pub fn blocks(&self) -> impl Iterator<Item = (&BlockQueries, Pass)> {
        self.batch.blocks.iter().zip(self.passes.iter().copied())
    }

    /// Rows of a piece. The more rows a screen sees at once, the higher is the threshold when it scores its
    /// candidates; but no worker must be left without rows.
    pub fn piece_rows(&self, rows: u64, threads: usize) -> u32 {
        let mut bytes = self.limits.piece_bytes;
        if self.reading != Reading::Mapped {
            bytes = bytes.max(self.limits.block_bytes.saturating_mul(self.batch.blocks.len()));
        }
        let mut fit = bytes / self.pass_bytes();
        if self.reads_tier() {
            let fair = usize::try_from(rows).unwrap_or(usize::MAX) / (8 * threads);
            fit = fit.saturating_mul(4).min(fair.max(fit.min(512)));
        }
        // Kernels take single queries by rows of twelve or sixteen.
        if fit > STEP {
            fit = fit / STEP * STEP;
        }
        u32::try_from(fit).unwrap_or(u32::MAX).max(1)
    }
}

/// What the rows of a large piece are a multiple of.
const STEP: usize = 48;
