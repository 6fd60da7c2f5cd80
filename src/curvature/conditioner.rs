//! Preconditions queries, block by block.

use std::sync::Arc;

use uuid::Uuid;

use super::factor::Factor;
use super::options::CurvatureState;
use crate::sketch::{Sketch, SketchError, SketchSpec};

/// The factors of some blocks, and what is said of them.
#[derive(Debug)]
pub(crate) struct Conditioner {
    pub state: CurvatureState,
    /// The artifact with the sums.
    pub sums: Uuid,
    /// The blocks in the index's order.
    pub factors: Vec<(usize, Arc<Factor>)>,
}

impl Conditioner {
    /// `(F + λI)⁻¹ q` of each query, rounded to f32; values of other blocks than those of the factors stay.
    ///
    /// # Errors
    /// A value overflows f32: the error has the block and the position.
    pub fn precondition(&self, queries: &[Sketch], spec: &SketchSpec) -> Result<Vec<Sketch>, SketchError> {
        let ranges: Vec<_> = spec.ranges().collect();
        let mut values: Vec<Vec<f32>> = queries.iter().map(|query| query.values().to_vec()).collect();
        for (block, factor) in &self.factors {
            let Some(range) = ranges.get(*block) else { continue };
            let of_block = |query: &Vec<f32>| query[range.clone()].iter().copied().map(f64::from).collect();
            let mut batch: Vec<Vec<f64>> = values.iter().map(of_block).collect();
            factor.precondition(&mut batch);
            for (query, made) in values.iter_mut().zip(batch) {
                for (value, made) in query[range.clone()].iter_mut().zip(made) {
                    *value = made as f32;
                }
            }
        }
        let spec = Arc::new(spec.clone());
        values.into_iter().map(|values| Sketch::dense(Arc::clone(&spec), values)).collect()
    }
}
