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

/// Four dims of sixteen queries, side by side: what one instruction of a matrix unit takes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct ByteLine(pub [[i8; 4]; 16]);

/// A batch of queries in signed bytes, for screening `i8` rows.
///
/// Line after line for each quad of dims: the first sixteen queries, the next sixteen, and so on; what
/// is missing in the last ones is zero.
#[derive(Debug, Clone)]
pub(crate) struct ByteQueries {
    dims: usize,
    count: usize,
    groups: usize,
    lines: Vec<ByteLine>,
    sums: Vec<i32>,
}

impl ByteQueries {
    /// Beyond so many dims the sums could leave 32 bits, whatever the codes are.
    pub const MOST_DIMS: usize = (1 << 17) - 1;

    /// A batch for a block of `dims` numbers, at most [`Self::MOST_DIMS`]; each query has `dims` codes.
    pub fn new(dims: usize, queries: &[Vec<i8>]) -> Self {
        assert!(dims <= Self::MOST_DIMS, "{dims} dims");
        let groups = queries.len().div_ceil(16);
        // Whole cache lines of row codes: 16 quads.
        let quads = dims.div_ceil(64) * 16;
        let mut lines = vec![ByteLine([[0; 4]; 16]); quads * groups];
        for (query, codes) in queries.iter().enumerate() {
            assert_eq!(codes.len(), dims, "query of other dims");
            for (quad, codes) in codes.chunks(4).enumerate() {
                lines[quad * groups + query / 16].0[query % 16][..codes.len()].copy_from_slice(codes);
            }
        }
        let sums = queries.iter().map(|codes| codes.iter().map(|&code| i32::from(code)).sum()).collect();
        Self { dims, count: queries.len(), groups, lines, sums }
    }

    pub fn dims(&self) -> usize {
        self.dims
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Sixteens of queries.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Quads of `dims` rounded up to a multiple of 64, each with a line for each group.
    pub fn lines(&self) -> &[ByteLine] {
        &self.lines
    }

    /// The sum of each query's codes.
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// A code of a query.
    pub fn code(&self, query: usize, dim: usize) -> i8 {
        self.lines[dim / 4 * self.groups + query / 16].0[query % 16][dim % 4]
    }
}

/// 512 bits, bit `j` being bit `j % 8` of byte `j / 8`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct BitLine(pub [u8; 64]);

/// A batch of queries in bit planes, for rows of one bit a dim: two's complement of six bits.
///
/// Line after line for each 512 dims of a query: the plane of bit 0 to that of bit 5, which counts
/// negatively.
#[derive(Debug, Clone)]
pub(crate) struct PlaneQueries {
    dims: usize,
    lines_per_query: usize,
    lines: Vec<BitLine>,
    count: usize,
}

impl PlaneQueries {
    /// Bits of a query's number.
    pub const PLANES: usize = 6;
    /// The largest number that a query may hold.
    pub const LARGEST: i8 = 31;

    /// An empty batch for a block of `dims` numbers.
    pub fn new(dims: usize) -> Self {
        Self { dims, lines_per_query: dims.div_ceil(512) * Self::PLANES, lines: Vec::new(), count: 0 }
    }

    /// Adds a query of `dims` numbers, none beyond [`Self::LARGEST`] in absolute value.
    pub fn push(&mut self, query: &[i8]) {
        assert_eq!(query.len(), self.dims, "query of other dims");
        assert!(query.iter().all(|p| p.unsigned_abs() <= Self::LARGEST.unsigned_abs()), "query out of range");
        for chunk in query.chunks(512) {
            let mut planes = [BitLine([0; 64]); Self::PLANES];
            for (j, &p) in chunk.iter().enumerate() {
                for (bit, plane) in planes.iter_mut().enumerate() {
                    plane.0[j / 8] |= (p.cast_unsigned() >> bit & 1) << (j % 8);
                }
            }
            self.lines.extend(planes);
        }
        self.count += 1;
    }

    pub fn dims(&self) -> usize {
        self.dims
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The planes of one query: [`Self::PLANES`] lines for each 512 dims, rounded up.
    pub fn lines(&self, query: usize) -> &[BitLine] {
        &self.lines[query * self.lines_per_query..][..self.lines_per_query]
    }
}
