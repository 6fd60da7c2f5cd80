//! Prunes rows whose score cannot be among the best, before their codes are multiplied exactly.
//!
//! For each row and query, a screen computes an interval that contains the score, from fewer bytes or cheaper
//! products than the score itself needs. A row whose interval is below the threshold, the worst of the best
//! scores so far, is pruned; the other rows are candidates and are scored from their codes. So the ranking is
//! the same bit for bit with and without a screen, provided that the intervals hold. They always hold, except
//! those of the sign tier, which hold with the requested probability.
//!
//! With `x` a row's block, `q` a query's block as used in the score (quantised in `i8` blocks), and `x'`,
//! `q'` the screen's approximations of them:
//!
//! - **Bytes.** `|<x, q> - <x', q'>| <= |x - x'| |q| + |x'| |q - q'|`, by Cauchy-Schwarz, and
//!   `|x'| <= |x| + |x - x'|`. `x'` are signed bytes: the codes of an `i8` block itself, those of the
//!   `i8` tier, or `f16` and `f32` codes narrowed during the scan; `q'` are signed bytes or 16-bit integers.
//! - **Signs.** The residual of a row in the sign tier, of norm `spread`, is orthogonal to the tier's row, so
//!   under a uniformly random rotation its product with the query is sub-Gaussian with the variance proxy
//!   `(spread |q|)^2 / (dims - 1)` (`format-spec/encodings.md`). The rotated query is rounded at random
//!   to four bits in steps of `t`, which adds `dims (gain t)^2 / 4` (Hoeffding). The sum over blocks is `V`.
//!   By the union bound over all `pairs` of a row and a query (and an end), all scores are within their
//!   intervals of half-width `sqrt(2 ln(pairs / delta) V)` with probability at least `1 - delta`.
//!
//! Every width includes bounds of the rounding errors: of the score (`dims / 16 + 4` roundings in f32 in each
//! lane, times two), of stored norms and factors (2^-23), and of the sums here (2^-40).

mod block;

use std::ops::Range;

use block::{BlockScreen, Queries, RowFactors};

use super::thresholds::Threshold;
use super::tile;
use crate::codec::Encoding;
use crate::scan::batch::RowLength;
use crate::scan::bounds::EPSILON;
use crate::scan::control::{CancelToken, Control};
use crate::scan::error::ScanError;
use crate::scan::kernel::Narrow;
use crate::scan::plan::{Pass, Plan};
use crate::scan::read::{GroupColumns, PieceCodes};
use crate::segment::CodeColumn;

/// The queries of a plan, prepared for its screen.
#[derive(Debug)]
pub(in crate::scan) struct Screen {
    /// One for each block of the batch.
    blocks: Vec<BlockScreen>,
    /// `2 ln(pairs / delta)`; 0 if intervals always hold.
    confidence: f64,
}

impl Screen {
    /// The screen of a plan for `rows` rows; `None` if its path does not screen.
    pub fn new(plan: &Plan, rows: u64, cancel: &CancelToken) -> Result<Option<Self>, ScanError> {
        if !plan.screens() {
            return Ok(None);
        }
        let blocks = plan.blocks();
        let blocks = blocks
            .map(|(block, pass)| BlockScreen::new(pass, plan.path, block, plan.batch.queries, cancel))
            .collect::<Result<_, _>>()?;
        let pairs = rows as f64 * (plan.batch.queries * plan.ends.count()) as f64;
        let confidence = plan.delta.map_or(0.0, |delta| 2.0 * (pairs / delta).ln());
        Ok(Some(Self { blocks, confidence }))
    }
}

/// Screens tiles for one worker.
pub(in crate::scan) struct Screener<'e, 'a> {
    plan: &'e Plan,
    control: &'e Control<'a>,
    screen: &'e Screen,
    /// Query by query, for each selected row: the estimate of the score, and the half-width of its interval.
    estimates: Vec<f64>,
    widths: Vec<f64>,
    /// The variance proxies; empty if intervals always hold.
    variances: Vec<f64>,
    factors: RowFactors,
    integers: Vec<i64>,
    products: Vec<i32>,
    narrow: Narrow,
    list: Vec<u32>,
    /// The candidates of each query: positions in the selected rows.
    candidates: Vec<Vec<u32>>,
    /// The query whose candidates are being scored, and the number to score next.
    query: Option<usize>,
    take: usize,
    /// The number of pairs to score so far, and the rows in them.
    scored: usize,
    rows: Vec<bool>,
    /// The maximum number of hits of a query.
    most: usize,
    /// The number of tiles for which the screen stays paused, and the length of the next pause.
    pause: u32,
    next_pause: u32,
}

/// The lengths in tiles of the first and the last pause of a screen that does not pay; a pause is twice as
/// long as the previous one.
const PAUSES: Range<u32> = 1..32;

impl<'e, 'a> Screener<'e, 'a> {
    pub fn new(plan: &'e Plan, screen: &'e Screen, control: &'e Control<'a>) -> Self {
        Self {
            plan,
            control,
            screen,
            estimates: Vec::new(),
            widths: Vec::new(),
            variances: Vec::new(),
            factors: RowFactors::default(),
            integers: Vec::new(),
            products: Vec::new(),
            narrow: Narrow::default(),
            list: Vec::new(),
            candidates: vec![Vec::new(); plan.batch.queries],
            query: None,
            take: 0,
            scored: 0,
            rows: Vec::new(),
            // A tile has fewer rows than this limit.
            most: plan.ends.hits().min(1 << 30),
            pause: 0,
            next_pause: PAUSES.start,
        }
    }

    /// Whether to screen the next tile, after `rows` rows. After few rows, thresholds are low and a screen
    /// prunes nothing, which does not predict later tiles.
    pub fn is_due(&mut self, rows: u64) -> bool {
        if !self.plan.reads_tier() && rows < 8 * self.most as u64 {
            return false;
        }
        let due = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        due
    }

    /// Screens rows of a row group, at least one, ascending. Returns whether to score only the candidates,
    /// query by query; if not, the screen does not pay and all rows are to be scored.
    pub fn screen(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        thresholds: &[Threshold],
        codes: &mut PieceCodes,
    ) -> Result<bool, ScanError> {
        let batch = &self.plan.batch;
        let pairs = batch.queries * selected.len();
        for (sums, used) in [
            (&mut self.estimates, true),
            (&mut self.widths, true),
            (&mut self.variances, self.screen.confidence > 0.0),
        ] {
            sums.clear();
            sums.resize(if used { pairs } else { 0 }, 0.0);
        }
        for block in 0..batch.blocks.len() {
            self.add_block(columns, selected, block, codes)?;
        }
        if let Some(divisor) = &batch.divisor {
            self.divide_by_lengths(columns, selected, &divisor.rows, &divisor.queries)?;
        }
        self.find_candidates(selected.len(), thresholds);
        let few = |found: &Vec<u32>| if found.len() > 2 * self.most { self.most } else { found.len() };
        let pays = self.pays(self.candidates.iter().map(few).sum(), pairs);
        if !pays {
            self.hold_off();
        }
        Ok(pays)
    }

    fn pays(&self, scored: usize, pairs: usize) -> bool {
        scored as f64 <= self.plan.break_even * pairs as f64
    }

    fn hold_off(&mut self) {
        self.pause = self.next_pause;
        self.next_pause = (2 * self.next_pause).min(PAUSES.end);
    }

    /// Writes the candidates of a query to score next to `rows`: if there are many, those with the highest
    /// bounds, whose scores raise the threshold for the others. Returns `false` if none are left.
    pub fn next(
        &mut self,
        query: usize,
        selected: &[u32],
        threshold: Threshold,
        rows: &mut Vec<u32>,
    ) -> bool {
        if self.query != Some(query) {
            (self.query, self.take) = (Some(query), self.most.max(LEAST));
        }
        let count = selected.len();
        let of = query * count..(query + 1) * count;
        let (estimates, widths) = (&self.estimates[of.clone()], &self.widths[of]);
        let candidates = &mut self.candidates[query];
        candidates.retain(|&i| !is_below(estimates[i as usize], widths[i as usize], threshold));
        let ends = self.plan.ends;
        let promise = |&i: &u32| {
            let estimate = estimates[i as usize];
            let towards_end = match (ends.top, ends.bottom) {
                (_, 0) => estimate,
                (0, _) => -estimate,
                _ => estimate.abs(),
            };
            towards_end + widths[i as usize]
        };
        if candidates.len() > 2 * self.take {
            let from = candidates.len() - self.take;
            candidates.select_nth_unstable_by(from, |a, b| promise(a).total_cmp(&promise(b)));
            rows.clear();
            rows.extend(candidates.drain(from..));
            rows.sort_unstable();
        } else {
            rows.clear();
            rows.append(candidates);
            rows.sort_unstable();
        }
        self.take *= 2;
        self.scored += rows.len();
        for row in rows.iter_mut() {
            self.rows[*row as usize] = true;
            *row = selected[*row as usize];
        }
        !rows.is_empty()
    }

    /// Ends a tile. Returns the number of candidate rows, and of scores computed for them.
    pub fn settle(&mut self) -> (usize, usize) {
        if self.pays(self.scored, self.estimates.len()) {
            self.next_pause = PAUSES.start;
        } else {
            self.hold_off();
        }
        (self.rows.iter().filter(|&&scored| scored).count(), self.scored)
    }

    /// Adds a block's terms to estimates, widths and variances.
    fn add_block(
        &mut self,
        columns: &GroupColumns<'_>,
        selected: &[u32],
        block: usize,
        codes: &mut PieceCodes,
    ) -> Result<(), ScanError> {
        let (batch, kernel) = (&self.plan.batch, self.plan.kernel);
        let (screen, of_batch) = (&self.screen.blocks[block], &batch.blocks[block]);
        let (count, reader) = (selected.len(), &columns.live().reader);
        let column = CodeColumn { group: columns.group(), tier: screen.pass.tier(), block: of_batch.block };
        let codes = codes.checked(reader, column, selected)?;
        let row_bytes = screen.row_bytes(of_batch);
        let rows = tile::rows_of(columns, column, &codes, row_bytes, selected, &mut self.list)?;
        let rows = if screen.pass == Pass::Narrowed {
            self.control.check()?;
            match of_batch.encoding {
                Encoding::F32 => kernel.narrow_f32(&rows, &mut self.narrow),
                Encoding::F16 => kernel.narrow_f16(&rows, &mut self.narrow),
                // Never narrowed: they are bytes.
                Encoding::I8 => {}
            }
            self.narrow.rows()
        } else {
            rows
        };
        self.factors.gather(columns, batch, block, screen, selected, &self.narrow)?;
        let mut start = 0;
        let step = tile::queries_at_once(kernel, count, of_batch.dims);
        while start < batch.queries {
            self.control.check()?;
            let range = start..batch.queries.min(start + step);
            match &screen.queries {
                Queries::Bytes(queries) => {
                    self.products.resize(range.len() * count, 0);
                    kernel.bytes(&rows, queries, range.clone(), &mut self.products);
                }
                Queries::Planes(queries) => {
                    self.products.resize(range.len() * count, 0);
                    kernel.planes(&rows, queries, range.clone(), &mut self.products);
                }
                Queries::Integers(queries) => {
                    self.integers.resize(range.len() * count, 0);
                    kernel.i8(&rows, queries, range.clone(), &mut self.integers);
                }
            }
            for (i, query) in range.clone().enumerate() {
                let (of, to) = (i * count..(i + 1) * count, query * count..(query + 1) * count);
                let estimates = &mut self.estimates[to.clone()];
                match screen.queries {
                    Queries::Integers(_) => {
                        screen.estimate(query, &self.factors, &self.integers[of], estimates);
                    }
                    Queries::Bytes(_) | Queries::Planes(_) => {
                        screen.estimate(query, &self.factors, &self.products[of], estimates);
                    }
                }
                screen.widen(query, &self.factors, &mut self.widths[to.clone()]);
                if !self.variances.is_empty() {
                    screen.spread(query, &self.factors, &mut self.variances[to]);
                }
            }
            start = range.end;
        }
        Ok(())
    }

    /// Converts intervals of inner products to intervals of what they become when they are divided.
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
                let at = query * selected.len() + i;
                let product = row_length * query_length;
                // With a zero row or query it is 0 by definition.
                let inverse = if product == 0.0 { 0.0 } else { 1.0 / product };
                self.estimates[at] *= inverse;
                self.widths[at] = self.widths[at] * inverse + EPSILON;
                if let Some(variance) = self.variances.get_mut(at) {
                    *variance *= inverse * inverse;
                }
            }
        }
        Ok(())
    }

    /// Lists the rows whose interval reaches a threshold.
    fn find_candidates(&mut self, count: usize, thresholds: &[Threshold]) {
        self.rows.clear();
        self.rows.resize(count, false);
        (self.query, self.scored) = (None, 0);
        for (query, (found, &threshold)) in self.candidates.iter_mut().zip(thresholds).enumerate() {
            found.clear();
            let of = query * count..(query + 1) * count;
            let (estimates, widths) = (&self.estimates[of.clone()], &mut self.widths[of.clone()]);
            if !self.variances.is_empty() {
                for (width, variance) in widths.iter_mut().zip(&self.variances[of]) {
                    *width += (self.screen.confidence * variance).sqrt();
                }
            }
            for (i, (&estimate, width)) in (0..).zip(estimates.iter().zip(widths)) {
                *width += EPSILON * estimate.abs();
                if !is_below(estimate, *width, threshold) {
                    found.push(i);
                }
            }
        }
    }
}

/// Whether no score in the interval reaches a threshold. `false` if the interval is NaN.
fn is_below(estimate: f64, width: f64, (top, bottom): Threshold) -> bool {
    estimate + width < top && width - estimate < bottom
}

/// The minimum number of candidates to score at once.
const LEAST: usize = 16;
