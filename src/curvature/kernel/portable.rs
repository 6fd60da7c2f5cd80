//! The kernel in plain Rust, of which the others compile what is not worth an intrinsic of its own.

use std::ops::Neg;

use super::{HEIGHT, Line, Square, Tile, WIDTH};

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

/// See [`Kernel::add_f32`](super::Kernel::add_f32). `ROWS` times `COLUMNS` sums are meant to stay in registers.
#[inline(always)]
pub(super) fn add<T: Number, const ROWS: usize, const COLUMNS: usize>(
    left: &[Line<T>],
    first: usize,
    right: &[Line<T>],
    tile: &mut Tile<T>,
) {
    each::<T, ROWS, COLUMNS>(left, first, right, tile, |by| by);
}

/// See [`Kernel::subtract_f64`](super::Kernel::subtract_f64).
#[inline(always)]
pub(super) fn subtract<const ROWS: usize, const COLUMNS: usize>(
    left: &[Line<f64>],
    first: usize,
    right: &[Line<f64>],
    tile: &mut Tile<f64>,
) {
    each::<f64, ROWS, COLUMNS>(left, first, right, tile, |by| -by);
}

#[inline(always)]
fn each<T: Number, const ROWS: usize, const COLUMNS: usize>(
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
