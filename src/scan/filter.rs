//! The filters of a scan, as the caller requests them.

use std::ops::Range;

use crate::segment::Span;

/// Selects rows by their spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpanFilter {
    /// All rows.
    #[default]
    All,
    /// Only rows that stand for whole examples.
    Whole,
    /// Only rows that stand for a token range.
    Tokens,
    /// Only rows that have at least one token in common with this span, including those of whole examples.
    Overlapping(Span),
}

impl SpanFilter {
    pub(crate) fn admits(self, span: Span) -> bool {
        match self {
            Self::All => true,
            Self::Whole => span.is_whole(),
            Self::Tokens => !span.is_whole(),
            Self::Overlapping(other) => span.start < other.end && other.start < span.end,
        }
    }
}

/// The location of an example: the ordinal of its segment in the snapshot, and its rows there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExampleRows {
    pub segment: usize,
    pub rows: Range<u32>,
}

/// The requested filters.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterRequest {
    pub ids: Option<Vec<Vec<u8>>>,
    pub prefix: Vec<u8>,
    pub excluded: Vec<Vec<u8>>,
    pub sources: Option<Vec<String>>,
    pub spans: SpanFilter,
}
