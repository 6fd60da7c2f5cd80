//! Scores a tile: some rows of a row group times queries of the batch, block after block.

use std::ops::Range;

use super::columns::GroupColumns;
use super::engine::{Engine, Plan};
use super::error::ScanError;
use super::kernel::{Kernel, Narrow, Rows, Select};
use super::query::{BlockQueries, Packed, length};
use super::stream::PieceCodes;
use crate::codec::Encoding;
use crate::segment::{Codes, Kind};

/// Besides `Limits::tile_rows`, a tile has at most so many bytes of codes
const TILE_BYTES: usize = 4 << 20;
/// and so many scores.
const TILE_SCORES: usize = 32_768;
/// Fewer queries at once would leave the kernels' registers empty.
const LEAST_QUERIES: usize = 16;
/// Kernels take rows by these.
const ROWS: [usize; 2] = [48, 4];

/// The most rows that a tile may have: enough for the kernels, and few enough that buffers depend on the
/// batch alone and a scan can be cancelled between two calls.
pub(super) fn tile_rows(plan: &Plan) -> u32 {
    let (batch, limit) = (&plan.batch, plan.limits.tile_rows);
    let rows = (limit as usize)
        .min(TILE_BYTES / plan.row_bytes())
        .min(TILE_SCORES / batch.queries)
        .min(plan.kernel.products() / batch.dims().saturating_mul(batch.queries));
    let step = if rows >= ROWS[0] { ROWS[0] } else { ROWS[1] };
    u32::try_from((rows / step * step).max(ROWS[1])).unwrap_or(u32::MAX).min(limit.max(1))
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
    codes: &Codes<'c>,
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
    Rows::new(codes.bytes, codes.stride, row_bytes, select).ok_or_else(|| beyond(columns, block))
}

/// Rows that were narrowed to bytes.
pub(super) fn narrowed<'n>(
    columns: &GroupColumns<'_>,
    block: &BlockQueries,
    narrow: &'n Narrow,
    count: usize,
) -> Result<Rows<'n>, ScanError> {
    let rows = Rows::new(&narrow.bytes, narrow.stride, block.dims, Select::First(count));
    rows.ok_or_else(|| beyond(columns, block))
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
        let (reader, group, kernel) = (&columns.live().reader, columns.group(), self.engine.plan.kernel);
        let count = selected.len();
        // Only the chunks that hold selected rows are touched, and checked.
        let codes = codes.of(reader, group, block.block, selected)?;
        let row_bytes = block.dims * block.encoding.code_bytes();
        let rows = rows_of(columns, block, &codes, row_bytes, selected, &mut self.list)?;

        let step = queries_at_once(kernel, count, block.dims);
        let mut start = queries.start;
        while start < queries.end {
            self.engine.check()?;
            let range = start..queries.end.min(start + step);
            let of = (range.start - queries.start) * count..(range.end - queries.start) * count;
            let scores = &mut self.scores[of];
            match &block.packed {
                Packed::Float(packed) => {
                    self.floats.resize(scores.len(), 0.0);
                    if block.encoding == Encoding::F32 {
                        kernel.f32(&rows, packed, range.clone(), &mut self.floats);
                    } else {
                        kernel.f16(&rows, packed, range.clone(), &mut self.floats);
                    }
                    // Norms of rows and queries are bounded: only codes that no writer makes do this.
                    if let Some(at) = self.floats.iter().position(|product| !product.is_finite()) {
                        let reason = format!("row {} gives {}", selected[at % count], self.floats[at]);
                        return Err(reader.fault(Kind::Codes, group, block.block, reason).into());
                    }
                    for (scores, products) in scores.chunks_mut(count).zip(self.floats.chunks(count)) {
                        add_floats(scores, products, selected, scales, block.weight);
                    }
                }
                Packed::Integer { queries, scales: query_scales } => {
                    self.integers.resize(scores.len(), 0);
                    kernel.i8(&rows, queries, range.clone(), &mut self.integers);
                    let products = self.integers.chunks(count).zip(&query_scales[range.clone()]);
                    for (scores, (products, &query_scale)) in scores.chunks_mut(count).zip(products) {
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
        Ok(())
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
