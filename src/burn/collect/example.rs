//! What a collector is given, and what it hands to a replica.

use std::ops::Range;

use crate::segment::Span;

/// A training example, as far as a collector has to know it. What the model needs beyond that is the caller's.
pub trait Example: Send + Sync {
    /// The id, unique in the index: 1 to 4096 bytes.
    fn id(&self) -> &[u8];

    /// The number of tokens of the whole sequence: prompt, response and all.
    fn tokens(&self) -> usize;

    /// The rows of the example: [`Span::WHOLE`] for the loss of all that it predicts, `start..end` for the loss of
    /// the tokens at these positions alone. Each is one piece of a batch. Default: the whole alone.
    fn spans(&self) -> Vec<Span> {
        vec![Span::WHOLE]
    }

    /// The positions of the tokens that [`Collector::observe`](super::Collector::observe) may draw. Under
    /// [`RowKind::Losses`](super::RowKind::Losses) those whose loss may count, so that it is usually the response;
    /// position 0, which nothing predicts, is left out. Default: all tokens.
    fn observable(&self) -> Range<usize> {
        0..self.tokens()
    }

    /// The source label of the rows. Default: none.
    fn source(&self) -> Option<&str> {
        None
    }

    /// The caller's bytes in each of the rows. Default: none.
    fn metadata(&self) -> &[u8] {
        &[]
    }
}

/// One row of a batch: an example, and the span whose loss counts.
#[derive(Debug)]
#[non_exhaustive]
pub struct Piece<'a, E> {
    /// The example.
    pub example: &'a E,
    /// The span: one of [`Example::spans`], or a single token that is observed.
    pub span: Span,
    /// How many tokens of the sequence the span's loss needs: all of them for the whole, and those up to the span's
    /// end otherwise, since a causal model sees nothing behind its target.
    pub tokens: usize,
}

impl<E> Clone for Piece<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Piece<'_, E> {}

impl<'a, E: Example> Piece<'a, E> {
    /// The piece for `span` of `example`.
    pub fn new(example: &'a E, span: Span) -> Self {
        let all = example.tokens();
        let tokens = if span.is_whole() { all } else { all.min(span.end as usize) };
        Self { example, span, tokens }
    }

    /// The positions of the tokens whose loss counts, where `response` are those of the whole example. Argument
    /// of [`target_loss`](crate::burn::target_loss).
    #[must_use]
    pub fn targets(&self, response: Range<usize>) -> Vec<usize> {
        if self.span.is_whole() {
            return response.collect();
        }
        (self.span.start as usize..self.span.end as usize).collect()
    }
}

/// A span for each `width` tokens of `response`, the last one shorter; each token alone for a width of 1.
///
/// ```
/// use gradix::{Span, burn::collect::windows};
/// assert_eq!(windows(3..8, 2), [Span::tokens(3, 5), Span::tokens(5, 7), Span::tokens(7, 8)]);
/// assert!(windows(3..3, 2).is_empty());
/// ```
#[must_use]
pub fn windows(response: Range<u32>, width: u32) -> Vec<Span> {
    let starts = response.clone().step_by(width.max(1) as usize);
    starts.map(|start| Span::tokens(start, start.saturating_add(width.max(1)).min(response.end))).collect()
}
