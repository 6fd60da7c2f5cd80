//! The Cholesky factor L of a positive definite matrix, and what is solved with it. Every element is a sum over
//! ascending columns (in the backward substitution over descending rows), whatever the threads.

use rayon::prelude::*;

use super::FactorError;
use super::kernel::{EMPTY, HEIGHT, Kernel, Line, Square, WIDTH, transpose, turn};

/// The lower triangle of a symmetric matrix, or L. Strip `s` has the rows `s * WIDTH..(s + 1) * WIDTH`, as squares
/// `[column][row]` up to the one of the diagonal. Rows and columns beyond the matrix are those of the identity.
#[derive(Debug)]
pub(super) struct Lower(Vec<Vec<Square>>);

/// Squares that hold `rows` rows.
pub(super) fn squares(rows: usize) -> usize {
    rows.div_ceil(WIDTH)
}

impl Lower {
    /// The matrix of `dims` rows whose row `i` up to the diagonal `row` writes.
    pub(super) fn new(dims: usize, row: impl Fn(usize, &mut [f64]) + Sync) -> Self {
        let strip = |strip| {
            let columns = (strip + 1) * WIDTH;
            let mut values = vec![0.0; WIDTH * columns];
            for (i, values) in (strip * WIDTH..).zip(values.chunks_mut(columns)) {
                if i < dims {
                    row(i, &mut values[..=i]);
                } else {
                    values[i] = 1.0;
                }
            }
            let square = |place: usize| {
                let (mut of_rows, mut of_columns) = (EMPTY, EMPTY);
                for (line, values) in of_rows.iter_mut().zip(values.chunks(columns)) {
                    line.copy_from_slice(&values[place * WIDTH..(place + 1) * WIDTH]);
                }
                transpose(&of_rows, WIDTH, &mut of_columns);
                of_columns
            };
            (0..=strip).map(square).collect()
        };
        Self((0..squares(dims)).into_par_iter().map(strip).collect())
    }

    /// Replaces the matrix by its factor. The squares of the factor's diagonal must be above `least`, which has a
    /// line for each strip.
    pub(super) fn factor(
        mut self,
        kernel: Kernel,
        least: &[Line<f64>],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, FactorError> {
        for (column, least) in least.iter().enumerate() {
            if stop() {
                return Err(FactorError::Cancelled);
            }
            let [strip, below @ ..] = &mut self.0[column..] else { break };
            let (known, own) = strip.split_at_mut(column);
            subtract(kernel, known, WIDTH, known, &mut own[0]);
            if !kernel.factor(&mut own[0], least) {
                return Err(FactorError::NotPositive);
            }
            let (known, own) = (&*known, &own[0]);
            below.par_iter_mut().for_each(|strip| {
                let (left, block) = strip.split_at_mut(column);
                subtract(kernel, left, WIDTH, known, &mut block[0]);
                kernel.solve(own, &mut block[0]);
            });
        }
        Ok(self)
    }

    /// Solves `L x = y` in place for the first `columns` columns of `y`. Squares of `y` that are not there are zeros,
    /// before those that are.
    pub(super) fn solve(&self, kernel: Kernel, y: &mut [Square], columns: usize) {
        let from = self.0.len() - y.len();
        for (place, strip) in self.0[from..].iter().enumerate() {
            solve_square(kernel, &strip[from..], &mut y[..=place], columns);
        }
    }

    /// Solves `L^T x = y` in place for the first `columns` columns of `y`.
    pub(super) fn solve_transposed(&self, kernel: Kernel, y: &mut [Square], columns: usize) {
        // Read backwards, L^T is a lower triangle.
        let mut turned = vec![EMPTY; self.0.len()];
        y.as_flattened_mut().reverse();
        for place in 0..self.0.len() {
            let column = self.0.len() - 1 - place;
            for (strip, turned) in self.0[column..].iter().rev().zip(&mut turned) {
                turn(&strip[column], turned);
            }
            solve_square(kernel, &turned[..=place], &mut y[..=place], columns);
        }
        y.as_flattened_mut().reverse();
    }
}

/// Solves the last square of `y`, those before being solved already, with a strip of a lower triangle.
fn solve_square(kernel: Kernel, strip: &[Square], y: &mut [Square], columns: usize) {
    if let ([before @ .., diagonal], [known @ .., block]) = (strip, y) {
        subtract(kernel, known, columns, before, block);
        kernel.solve(diagonal, block);
    }
}

/// Subtracts the products of `left` and `right` from `[column of the right][column of the left]`, of the left the
/// first `columns` (and what completes a tile).
fn subtract(kernel: Kernel, left: &[Square], columns: usize, right: &[Square], from: &mut Square) {
    let columns = columns.next_multiple_of(HEIGHT);
    let mut sums = EMPTY;
    transpose(from, columns, &mut sums);
    kernel.subtract(left, columns, right, &mut sums);
    for (line, column) in from.iter_mut().zip(0..) {
        line.iter_mut().zip(&sums[..columns]).for_each(|(value, sums)| *value = sums[column]);
    }
}
