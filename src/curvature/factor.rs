use rayon::prelude::*;

use super::cholesky::{Lower, squares};
use super::kernel::{HEIGHT, Kernel, Square, WIDTH};
use super::sums::triangle;
use super::{BlockSums, Estimate, FactorError};

/// `(F + lambda I)^-1` of a block.
#[derive(Debug)]
pub(crate) struct Factor {
    kernel: Kernel,
    dims: usize,
    lambda: f64,
    effective_dims: f64,
    /// What is factored is divided by the mean squared norm, so that its trace is 1.
    mean_power: f64,
    inverse: Inverse,
}

#[derive(Debug)]
enum Inverse {
    /// All rows are zero: there is nothing to divide by.
    Identity,
    Cholesky(Lower),
}

impl Factor {
    /// Factors `F + lambda I`, where F is the sums by the number of rows and `lambda` is κ times the rows' mean
    /// squared norm by the number of rows. `stop` is asked now and then.
    ///
    /// If all rows are zero, λ and the effective dims are 0 and queries stay as they are.
    ///
    /// # Errors
    /// See [`FactorError`].
    pub(crate) fn new(
        sums: &BlockSums,
        kappa: f64,
        rank: Option<u32>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, FactorError> {
        Self::on(Kernel::fastest(), sums, kappa, rank, stop)
    }

    pub(super) fn on(
        kernel: Kernel,
        sums: &BlockSums,
        kappa: f64,
        rank: Option<u32>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, FactorError> {
        if !(kappa.is_finite() && kappa > 0.0) {
            return Err(FactorError::InvalidKappa { kappa });
        }
        if rank == Some(0) {
            return Err(FactorError::RankZero);
        }
        if sums.rows == 0 {
            return Err(FactorError::NoRows);
        }
        if !sums.is_finite() {
            return Err(FactorError::NotFinite);
        }
        if sums.power < 0.0 {
            return Err(FactorError::NotPositive);
        }
        let dims = sums.dims;
        let rows = sums.rows as f64;
        let mean_power = sums.power / rows;
        let relative = kappa / rows;
        let lambda = relative * mean_power;
        if sums.power == 0.0 {
            let inverse = Inverse::Identity;
            return Ok(Self { kernel, dims, lambda, effective_dims: 0.0, mean_power: 1.0, inverse });
        }
        let (inverse, effective_dims) = match sums.estimate {
            Estimate::Full => {
                let lower = Lower::new(dims, |i, row| {
                    let values = &sums.values[triangle(i)..];
                    row.iter_mut().zip(values).for_each(|(to, value)| *to = value / sums.power);
                    row[i] += relative;
                });
                let lower = lower.factor(kernel, &vec![[0.0; WIDTH]; squares(dims)], stop)?;
                let inverse_trace = inverse_trace(kernel, &lower, dims, stop)?;
                (Inverse::Cholesky(lower), dims as f64 - relative * inverse_trace)
            }
            Estimate::Nystrom { .. } => return Err(FactorError::RankZero),
        };
        Ok(Self { kernel, dims, lambda, effective_dims, mean_power, inverse })
    }

    /// λ.
    pub(crate) fn lambda(&self) -> f64 {
        self.lambda
    }

    /// The trace of `F (F + lambda I)^-1`: how many dims the rows determine rather than λ.
    pub(crate) fn effective_dims(&self) -> f64 {
        self.effective_dims
    }

    /// Replaces each query q, of the block's dims, by `(F + lambda I)^-1 q`.
    pub(crate) fn precondition(&self, queries: &mut [Vec<f64>]) {
        queries.par_chunks_mut(at_once(queries.len())).for_each(|queries| {
            let columns = queries.len();
            let mut y = columns_of(self.dims, queries);
            match &self.inverse {
                Inverse::Identity => {}
                Inverse::Cholesky(lower) => {
                    lower.solve(self.kernel, &mut y, columns, 0);
                    lower.solve_transposed(self.kernel, &mut y, columns);
                }
            }
            for (column, query) in queries.iter_mut().enumerate() {
                for (value, line) in query.iter_mut().zip(y.as_flattened()) {
                    *value = line[column] / self.mean_power;
                }
            }
        });
    }

    /// `g^T (F + lambda I)^-1 g` of each row g, `[row][dims]`.
    pub(crate) fn self_influence(&self, rows: &[f32]) -> Vec<f64> {
        let at_once = at_once(rows.len() / self.dims.max(1));
        let chunks = rows.par_chunks(at_once * self.dims.max(1)).map(|rows| {
            let rows: Vec<&[f32]> = rows.chunks_exact(self.dims).collect();
            let mut y = columns_of(self.dims, &rows);
            match &self.inverse {
                Inverse::Identity => {}
                Inverse::Cholesky(lower) => lower.solve(self.kernel, &mut y, rows.len(), 0),
            }
            let squares = sums_of_squares(&y);
            rows.iter().zip(squares).map(|(_, sum)| sum / self.mean_power).collect::<Vec<_>>()
        });
        chunks.collect::<Vec<_>>().concat()
    }
}

/// How many columns a thread takes at once.
fn at_once(columns: usize) -> usize {
    columns.div_ceil(rayon::current_num_threads()).next_multiple_of(HEIGHT).clamp(HEIGHT, WIDTH)
}

/// Vectors as columns.
fn columns_of<T: Copy + Into<f64>>(dims: usize, vectors: &[impl AsRef<[T]>]) -> Vec<Square> {
    let mut columns = vec![[[0.0; WIDTH]; WIDTH]; squares(dims)];
    for (column, vector) in vectors.iter().enumerate() {
        for (line, value) in columns.as_flattened_mut().iter_mut().zip(vector.as_ref()) {
            line[column] = (*value).into();
        }
    }
    columns
}

/// The sum of squares of each column, by ascending row.
fn sums_of_squares(columns: &[Square]) -> [f64; WIDTH] {
    let mut sums = [0.0; WIDTH];
    for line in columns.as_flattened() {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum += value * value;
        }
    }
    sums
}

/// The trace of `(L L^T)^-1`: the sum of squares of `L^-1`, column by column.
fn inverse_trace(
    kernel: Kernel,
    lower: &Lower,
    dims: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<f64, FactorError> {
    let strip = |strip: usize| {
        if stop() {
            return Err(FactorError::Cancelled);
        }
        let mut columns = vec![[[0.0; WIDTH]; WIDTH]; squares(dims)];
        columns[strip].iter_mut().enumerate().for_each(|(place, line)| line[place] = 1.0);
        lower.solve(kernel, &mut columns, WIDTH, strip);
        Ok(sums_of_squares(&columns))
    };
    let sums: Vec<_> =
        (0..squares(dims)).into_par_iter().with_max_len(1).map(strip).collect::<Result<_, _>>()?;
    Ok(sums.as_flattened()[..dims].iter().sum())
}
