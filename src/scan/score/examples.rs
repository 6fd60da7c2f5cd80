//! Groups the scores of adjacent rows by example.

use crate::scan::options::Grouping;
use crate::scan::read::GroupColumns;
use crate::segment::SegmentError;

/// The example whose rows are being added.
#[derive(Debug, Default)]
pub(super) struct OpenExample {
    /// The number of its selected rows so far; 0 if no example is open.
    rows: u32,
    /// The last of them, in the row group.
    last: u32,
    /// For each query: the score so far.
    scores: Vec<f64>,
    /// For each query: the representative row.
    best: Vec<u32>,
}

/// An example whose selected rows have all been scored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouped<'o> {
    /// Whether the score is the sum over several rows.
    pub is_sum: bool,
    /// For each query: the score.
    pub scores: &'o [f64],
    /// For each query: the representative row, in the row group.
    pub rows: &'o [u32],
}

impl OpenExample {
    /// Adds rows with their scores, query by query. Calls `done` with each example that is complete because
    /// another one begins.
    pub fn add(
        &mut self,
        grouping: Grouping,
        columns: &GroupColumns<'_>,
        rows: &[u32],
        scores: &[f64],
        mut done: impl FnMut(Grouped<'_>) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        let ids = columns.ids()?;
        for (i, &row) in rows.iter().enumerate() {
            if self.rows > 0 && ids.get(self.last as usize) != ids.get(row as usize) {
                self.close(grouping, &mut done)?;
            }
            let scores = scores.iter().skip(i).step_by(rows.len());
            if self.rows == 0 {
                self.scores.clear();
                self.scores.extend(scores);
                self.best.clear();
                self.best.resize(self.scores.len(), row);
            } else {
                let sums = self.scores.iter_mut().zip(&mut self.best);
                for ((so_far, best), &score) in sums.zip(scores) {
                    match grouping {
                        Grouping::Sum => *so_far += score,
                        Grouping::Rows | Grouping::Max if score > *so_far => (*so_far, *best) = (score, row),
                        Grouping::Rows | Grouping::Max => {}
                    }
                }
            }
            self.rows += 1;
            self.last = row;
        }
        Ok(())
    }

    /// Completes the open example, if there is one.
    pub fn close(
        &mut self,
        grouping: Grouping,
        mut done: impl FnMut(Grouped<'_>) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        if self.rows > 0 {
            let is_sum = match grouping {
                Grouping::Sum => self.rows > 1,
                Grouping::Rows | Grouping::Max => false,
            };
            self.rows = 0;
            done(Grouped { is_sum, scores: &self.scores, rows: &self.best })?;
        }
        Ok(())
    }
}
