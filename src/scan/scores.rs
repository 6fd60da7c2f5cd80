//! Delivers all scores of a batch in row order.

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

/// Adjacent rows of a segment, or examples if rows are grouped, with their scores for each query.
#[derive(Debug)]
pub struct ScoredRows<'s> {
    scores: &'s PieceScores,
    columns: &'s GroupColumns<'s>,
}

impl ScoredRows<'_> {
    /// The number of rows; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.scores.rows.len()
    }

    /// The scores for query `query`, one for each row in row order. Empty if there is no such query.
    #[must_use]
    pub fn scores(&self, query: usize) -> &[f64] {
        self.scores.scores.get(query).map_or(&[], Vec::as_slice)
    }

    /// The id of the example of row `row`, which is below [`ScoredRows::len`].
    ///
    /// # Errors
    /// The ids are damaged or cannot be read.
    ///
    /// # Panics
    /// If `row` is not below [`ScoredRows::len`].
    pub fn id(&self, row: usize) -> Result<&[u8], ScanError> {
        Ok(self.columns.ids()?.get(self.scores.rows[row] as usize))
    }

    /// The part of the example that row `row` stands for, as [`Hit::span`](super::Hit::span).
    ///
    /// # Errors
    /// The spans are damaged or cannot be read.
    ///
    /// # Panics
    /// If `row` is not below [`ScoredRows::len`].
    pub fn span(&self, row: usize) -> Result<Span, ScanError> {
        match self.scores.spans[row] {
            Some(span) => Ok(span),
            None => Ok(self.columns.spans()?[self.scores.rows[row] as usize]),
        }
    }

    /// The source label of row `row`, if it has one.
    ///
    /// # Errors
    /// The sources are damaged or cannot be read.
    ///
    /// # Panics
    /// If `row` is not below [`ScoredRows::len`].
    pub fn source(&self, row: usize) -> Result<Option<&str>, ScanError> {
        let source = self.columns.sources()?[self.scores.rows[row] as usize];
        Ok(self.columns.live().reader.source_name(source))
    }
}

/// Reorders the scores of pieces, which workers deliver in any order, for the caller's sink.
pub(super) struct InOrder<'s, 'a> {
    state: Mutex<State<'s, 'a>>,
    delivered: Condvar,
    /// The maximum number of pieces that wait for an earlier one.
    window: usize,
}

/// Receives the scores; `Break` ends the scan.
pub(super) type Sink<'s> = dyn FnMut(&ScoredRows<'_>) -> ControlFlow<()> + Send + 's;

struct State<'s, 'a> {
    sink: Box<Sink<'s>>,
    next: usize,
    waiting: BTreeMap<usize, (PieceScores, Arc<GroupColumns<'a>>)>,
    finished: bool,
}

/// The interval at which waiting workers check for cancellation.
const PATIENCE: Duration = Duration::from_millis(10);

impl<'s, 'a> InOrder<'s, 'a> {
    pub fn new(sink: Box<Sink<'s>>, threads: usize) -> Self {
        let state = State { sink, next: 0, waiting: BTreeMap::new(), finished: false };
        Self { state: Mutex::new(state), delivered: Condvar::new(), window: 2 * threads }
    }

    /// Delivers a piece, and passes all pieces that are next to the sink. Waits while more than `window`
    /// pieces wait. There is no deadlock, because pieces are assigned strictly in order: a worker that does
    /// not wait has the next piece.
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

    /// Whether the sink has returned `Break`.
    pub fn is_finished(&self) -> bool {
        lock(&self.state).finished
    }
}
