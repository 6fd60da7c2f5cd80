//! A worker of a ranking: scores its pieces tile by tile and keeps the best rows of each query.

use std::ops::Range;

use super::best::{Best, Entry};
use super::examples::{Grouped, OpenExample};
use super::prune;
use super::screen::{Screen, Screener};
use super::thresholds::{Threshold, Thresholds};
use super::tile::{self, TileScorer};
use crate::scan::control::Control;
use crate::scan::error::ScanError;
use crate::scan::options::Ends;
use crate::scan::plan::Plan;
use crate::scan::read::{GroupColumns, PieceCodes, RowFilter};
use crate::segment::{SegmentError, Span};

/// What a worker has found.
#[derive(Debug)]
pub(in crate::scan) struct Found {
    /// For each query: its proponents.
    pub top: Vec<Best>,
    /// For each query: its opponents.
    pub bottom: Vec<Best>,
    pub counts: Counts,
}

/// What a worker has read, screened and pruned.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::scan) struct Counts {
    /// Selected rows.
    pub rows: u64,
    /// Rows pruned by their norms.
    pub pruned_by_norm: u64,
    /// Rows screened.
    pub screened: u64,
    /// Screened rows that were candidates of a query.
    pub candidates: u64,
    /// Scores of screened rows that were computed from their codes.
    pub candidate_scores: u64,
    /// Bytes read of the rows' own codes.
    pub code_bytes: u64,
    /// Bytes read of tiers.
    pub tier_bytes: u64,
}

impl Found {
    pub fn new(queries: usize, ends: Ends) -> Self {
        let of = |k, least| vec![Best::new(k, least); queries];
        let bottom = of(ends.bottom, f64::NEG_INFINITY);
        Self { top: of(ends.top, ends.least), bottom, counts: Counts::default() }
    }

    pub fn merge(&mut self, other: Self) {
        let ends = [(&mut self.top, other.top), (&mut self.bottom, other.bottom)];
        for (ours, theirs) in ends {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| ours.merge(theirs));
        }
        self.counts.merge(other.counts);
    }
}

impl Counts {
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.pruned_by_norm += other.pruned_by_norm;
        self.screened += other.screened;
        self.candidates += other.candidates;
        self.candidate_scores += other.candidate_scores;
        self.code_bytes += other.code_bytes;
        self.tier_bytes += other.tier_bytes;
    }
}

/// The number of rows of a worker's first tile.
const FIRST_ROWS: u32 = 192;

pub(in crate::scan) struct RankWorker<'e, 'a> {
    plan: &'e Plan,
    filter: &'e RowFilter,
    shared: &'e Thresholds,
    control: &'e Control<'a>,
    scorer: TileScorer<'e, 'a>,
    screener: Option<Screener<'e, 'a>>,
    tile_rows: u32,
    /// The selected rows of the tile: ordinals in the row group.
    selected: Vec<u32>,
    /// The scored rows to offer.
    rows: Vec<u32>,
    /// The thresholds of each query.
    thresholds: Vec<Threshold>,
    example: OpenExample,
    found: Found,
}

impl<'e, 'a> RankWorker<'e, 'a> {
    pub fn new(
        plan: &'e Plan,
        screen: Option<&'e Screen>,
        filter: &'e RowFilter,
        shared: &'e Thresholds,
        control: &'e Control<'a>,
    ) -> Self {
        Self {
            plan,
            filter,
            shared,
            control,
            scorer: TileScorer::new(plan, control),
            screener: screen.map(|screen| Screener::new(plan, screen, control)),
            tile_rows: tile::tile_rows(plan),
            selected: Vec::new(),
            rows: Vec::new(),
            thresholds: Vec::new(),
            example: OpenExample::default(),
            found: Found::new(plan.batch.queries, plan.ends),
        }
    }

    pub fn into_found(self) -> Found {
        self.found
    }

    /// Scores the rows of a piece. If rows are grouped, the piece ends at the end of an example.
    pub fn piece(
        &mut self,
        mut rows: Range<u32>,
        columns: &GroupColumns<'a>,
        codes: &mut PieceCodes,
    ) -> Result<(), ScanError> {
        while rows.start < rows.end {
            self.control.check()?;
            // Small tiles at first, whose scores raise the thresholds for later rows. With a tier the first
            // tile is large: its rows are cheap, and the best candidates of many raise the thresholds more.
            let seen = u32::try_from(self.found.counts.rows).unwrap_or(u32::MAX);
            let first = if self.plan.reads_tier() { u32::MAX } else { seen.max(FIRST_ROWS) };
            let tile_rows = self.tile_rows.min(first);
            let end = rows.end.min(rows.start.saturating_add(tile_rows));
            self.filter.select(columns, rows.start..end, &mut self.selected)?;
            rows.start = end;
            if self.selected.is_empty() {
                continue;
            }
            self.found.counts.rows += self.selected.len() as u64;
            if !self.plan.grouping.by_example() {
                self.rank_rows(columns, codes)?;
            } else {
                self.count_codes(self.selected.len());
                self.scorer.score(columns, &self.selected, 0..self.plan.batch.queries, codes)?;
                let found = &mut self.found;
                let offer = |grouped: Grouped<'_>| offer_example(found, columns, grouped);
                let (rows, scores) = (&self.selected, self.scorer.scores());
                self.example.add(self.plan.grouping, columns, rows, scores, offer)?;
            }
        }
        let found = &mut self.found;
        Ok(self.example.close(self.plan.grouping, |grouped| offer_example(found, columns, grouped))?)
    }

    fn count_codes(&mut self, rows: usize) {
        self.found.counts.code_bytes += (rows * self.plan.batch.row_bytes()) as u64;
    }

    /// Ranks the selected rows: prunes by norm, screens, and scores the candidates.
    fn rank_rows(&mut self, columns: &GroupColumns<'a>, codes: &mut PieceCodes) -> Result<(), ScanError> {
        let queries = self.plan.batch.queries;
        self.shared.read(&mut self.thresholds);
        let before = self.selected.len();
        prune::by_norm(&self.plan.batch, &self.thresholds, columns, &mut self.selected)?;
        let count = self.selected.len();
        self.found.counts.pruned_by_norm += (before - count) as u64;
        if count == 0 {
            return Ok(());
        }
        if let Some(screener) = &mut self.screener
            && screener.is_due(self.found.counts.rows)
        {
            self.found.counts.screened += count as u64;
            self.found.counts.tier_bytes += (count * self.plan.tier_bytes()) as u64;
            let screened = (count * self.plan.code_bytes()) as u64;
            if screener.screen(columns, &self.selected, &self.thresholds, codes)? {
                let candidates = self.rank_candidates(columns, codes)?;
                self.found.counts.code_bytes += screened;
                if self.plan.reads_tier() {
                    self.count_codes(candidates);
                }
                return Ok(());
            }
            self.found.counts.candidates += count as u64;
            self.found.counts.candidate_scores += (count * queries) as u64;
        }
        self.count_codes(count);
        self.scorer.score(columns, &self.selected, 0..queries, codes)?;
        self.rows.clone_from(&self.selected);
        Ok(self.offer_rows(columns, 0..queries)?)
    }

    /// Scores and ranks the candidates of the screen. Returns the number of candidate rows.
    fn rank_candidates(
        &mut self,
        columns: &GroupColumns<'a>,
        codes: &mut PieceCodes,
    ) -> Result<usize, ScanError> {
        for query in 0..self.plan.batch.queries {
            while let Some(screener) = &mut self.screener
                && screener.next(query, &self.selected, self.shared.of(query), &mut self.rows)
            {
                self.scorer.score(columns, &self.rows, query..query + 1, codes)?;
                self.offer_rows(columns, query..query + 1)?;
            }
        }
        let (rows, scores) = self.screener.as_mut().map_or((0, 0), Screener::settle);
        self.found.counts.candidates += rows as u64;
        self.found.counts.candidate_scores += scores as u64;
        Ok(rows)
    }

    /// Offers the scored rows to the queries that they were scored for.
    fn offer_rows(&mut self, columns: &GroupColumns<'_>, queries: Range<usize>) -> Result<(), SegmentError> {
        let rows = &self.rows;
        let ends = [(&mut self.found.top, 1.0), (&mut self.found.bottom, -1.0)];
        for (bests, sign) in ends {
            let bests = &mut bests[queries.clone()];
            for (best, scores) in bests.iter_mut().zip(self.scorer.scores().chunks_exact(rows.len())) {
                let mut threshold = best.threshold();
                for (&score, &row) in scores.iter().zip(rows) {
                    // Most rows are below the threshold, so their ids are never decoded.
                    if sign * score >= threshold {
                        offer(best, sign * score, columns, row, None)?;
                        threshold = best.threshold();
                    }
                }
            }
        }
        self.shared.raise(&self.found.top, &self.found.bottom, queries);
        Ok(())
    }
}

fn offer_example(
    found: &mut Found,
    columns: &GroupColumns<'_>,
    grouped: Grouped<'_>,
) -> Result<(), SegmentError> {
    let whole = grouped.is_sum.then_some(Span::WHOLE);
    for (query, (&score, &row)) in grouped.scores.iter().zip(grouped.rows).enumerate() {
        let ends = [(&mut found.top[query], 1.0), (&mut found.bottom[query], -1.0)];
        for (best, sign) in ends {
            if sign * score >= best.threshold() {
                offer(best, sign * score, columns, row, whole)?;
            }
        }
    }
    Ok(())
}

/// Keeps a row if it is among the best. `span` overrides the row's own.
fn offer(
    best: &mut Best,
    key: f64,
    columns: &GroupColumns<'_>,
    row: u32,
    span: Option<Span>,
) -> Result<(), SegmentError> {
    let (segment, ordinal) = (columns.segment(), columns.first_row() + row);
    let id = columns.ids()?.get(row as usize);
    if best.admits(key, id, (segment, ordinal)) {
        best.push(Entry {
            key,
            id: id.into(),
            segment,
            row: ordinal,
            span: match span {
                Some(span) => span,
                None => columns.spans()?[row as usize],
            },
            source: columns.sources()?[row as usize],
        });
    }
    Ok(())
}
