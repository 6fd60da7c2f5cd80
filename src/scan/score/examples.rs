//! Rows grouped by example: scores of neighbours that belong together.

use crate::scan::options::Grouping;
use crate::scan::read::GroupColumns;
use crate::segment::SegmentError;

/// The example whose rows are being put together.
#[derive(Debug, Default)]
pub(super) struct OpenExample {
    /// How many of its rows took part so far; 0 if none is open.
    rows: u32,
    /// The last of them, in the row group.
    last: u32,
    /// For each query: the score so far.
    scores: Vec<f64>,
    /// For each query: the row that stands for the example.
    best: Vec<u32>,
}

/// An example all of whose rows that take part were scored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouped<'o> {
    /// Whether the score is the sum of several rows, none of which stands for it.
    pub is_sum: bool,
    /// For each query: the score,
    pub scores: &'o [f64],
    /// and the row that stands for the example, in the row group.
    pub rows: &'o [u32],
}

impl OpenExample {
    /// Adds rows with their scores, query after query; `done` gets each example that ends before another
    /// one begins.
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

    /// Ends the example that is open, if there is one.
    pub fn close(
        &mut self,
        grouping: Grouping,
        mut done: impl FnMut(Grouped<'_>) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        if self.rows > 0 {
            let is_sum = grouping == Grouping::Sum && self.rows > 1;
            self.rows = 0;
            done(Grouped { is_sum, scores: &self.scores, rows: &self.best })?;
        }
        Ok(())
    }
}
