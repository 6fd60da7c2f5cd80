//! Which rows a scan is asked for.

use std::ops::Range;

use super::error::ScanError;
use crate::segment::Span;

/// Which rows take part, by their spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpanFilter {
    /// All rows.
    #[default]
    All,
    /// Rows that stand for whole examples.
    Whole,
    /// Rows that stand for a token range.
    Tokens,
    /// Rows that have at least one token in common with this span; those of whole examples have.
    Overlapping(Span),
}

impl SpanFilter {
    pub(super) fn admits(self, span: Span) -> bool {
        match self {
            Self::All => true,
            Self::Whole => span.is_whole(),
            Self::Tokens => !span.is_whole(),
            Self::Overlapping(other) => span.start < other.end && other.start < span.end,
        }
    }
}

/// Where the rows of an example are: the ordinal of the segment in the snapshot, and the rows there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExampleRows {
    pub segment: usize,
    pub rows: Range<u32>,
}

/// Looks an id up in the snapshot that is scanned.
pub(super) type Find<'a> = dyn Fn(&[u8]) -> Result<Option<ExampleRows>, ScanError> + Send + Sync + 'a;

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterRequest {
    pub ids: Option<Vec<Vec<u8>>>,
    pub excluded: Vec<Vec<u8>>,
    pub sources: Option<Vec<String>>,
    pub spans: SpanFilter,
}
