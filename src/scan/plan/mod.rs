//! The plan of a scan: its path, what it reads, and its cost.
//!
//! - Which path is the cheapest? `planner`, by the kernel's speeds and the measured times of earlier scans of
//!   the index (`feedback`).
//! - What does the caller see of it? [`Explanation`].
//!
//! A [`Plan`] does not depend on threads, files or hits, so that an executor on another device, for example a
//! GPU, can use it.

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
use crate::curvature::CurvatureState;
use crate::schema::Schema;

/// How rows are divided into pieces and tiles. Rankings do not depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The target size of a piece in bytes of codes: large enough to amortise the cost of a piece, and small
    /// enough that the last pieces keep all workers busy.
    pub piece_bytes: usize,
    /// If codes are read into buffers, the minimum target size of a piece per block: whole chunks are read,
    /// and chunks that two pieces share are read twice.
    pub block_bytes: usize,
    /// The maximum number of rows of a tile.
    pub tile_rows: u32,
    /// The maximum fraction of pairs of a row and a query that may be candidates before the screen is paused.
    /// `None`: planned.
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
    /// The rows' own float codes, narrowed to signed bytes tile by tile.
    Narrowed,
    /// A tier.
    Tier(Tier),
}

impl Pass {
    /// For a block of `encoding`, on a path for which the schema has the tiers.
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

    /// The tier, if the pass reads one.
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Tier(tier) => Some(tier),
            Self::Codes | Self::Narrowed => None,
        }
    }

    /// Bytes read of a row in a tier: codes, two factors and the norm.
    fn tier_bytes(self, dims: usize) -> usize {
        self.tier().map_or(0, |tier| tier.stride(dims) + 12)
    }

    /// Bytes read of a row's own codes.
    fn code_bytes(self, block: &BlockQueries) -> usize {
        if self.tier().is_some() { 0 } else { block.encoding.stride(block.dims) }
    }
}

/// The plan of a scan.
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
    /// The failure probability: that a row is pruned wrongly. `None` if bounds always hold.
    pub delta: Option<f64>,
    /// The fraction of pairs that may be candidates before a full pass is cheaper.
    pub break_even: f64,
    /// The estimated seconds of one thread per row.
    pub row_seconds: f64,
    pub limits: Limits,
    pub reading: Reading,
    /// Whether codes may stay in the page cache.
    pub keep_cache: bool,
    /// What the queries were preconditioned with, if they were.
    pub curvature: Option<CurvatureState>,
}

impl Plan {
    /// Whether rows are screened before candidates are scored.
    pub fn screens(&self) -> bool {
        self.path.screens()
    }

    /// Whether the screen reads a tier.
    pub fn reads_tier(&self) -> bool {
        self.tier_bytes() > 0
    }

    /// Bytes of tiers per row that the pass over all rows reads.
    pub fn tier_bytes(&self) -> usize {
        self.blocks().map(|(block, pass)| pass.tier_bytes(block.dims)).sum()
    }

    /// Bytes of the rows' own codes per row that the pass over all rows reads.
    pub fn code_bytes(&self) -> usize {
        self.blocks().map(|(block, pass)| pass.code_bytes(block)).sum()
    }

    /// Bytes per row that the pass over all rows reads.
    pub fn pass_bytes(&self) -> usize {
        self.tier_bytes() + self.code_bytes()
    }

    /// The blocks of the batch with their passes.
    pub fn blocks(&self) -> impl Iterator<Item = (&BlockQueries, Pass)> {
        self.batch.blocks.iter().zip(self.passes.iter().copied())
    }

    /// The number of rows of a piece. A screen over more rows scores its best candidates first, and so prunes
    /// with a higher threshold; but each worker must have rows.
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
        // Kernels process single queries by twelve or sixteen rows.
        if fit > STEP {
            fit = fit / STEP * STEP;
        }
        u32::try_from(fit).unwrap_or(u32::MAX).max(1)
    }
}

/// The number of rows of a large piece is a multiple of this.
const STEP: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TierKind;
    use crate::sketch::SketchSpec;

    /// Catches a tier that takes room in every segment and that no path reads.
    #[test]
    fn every_tier_is_read_by_a_path() {
        let spec = SketchSpec::dense("test", "1", [("all", 16)]);
        for tier in Tier::all(3) {
            let encoding = Encoding::ALL.iter().copied().find(|&encoding| tier.covers(encoding)).unwrap();
            let schema = Schema::new(spec.clone(), encoding).unwrap().with_tiers([tier]).unwrap();
            let kind = |path| Pass::new(&schema, path, encoding).tier().map(Tier::kind);
            let read: Vec<TierKind> = ScanPath::ALL.iter().filter_map(|&path| kind(path)).collect();
            assert!(read.contains(&tier.kind()), "no path reads the {} tier", tier.name());
        }
    }
}
