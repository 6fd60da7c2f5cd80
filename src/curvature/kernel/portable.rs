//! The kernel in plain Rust, of which the others compile what is not worth an intrinsic of its own.

use std::ops::Neg;

use super::{HEIGHT, Line, Rotation, Square, Tile, WIDTH};
use crate::codec::lanes;

/// `f32` or `f64`.
pub(super) trait Number: Copy + Neg<Output = Self> {
    fn mul_add(self, by: Self, sum: Self) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn mul_add(self, by: Self, sum: Self) -> Self {
        self.mul_add(by, sum)
    }
}

impl Number for f64 {
    #[inline(always)]
    fn mul_add(self, by: Self, sum: Self) -> Self {
        self.mul_add(by, sum)
    }
}

/// Sums that are meant to stay in registers.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// See [`Kernel::largest`](super::Kernel::largest).
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> u32 {
    values.iter().fold(0, |most, value| most.max(value.abs().to_bits()))
}

/// [`lanes::sum_of_squares`], compiled with the instructions of its caller.
#[inline(always)]
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    let (tiles, rest) = values.as_chunks::<{ lanes::LANES }>();
    let mut sums = [0.0; lanes::LANES];
    for tile in tiles {
        for (sum, &value) in sums.iter_mut().zip(tile) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value) * f64::from(value);
    }
    lanes::halve_f64(sums)
}

/// See [`Kernel::pack`](super::Kernel::pack).
#[inline(always)]
pub(super) fn pack(rows: &[f32], columns: usize, first: usize, scale: f32, strip: &mut [Line<f32>]) {
    for (line, row) in strip.iter_mut().zip(rows.chunks_exact(columns)) {
        let row = &row[first..];
        if let Some(row) = row.first_chunk::<WIDTH>() {
            *line = row.map(|value| value * scale);
        } else {
            *line = [0.0; WIDTH];
            line.iter_mut().zip(row).for_each(|(packed, value)| *packed = value * scale);
        }
    }
}

/// See [`Kernel::add_line`](super::Kernel::add_line). `factor` is a power of two, so that products are exact.
#[inline(always)]
pub(super) fn add_line(sums: &Line<f32>, factor: f64, values: &mut [f64]) {
    if let Some(values) = values.first_chunk_mut::<WIDTH>() {
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value += f64::from(*sum) * factor);
    } else {
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value += f64::from(*sum) * factor);
    }
}

/// See [`Kernel::add_f32`](super::Kernel::add_f32).
pub(super) fn add_f32(left: &[Line<f32>], first: usize, right: &[Line<f32>], tile: &mut Tile<f32>) {
    each(left, first, right, tile, |by| by);
}

/// [`add_f32`] in `f64`.
pub(super) fn add_f64(left: &[Line<f64>], first: usize, right: &[Line<f64>], tile: &mut Tile<f64>) {
    each(left, first, right, tile, |by| by);
}

/// [`add_f64`] with every product subtracted.
pub(super) fn subtract_f64(left: &[Line<f64>], first: usize, right: &[Line<f64>], tile: &mut Tile<f64>) {
    each(left, first, right, tile, |by| -by);
}

#[inline(always)]
fn each<T: Number>(
    left: &[Line<T>],
    first: usize,
    right: &[Line<T>],
    tile: &mut Tile<T>,
    signed: impl Fn(T) -> T,
) {
    for top in (0..HEIGHT).step_by(ROWS) {
        for start in (0..WIDTH).step_by(COLUMNS) {
            let mut sums: [[T; COLUMNS]; ROWS] =
                std::array::from_fn(|row| std::array::from_fn(|column| tile[top + row][start + column]));
            for (left, right) in left.iter().zip(right) {
                let (left, right) = (&left[first + top..][..ROWS], &right[start..start + COLUMNS]);
                for (sums, &by) in sums.iter_mut().zip(left) {
                    for (sum, &x) in sums.iter_mut().zip(right) {
                        *sum = signed(by).mul_add(x, *sum);
                    }
                }
            }
            for (tile, sums) in tile[top..].iter_mut().zip(&sums) {
                tile[start..start + COLUMNS].copy_from_slice(sums);
            }
        }
    }
}

/// See [`Kernel::solve`](super::Kernel::solve).
#[inline(always)]
pub(super) fn solve(lower: &Square, block: &mut Square) {
    for row in 0..WIDTH {
        let (known, rest) = block.split_at_mut(row);
        let values = &mut rest[0];
        for (lower, known) in lower.iter().zip(&*known) {
            let by = -lower[row];
            for (value, &x) in values.iter_mut().zip(known) {
                *value = by.mul_add(x, *value);
            }
        }
        let diagonal = lower[row][row];
        for value in values {
            *value /= diagonal;
        }
    }
}

/// See [`Kernel::factor`](super::Kernel::factor). The line of column `c` has the rows from `c` on.
#[inline(always)]
pub(super) fn factor(block: &mut Square, least: &Line<f64>) -> bool {
    for column in 0..WIDTH {
        let (known, rest) = block.split_at_mut(column);
        let values = &mut rest[0];
        for known in &*known {
            let by = -known[column];
            for (value, &x) in values.iter_mut().zip(known) {
                *value = by.mul_add(x, *value);
            }
        }
        let is_above = values[column] > least[column];
        // Nor is NaN.
        if !is_above {
            return false;
        }
        let diagonal = values[column].sqrt();
        for value in &mut *values {
            *value /= diagonal;
        }
        values[..column].fill(0.0);
        values[column] = diagonal;
    }
    true
}

/// See [`Kernel::add_scaled`](super::Kernel::add_scaled).
#[inline(always)]
pub(super) fn add_scaled(by: f64, values: &[f64], sums: &mut [f64]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum = by.mul_add(value, *sum);
    }
}

/// See [`Kernel::rotate`](super::Kernel::rotate).
#[inline(always)]
pub(super) fn rotate(rotations: &[Rotation], rows: &mut [Line<f64>]) {
    for &Rotation { row, cosine, sine } in rotations {
        if let [upper, lower] = &mut rows[row..row + 2] {
            for (upper, lower) in upper.iter_mut().zip(lower) {
                let (x, y) = (*upper, *lower);
                *upper = cosine.mul_add(x, -(sine * y));
                *lower = sine.mul_add(x, cosine * y);
            }
        }
    }
}
