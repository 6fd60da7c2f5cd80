//! Queries of one block, laid out for the kernels: padded with zeros to whole cache lines.

/// Sixteen numbers: one for each lane.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct FloatLine(pub [f32; 16]);

/// Thirty-two 16-bit codes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct IntegerLine(pub [i16; 32]);

/// A batch of queries as they are, for `f32` and `f16` rows.
#[derive(Debug, Clone)]
pub(crate) struct FloatQueries {
    dims: usize,
    lines_per_query: usize,
    lines: Vec<FloatLine>,
    count: usize,
}

impl FloatQueries {
    /// An empty batch for a block of `dims` numbers.
    pub fn new(dims: usize) -> Self {
        Self { dims, lines_per_query: dims.div_ceil(16), lines: Vec::new(), count: 0 }
    }

    /// Adds a query of `dims` numbers.
    pub fn push(&mut self, query: &[f32]) {
        assert_eq!(query.len(), self.dims, "query of other dims");
        self.lines.extend(query.chunks(16).map(|chunk| {
            let mut line = FloatLine([0.0; 16]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        }));
        self.count += 1;
    }

    pub fn dims(&self) -> usize {
        self.dims
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The lines of one query; `dims` rounded up to a multiple of 16 numbers.
    pub fn lines(&self, query: usize) -> &[FloatLine] {
        &self.lines[query * self.lines_per_query..][..self.lines_per_query]
    }
}

/// A batch of queries in 16-bit integers, for `i8` rows.
#[derive(Debug, Clone)]
pub(crate) struct IntegerQueries {
    dims: usize,
    lines_per_query: usize,
    lines: Vec<IntegerLine>,
    count: usize,
}

impl IntegerQueries {
    /// The largest code that quantisation gives; the kernels' partial sums rely on it.
    pub const LARGEST: u16 = 32_512;

    /// An empty batch for a block of `dims` numbers.
    pub fn new(dims: usize) -> Self {
        Self { dims, lines_per_query: dims.div_ceil(32), lines: Vec::new(), count: 0 }
    }

    /// Adds a query of `dims` codes, none beyond [`Self::LARGEST`] in absolute value.
    pub fn push(&mut self, query: &[i16]) {
        assert_eq!(query.len(), self.dims, "query of other dims");
        assert!(query.iter().all(|code| code.unsigned_abs() <= Self::LARGEST), "query code out of range");
        self.lines.extend(query.chunks(32).map(|chunk| {
            let mut line = IntegerLine([0; 32]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        }));
        self.count += 1;
    }

    pub fn dims(&self) -> usize {
        self.dims
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The lines of one query; `dims` rounded up to a multiple of 32 codes.
    pub fn lines(&self, query: usize) -> &[IntegerLine] {
        &self.lines[query * self.lines_per_query..][..self.lines_per_query]
    }
}
