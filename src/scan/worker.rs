//! One thread of a scan: scores its pieces tile by tile and keeps the best of each query.

use std::ops::Range;

use super::best::{Best, Candidate};
use super::builder::Grouping;
use super::columns::GroupColumns;
use super::engine::Engine;
use super::error::ScanError;
use super::stream::PieceCodes;
use super::tile::TileScorer;
use crate::segment::{ByteStrings, SegmentError, Span};

/// What workers bring home.
#[derive(Debug)]
pub(super) struct Found {
    /// For each query: its proponents.
    pub top: Vec<Best>,
    /// For each query: its opponents.
    pub bottom: Vec<Best>,
    pub rows_scored: u64,
    pub bytes_read: u64,
}

impl Found {
    pub fn new(queries: usize, (top_k, bottom_k): (usize, usize)) -> Self {
        let of = |k| vec![Best::new(k); queries];
        Self { top: of(top_k), bottom: of(bottom_k), rows_scored: 0, bytes_read: 0 }
    }

    pub fn merge(&mut self, other: Self) {
        let ends = [(&mut self.top, other.top), (&mut self.bottom, other.bottom)];
        for (ours, theirs) in ends {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| ours.merge(theirs));
        }
        self.rows_scored += other.rows_scored;
        self.bytes_read += other.bytes_read;
    }
}

pub(super) struct Worker<'e, 'a> {
    engine: &'e Engine<'a>,
    scorer: TileScorer<'e, 'a>,
    /// Rows of the tile that take part: ordinals in the row group.
    selected: Vec<u32>,
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
        let found = Found::new(engine.plan.batch.queries, engine.plan.ends);
        let scorer = TileScorer::new(engine);
        Self { engine, scorer, selected: Vec::new(), example: OpenExample::default(), found }
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
        while rows.start < rows.end {
            self.engine.check()?;
            let end = rows.end.min(rows.start.saturating_add(self.scorer.tile_rows()));
            self.engine.plan.filter.select(columns.live(), columns, rows.start..end, &mut self.selected)?;
            if !self.selected.is_empty() {
                self.scorer.score(columns, &self.selected, codes)?;
                self.found.rows_scored += self.selected.len() as u64;
                self.found.bytes_read += (self.selected.len() * self.engine.plan.batch.row_bytes()) as u64;
                match self.engine.plan.grouping {
                    Grouping::Rows => self.offer_rows(columns)?,
                    Grouping::Max | Grouping::Sum => self.add_to_examples(columns)?,
                }
            }
            rows.start = end;
        }
        Ok(self.close_example(columns)?)
    }

    fn offer_rows(&mut self, columns: &GroupColumns<'_>) -> Result<(), SegmentError> {
        let rows = &self.selected;
        let ends = [(&mut self.found.top, 1.0), (&mut self.found.bottom, -1.0)];
        for (bests, sign) in ends {
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
