//! Windows of the input, and their batches: a function of the input alone.

use super::RowKind;
use super::example::{Example, Piece};
use super::failure::{Fault, Reason};
use crate::segment::Span;

/// The bounds of batches and windows. They decide which pieces share a batch, and so the last bits of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub rows: RowKind,
    /// Rows from which on a window is complete.
    pub window_rows: usize,
    pub batch_rows: usize,
    /// Tokens of a batch, with its padding.
    pub batch_tokens: usize,
    /// Tokens of the longest example that is not refused.
    pub max_tokens: usize,
}

/// What becomes one row of a batch.
#[derive(Debug)]
pub(super) struct Planned {
    /// The example's place in the window.
    pub place: usize,
    /// Its rows: one of the example's for losses, all of them for positions.
    pub spans: Vec<Span>,
}

/// Consecutive examples of the input, which are batched together and committed together.
#[derive(Debug)]
pub(super) struct Window<E> {
    /// The place in the input of its first example.
    pub start: u64,
    pub examples: Vec<E>,
    pub pieces: Vec<Planned>,
    /// The rows of all pieces.
    rows: usize,
    /// Examples of which nothing is computed.
    pub faults: Vec<(usize, Fault)>,
}

impl<E: Example> Window<E> {
    pub fn new(start: u64) -> Self {
        Self { start, examples: Vec::new(), pieces: Vec::new(), rows: 0, faults: Vec::new() }
    }

    pub fn push(&mut self, example: E, bounds: &Bounds) {
        let place = self.examples.len();
        let (tokens, spans) = (example.tokens(), example.spans());
        let empty = spans.iter().find(|span| !span.is_valid());
        let outside = spans.iter().find(|span| !span.is_whole() && span.end as usize > tokens);
        if tokens > bounds.max_tokens {
            let detail = format!("{tokens} tokens; at most {} are allowed", bounds.max_tokens);
            self.faults.push((place, Fault::new(Reason::TooLong, detail)));
        } else if spans.is_empty() {
            self.faults.push((place, Fault::new(Reason::Empty, "there are no spans")));
        } else if let Some(span) = empty {
            self.faults.push((place, Fault::new(Reason::Empty, format!("the span {span} is empty"))));
        } else if let Some(span) = outside {
            let detail = format!("the span {span} ends behind the last of {tokens} tokens");
            self.faults.push((place, Fault::new(Reason::Error, detail)));
        } else {
            self.rows += spans.len();
            match bounds.rows {
                RowKind::Losses => {
                    let one = |span| Planned { place, spans: vec![span] };
                    self.pieces.extend(spans.into_iter().map(one));
                }
                RowKind::Positions => self.pieces.push(Planned { place, spans }),
            }
        }
        self.examples.push(example);
    }

    /// Whether no more examples belong to it.
    pub fn is_complete(&self, bounds: &Bounds) -> bool {
        // Examples without rows count, so that a window of nothing else ends too.
        self.rows + self.faults.len() >= bounds.window_rows
    }

    pub fn piece(&self, ordinal: usize, kind: RowKind) -> Piece<'_, E> {
        let Planned { place, spans } = &self.pieces[ordinal];
        let span = match kind {
            RowKind::Losses => spans[0],
            RowKind::Positions => Span::WHOLE,
        };
        Piece::new(&self.examples[*place], span)
    }

    /// The window's batches, as ordinals of pieces: the longest first, so that the last ones, for which devices wait
    /// for each other, are the shortest.
    pub fn batches(&self, bounds: &Bounds) -> Vec<Vec<usize>> {
        let tokens: Vec<usize> =
            (0..self.pieces.len()).map(|ordinal| self.piece(ordinal, bounds.rows).tokens).collect();
        let mut order: Vec<usize> = (0..self.pieces.len()).collect();
        order.sort_by_key(|&ordinal| std::cmp::Reverse(tokens[ordinal]));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for ordinal in order {
            let fits = |batch: &&mut Vec<usize>| {
                let padded = tokens[batch[0]].saturating_mul(batch.len() + 1);
                batch.len() < bounds.batch_rows && padded <= bounds.batch_tokens
            };
            match batches.last_mut().filter(fits) {
                Some(batch) => batch.push(ordinal),
                None => batches.push(vec![ordinal]),
            }
        }
        batches
    }
}
