//! F by its greatest eigenvalues and their vectors, from `C = F S` alone, where S adds neighbours: Nyström's
//! approximation, stabilised by a shift (Tropp, Yurtsever, Udell and Cevher 2017, algorithm 3), as the preconditioner
//! of Frangella, Tropp and Udell 2021 uses it. In place of the random test matrix stands the nesting of sketches,
//! which is one itself: a sketch spreads every parameter evenly over the neighbours.

use rayon::prelude::*;

use super::FactorError;
use super::cholesky::{Lower, squares};
use super::eigen::Eigen;
use super::estimate::Groups;
use super::kernel::{CACHED, EMPTY, Kernel, Line, Square, WIDTH, transpose};

/// Squares between two questions whether to stop.
const PATIENCE: usize = 64;

/// The first shift, relative to the trace of what S sees of F: the rounding of the factorisation in `f64`.
const FIRST_SHIFT: f64 = 1.0 / (1u64 << 40) as f64;
/// A shift that is too small is multiplied by this.
const MORE: f64 = 4.0;
/// Without rounding, every pivot is at least the shift. Less than this share shows that rounding matters.
const SHARE: f64 = 0.9375;

/// `F + lambda I` on the span of some eigenvectors, and a multiple of the identity on the rest.
#[derive(Debug)]
pub(super) struct LowRank {
    /// The eigenvectors as columns, in strips; each has squares for all rows.
    vectors: Vec<Vec<Square>>,
    /// For each eigenvector, 1 / (eigenvalue + lambda) - 1 / rest.
    weights: Vec<f64>,
    /// λ plus the first eigenvalue left out.
    rest: f64,
}

/// `C = F S`, row by row.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) values: &'a [f64],
    /// What the values are divided by.
    pub(super) divisor: f64,
    pub(super) groups: Groups,
}

impl Product<'_> {
    fn dims(&self) -> usize {
        self.values.len() / self.groups.count
    }

    /// Row `i` of C.
    fn row(&self, i: usize) -> impl Iterator<Item = f64> {
        let row = &self.values[i * self.groups.count..(i + 1) * self.groups.count];
        row.iter().map(|value| value / self.divisor)
    }

    /// `S^T C`, made symmetric.
    fn core(&self) -> Vec<Vec<f64>> {
        let Groups { size, count } = self.groups;
        let group = |group: usize| {
            let mut sums = vec![0.0; count];
            for i in group * size..self.dims().min((group + 1) * size) {
                sums.iter_mut().zip(self.row(i)).for_each(|(sum, value)| *sum += value);
            }
            sums
        };
        let sums: Vec<Vec<f64>> = (0..count).into_par_iter().map(group).collect();
        let mean = |i: usize| (0..count).map(|j| (sums[i][j] + sums[j][i]) / 2.0).collect();
        (0..count).map(mean).collect()
    }

    /// How many dims each group has.
    fn sizes(&self) -> impl Iterator<Item = f64> + '_ {
        let Groups { size, count } = self.groups;
        (0..count).map(move |group| (self.dims().min((group + 1) * size) - group * size) as f64)
    }
}

impl LowRank {
    /// Returns the effective dims too.
    pub(super) fn new(
        kernel: Kernel,
        product: Product<'_>,
        lambda: f64,
        rank: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Self, f64), FactorError> {
        let (shift, lower) = shifted(kernel, product, lambda, stop)?;
        let basis = basis(kernel, product, shift, &lower, stop)?;
        let count = product.groups.count;
        let eigen = Eigen::new(kernel, gram(kernel, &basis, count, stop)?, stop)?;
        let of_f: Vec<f64> = eigen.values.iter().map(|value| (value - shift).max(0.0)).collect();
        let kept = of_f.iter().take(rank).take_while(|value| **value > 0.0).count();
        let rest = lambda + of_f.get(kept).copied().unwrap_or(0.0);
        let weights = of_f[..kept].iter().map(|value| 1.0 / (value + lambda) - 1.0 / rest).collect();
        let roots: Vec<f64> = eigen.values[..kept].iter().map(|value| value.sqrt()).collect();
        let vectors = rotated(kernel, &basis, &eigen.vectors[..kept], &roots, stop)?;
        let effective_dims = of_f.iter().map(|value| value / (value + lambda)).sum();
        Ok((Self { vectors, weights, rest }, effective_dims))
    }

    /// Replaces the first `columns` columns of `y` by `(F + lambda I)^-1 y`.
    pub(super) fn solve(&self, kernel: Kernel, y: &mut [Square], columns: usize) {
        let mut parts = self.parts(kernel, y, columns);
        for (line, weight) in parts.as_flattened_mut().iter_mut().zip(&self.weights) {
            line.iter_mut().for_each(|part| *part *= weight);
        }
        let mut turned = vec![EMPTY; self.vectors.len()];
        let mut sums = EMPTY;
        for (place, y) in y.iter_mut().enumerate() {
            for (turned, vectors) in turned.iter_mut().zip(&self.vectors) {
                transpose(&vectors[place], WIDTH, turned);
            }
            for (column, sums) in sums.iter_mut().enumerate().take(columns) {
                sums.iter_mut().zip(&*y).for_each(|(sum, line)| *sum = line[column] / self.rest);
            }
            kernel.add(&parts, columns, &turned, &mut sums);
            for (column, sums) in sums.iter().enumerate().take(columns) {
                y.iter_mut().zip(sums).for_each(|(line, sum)| line[column] = *sum);
            }
        }
    }

    /// `y^T (F + lambda I)^-1 y` of the first `columns` columns, whose squares have these sums.
    pub(super) fn forms(
        &self,
        kernel: Kernel,
        y: &[Square],
        columns: usize,
        squares: &Line<f64>,
    ) -> Line<f64> {
        let mut forms = squares.map(|sum| sum / self.rest);
        for (line, weight) in self.parts(kernel, y, columns).as_flattened().iter().zip(&self.weights) {
            forms.iter_mut().zip(line).for_each(|(form, part)| *form += part * part * weight);
        }
        forms
    }

    /// `[eigenvector][column]`: what each column of `y` has of each eigenvector.
    fn parts(&self, kernel: Kernel, y: &[Square], columns: usize) -> Vec<Square> {
        let mut sums = vec![EMPTY; self.vectors.len()];
        for from in (0..y.len()).step_by(CACHED) {
            let run = from..y.len().min(from + CACHED);
            for (sums, vectors) in sums.iter_mut().zip(&self.vectors) {
                kernel.add(&y[run.clone()], columns, &vectors[run.clone()], sums);
            }
        }
        let mut parts = vec![EMPTY; self.vectors.len()];
        sums.iter().zip(&mut parts).for_each(|(sums, parts)| transpose(sums, WIDTH, parts));
        parts
    }
}

/// The shift ν, and the Cholesky factor of `S^T C + shift S^T S`: the first shift with which rounding shows in no
/// pivot.
fn shifted(
    kernel: Kernel,
    product: Product<'_>,
    lambda: f64,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(f64, Lower), FactorError> {
    let core = product.core();
    let sizes: Vec<f64> = product.sizes().collect();
    let trace: f64 = core.iter().zip(&sizes).enumerate().map(|(i, (row, size))| row[i] / size).sum();
    let mut shift = trace * FIRST_SHIFT;
    while shift > 0.0 && shift <= lambda {
        let mut least = vec![[0.0; WIDTH]; squares(core.len())];
        for (least, size) in least.as_flattened_mut().iter_mut().zip(&sizes) {
            *least = SHARE * shift * size;
        }
        let lower = Lower::new(core.len(), |i, row| {
            row.copy_from_slice(&core[i][..=i]);
            row[i] += shift * sizes[i];
        });
        match lower.factor(kernel, &least, stop) {
            Err(FactorError::NotPositive) => shift *= MORE,
            lower => return Ok((shift, lower?)),
        }
    }
    Err(FactorError::NotPositive)
}

/// `B = (C + shift S) L^-T` in strips, so that `B B^T` approximates `F + shift I`.
fn basis(
    kernel: Kernel,
    product: Product<'_>,
    shift: f64,
    lower: &Lower,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Vec<Square>>, FactorError> {
    let Groups { size, count } = product.groups;
    let mut strips = empty_strips(squares(count), squares(product.dims()));
    by_rows(&mut strips, |place, squares_of| {
        if stop() {
            return Err(FactorError::Cancelled);
        }
        let mut y = vec![EMPTY; squares(count)];
        for (column, i) in (place * WIDTH..product.dims().min((place + 1) * WIDTH)).enumerate() {
            let lines = y.as_flattened_mut();
            lines.iter_mut().zip(product.row(i)).for_each(|(line, value)| line[column] = value);
            lines[i / size][column] += shift;
        }
        lower.solve(kernel, &mut y, WIDTH);
        squares_of.iter_mut().zip(&y).for_each(|(square, y)| transpose(y, WIDTH, square));
        Ok(())
    })?;
    Ok(strips)
}

/// `B^T B`.
fn gram(
    kernel: Kernel,
    basis: &[Vec<Square>],
    count: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Vec<f64>>, FactorError> {
    let pairs: Vec<(usize, usize)> = (0..basis.len()).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
    let square = |&(i, j): &(usize, usize)| {
        let mut sums: Square = EMPTY;
        for (left, right) in basis[i].chunks(PATIENCE).zip(basis[j].chunks(PATIENCE)) {
            if stop() {
                return Err(FactorError::Cancelled);
            }
            kernel.add(left, WIDTH, right, &mut sums);
        }
        Ok(sums)
    };
    let sums: Vec<Square> = pairs.par_iter().map(square).collect::<Result<_, _>>()?;
    let mut rows = vec![vec![0.0; count]; count];
    for ((i, j), sums) in pairs.into_iter().zip(&sums) {
        for (row, line) in (i * WIDTH..count).zip(sums) {
            for (column, &value) in (j * WIDTH..=row).zip(line) {
                rows[row][column] = value;
                rows[column][row] = value;
            }
        }
    }
    Ok(rows)
}

/// `B V` in strips, each column divided by its root: the eigenvectors of `B B^T`.
fn rotated(
    kernel: Kernel,
    basis: &[Vec<Square>],
    vectors: &[Vec<f64>],
    roots: &[f64],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Vec<Square>>, FactorError> {
    let rights: Vec<Vec<Square>> = vectors
        .chunks(WIDTH)
        .map(|vectors| {
            let mut right = vec![EMPTY; basis.len()];
            for (column, vector) in vectors.iter().enumerate() {
                let lines = right.as_flattened_mut().iter_mut();
                lines.zip(vector).for_each(|(line, &value)| line[column] = value);
            }
            right
        })
        .collect();
    let rows = basis.first().map_or(0, Vec::len);
    let mut strips = empty_strips(rights.len(), rows);
    by_rows(&mut strips, |place, squares_of| {
        if stop() {
            return Err(FactorError::Cancelled);
        }
        let mut left = vec![EMPTY; basis.len()];
        basis.iter().zip(&mut left).for_each(|(strip, left)| transpose(&strip[place], WIDTH, left));
        for ((square, right), roots) in squares_of.iter_mut().zip(&rights).zip(roots.chunks(WIDTH)) {
            kernel.add(&left, WIDTH, right, square);
            for line in square.iter_mut() {
                line.iter_mut().zip(roots).for_each(|(value, root)| *value /= root);
            }
        }
        Ok(())
    })?;
    Ok(strips)
}

/// Strips of zeros, which all threads write.
fn empty_strips(strips: usize, squares: usize) -> Vec<Vec<Square>> {
    (0..strips).into_par_iter().map(|_| vec![EMPTY; squares]).collect()
}

/// Calls `each` for every row of squares, with the square of each strip, on all threads.
fn by_rows(
    strips: &mut [Vec<Square>],
    each: impl Fn(usize, &mut [&mut Square]) -> Result<(), FactorError> + Sync,
) -> Result<(), FactorError> {
    let rows = strips.first().map_or(0, Vec::len);
    let mut squares_of: Vec<Vec<&mut Square>> = (0..rows).map(|_| Vec::with_capacity(strips.len())).collect();
    for strip in strips {
        squares_of.iter_mut().zip(strip).for_each(|(row, square)| row.push(square));
    }
    squares_of.par_iter_mut().enumerate().try_for_each(|(place, squares_of)| each(place, squares_of))
}
