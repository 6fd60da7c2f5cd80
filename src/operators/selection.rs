//! Selection of examples for tasks.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::control::every_score;
use super::error::OperatorError;
use crate::scan::{Scan, ScoredRows};

/// Selects the examples that help one of several tasks most, as LESS does (Xia et al., arXiv:2402.04333):
/// which data should the model be trained on for these?
///
/// A task is a range of the scan's queries, for example the gradients of its validation examples. An
/// example's score is the maximum over the tasks of the mean over the task's queries. With one task it is the ranking of In2Core (San Joaquin et al., arXiv:2408.03560), which keeps the
/// best half; [`Coreset`](super::Coreset) avoids that many selected examples help the same queries.
///
/// The rows of one example add up, or as the scan's [`Grouping`](crate::Grouping) has it. Several checkpoints
/// in one row, as blocks with a common prefix, are weighted by [`Scan::weights`](crate::Scan::weights), for
/// example by their learning rates. LESS adds up the cosines of the checkpoints, where
/// [`Metric::Cosine`](crate::Metric::Cosine) is one cosine over all selected blocks: with several checkpoints
/// the lengths of a row differ from it.
///
/// One pass over the rows; memory is that of the selection: an id for each of `count` examples, or of
/// `fraction` times the rows of the snapshot.
///
/// ```
/// # use gradix::{Encoding, Index, Schema, operators::Selection, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("step-100.all", 2), ("step-200.all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # let sketch = |values: [f32; 4]| Sketch::dense(spec.clone(), values.to_vec());
/// writer.append("sums", &sketch([1.0, 0.0, 1.0, 0.0])?)?;
/// writer.append("verse", &sketch([0.0, 0.5, 0.0, 3.0])?)?;
/// writer.append("noise", &sketch([0.1, 0.0, 0.0, 0.1])?)?;
/// writer.commit()?;
/// let snapshot = index.snapshot()?;
/// let queries = [sketch([1.0, 0.0, 1.0, 0.0])?, sketch([2.0, 0.0, 0.0, 0.0])?, sketch([0.0, 1.0, 0.0, 1.0])?];
/// let scan = snapshot.scan(&queries)?.weights([("step-100", 1.0), ("step-200", 0.5)]);
/// let selected = Selection::fraction(0.67).task(0..2).task(2..3).run(scan)?;
/// assert_eq!((&selected[0].id[..], selected[0].score, selected[0].task), (&b"verse"[..], 2.0, 1));
/// assert_eq!((&selected[1].id[..], selected[1].score, selected[1].task), (&b"sums"[..], 1.75, 0));
/// assert_eq!(selected.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing until it is run"]
pub struct Selection {
    size: Size,
    tasks: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Copy)]
enum Size {
    Count(usize),
    Fraction(f64),
}

/// A selected example.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Selected {
    /// The example's id. Serialised as text if it is UTF-8, otherwise as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::scan::text_or_bytes"))]
    pub id: Vec<u8>,
    /// Its score: the greatest mean of a task.
    pub score: f64,
    /// The ordinal of that task; the first of several.
    pub task: usize,
}

impl Selection {
    /// At most this many examples.
    pub fn count(count: usize) -> Self {
        Self { size: Size::Count(count), tasks: Vec::new() }
    }

    /// This fraction of the selected examples, above 0 and at most 1, rounded to the nearest number and at
    /// least one.
    pub fn fraction(fraction: f64) -> Self {
        Self { size: Size::Fraction(fraction), tasks: Vec::new() }
    }

    /// Adds a task: a range of the scan's queries.
    pub fn task(mut self, queries: Range<usize>) -> Self {
        self.tasks.push(queries);
        self
    }

    /// Scans, and returns the selected examples: greatest score first, ties by id. Progress and cancellation
    /// are the scan's.
    ///
    /// # Errors
    /// The fraction or a task is impossible, there is no task, or the scan fails or is cancelled.
    pub fn run(self, scan: Scan<'_>) -> Result<Vec<Selected>, OperatorError> {
        let queries = scan.query_count();
        if self.tasks.is_empty() {
            return Err(OperatorError::NoTask);
        }
        if let Some(task) = self.tasks.iter().position(|task| task.is_empty() || task.end > queries) {
            return Err(OperatorError::Task { task, given: self.tasks[task].clone(), queries });
        }
        if let Size::Fraction(fraction) = self.size
            && !(fraction > 0.0 && fraction <= 1.0)
        {
            let (setting, expected) = ("fraction", "above 0 and at most 1");
            return Err(OperatorError::Setting { setting, given: fraction, expected });
        }
        let mut best = Best::new(self.size.of(scan.rows()));
        let mut examples = 0u64;
        every_score(scan.by_example(), |rows| {
            for row in 0..rows.len() {
                examples += 1;
                let (score, task) = self.score(rows, row);
                best.offer(score, rows.id(row)?, task);
            }
            Ok(())
        })?;
        let mut selected = best.heap.into_sorted_vec();
        selected.truncate(self.size.of(examples));
        Ok(selected.into_iter().map(|entry| entry.0).collect())
    }

    /// The greatest mean of a task, and the task.
    fn score(&self, rows: &ScoredRows<'_>, row: usize) -> (f64, usize) {
        let mut best = (f64::NEG_INFINITY, 0);
        for (task, queries) in self.tasks.iter().enumerate() {
            let sum: f64 = queries.clone().map(|query| rows.scores(query)[row]).sum();
            let mean = sum / queries.len() as f64;
            if mean > best.0 {
                best = (mean, task);
            }
        }
        best
    }
}

impl Size {
    /// The size of a selection from so many examples.
    fn of(self, examples: u64) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Fraction(fraction) => (fraction * examples as f64).round().max(1.0) as usize,
        }
    }
}

/// The best examples so far, the worst of them on top of the heap.
struct Best {
    size: usize,
    heap: BinaryHeap<Entry>,
}

struct Entry(Selected);

impl Best {
    fn new(size: usize) -> Self {
        Self { size, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, score: f64, id: &[u8], task: usize) {
        if self.heap.len() < self.size {
            self.heap.push(Entry(Selected { id: id.to_vec(), score, task }));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && order((score, id), (worst.0.score, &worst.0.id)) == Ordering::Less
        {
            *worst = Entry(Selected { id: id.to_vec(), score, task });
        }
    }
}

/// By score, descending, then by id. Zeros of both signs are equal.
pub(super) fn order(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then_with(|| a.1.cmp(b.1))
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        order((self.0.score, &self.0.id), (other.0.score, &other.0.id))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
