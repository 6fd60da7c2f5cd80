//! A writer's observed sketches, which the next commit sums up.

use std::collections::{BTreeMap, HashMap};

use crate::curvature::{BlockSums, Estimate, Sign, panel_rows};
use crate::manifest::Location;
use crate::sketch::Sketch;

/// What was observed since the last commit, by name.
#[derive(Debug, Default)]
pub(super) struct Observations(pub BTreeMap<String, Observed>);

/// What was observed under a name.
#[derive(Debug)]
pub(super) struct Observed {
    /// For each block: its sums, and the rows that are not in them yet.
    pub blocks: Vec<(BlockSums, Vec<f32>)>,
    /// The examples, and where their rows were when they were observed.
    pub examples: HashMap<Box<[u8]>, Location>,
    /// Rows of examples that were replaced since.
    pub gone: u64,
}

impl Observations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Observed {
    pub fn new(estimates: impl Iterator<Item = (usize, Estimate)>) -> Self {
        let blocks = estimates.map(|(dims, estimate)| (BlockSums::new(dims, estimate), Vec::new()));
        Self { blocks: blocks.collect(), examples: HashMap::new(), gone: 0 }
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
