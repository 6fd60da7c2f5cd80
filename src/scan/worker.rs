//! One thread of a scan: scores its pieces tile by tile and keeps the best of each query.

use std::ops::Range;

use super::bars::Bar;
use super::best::{Best, Candidate};
use super::builder::Grouping;
use super::columns::GroupColumns;
use super::engine::Engine;
use super::error::ScanError;
use super::screen::{self, Screener};
use super::stream::PieceCodes;
use super::tile::{self, TileScorer};
use crate::segment::{ByteStrings, SegmentError, Span};

/// What workers bring home.
#[derive(Debug)]
pub(super) struct Found {
    /// For each query: its proponents.
    pub top: Vec<Best>,
    /// For each query: its opponents.
    pub bottom: Vec<Best>,
    pub counts: Counts,
}

/// What a worker has read and left out.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Rows that took part.
    pub rows: u64,
    /// Rows that the bound of their norms left out.
    pub rows_by_norm: u64,
    /// Rows that the screen looked at.
    pub rows_screened: u64,
    /// Of these, rows that were kept for some query.
    pub rows_kept: u64,
    /// Exact scores of rows that the screen looked at.
    pub scores: u64,
    /// Bytes of the rows' own codes,
    pub code_bytes: u64,
    /// and of their tier.
    pub tier_bytes: u64,
}

impl Found {
    pub fn new(queries: usize, (top_k, bottom_k): (usize, usize)) -> Self {
        let of = |k| vec![Best::new(k); queries];
        Self { top: of(top_k), bottom: of(bottom_k), counts: Counts::default() }
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
    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.rows_by_norm += other.rows_by_norm;
        self.rows_screened += other.rows_screened;
        self.rows_kept += other.rows_kept;
        self.scores += other.scores;
        self.code_bytes += other.code_bytes;
        self.tier_bytes += other.tier_bytes;
    }
}

/// Rows of a worker's first tile.
const FIRST_ROWS: u32 = 192;

pub(super) struct Worker<'e, 'a> {
    engine: &'e Engine<'a>,
    scorer: TileScorer<'e, 'a>,
    screener: Option<Screener<'e, 'a>>,
    tile_rows: u32,
    /// Rows of the tile that take part: ordinals in the row group.
    selected: Vec<u32>,
    /// Rows that are scored and then offered.
    rows: Vec<u32>,
    /// For each query, what a score must reach.
    bars: Vec<Bar>,
    example: OpenExample,
    found: Found,
}

/// The example whose rows are being put together.
#[derive(Debug, Default)]
struct OpenExample {
    /// How many of its rows took part so far; 0 if none is open.
    rows: u32,
    /// The last of them, in the row group.
    last: u32,
    /// For each query: the score so far.
    scores: Vec<f64>,
    /// For each query: the row that stands for the example.
    best: Vec<u32>,
}

impl<'e, 'a> Worker<'e, 'a> {
    pub fn new(engine: &'e Engine<'a>) -> Self {
        let plan = &engine.plan;
        Self {
            engine,
            scorer: TileScorer::new(engine),
            screener: plan.screen.as_ref().map(|screen| Screener::new(engine, screen)),
            tile_rows: tile::tile_rows(plan),
            selected: Vec::new(),
            rows: Vec::new(),
            bars: Vec::new(),
            example: OpenExample::default(),
            found: Found::new(plan.batch.queries, plan.ends),
        }
    }

    pub fn into_found(self) -> Found {
        self.found
    }

    /// Scores the rows of a piece, which end where examples end if those are ranked.
    pub fn piece(
        &mut self,
        mut rows: Range<u32>,
        columns: &GroupColumns<'a>,
        codes: &mut PieceCodes,
    ) -> Result<(), ScanError> {
        let plan = &self.engine.plan;
        while rows.start < rows.end {
            self.engine.check()?;
            // Few rows at first, which raise the bars for those that follow; a tier's are cheap, and the
            // most promising of many do that better.
            let seen = u32::try_from(self.found.counts.rows).unwrap_or(u32::MAX);
            let first = if plan.reads_tier() { u32::MAX } else { seen.max(FIRST_ROWS) };
            let tile_rows = self.tile_rows.min(first);
            let end = rows.end.min(rows.start.saturating_add(tile_rows));
            plan.filter.select(columns.live(), columns, rows.start..end, &mut self.selected)?;
            rows.start = end;
            if self.selected.is_empty() {
                continue;
            }
            self.found.counts.rows += self.selected.len() as u64;
            if plan.grouping == Grouping::Rows {
                self.rank_rows(columns, codes)?;
            } else {
                self.count_codes(self.selected.len());
                self.scorer.score(columns, &self.selected, 0..plan.batch.queries, codes)?;
                self.add_to_examples(columns)?;
            }
        }
        Ok(self.close_example(columns)?)
    }

    fn count_codes(&mut self, rows: usize) {
        self.found.counts.code_bytes += (rows * self.engine.plan.batch.row_bytes()) as u64;
    }

    /// Ranks the selected rows, each by itself; those that cannot be among the best are left out as early
    /// as can be told.
    fn rank_rows(&mut self, columns: &GroupColumns<'a>, codes: &mut PieceCodes) -> Result<(), ScanError> {
        let queries = self.engine.plan.batch.queries;
        self.engine.bars.read(&mut self.bars);
        self.leave_out_by_norm(columns)?;
        let count = self.selected.len();
        if count == 0 {
            return Ok(());
        }
        if let Some(screener) = &mut self.screener
            && screener.is_due(self.found.counts.rows)
        {
            let screen = screener.plan();
            self.found.counts.rows_screened += count as u64;
            self.found.counts.tier_bytes += (count * screen.tier_bytes) as u64;
            if screener.screen(columns, &self.selected, &self.bars, codes)? {
                let kept = self.rank_kept(columns, codes)?;
                self.count_codes(if screen.reads_codes { count } else { kept });
                return Ok(());
            }
            self.found.counts.rows_kept += count as u64;
            self.found.counts.scores += (count * queries) as u64;
        }
        self.count_codes(count);
        self.scorer.score(columns, &self.selected, 0..queries, codes)?;
        self.rows.clone_from(&self.selected);
        Ok(self.offer_rows(columns, 0..queries)?)
    }

    /// Ranks what the screen has kept; how many rows.
    fn rank_kept(&mut self, columns: &GroupColumns<'a>, codes: &mut PieceCodes) -> Result<usize, ScanError> {
        for query in 0..self.engine.plan.batch.queries {
            while let Some(screener) = &mut self.screener
                && screener.next(query, &self.selected, self.engine.bars.of(query), &mut self.rows)
            {
                self.scorer.score(columns, &self.rows, query..query + 1, codes)?;
                self.offer_rows(columns, query..query + 1)?;
            }
        }
        let (rows, scores) = self.screener.as_mut().map_or((0, 0), Screener::settle);
        self.found.counts.rows_kept += rows as u64;
        self.found.counts.scores += scores as u64;
        Ok(rows)
    }

    /// Takes rows from the selection whose norms alone keep them below every bar.
    fn leave_out_by_norm(&mut self, columns: &GroupColumns<'_>) -> Result<(), ScanError> {
        let batch = &self.engine.plan.batch;
        // Cosines have no use for it.
        if batch.lengths.is_some() || self.bars.iter().any(|&(top, bottom)| top.min(bottom) <= 0.0) {
            return Ok(());
        }
        let (least, greatest) = columns.norm_range(batch.ordinals())?;
        let reaches = |norms: &[f32], bars: &[Bar]| {
            let reach = screen::reach(batch, norms);
            reach.zip(bars).any(|(reach, &(top, bottom))| !(reach < top && reach < bottom))
        };
        let before = self.selected.len();
        if !reaches(greatest, &self.bars) {
            self.selected.clear();
        } else if !reaches(least, &self.bars) {
            let columns = columns.norms(batch.ordinals())?;
            if let [norms] = columns {
                let least = screen::least_norm(batch, &self.bars);
                self.selected.retain(|&row| f64::from(norms[row as usize]) >= least);
            } else {
                let mut norms = vec![0.0; columns.len()];
                let bars = &self.bars;
                self.selected.retain(|&row| {
                    for (norm, column) in norms.iter_mut().zip(columns) {
                        *norm = column[row as usize];
                    }
                    reaches(&norms, bars)
                });
            }
        }
        self.found.counts.rows_by_norm += (before - self.selected.len()) as u64;
        Ok(())
    }

    /// Offers the rows that were just scored to the queries that they were scored for.
    fn offer_rows(&mut self, columns: &GroupColumns<'_>, queries: Range<usize>) -> Result<(), SegmentError> {
        let rows = &self.rows;
        let ends = [(&mut self.found.top, 1.0), (&mut self.found.bottom, -1.0)];
        for (bests, sign) in ends {
            let bests = &mut bests[queries.clone()];
            for (best, scores) in bests.iter_mut().zip(self.scorer.scores().chunks_exact(rows.len())) {
                let mut threshold = best.threshold();
                for (&score, &row) in scores.iter().zip(rows) {
                    // Most rows end here: their ids are never decoded.
                    if sign * score >= threshold {
                        offer(best, sign * score, columns, row, None)?;
                        threshold = best.threshold();
                    }
                }
            }
        }
        self.engine.bars.raise(&self.found.top, &self.found.bottom, queries);
        Ok(())
    }

    fn add_to_examples(&mut self, columns: &GroupColumns<'_>) -> Result<(), SegmentError> {
        let ids = columns.ids()?;
        let count = self.selected.len();
        for i in 0..count {
            let row = self.selected[i];
            if self.example.rows > 0 && ids.get(self.example.last as usize) != ids.get(row as usize) {
                self.close_example(columns)?;
            }
            let (example, scores) = (&mut self.example, self.scorer.scores());
            let scores = scores.iter().skip(i).step_by(count);
            if example.rows == 0 {
                example.scores.clear();
                example.scores.extend(scores);
                example.best.clear();
                example.best.resize(example.scores.len(), row);
            } else {
                let sums = example.scores.iter_mut().zip(&mut example.best);
                for ((so_far, best), &score) in sums.zip(scores) {
                    if self.engine.plan.grouping == Grouping::Sum {
                        *so_far += score;
                    } else if score > *so_far {
                        (*so_far, *best) = (score, row);
                    }
                }
            }
            example.rows += 1;
            example.last = row;
        }
        Ok(())
    }

    /// Offers the example that is open, if there is one.
    fn close_example(&mut self, columns: &GroupColumns<'_>) -> Result<(), SegmentError> {
        let OpenExample { rows, scores, best, .. } = &self.example;
        if *rows == 0 {
            return Ok(());
        }
        let whole = (self.engine.plan.grouping == Grouping::Sum && *rows > 1).then_some(Span::WHOLE);
        for (query, (&score, &row)) in scores.iter().zip(best).enumerate() {
            let ends = [(&mut self.found.top[query], 1.0), (&mut self.found.bottom[query], -1.0)];
            for (best, sign) in ends {
                if sign * score >= best.threshold() {
                    offer(best, sign * score, columns, row, whole)?;
                }
            }
        }
        self.example.rows = 0;
        Ok(())
    }
}

/// Keeps a row if it is among the best. `span` stands in for the row's own.
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
        best.push(Candidate {
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

/// `row`, or the end of the example that it lies in if that began before it.
pub(super) fn after_example(ids: &ByteStrings, row: u32) -> u32 {
    let mut i = row as usize;
    while i > 0 && i < ids.len() && ids.get(i) == ids.get(i - 1) {
        i += 1;
    }
    // No more than the rows of the group.
    u32::try_from(i).unwrap_or(u32::MAX)
}
