//! Scores a tile: some rows of a row group times queries of the batch, block after block.

use std::ops::Range;

use super::columns::GroupColumns;
use super::engine::{Engine, Plan};
use super::error::ScanError;
use super::kernel::{Kernel, Rows, Select};
use super::query::{BlockQueries, Packed};
use super::stream::PieceCodes;
use crate::codec::Encoding;
use crate::segment::{Codes, Kind};

/// Besides `Limits::tile_rows`, a tile has at most so many bytes of codes
const TILE_BYTES: usize = 4 << 20;
/// (or so many, if what a screen keeps of them is read again from the second cache)
const READ_TWICE: usize = 1 << 20;
/// and so many scores.
const TILE_SCORES: usize = 32_768;
/// Fewer queries at once would leave the kernels' registers empty.
const LEAST_QUERIES: usize = 16;
/// Kernels take rows by these.
const ROWS: [usize; 3] = [96, 48, 4];

/// With more queries rows are checked a tile at a time: checking is little beside the products then.
const FEW_QUERIES: usize = 4;

/// Rows that were not checked yet are checked and multiplied so many bytes at a time: what the first
/// cache holds, so that checking costs next to nothing.
const CHECKED_BYTES: usize = 32 << 10;

/// The most rows that a tile may have: enough for the kernels, and few enough that buffers depend on the
/// batch alone and a scan can be cancelled between two calls.
pub(super) fn tile_rows(plan: &Plan) -> u32 {
    let (batch, limit) = (&plan.batch, plan.limits.tile_rows);
    let bytes = match &plan.screen {
        Some(screen) if screen.reads_codes => READ_TWICE,
        _ => TILE_BYTES,
    };
    let rows = (limit as usize)
        .min(bytes / plan.row_bytes())
        .min(TILE_SCORES / batch.queries)
        .min(plan.kernel.products() / batch.dims().saturating_mul(batch.queries));
    let step = ROWS.into_iter().find(|&step| step <= rows).unwrap_or(ROWS[2]);
    u32::try_from((rows / step * step).max(ROWS[2])).unwrap_or(u32::MAX).min(limit.max(1))
}

/// How many queries one call of a kernel takes: some milliseconds' worth.
pub(super) fn queries_at_once(kernel: &dyn Kernel, rows: usize, dims: usize) -> usize {
    let queries = kernel.products() / rows.saturating_mul(dims);
    (queries / LEAST_QUERIES * LEAST_QUERIES).max(LEAST_QUERIES)
}

/// Selected rows for the kernels. `codes` begins with the first of them; `list` is a buffer.
pub(super) fn rows_of<'c>(
    columns: &GroupColumns<'_>,
    block: &BlockQueries,
    codes: &'c Codes<'_>,
    row_bytes: usize,
    selected: &[u32],
    list: &'c mut Vec<u32>,
) -> Result<Rows<'c>, ScanError> {
    let (count, first) = (selected.len(), selected[0]);
    let select = if (selected[count - 1] - first) as usize + 1 == count {
        Select::First(count)
    } else {
        list.clear();
        list.extend(selected.iter().map(|&row| row - first));
        Select::List(list)
    };
    Rows::new(&codes.bytes, codes.stride, row_bytes, select).ok_or_else(|| beyond(columns, block))
}

fn beyond(columns: &GroupColumns<'_>, block: &BlockQueries) -> ScanError {
    let reader = &columns.live().reader;
    reader.fault(Kind::Codes, columns.group(), block.block, "rows beyond the column".into()).into()
}

/// A worker's buffers; their size depends on the batch alone.
pub(super) struct TileScorer<'e, 'a> {
    engine: &'e Engine<'a>,
    /// Query after query, the score of each selected row.
    scores: Vec<f64>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    /// The selected rows, counted from the first of them.
    list: Vec<u32>,
}

impl<'e, 'a> TileScorer<'e, 'a> {
    pub fn new(engine: &'e Engine<'a>) -> Self {
        Self { engine, scores: Vec::new(), floats: Vec::new(), integers: Vec::new(), list: Vec::new() }
    }

    /// What [`TileScorer::score`] has found: query after query, as many as rows were selected.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Scores rows of a row group, at least one, in ascending order, for some queries of the batch.
    pub fn score(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        queries: Range<usize>,
        codes: &mut PieceCodes,
    ) -> Result<(), ScanError> {
        let batch = &self.engine.plan.batch;
        self.scores.clear();
        self.scores.resize(queries.len() * selected.len(), 0.0);
        let scales = columns.scales(batch.ordinals())?;
        for (block, scales) in batch.blocks.iter().zip(scales) {
            self.add_block(columns, selected, queries.clone(), codes, block, scales)?;
        }
        if let Some(lengths) = &batch.lengths {
            self.divide_by_lengths(columns, selected, &lengths[queries.clone()])?;
        }
        match self.scores.iter().position(|score| !score.is_finite()) {
            Some(at) => Err(ScanError::WeightsOverflow { query: queries.start + at / selected.len() }),
            None => Ok(()),
        }
    }

    /// `score = score + w_b * b(q, x)`.
    fn add_block(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        queries: Range<usize>,
        codes: &mut PieceCodes,
        block: &BlockQueries,
        scales: &[f32],
    ) -> Result<(), ScanError> {
        let (reader, group) = (&columns.live().reader, columns.group());
        let (count, first) = (selected.len(), selected[0] as usize);
        let last = selected[count - 1] as usize;
        let row_bytes = block.dims * block.encoding.code_bytes();
        let mut adder = Adder {
            engine: self.engine,
            floats: &mut self.floats,
            integers: &mut self.integers,
            scores: &mut self.scores,
            count,
            queries: queries.clone(),
            block,
            scales,
        };
        let fault = |reason| reader.fault(Kind::Codes, group, block.block, reason);
        if last + 1 - first > count {
            let codes = codes.checked(reader, group, block.block, selected)?;
            let rows = rows_of(columns, block, &codes, row_bytes, selected, &mut self.list)?;
            return match adder.add(&rows, selected, 0..count)? {
                None => Ok(()),
                Some(reason) => Err(fault(reason).into()),
            };
        }
        let mut codes = codes.of(reader, group, block.block, first..last + 1)?;
        let stride = codes.codes().stride;
        // With few queries a kernel is no slower on few rows at a time, and they are checked as it goes.
        let step = if queries.len() <= FEW_QUERIES && !codes.is_sound() {
            (CHECKED_BYTES / stride / ROWS[2] * ROWS[2]).max(ROWS[2])
        } else {
            codes.finish()?;
            count
        };
        let mut start = 0;
        while start < count {
            let place = start..count.min(start + step);
            codes.advance(place.end)?;
            let all = codes.codes();
            let bytes = &all.bytes[start * stride..];
            let rows = Rows::new(bytes, stride, row_bytes, Select::First(place.len()));
            let rows = rows.ok_or_else(|| beyond(columns, block))?;
            if let Some(reason) = adder.add(&rows, &selected[place.clone()], place.clone())? {
                // Rather than what came of it, the chunk that does not match.
                codes.finish()?;
                return Err(fault(reason).into());
            }
            start = place.end;
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
            let row_length = batch.row_length(norms, row);
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

/// Adds the products of a block to the scores of a tile.
struct Adder<'t, 'e, 'a> {
    engine: &'e Engine<'a>,
    floats: &'t mut Vec<f32>,
    integers: &'t mut Vec<i64>,
    /// Of `queries`, one after the other: the score of each of `count` rows.
    scores: &'t mut [f64],
    count: usize,
    queries: Range<usize>,
    block: &'t BlockQueries,
    scales: &'t [f32],
}

impl Adder<'_, '_, '_> {
    /// Some rows: `selected` in the row group, and `place` in the tile. Says what is wrong with the codes
    /// if they are not numbers.
    fn add(
        &mut self,
        rows: &Rows<'_>,
        selected: &[u32],
        place: Range<usize>,
    ) -> Result<Option<String>, ScanError> {
        let (kernel, block, scales) = (self.engine.plan.kernel, self.block, self.scales);
        let step = queries_at_once(kernel, selected.len(), block.dims);
        let mut start = self.queries.start;
        while start < self.queries.end {
            self.engine.check()?;
            let range = start..self.queries.end.min(start + step);
            let products = selected.len() * range.len();
            let of = (range.start - self.queries.start) * self.count
                ..(range.end - self.queries.start) * self.count;
            let scores = self.scores[of].chunks_mut(self.count).map(|scores| &mut scores[place.clone()]);
            match &block.packed {
                Packed::Float(packed) => {
                    self.floats.resize(products, 0.0);
                    if block.encoding == Encoding::F32 {
                        kernel.f32(rows, packed, range.clone(), self.floats);
                    } else {
                        kernel.f16(rows, packed, range.clone(), self.floats);
                    }
                    // Norms of rows and queries are bounded: only codes that no writer makes do this.
                    if let Some(at) = self.floats.iter().position(|product| !product.is_finite()) {
                        let row = selected[at % selected.len()];
                        return Ok(Some(format!("row {row} gives {}", self.floats[at])));
                    }
                    for (scores, products) in scores.zip(self.floats.chunks(selected.len())) {
                        add_floats(scores, products, selected, scales, block.weight);
                    }
                }
                Packed::Integer { queries, scales: query_scales } => {
                    self.integers.resize(products, 0);
                    kernel.i8(rows, queries, range.clone(), self.integers);
                    let products = self.integers.chunks(selected.len()).zip(&query_scales[range.clone()]);
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
