//! A batch of queries, packed for the kernels once for the whole scan.

use super::control::CancelToken;
use super::error::ScanError;
use super::kernel::{FloatQueries, IntegerQueries};
use super::screen;
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
    /// An upper bound of each query's share in the score of a row whose norm is 1.
    pub reach: Vec<f64>,
}

#[derive(Debug)]
pub(super) enum Packed {
    /// For `f32` and `f16` rows.
    Float(FloatQueries),
    /// For `i8` rows: with the scale of each query.
    Integer { queries: IntegerQueries, scales: Vec<f64> },
}

/// The batch for the selected blocks, in the index's order.
#[derive(Debug)]
pub(super) struct Batch {
    pub blocks: Vec<BlockQueries>,
    pub queries: usize,
    /// For the cosine: `sqrt(Q)` of each query.
    pub lengths: Option<Vec<f64>>,
}

/// Checks the queries against the index; the norm of each query in each block.
pub(super) fn check(queries: &[Sketch], schema: &Schema) -> Result<Vec<Vec<f32>>, ScanError> {
    if queries.is_empty() {
        return Err(ScanError::NoQueries);
    }
    let spec = schema.spec();
    let mut norms = Vec::with_capacity(queries.len());
    for (query, sketch) in queries.iter().enumerate() {
        if sketch.spec() != spec {
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
    /// `selected` has the blocks in order with their weights; `norms` comes from [`check`].
    pub fn new(
        queries: &[Sketch],
        norms: &[Vec<f32>],
        schema: &Schema,
        selected: &[(usize, f64)],
        cosine: bool,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let ranges: Vec<_> = schema.spec().ranges().collect();
        let pack = |&(block, weight): &(usize, f64)| {
            let (range, encoding) = (ranges[block].clone(), schema.encodings()[block]);
            let dims = range.len();
            let values = queries.iter().map(|query| &query.values()[range.clone()]);
            let (packed, mut reach) = pack(values, dims, encoding, cancel)?;
            reach.iter_mut().for_each(|reach| *reach *= weight.abs());
            Ok(BlockQueries { block, dims, encoding, weight, packed, reach })
        };
        let blocks = selected.iter().map(pack).collect::<Result<Vec<_>, ScanError>>()?;
        let mut lengths = None;
        if cosine {
            let mut found = Vec::with_capacity(queries.len());
            for (query, norms) in norms.iter().enumerate() {
                let length = length(selected.iter().map(|&(block, weight)| (weight, norms[block])));
                if !length.is_finite() {
                    return Err(ScanError::WeightsOverflow { query });
                }
                found.push(length);
            }
            lengths = Some(found);
        }
        Ok(Self { blocks, queries: queries.len(), lengths })
    }

    /// The length of a row over the blocks, out of the norms of each.
    pub fn row_length(&self, norms: &[Vec<f32>], row: u32) -> f64 {
        let weights = self.blocks.iter().map(|block| block.weight);
        length(weights.zip(norms.iter().map(|norms| norms[row as usize])))
    }

    /// The ordinals of the blocks in the schema.
    pub fn ordinals(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.iter().map(|block| block.block)
    }

    /// Bytes of codes of one row.
    pub fn row_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.encoding.stride(block.dims)).sum()
    }

    /// Numbers of one row.
    pub fn dims(&self) -> usize {
        self.blocks.iter().map(|block| block.dims).sum()
    }
}

/// `sqrt(sum of w * norm^2)`: square, weight and sum rounded one after the other.
fn length(weights_and_norms: impl Iterator<Item = (f64, f32)>) -> f64 {
    let mut sum = 0f64;
    for (weight, norm) in weights_and_norms {
        let norm = f64::from(norm);
        sum += weight * (norm * norm);
    }
    sum.sqrt()
}

/// The queries for the kernels, and how far each reaches with a row of norm 1. A large batch takes a while,
/// so each query may be the last.
fn pack<'a>(
    queries: impl Iterator<Item = &'a [f32]>,
    dims: usize,
    encoding: Encoding,
    cancel: &CancelToken,
) -> Result<(Packed, Vec<f64>), ScanError> {
    let mut reach = Vec::new();
    let mut floats = FloatQueries::new(dims);
    let (mut integers, mut scales) = (IntegerQueries::new(dims), Vec::new());
    for query in queries {
        cancel.check()?;
        reach.push(screen::reach_of_one(query, encoding));
        match encoding {
            Encoding::F32 | Encoding::F16 => floats.push(query),
            Encoding::I8 => {
                let quantised = quantise_query(query);
                integers.push(&quantised.codes);
                scales.push(f64::from(quantised.scale));
            }
        }
    }
    let packed = match encoding {
        Encoding::F32 | Encoding::F16 => Packed::Float(floats),
        Encoding::I8 => Packed::Integer { queries: integers, scales },
    };
    Ok((packed, reach))
}
