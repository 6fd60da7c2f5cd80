//! A worker that computes every score.

use std::ops::Range;

use super::examples::{Grouped, OpenExample};
use super::rank::Counts;
use super::tile::{self, TileScorer};
use crate::scan::control::Control;
use crate::scan::error::ScanError;
use crate::scan::plan::Plan;
use crate::scan::read::{GroupColumns, PieceCodes, RowFilter};
use crate::segment::Span;

/// The scores of a piece: of rows, or of examples if rows are grouped.
#[derive(Debug, Default)]
pub(in crate::scan) struct PieceScores {
    /// The representative row of each, in the row group. With `Grouping::Max`, queries may have different
    /// ones; then that of the first query.
    pub rows: Vec<u32>,
    /// The span of each that combines several rows; `None`: the span of its row.
    pub spans: Vec<Option<Span>>,
    /// For each query: one score for each of `rows`.
    pub scores: Vec<Vec<f64>>,
}

pub(in crate::scan) struct EveryWorker<'e, 'a> {
    plan: &'e Plan,
    filter: &'e RowFilter,
    control: &'e Control<'a>,
    scorer: TileScorer<'e, 'a>,
    tile_rows: u32,
    selected: Vec<u32>,
    example: OpenExample,
    pub counts: Counts,
}

impl<'e, 'a> EveryWorker<'e, 'a> {
    pub fn new(plan: &'e Plan, filter: &'e RowFilter, control: &'e Control<'a>) -> Self {
        Self {
            plan,
            filter,
            control,
            scorer: TileScorer::new(plan, control),
            tile_rows: tile::tile_rows(plan),
            selected: Vec::new(),
            example: OpenExample::default(),
            counts: Counts::default(),
        }
    }

    /// Scores the rows of a piece. If rows are grouped, the piece ends at the end of an example.
    pub fn piece(
        &mut self,
        mut rows: Range<u32>,
        columns: &GroupColumns<'a>,
        codes: &mut PieceCodes,
    ) -> Result<PieceScores, ScanError> {
        let (queries, grouping) = (self.plan.batch.queries, self.plan.grouping);
        let mut made = PieceScores { scores: vec![Vec::new(); queries], ..PieceScores::default() };
        while rows.start < rows.end {
            self.control.check()?;
            let end = rows.end.min(rows.start.saturating_add(self.tile_rows));
            self.filter.select(columns, rows.start..end, &mut self.selected)?;
            rows.start = end;
            if self.selected.is_empty() {
                continue;
            }
            self.counts.rows += self.selected.len() as u64;
            self.counts.code_bytes += (self.selected.len() * self.plan.batch.row_bytes()) as u64;
            self.scorer.score(columns, &self.selected, 0..queries, codes)?;
            let scores = self.scorer.scores();
            if !grouping.by_example() {
                made.rows.extend(&self.selected);
                made.spans.resize(made.rows.len(), None);
                let each = made.scores.iter_mut().zip(scores.chunks_exact(self.selected.len()));
                each.for_each(|(all, scores)| all.extend(scores));
            } else {
                self.example.add(grouping, columns, &self.selected, scores, |grouped| {
                    made.push(grouped);
                    Ok(())
                })?;
            }
        }
        self.example.close(grouping, |grouped| {
            made.push(grouped);
            Ok(())
        })?;
        Ok(made)
    }
}

impl PieceScores {
    fn push(&mut self, grouped: Grouped<'_>) {
        self.rows.extend(grouped.rows.first());
        self.spans.push(grouped.is_sum.then_some(Span::WHOLE));
        self.scores.iter_mut().zip(grouped.scores).for_each(|(all, &score)| all.push(score));
    }
}
