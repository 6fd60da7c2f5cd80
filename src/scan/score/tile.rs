//! Scores a tile: some rows of a row group times some queries of the batch, block by block.

use std::ops::Range;

use crate::codec::Encoding;
use crate::scan::batch::{BlockQueries, Packed, RowLength};
use crate::scan::control::Control;
use crate::scan::error::ScanError;
use crate::scan::kernel::{Kernel, Rows, Select};
use crate::scan::plan::Plan;
use crate::scan::read::{GroupColumns, PieceCodes};
use crate::segment::{CodeColumn, Codes};

/// The maximum bytes of codes of a tile.
const TILE_BYTES: usize = 4 << 20;
/// The maximum bytes of codes of a tile whose candidates are read again, from L2.
const READ_TWICE: usize = 1 << 20;
/// The maximum number of scores of a tile.
const TILE_SCORES: usize = 32_768;
/// The minimum number of queries of a kernel call; fewer would not fill the kernels' registers.
const LEAST_QUERIES: usize = 16;
/// The number of rows of a tile is a multiple of the largest of these that fits.
const ROWS: [usize; 3] = [96, 48, 4];

/// With more queries than this, checksums are checked per tile: their cost is small relative to the products.
const FEW_QUERIES: usize = 4;

/// With few queries, unchecked rows are checked and multiplied in steps of this many bytes, which fit in L1:
/// the kernel reads from L1 what the check has loaded.
const CHECKED_BYTES: usize = 32 << 10;

/// The maximum number of rows of a tile: enough for the kernels, and few enough that the size of buffers
/// depends only on the batch, and that a scan can be cancelled between two calls.
pub(in crate::scan) fn tile_rows(plan: &Plan) -> u32 {
    let (batch, limit) = (&plan.batch, plan.limits.tile_rows);
    let bytes = if plan.screens() && !plan.reads_tier() { READ_TWICE } else { TILE_BYTES };
    let rows = (limit as usize)
        .min(bytes / plan.pass_bytes())
        .min(TILE_SCORES / batch.queries)
        .min(plan.kernel.products() / batch.dims().saturating_mul(batch.queries));
    let step = ROWS.into_iter().find(|&step| step <= rows).unwrap_or(ROWS[2]);
    u32::try_from((rows / step * step).max(ROWS[2])).unwrap_or(u32::MAX).min(limit.max(1))
}

/// The number of queries of one kernel call: some milliseconds of work.
pub(in crate::scan) fn queries_at_once(kernel: &dyn Kernel, rows: usize, dims: usize) -> usize {
    let queries = kernel.products() / rows.saturating_mul(dims);
    (queries / LEAST_QUERIES * LEAST_QUERIES).max(LEAST_QUERIES)
}

/// The selected rows as the kernels take them. `codes` begins at the first of them; `list` is a buffer.
pub(in crate::scan) fn rows_of<'c>(
    columns: &GroupColumns<'_>,
    column: CodeColumn,
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
    Rows::new(&codes.bytes, codes.stride, row_bytes, select).ok_or_else(|| beyond(columns, column))
}

fn beyond(columns: &GroupColumns<'_>, column: CodeColumn) -> ScanError {
    columns.live().reader.code_fault(column, "rows beyond the column".into()).into()
}

/// Scores tiles. Its buffers' size depends only on the batch.
pub(in crate::scan) struct TileScorer<'e, 'a> {
    plan: &'e Plan,
    control: &'e Control<'a>,
    /// Query by query, the score of each selected row.
    scores: Vec<f64>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    /// The selected rows, relative to the first of them.
    list: Vec<u32>,
}

impl<'e, 'a> TileScorer<'e, 'a> {
    pub fn new(plan: &'e Plan, control: &'e Control<'a>) -> Self {
        let (scores, floats, integers, list) = Default::default();
        Self { plan, control, scores, floats, integers, list }
    }

    /// The result of [`TileScorer::score`]: query by query, the score of each selected row.
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
        let batch = &self.plan.batch;
        self.scores.clear();
        self.scores.resize(queries.len() * selected.len(), 0.0);
        let scales = columns.scales(batch.ordinals())?;
        for (block, scales) in batch.blocks.iter().zip(scales) {
            self.add_block(columns, selected, queries.clone(), codes, block, scales)?;
        }
        if let Some(divisor) = &batch.divisor {
            self.divide_by_lengths(columns, selected, &divisor.rows, &divisor.queries[queries.clone()])?;
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
        let reader = &columns.live().reader;
        let column = CodeColumn { group: columns.group(), tier: None, block: block.block };
        let (count, first) = (selected.len(), selected[0] as usize);
        let last = selected[count - 1] as usize;
        let row_bytes = block.dims * block.encoding.code_bytes();
        let mut adder = Adder {
            plan: self.plan,
            control: self.control,
            floats: &mut self.floats,
            integers: &mut self.integers,
            scores: &mut self.scores,
            count,
            queries: queries.clone(),
            block,
            scales,
        };
        let fault = |reason| reader.code_fault(column, reason);
        if last + 1 - first > count {
            let codes = codes.checked(reader, column, selected)?;
            let rows = rows_of(columns, column, &codes, row_bytes, selected, &mut self.list)?;
            return match adder.add(&rows, selected, 0..count)? {
                None => Ok(()),
                Some(reason) => Err(fault(reason).into()),
            };
        }
        let mut codes = codes.of(reader, column, first..last + 1)?;
        let stride = codes.codes().stride;
        // With few queries, kernels are as fast on few rows at a time, so rows are checked step by step.
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
            let found = codes.codes();
            let rows =
                Rows::new(&found.bytes[start * stride..], stride, row_bytes, Select::First(place.len()));
            let rows = rows.ok_or_else(|| beyond(columns, column))?;
            if let Some(reason) = adder.add(&rows, &selected[place.clone()], place.clone())? {
                // If a chunk does not match its checksum, report that instead of its effect.
                codes.finish()?;
                return Err(fault(reason).into());
            }
            start = place.end;
        }
        Ok(codes.finish()?)
    }

    /// `score / (length of the query * length of the row)`, or 0.
    fn divide_by_lengths(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        rows: &RowLength,
        queries: &[f64],
    ) -> Result<(), ScanError> {
        let batch = &self.plan.batch;
        let of_rows = columns.lengths(batch.ordinals(), rows)?;
        for (i, &row) in selected.iter().enumerate() {
            let row_length = batch.row_length(of_rows, row);
            for (query, &query_length) in queries.iter().enumerate() {
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
    plan: &'e Plan,
    control: &'e Control<'a>,
    floats: &'t mut Vec<f32>,
    integers: &'t mut Vec<i64>,
    /// Query by query, the score of each of `count` rows.
    scores: &'t mut [f64],
    count: usize,
    queries: Range<usize>,
    block: &'t BlockQueries,
    scales: &'t [f32],
}

impl Adder<'_, '_, '_> {
    /// Adds the products of some rows: `selected` in the row group, `place` in the tile. Returns the fault if
    /// a product is not finite.
    fn add(
        &mut self,
        rows: &Rows<'_>,
        selected: &[u32],
        place: Range<usize>,
    ) -> Result<Option<String>, ScanError> {
        let (kernel, block, scales) = (self.plan.kernel, self.block, self.scales);
        let step = queries_at_once(kernel, selected.len(), block.dims);
        let mut start = self.queries.start;
        while start < self.queries.end {
            self.control.check()?;
            let range = start..self.queries.end.min(start + step);
            let products = selected.len() * range.len();
            let of = (range.start - self.queries.start) * self.count
                ..(range.end - self.queries.start) * self.count;
            let scores = self.scores[of].chunks_mut(self.count).map(|scores| &mut scores[place.clone()]);
            match &block.packed {
                Packed::Floats(packed) => {
                    self.floats.resize(products, 0.0);
                    match block.encoding {
                        Encoding::F32 => kernel.f32(rows, packed, range.clone(), self.floats),
                        Encoding::F16 => kernel.f16(rows, packed, range.clone(), self.floats),
                        // Never packed as floats.
                        Encoding::I8 => {}
                    }
                    // Norms of rows and queries are bounded: only codes that no writer makes overflow.
                    if let Some(at) = self.floats.iter().position(|product| !product.is_finite()) {
                        let row = selected[at % selected.len()];
                        return Ok(Some(format!("row {row} gives {}", self.floats[at])));
                    }
                    for (scores, products) in scores.zip(self.floats.chunks(selected.len())) {
                        add_floats(scores, products, selected, scales, block.weight);
                    }
                }
                Packed::Integers { queries, scales: query_scales } => {
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
