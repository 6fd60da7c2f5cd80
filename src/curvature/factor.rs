use rayon::prelude::*;

use super::cholesky::{Lower, squares};
use super::estimate::Groups;
use super::kernel::{EMPTY, HEIGHT, Kernel, Square, WIDTH};
use super::low_rank::{LowRank, Product};
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
    LowRank(LowRank),
}

/// The rank of a Nyström approximation for which none is given.
const DEFAULT_RANK: u32 = 256;

/// The fewest groups into which neighbours are added when a rank is asked for, and how many there are for each
/// eigenvector.
const GROUPS: (usize, usize) = (512, 2);

impl Factor {
    /// Factors `F + lambda I`, where F is the sums by the number of rows and `lambda` is κ times the rows' mean
    /// squared norm by the number of rows. `stop` is asked now and then.
    ///
    /// `rank` is how many eigenvectors are kept, for the sums of a Nyström approximation 256 if none is given; the
    /// rest of the space is divided by λ plus the first eigenvalue left out. Without one, full sums keep all.
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
        let low_rank = |values: &[f64], groups, rank| {
            let product = Product { values, divisor: sums.power, groups };
            let (low_rank, effective_dims) = LowRank::new(kernel, product, relative, rank, stop)?;
            Ok((Inverse::LowRank(low_rank), effective_dims))
        };
        let (inverse, effective_dims) = match sums.estimate {
            Estimate::Nystrom { width } => {
                let rank = rank.unwrap_or(DEFAULT_RANK) as usize;
                low_rank(&sums.values, Groups::new(dims, width.max(1) as usize), rank)?
            }
            Estimate::Full if rank.is_some_and(|rank| (rank as usize) < dims) => {
                let rank = rank.map_or(dims, |rank| rank as usize);
                let groups = Groups::new(dims, rank.saturating_mul(GROUPS.1).max(GROUPS.0));
                low_rank(&nested(&sums.values, dims, groups), groups, rank)?
            }
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
                    lower.solve(self.kernel, &mut y, columns);
                    lower.solve_transposed(self.kernel, &mut y, columns);
                }
                Inverse::LowRank(low_rank) => low_rank.solve(self.kernel, &mut y, columns),
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
            if let Inverse::Cholesky(lower) = &self.inverse {
                lower.solve(self.kernel, &mut y, rows.len());
            }
            let mut forms = sums_of_squares(&y);
            if let Inverse::LowRank(low_rank) = &self.inverse {
                forms = low_rank.forms(self.kernel, &y, rows.len(), &forms);
            }
            forms[..rows.len()].iter().map(|form| form / self.mean_power).collect::<Vec<_>>()
        });
        chunks.collect::<Vec<_>>().concat()
    }
}

/// `F S` from the triangle of F: each row's sums of neighbours, in ascending order.
fn nested(values: &[f64], dims: usize, groups: Groups) -> Vec<f64> {
    let mut product = vec![0.0; dims * groups.count];
    product.par_chunks_mut(groups.count).enumerate().for_each(|(i, row)| {
        let (below, above) = (&values[triangle(i)..triangle(i + 1)], i + 1..dims);
        let of_row = below.iter().copied().chain(above.map(|j| values[triangle(j) + i]));
        for (j, value) in of_row.enumerate() {
            row[j / groups.size] += value;
        }
    });
    product
}

/// How many columns a thread takes at once.
fn at_once(columns: usize) -> usize {
    columns.div_ceil(rayon::current_num_threads()).next_multiple_of(HEIGHT).clamp(HEIGHT, WIDTH)
}

/// Vectors as columns.
fn columns_of<T: Copy + Into<f64>>(dims: usize, vectors: &[impl AsRef<[T]>]) -> Vec<Square> {
    let mut columns = vec![EMPTY; squares(dims)];
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
    let strip = |y: &mut Vec<Square>, strip: usize| {
        if stop() {
            return Err(FactorError::Cancelled);
        }
        y.clear();
        y.resize(squares(dims) - strip, EMPTY);
        y[0].iter_mut().enumerate().for_each(|(place, line)| line[place] = 1.0);
        lower.solve(kernel, y, WIDTH);
        Ok(sums_of_squares(y))
    };
    let strips = (0..squares(dims)).into_par_iter().with_max_len(1);
    let sums: Vec<_> = strips.map_init(Vec::new, strip).collect::<Result<_, _>>()?;
    Ok(sums.as_flattened()[..dims].iter().sum())
}
