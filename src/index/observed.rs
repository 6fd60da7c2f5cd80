//! Sums that the next commit adds to those of the index: of a writer's observed sketches, and of attached parts.

use std::collections::{BTreeMap, HashMap};

use crate::curvature::{BlockSums, Estimate, Sign, panel_rows};
use crate::manifest::{Coverage, Location, SUMS_OF_OBSERVED};
use crate::sketch::{Sketch, SketchSpec};

/// What was observed since the last commit, by name.
#[derive(Debug, Default)]
pub(super) struct Observations(pub BTreeMap<String, Observed>);

/// What was observed or attached under a name.
#[derive(Debug)]
pub(super) struct Observed {
    /// [`SUMS_OF_ROWS`](crate::manifest::SUMS_OF_ROWS) or [`SUMS_OF_OBSERVED`](crate::manifest::SUMS_OF_OBSERVED).
    pub kind: u8,
    /// For each block: its sums, and the rows that are not in them yet.
    pub blocks: Vec<(BlockSums, Vec<f32>)>,
    /// The examples that were observed, and where a [`Writer`](super::Writer) found their rows; `None` in a part, of which all
    /// examples are.
    pub examples: HashMap<Box<[u8]>, Option<Location>>,
    /// Rows of examples that were observed and replaced.
    pub gone: u64,
    /// The rows of attached segments.
    pub attached: Coverage,
}

impl Observations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Observed {
    /// Sums of no sketches, with the estimate of each block.
    pub fn new(spec: &SketchSpec, estimates: &[Estimate]) -> Self {
        let sums =
            spec.ranges().zip(estimates).map(|(range, &estimate)| BlockSums::new(range.len(), estimate));
        Self::of_sums(SUMS_OF_OBSERVED, sums.collect(), Coverage::new())
    }

    pub fn of_sums(kind: u8, sums: Vec<BlockSums>, attached: Coverage) -> Self {
        let blocks = sums.into_iter().map(|sums| (sums, Vec::new())).collect();
        Self { kind, blocks, examples: HashMap::new(), gone: 0, attached }
    }

    pub fn estimates(&self) -> impl Iterator<Item = Estimate> {
        self.blocks.iter().map(|(sums, _)| sums.estimate)
    }

    /// Whether the other sums are of the same kind and estimates.
    pub fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.estimates().eq(other.estimates())
    }

    /// Adds other sums [like](Self::is_like) these.
    pub fn merge(&mut self, other: Self) {
        self.flush();
        for ((sums, _), (others, _)) in self.blocks.iter_mut().zip(&other.blocks) {
            sums.merge(others);
        }
        self.examples.extend(other.examples);
        self.gone += other.gone;
        self.attached.extend(other.attached);
    }

    pub fn add(&mut self, sketch: &Sketch) {
        for ((sums, panel), range) in self.blocks.iter_mut().zip(sketch.spec().ranges()) {
            panel.extend_from_slice(&sketch.values()[range]);
            if panel.len() >= panel_rows(sums.dims) * sums.dims {
                sums.add(panel, Sign::Plus);
                panel.clear();
            }
        }
    }

    /// Adds the rows that are not in the sums yet.
    pub fn flush(&mut self) {
        for (sums, panel) in &mut self.blocks {
            if !panel.is_empty() {
                sums.add(panel, Sign::Plus);
                panel.clear();
            }
        }
    }
}
