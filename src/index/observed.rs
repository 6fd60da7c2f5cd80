//! A writer's observed sketches, which the next commit sums up.

use std::collections::BTreeMap;

use crate::curvature::{BlockSums, Estimate, Sign, panel_rows};
use crate::sketch::Sketch;

/// What was observed since the last commit, by name.
#[derive(Debug, Default)]
pub(super) struct Observations(pub BTreeMap<String, Observed>);

/// What was observed under a name.
#[derive(Debug)]
pub(super) struct Observed {
    /// For each block: its sums, and the rows that are not in them yet.
    pub blocks: Vec<(BlockSums, Vec<f32>)>,
    /// The examples.
    pub ids: Vec<Box<[u8]>>,
}

impl Observations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Observed {
    pub fn new(estimates: impl Iterator<Item = (usize, Estimate)>) -> Self {
        let blocks = estimates.map(|(dims, estimate)| (BlockSums::new(dims, estimate), Vec::new()));
        Self { blocks: blocks.collect(), ids: Vec::new() }
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
