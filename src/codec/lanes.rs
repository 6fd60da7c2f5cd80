//! The sixteen lanes of `format-spec/encodings.md`: the order in which sums are computed.
//!
//! Lane `l` sums the elements `l`, `l + 16`, `l + 32`, ...; then the lanes are added in halves. These are the
//! scalar forms; every faster one must give the same bits.

/// The number of lanes.
pub const LANES: usize = 16;

/// Adds the lanes in halves, 8 + 8, 4 + 4, 2 + 2, 1 + 1: each sum rounded in `f32`.
#[must_use]
pub fn halve_f32(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Adds the lanes in halves, 8 + 8, 4 + 4, 2 + 2, 1 + 1: each sum rounded in `f64`.
#[must_use]
#[inline]
pub fn halve_f64(mut lanes: [f64; LANES]) -> f64 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// The sum of the squares of `values` in `f64`: the square of the L2 norm.
///
/// The square of an `f32` is exact in `f64`, so a fused multiply-add gives the same bits.
#[must_use]
#[inline]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let mut squares = SquareSum::new();
    squares.add(values);
    squares.finish()
}

/// [`sum_of_squares`], run by run.
#[derive(Debug, Clone)]
pub(crate) struct SquareSum([f64; LANES]);

impl SquareSum {
    #[inline]
    pub(crate) fn new() -> Self {
        Self([0.0; LANES])
    }

    /// Adds the next run. The length of each run but the last must be a multiple of sixteen, so that the
    /// elements stay in their lanes.
    #[inline]
    pub(crate) fn add(&mut self, values: &[f32]) {
        let (tiles, rest) = values.as_chunks::<LANES>();
        let mut lanes = self.0;
        for tile in tiles {
            for (lane, &value) in lanes.iter_mut().zip(tile) {
                *lane += f64::from(value) * f64::from(value);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(value) * f64::from(value);
        }
        self.0 = lanes;
    }

    #[inline]
    pub(crate) fn finish(self) -> f64 {
        halve_f64(self.0)
    }
}

/// The dot product of `row` and `query` (equally long) in `f32`, with a fused multiply-add for each
/// element.
///
/// Elements beyond the shorter of the two are ignored. Slow, but correct, on a target without fused
/// multiply-add.
#[must_use]
pub fn dot(row: &[f32], query: &[f32]) -> f32 {
    let length = row.len().min(query.len());
    dot_lines(row[..length].iter().copied(), query[..length].chunks(LANES).map(filled_up))
}

/// [`dot`] of a query in whole lines: the oracle of every scan kernel for `f32` and `f16` codes. A row that
/// ends before the last line is continued with +0.
pub(crate) fn dot_lines(
    mut row: impl Iterator<Item = f32>,
    query: impl IntoIterator<Item = [f32; LANES]>,
) -> f32 {
    let mut lanes = [0.0; LANES];
    for line in query {
        for (lane, q) in lanes.iter_mut().zip(line) {
            *lane = row.next().unwrap_or(0.0).mul_add(q, *lane);
        }
    }
    halve_f32(lanes)
}

fn filled_up(numbers: &[f32]) -> [f32; LANES] {
    let mut line = [0.0; LANES];
    line[..numbers.len()].copy_from_slice(numbers);
    line
}
