//! Rows between a file and an index.

use crate::segment::Span;

/// Rows of vectors, and what a file says of each.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The number of rows.
    pub rows: usize,
    /// The values of all rows, one row after the other, each block after block.
    pub values: Vec<f32>,
    /// The id of each row's example; empty if the file has none. Neighbouring rows of one id are one example's.
    pub ids: Vec<Vec<u8>>,
    /// The span of each row; empty if all are of whole examples.
    pub spans: Vec<Span>,
    /// The source label of each row; empty if none has one.
    pub sources: Vec<Option<String>>,
    /// The metadata of each row; empty if none has any.
    pub metadata: Vec<Vec<u8>>,
}

impl Batch {
    /// Drops the rows, and keeps the memory.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.values.clear();
        self.ids.clear();
        self.spans.clear();
        self.sources.clear();
        self.metadata.clear();
    }
}
