//! A batch of queries, packed for the kernels once per scan.
//!
//! A query that is transformed first, by a curvature, is another sketch.

use std::sync::Arc;

use rayon::prelude::*;

use super::bounds;
use super::control::CancelToken;
use super::error::ScanError;
use super::kernel::{FloatQueries, IntegerQueries};
use super::source::RowLengths;
use crate::codec::{Encoding, MAX_NORM, norm, quantise_query};
use crate::schema::Schema;
use crate::sketch::Sketch;

/// A selected block and its part of each query.
#[derive(Debug)]
pub(super) struct BlockQueries {
    /// Its ordinal in the schema.
    pub block: usize,
    pub dims: usize,
    pub encoding: Encoding,
    pub weight: f64,
    pub packed: Packed,
    /// An upper bound of each query's score in this block with a row of norm 1.
    pub reach: Vec<f64>,
}

#[derive(Debug)]
pub(super) enum Packed {
    /// For rows of floats.
    Floats(FloatQueries),
    /// For rows of signed bytes: with the scale of each query.
    Integers { queries: IntegerQueries, scales: Vec<f64> },
}

/// The batch for the selected blocks, in the index's order.
#[derive(Debug)]
pub(super) struct Batch {
    pub blocks: Vec<BlockQueries>,
    pub queries: usize,
    /// What scores are divided by, if they are.
    pub divisor: Option<Divisor>,
}

/// What scores are divided by: the length of the row, and that of the query.
#[derive(Debug)]
pub(super) struct Divisor {
    /// For the cosine `sqrt(Q)` of each query; 1 for the other metrics.
    pub queries: Vec<f64>,
    pub rows: RowLength,
}

/// What a row's length is made of, block by block.
#[derive(Debug, Clone)]
pub(super) enum RowLength {
    /// The norms.
    Norms,
    /// The roots of its self-influence.
    SelfInfluence(Arc<dyn RowLengths>),
}

/// Checks the queries against the index. Returns the norm of each query in each block.
pub(super) fn check(queries: &[Sketch], schema: &Schema) -> Result<Vec<Vec<f32>>, ScanError> {
    if queries.is_empty() {
        return Err(ScanError::NoQueries);
    }
    let spec = schema.spec();
    let mut norms = Vec::with_capacity(queries.len());
    for (query, sketch) in queries.iter().enumerate() {
        if !spec.takes_queries_of(sketch.spec()) {
            let (given, index) = (Box::new(sketch.spec().clone()), Box::new(spec.clone()));
            return Err(ScanError::OtherSpec { query, given, index });
        }
        let of_sketch: Vec<f32> = spec.ranges().map(|range| norm(&sketch.values()[range])).collect();
        if let Some(block) = of_sketch.iter().position(|&norm| norm > MAX_NORM) {
            let (block, norm) = (spec.blocks()[block].name.clone(), of_sketch[block]);
            return Err(ScanError::NormTooLarge { query, block, norm });
        }
        norms.push(of_sketch);
    }
    Ok(norms)
}

impl Batch {
    /// `selected` holds the blocks in order with their weights; `norms` is the result of [`check`]. `divide`: what rows are
    /// divided by, and whether queries are divided by their lengths too.
    pub fn new(
        queries: &[Sketch],
        norms: &[Vec<f32>],
        schema: &Schema,
        selected: &[(usize, f64)],
        divide: Option<(RowLength, bool)>,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let ranges: Vec<_> = schema.spec().ranges().collect();
        let pack = |&(block, weight): &(usize, f64)| {
            let values: Vec<&[f32]> =
                queries.iter().map(|query| &query.values()[ranges[block].clone()]).collect();
            BlockQueries::new(&values, block, schema.encodings()[block], weight, cancel)
        };
        let blocks = selected.iter().map(pack).collect::<Result<Vec<_>, ScanError>>()?;
        let mut divisor = None;
        if let Some((rows, by_queries)) = divide {
            let mut lengths = vec![1.0; queries.len()];
            for (query, norms) in norms.iter().enumerate().filter(|_| by_queries) {
                lengths[query] = length(selected.iter().map(|&(block, weight)| (weight, norms[block])));
                if !lengths[query].is_finite() {
                    return Err(ScanError::WeightsOverflow { query });
                }
            }
            divisor = Some(Divisor { queries: lengths, rows });
        }
        Ok(Self { blocks, queries: queries.len(), divisor })
    }

    /// The length of a row over the blocks, from its length in each.
    pub fn row_length(&self, lengths: &[Vec<f32>], row: u32) -> f64 {
        let weights = self.blocks.iter().map(|block| block.weight);
        length(weights.zip(lengths.iter().map(|lengths| lengths[row as usize])))
    }

    /// The ordinals of the blocks in the schema.
    pub fn ordinals(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.iter().map(|block| block.block)
    }

    /// Bytes of codes of one row.
    pub fn row_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.encoding.stride(block.dims)).sum()
    }

    /// Dims of one row over the blocks.
    pub fn dims(&self) -> usize {
        self.blocks.iter().map(|block| block.dims).sum()
    }

    /// An upper bound of each query's score with any row whose norms, block by block, are at most `norms`.
    pub fn reach<'b>(&'b self, norms: &'b [f32]) -> impl Iterator<Item = f64> + 'b {
        (0..self.queries).map(move |query| {
            let blocks = self.blocks.iter().zip(norms);
            let of_block = |(block, &norm): (&BlockQueries, &f32)| {
                let tiny = block.tiny();
                f64::from(norm) * (block.reach[query] + tiny) + tiny
            };
            blocks.map(of_block).sum::<f64>() * bounds::ABOVE
        })
    }
}

/// `sqrt(sum of w * length^2)`; square, product and sum are rounded separately.
fn length(weights_and_norms: impl Iterator<Item = (f64, f32)>) -> f64 {
    let mut sum = 0f64;
    for (weight, norm) in weights_and_norms {
        let norm = f64::from(norm);
        sum += weight * (norm * norm);
    }
    sum.sqrt()
}

impl BlockQueries {
    /// Packs the block's values of each query, on all threads of the pool. A large batch takes a while, so
    /// cancellation is checked before each query.
    fn new(
        values: &[&[f32]],
        block: usize,
        encoding: Encoding,
        weight: f64,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let dims = values.first().map_or(0, |values| values.len());
        let packed = match encoding {
            Encoding::F32 | Encoding::F16 => Packed::Floats(pack_floats(values, dims, cancel)?),
            Encoding::I8 => {
                let quantise = |values: &&[f32]| cancel.check().map(|()| quantise_query(values));
                let quantised = values.par_iter().map(quantise).collect::<Result<Vec<_>, _>>()?;
                let mut queries = IntegerQueries::new(dims);
                quantised.iter().for_each(|query| queries.push(&query.codes));
                let scales = quantised.iter().map(|query| f64::from(query.scale)).collect();
                Packed::Integers { queries, scales }
            }
        };
        let mut packed = Self { block, dims, encoding, weight, packed, reach: Vec::new() };
        let rounding = bounds::rounding(dims, encoding);
        let reach = |query| {
            cancel.check()?;
            Ok(bounds::norm(packed.target(query).into_iter())
                * (1.0 + rounding)
                * bounds::ABOVE
                * weight.abs())
        };
        packed.reach = (0..values.len()).into_par_iter().map(reach).collect::<Result<_, ScanError>>()?;
        Ok(packed)
    }

    /// A query's values as used in the score: quantised in `i8` blocks.
    pub fn target(&self, query: usize) -> Vec<f64> {
        let mut numbers: Vec<f64> = match &self.packed {
            Packed::Floats(queries) => {
                queries.lines(query).iter().flat_map(|line| line.0).map(f64::from).collect()
            }
            Packed::Integers { queries, scales } => {
                let (codes, scale) = (queries.lines(query).iter().flat_map(|line| line.0), scales[query]);
                codes.map(|code| f64::from(code) * scale).collect()
            }
        };
        // The lines are padded with zeros.
        numbers.truncate(self.dims);
        numbers
    }

    /// The maximum error of a score by underflow, for a row of scale 1. An `f16` row's scale is at most its
    /// norm, or less than 1.
    pub fn tiny(&self) -> f64 {
        self.weight.abs() * bounds::underflow(self.dims, self.encoding)
    }
}

fn pack_floats(values: &[&[f32]], dims: usize, cancel: &CancelToken) -> Result<FloatQueries, ScanError> {
    let mut queries = FloatQueries::new(dims);
    for values in values {
        cancel.check()?;
        queries.push(values);
    }
    Ok(queries)
}
