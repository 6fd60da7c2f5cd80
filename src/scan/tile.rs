//! Scores a tile: some rows of a row group times the whole batch, block after block.

use std::ops::Range;

use super::columns::GroupColumns;
use super::engine::Engine;
use super::error::ScanError;
use super::kernel::{Rows, Select};
use super::query::{BlockQueries, Packed, length};
use super::stream::PieceCodes;
use crate::codec::Encoding;
use crate::segment::Kind;

/// Besides `Limits::tile_rows`, a tile has at most so many bytes of codes,
const TILE_BYTES: usize = 4 << 20;
/// so many scores,
const TILE_SCORES: usize = 32_768;
/// and so many products, as has each call of a kernel: some ten milliseconds of the slowest one, so
/// that a scan can be cancelled between two calls.
const PRODUCTS: usize = 1 << 21;
/// Fewer rows or queries would leave the kernels' registers empty.
const LEAST: usize = 4;
/// Rows that were not checked yet are checked and multiplied so many bytes at a time: what the first
/// cache holds, so that checking costs next to nothing.
const CHECKED_BYTES: usize = 32 << 10;
/// With more queries rows are checked a tile at a time: checking is little beside the products then.
const FEW_QUERIES: usize = 4;

/// A worker's buffers; their size depends on the batch alone.
pub(super) struct TileScorer<'e, 'a> {
    engine: &'e Engine<'a>,
    tile_rows: u32,
    /// Query after query, the score of each selected row.
    scores: Vec<f64>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    /// The selected rows, counted from the first of them.
    list: Vec<u32>,
}

impl<'e, 'a> TileScorer<'e, 'a> {
    pub fn new(engine: &'e Engine<'a>) -> Self {
        let batch = &engine.plan.batch;
        let rows = (engine.plan.limits.tile_rows as usize)
            .min(TILE_BYTES / batch.row_bytes())
            .min(TILE_SCORES / batch.queries)
            .min(PRODUCTS / (batch.dims().saturating_mul(batch.queries)));
        let tile_rows = u32::try_from((rows / LEAST * LEAST).max(LEAST)).unwrap_or(u32::MAX);
        Self {
            engine,
            tile_rows,
            scores: Vec::new(),
            floats: Vec::new(),
            integers: Vec::new(),
            list: Vec::new(),
        }
    }

    /// The most rows that a tile may have.
    pub fn tile_rows(&self) -> u32 {
        self.tile_rows
    }

    /// What [`TileScorer::score`] has found: query after query, as many as rows were selected.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Scores rows of a row group, at least one, in ascending order.
    pub fn score(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        codes: &mut PieceCodes,
    ) -> Result<(), ScanError> {
        let batch = &self.engine.plan.batch;
        self.scores.clear();
        self.scores.resize(batch.queries * selected.len(), 0.0);
        let scales = columns.scales(batch.ordinals())?;
        for (block, scales) in batch.blocks.iter().zip(scales) {
            self.add_block(columns, selected, codes, block, scales)?;
        }
        if let Some(lengths) = &batch.lengths {
            self.divide_by_lengths(columns, selected, lengths)?;
        }
        match self.scores.iter().position(|score| !score.is_finite()) {
            Some(at) => Err(ScanError::WeightsOverflow { query: at / selected.len() }),
            None => Ok(()),
        }
    }

    /// `score = score + w_b * b(q, x)`.
    fn add_block(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        codes: &mut PieceCodes,
        block: &BlockQueries,
        scales: &[f32],
    ) -> Result<(), ScanError> {
        let (reader, group) = (&columns.live().reader, columns.group());
        let (count, first) = (selected.len(), selected[0] as usize);
        let last = selected[count - 1] as usize;
        // Only the chunks that hold selected rows are touched, and checked.
        let mut codes = codes.of(reader, group, block.block, first..last + 1)?;
        let dense = last + 1 - first == count;
        self.list.clear();
        if !dense {
            self.list.extend(selected.iter().map(|&row| row - selected[0]));
        }
        let all = codes.codes();
        let row_bytes = block.dims * block.encoding.code_bytes();
        let queries = self.engine.plan.batch.queries;
        // With few queries a kernel is no slower on few rows at a time, and they are checked as it goes.
        let step = if dense && queries <= FEW_QUERIES && !codes.is_sound() {
            (CHECKED_BYTES / all.stride / LEAST * LEAST).max(LEAST)
        } else {
            count
        };
        let mut start = 0;
        while start < count {
            let rows = start..count.min(start + step);
            let select = if dense { Select::First(rows.len()) } else { Select::List(&self.list) };
            // The selection is over all rows if it is a list.
            let bytes = &all.bytes[if dense { start * all.stride } else { 0 }..];
            let found = Rows::new(bytes, all.stride, row_bytes, select).ok_or_else(|| {
                reader.fault(Kind::Codes, group, block.block, "rows beyond the column".into())
            })?;
            if step < count {
                codes.advance(rows.end)?;
            } else {
                codes.finish()?;
            }
            let damage = add_rows(
                self.engine,
                (&mut self.floats, &mut self.integers),
                (&mut self.scores, count),
                &found,
                (&selected[rows.clone()], rows.clone()),
                (block, scales),
            )?;
            if let Some(reason) = damage {
                // Rather than what came of it, the chunk that does not match.
                codes.finish()?;
                return Err(reader.fault(Kind::Codes, group, block.block, reason).into());
            }
            start = rows.end;
        }
        Ok(codes.finish()?)
    }

    /// The cosine: `score / (sqrt(Q) * sqrt(X))`, or 0.
    fn divide_by_lengths(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        lengths: &[f64],
    ) -> Result<(), ScanError> {
        let batch = &self.engine.plan.batch;
        let norms = columns.norms(batch.ordinals())?;
        for (i, &row) in selected.iter().enumerate() {
            let weights = batch.blocks.iter().map(|block| block.weight);
            let row_length = length(weights.zip(norms.iter().map(|norms| norms[row as usize])));
            for (query, &query_length) in lengths.iter().enumerate() {
                let score = &mut self.scores[query * selected.len() + i];
                *score = if query_length == 0.0 || row_length == 0.0 {
                    0.0
                } else if row_length.is_finite() {
                    *score / (query_length * row_length)
                } else {
                    return Err(ScanError::WeightsOverflow { query });
                };
            }
        }
        Ok(())
    }
}

/// Adds the products of some rows of a tile: they are `selected` in the row group, and `place` among the
/// `count` rows of the tile. Says what is wrong with the codes if they are not numbers.
fn add_rows(
    engine: &Engine<'_>,
    (floats, integers): (&mut Vec<f32>, &mut Vec<i64>),
    (scores, count): (&mut [f64], usize),
    rows: &Rows<'_>,
    (selected, place): (&[u32], Range<usize>),
    (block, scales): (&BlockQueries, &[f32]),
) -> Result<Option<String>, ScanError> {
    let (queries, kernel) = (engine.plan.batch.queries, engine.plan.kernel);
    let step = PRODUCTS / selected.len().saturating_mul(block.dims);
    let step = (step / LEAST * LEAST).max(LEAST);
    let mut start = 0;
    while start < queries {
        engine.check()?;
        let range = start..queries.min(start + step);
        let products = selected.len() * range.len();
        let scores = scores[range.start * count..range.end * count].chunks_mut(count);
        let scores = scores.map(|scores| &mut scores[place.clone()]);
        match &block.packed {
            Packed::Float(packed) => {
                floats.resize(products, 0.0);
                if block.encoding == Encoding::F32 {
                    kernel.f32(rows, packed, range.clone(), floats);
                } else {
                    kernel.f16(rows, packed, range.clone(), floats);
                }
                // Norms of rows and queries are bounded: only codes that no writer makes do this.
                if let Some(at) = floats.iter().position(|product| !product.is_finite()) {
                    return Ok(Some(format!("row {} gives {}", selected[at % selected.len()], floats[at])));
                }
                for (scores, products) in scores.zip(floats.chunks(selected.len())) {
                    add_floats(scores, products, selected, scales, block.weight);
                }
            }
            Packed::Integer { queries, scales: query_scales } => {
                integers.resize(products, 0);
                kernel.i8(rows, queries, range.clone(), integers);
                let products = integers.chunks(selected.len()).zip(&query_scales[range.clone()]);
                for (scores, (products, &query_scale)) in scores.zip(products) {
                    let rows = products.iter().zip(selected);
                    for (score, (&product, &row)) in scores.iter_mut().zip(rows) {
                        let scale = f64::from(scales[row as usize]) * query_scale;
                        *score += block.weight * (product as f64 * scale);
                    }
                }
            }
        }
        start = range.end;
    }
    Ok(None)
}

/// `scales` is empty for `f32` rows.
fn add_floats(scores: &mut [f64], products: &[f32], selected: &[u32], scales: &[f32], weight: f64) {
    if scales.is_empty() {
        for (score, &product) in scores.iter_mut().zip(products) {
            *score += weight * f64::from(product);
        }
    } else {
        let rows = products.iter().zip(selected);
        for (score, (&product, &row)) in scores.iter_mut().zip(rows) {
            *score += weight * (f64::from(product) * f64::from(scales[row as usize]));
        }
    }
}
