//! Queries of one block, packed for the kernels: padded with zeros to whole cache lines.

use std::sync::OnceLock;

/// Sixteen numbers, one for each lane.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct FloatLine(pub [f32; 16]);

/// Thirty-two 16-bit codes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct IntegerLine(pub [i16; 32]);

/// A batch of queries in `f32`, for `f32` and `f16` rows.
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
    planes: OnceLock<Vec<ByteLine>>,
}

impl IntegerQueries {
    /// The largest code that quantisation gives; the kernels' partial sums depend on it.
    pub const LARGEST: u16 = 32_512;

    /// An empty batch for a block of `dims` numbers.
    pub fn new(dims: usize) -> Self {
        let lines_per_query = dims.div_ceil(32);
        Self { dims, lines_per_query, lines: Vec::new(), count: 0, planes: OnceLock::new() }
    }

    /// Adds a query of `dims` codes, at most [`Self::LARGEST`] in absolute value.
    pub fn push(&mut self, query: &[i16]) {
        assert_eq!(query.len(), self.dims, "query of other dims");
        assert!(query.iter().all(|code| code.unsigned_abs() <= Self::LARGEST), "query code out of range");
        self.lines.extend(query.chunks(32).map(|chunk| {
            let mut line = IntegerLine([0; 32]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        }));
        self.count += 1;
        self.planes.take();
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

    /// The codes in two signed bytes, `code = 256 * high + low`, for kernels that multiply bytes.
    ///
    /// As the lines of [`ByteQueries`], but for each sixteen queries first the line of their high bytes and
    /// then the line of their low bytes. Computed on first use.
    pub fn planes(&self) -> &[ByteLine] {
        self.planes.get_or_init(|| {
            let mut planes = Vec::with_capacity(self.dims.div_ceil(64) * 16 * self.count.div_ceil(16) * 2);
            for quad in 0..self.dims.div_ceil(64) * 16 {
                for first in (0..self.count).step_by(16) {
                    let mut pair = [ByteLine([[0; 4]; 16]); 2];
                    for query in first..self.count.min(first + 16) {
                        // The last line may be missing: lines have 32 dims, not 64.
                        let Some(line) = self.lines(query).get(quad / 8) else { continue };
                        for (dim, &code) in line.0[quad % 8 * 4..][..4].iter().enumerate() {
                            let [high, low] = in_bytes(code);
                            pair[0].0[query - first][dim] = high;
                            pair[1].0[query - first][dim] = low;
                        }
                    }
                    planes.extend(pair);
                }
            }
            planes
        })
    }
}

/// `code = 256 * high + low`; the low byte is signed too, so it may borrow from the high byte.
fn in_bytes(code: i16) -> [i8; 2] {
    let [_, low] = code.to_be_bytes().map(u8::cast_signed);
    let [high, _] = code.wrapping_sub(i16::from(low)).to_be_bytes().map(u8::cast_signed);
    [high, low]
}

/// Four dims of sixteen queries: the operand of one instruction of a matrix unit.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct ByteLine(pub [[i8; 4]; 16]);

/// A batch of queries in signed bytes, for screening `i8` rows.
///
/// For each quad of dims, a line for each sixteen queries; the last is padded with zeros.
#[derive(Debug, Clone)]
pub(crate) struct ByteQueries {
    dims: usize,
    count: usize,
    groups: usize,
    lines: Vec<ByteLine>,
    sums: Vec<i32>,
}

impl ByteQueries {
    /// The maximum number of dims, so that no sum overflows 32 bits.
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

    /// The number of groups of sixteen queries.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The quads of `dims`, rounded up to a multiple of 64 dims, each with a line for each group.
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

/// 512 bits; bit `j` is bit `j % 8` of byte `j / 8`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct BitLine(pub [u8; 64]);

/// A batch of queries in bit planes, for rows of one bit per dim: two's complement of four bits.
///
/// For each 512 dims of a query, the lines of the planes of bit 0 to bit 3, the last of which has a negative
/// weight.
#[derive(Debug, Clone)]
pub(crate) struct PlaneQueries {
    dims: usize,
    lines_per_query: usize,
    lines: Vec<BitLine>,
    count: usize,
}

impl PlaneQueries {
    /// The number of bits of a query's number.
    pub const PLANES: usize = 4;
    /// The largest number of a query.
    pub const LARGEST: i8 = 7;

    /// An empty batch for a block of `dims` numbers.
    pub fn new(dims: usize) -> Self {
        Self { dims, lines_per_query: dims.div_ceil(512) * Self::PLANES, lines: Vec::new(), count: 0 }
    }

    /// Adds a query of `dims` numbers, at most [`Self::LARGEST`] in absolute value.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a low byte taken for an unsigned one, and a borrow that is lost.
    #[test]
    fn codes_are_the_sum_of_their_bytes() {
        let largest = IntegerQueries::LARGEST.cast_signed();
        for code in -largest..=largest {
            let [high, low] = in_bytes(code).map(i32::from);
            assert_eq!(256 * high + low, i32::from(code));
        }
    }

    /// Catches a plane in its neighbour's place, a last line of 32 dims that is read as 64, and planes
    /// that a later query does not get into.
    #[test]
    fn planes_hold_each_code_once() {
        for (dims, count) in [(1usize, 1usize), (4, 16), (33, 17), (64, 5), (70, 33), (96, 32), (200, 40)] {
            let code = |query: usize, dim: usize| ((query * 7919 + dim * 104_729) % 65_025) as i32 - 32_512;
            let mut queries = IntegerQueries::new(dims);
            for query in 0..count {
                assert_eq!(queries.planes().len(), dims.div_ceil(64) * 32 * query.div_ceil(16));
                queries.push(&(0..dims).map(|dim| code(query, dim) as i16).collect::<Vec<_>>());
            }
            let (planes, groups) = (queries.planes(), count.div_ceil(16));
            assert_eq!(planes.len(), dims.div_ceil(64) * 32 * groups);
            for (query, dim) in
                (0..groups * 16).flat_map(|q| (0..dims.div_ceil(64) * 64).map(move |d| (q, d)))
            {
                let at = (dim / 4 * groups + query / 16) * 2;
                let [high, low] = [0, 1].map(|plane| i32::from(planes[at + plane].0[query % 16][dim % 4]));
                let expected = if query < count && dim < dims { code(query, dim) } else { 0 };
                assert_eq!(256 * high + low, expected, "query {query} of {count}, dim {dim} of {dims}");
            }
        }
    }
}
