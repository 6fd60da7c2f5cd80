//! All scores of a batch, in row order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::control::Control;
use super::error::ScanError;
use super::read::GroupColumns;
use super::score::PieceScores;
use crate::lock::lock;
use crate::segment::Span;

/// Neighbouring rows of a segment (or examples, if rows are grouped) with their scores for each query.
#[derive(Debug)]
pub struct ScoredRows<'s> {
    scores: &'s PieceScores,
    columns: &'s GroupColumns<'s>,
}

impl ScoredRows<'_> {
    /// How many there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.scores.rows.len()
    }

    /// The scores for query `query`, one for each row in row order; empty beyond the last query.
    #[must_use]
    pub fn scores(&self, query: usize) -> &[f64] {
        self.scores.scores.get(query).map_or(&[], Vec::as_slice)
    }

    /// The id of the example that row `row` of [`ScoredRows::len`] belongs to.
    ///
    /// # Errors
    /// The ids are damaged or cannot be read.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn id(&self, row: usize) -> Result<&[u8], ScanError> {
        Ok(self.columns.ids()?.get(self.scores.rows[row] as usize))
    }

    /// The part of the example that row `row` stands for; of several rows grouped by sum, the whole.
    ///
    /// # Errors
    /// The spans are damaged or cannot be read.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn span(&self, row: usize) -> Result<Span, ScanError> {
        match self.scores.spans[row] {
            Some(span) => Ok(span),
            None => Ok(self.columns.spans()?[self.scores.rows[row] as usize]),
        }
    }

    /// The label of where the example of row `row` came from.
    ///
    /// # Errors
    /// The sources are damaged or cannot be read.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn source(&self, row: usize) -> Result<Option<&str>, ScanError> {
        let source = self.columns.sources()?[self.scores.rows[row] as usize];
        Ok(self.columns.live().reader.source_name(source))
    }
}

/// Where workers bring the scores of pieces in any order, and the caller gets them in theirs.
pub(super) struct InOrder<'s, 'a> {
    state: Mutex<State<'s, 'a>>,
    delivered: Condvar,
    /// At most this many pieces wait for one before them.
    window: usize,
}

/// What is called with the scores; `Break` ends the scan.
pub(super) type Sink<'s> = dyn FnMut(&ScoredRows<'_>) -> ControlFlow<()> + Send + 's;

struct State<'s, 'a> {
    sink: Box<Sink<'s>>,
    next: usize,
    waiting: BTreeMap<usize, (PieceScores, Arc<GroupColumns<'a>>)>,
    finished: bool,
}

/// Workers that wait look whether the scan was cancelled at least this often.
const PATIENCE: Duration = Duration::from_millis(10);

impl<'s, 'a> InOrder<'s, 'a> {
    pub fn new(sink: Box<Sink<'s>>, threads: usize) -> Self {
        let state = State { sink, next: 0, waiting: BTreeMap::new(), finished: false };
        Self { state: Mutex::new(state), delivered: Condvar::new(), window: 2 * threads }
    }

    /// Passes on what is next, and waits as long as too much is not. Pieces are handed out strictly in order,
    /// so that somebody who does not wait has the next one.
    pub fn deliver(
        &self,
        ordinal: usize,
        scores: PieceScores,
        columns: Arc<GroupColumns<'a>>,
        control: &Control<'_>,
    ) {
        let mut guard = lock(&self.state);
        guard.waiting.insert(ordinal, (scores, columns));
        let state = &mut *guard;
        while !state.finished
            && let Some((scores, columns)) = state.waiting.remove(&state.next)
        {
            state.next += 1;
            if !scores.rows.is_empty()
                && (state.sink)(&ScoredRows { scores: &scores, columns: &columns }).is_break()
            {
                state.finished = true;
                control.stop();
            }
        }
        self.delivered.notify_all();
        while guard.waiting.len() > self.window && control.check().is_ok() {
            guard = self.delivered.wait_timeout(guard, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the caller has had enough.
    pub fn is_finished(&self) -> bool {
        lock(&self.state).finished
    }
}
