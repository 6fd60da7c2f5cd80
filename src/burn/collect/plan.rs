//! Windows of the input, and their batches: a function of the input alone.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::RowKind;
use super::example::{Example, Piece};
use super::failure::{Fault, Reason};
use crate::codec::mix::{SPLITMIX_STEP, splitmix};
use crate::segment::Span;

/// The bounds of batches and windows. They decide which pieces share a batch, and so the last bits of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    pub rows: RowKind,
    /// Rows from which on a window is complete.
    pub window_rows: usize,
    pub batch_rows: usize,
    /// Tokens of a batch, with its padding.
    pub batch_tokens: usize,
    /// Tokens of the longest example that is not refused.
    pub max_tokens: usize,
    /// `None` if nothing is observed.
    pub observe: Option<Observe>,
}

/// What is added to sums and not stored. As a commit's payload has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Observe {
    /// The curvature's name.
    pub curvature: String,
    /// Tokens of each example, at most.
    pub tokens: u64,
}

/// What becomes one row of a batch.
#[derive(Debug)]
pub(super) struct Planned {
    /// The example's place in the window.
    pub place: usize,
    /// Its rows: one of the example's for losses, or none if it is observed; all of them for positions.
    pub spans: Vec<Span>,
    /// What is observed of it: one token for losses, all of them for positions.
    pub observed: Vec<Span>,
}

impl Planned {
    /// What is computed, rows first.
    pub fn all(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().chain(&self.observed)
    }
}

/// The tokens of an example that are observed, in the order of their positions (format-spec/collect.md).
pub(super) fn drawn<E: Example>(example: &E, bounds: &Bounds) -> Vec<Span> {
    let Some(observe) = &bounds.observe else { return Vec::new() };
    let first = match bounds.rows {
        RowKind::Losses => 1,
        RowKind::Positions => 0,
    };
    let range = example.observable();
    let positions = range.start.max(first)..range.end.min(example.tokens());
    let digest: [u8; 32] = Sha256::digest(example.id()).into();
    let key = digest.iter().take(8).rev().fold(0u64, |key, &byte| key << 8 | u64::from(byte));
    let mut order: Vec<(u64, usize)> = positions.map(|at| (mixed(key, at as u64), at)).collect();
    order.sort_unstable();
    order.truncate(usize::try_from(observe.tokens).unwrap_or(usize::MAX));
    let mut positions: Vec<usize> = order.into_iter().map(|(_, at)| at).collect();
    positions.sort_unstable();
    let token = |at: usize| Some(Span::tokens(u32::try_from(at).ok()?, u32::try_from(at + 1).ok()?));
    positions.into_iter().filter_map(token).collect()
}

/// The number of SplitMix64 after `at` others, from a key.
fn mixed(key: u64, at: u64) -> u64 {
    splitmix(&mut key.wrapping_add(at.wrapping_mul(SPLITMIX_STEP)))
}

/// Consecutive examples of the input, which are batched together and committed together.
#[derive(Debug)]
pub(super) struct Window<E> {
    /// The place in the input of its first example.
    pub start: u64,
    pub examples: Vec<E>,
    pub pieces: Vec<Planned>,
    /// The rows of all pieces, and what is observed.
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
            let observed = drawn(&example, bounds);
            self.rows += spans.len() + observed.len();
            match bounds.rows {
                RowKind::Losses => {
                    let row = |span| Planned { place, spans: vec![span], observed: Vec::new() };
                    let token = |span| Planned { place, spans: Vec::new(), observed: vec![span] };
                    self.pieces.extend(spans.into_iter().map(row));
                    self.pieces.extend(observed.into_iter().map(token));
                }
                RowKind::Positions => self.pieces.push(Planned { place, spans, observed }),
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
        let piece = &self.pieces[ordinal];
        let span = match kind {
            RowKind::Losses => piece.all().next().copied().unwrap_or(Span::WHOLE),
            RowKind::Positions => Span::WHOLE,
        };
        Piece::new(&self.examples[piece.place], span)
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str, usize);

    impl Example for Text {
        fn id(&self) -> &[u8] {
            self.0.as_bytes()
        }

        fn tokens(&self) -> usize {
            self.1
        }
    }

    /// Would catch a draw that is not that of format-spec/collect.md, draws a token twice or one that has no loss, or fails
    /// where there are too few.
    #[test]
    fn drawn_tokens_are_those_of_the_specification() {
        let drawn = |rows, example, tokens| {
            let observe = Some(Observe { curvature: "tokens".into(), tokens });
            let bounds =
                Bounds { rows, window_rows: 1, batch_rows: 1, batch_tokens: 1, max_tokens: 1, observe };
            super::drawn(&example, &bounds).iter().map(|token| token.start).collect::<Vec<_>>()
        };
        assert_eq!(drawn(RowKind::Positions, Text("a", 10), 3), [1, 6, 7]);
        assert_eq!(drawn(RowKind::Positions, Text("b", 10), 3), [0, 4, 7]);
        assert_eq!(drawn(RowKind::Losses, Text("b", 3), 9), [1, 2]);
        assert_eq!(drawn(RowKind::Positions, Text("b", 3), u64::MAX), [0, 1, 2]);
        assert_eq!(drawn(RowKind::Losses, Text("b", 1), 9), [] as [u32; 0]);
    }
}
