use rayon::prelude::*;

use super::Estimate;
use super::estimate::Groups;
use super::kernel::{HEIGHT, Kernel, Line, WIDTH, prefetch};
use crate::codec::lanes;

/// Rows whose products are summed in `f32` before the sum is added to the `f64` one.
const RUN: usize = 256;

/// Numbers of a panel at most, unless one row has more: 64 MiB.
const PANEL: usize = 1 << 24;

/// How many rows [`BlockSums::add`] takes at once, at most: 1,024, fewer if they are wide, and always whole runs.
pub(crate) fn panel_rows(dims: usize) -> usize {
    let rows = (PANEL / dims.max(1)).clamp(1, 4 * RUN);
    if rows < RUN { rows } else { rows - rows % RUN }
}

/// The rows of a run in a block of `dims`.
fn run_rows(dims: usize) -> usize {
    panel_rows(dims).min(RUN)
}

/// Whether rows are added to the sums or taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

/// The sums of one block's rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockSums {
    pub(crate) dims: usize,
    pub(crate) estimate: Estimate,
    pub(crate) rows: u64,
    /// The sum of the rows' squared norms.
    pub(crate) power: f64,
    /// [`Estimate::Full`]: the lower triangle of the sum of `f f^T`, row by row: (0,0), (1,0), (1,1), (2,0), ...
    /// [`Estimate::Nystrom`]: the sum of `f s(f)^T`, row by row.
    pub(crate) values: Vec<f64>,
}

impl BlockSums {
    /// Sums of no rows. The estimate is one of which [`values_of`](Self::values_of) knows the values.
    pub(crate) fn new(dims: usize, estimate: Estimate) -> Self {
        let values = match estimate {
            Estimate::Full => triangle(dims),
            Estimate::Nystrom { width } => dims * Groups::new(dims, width.max(1) as usize).count,
        };
        Self { dims, estimate, rows: 0, power: 0.0, values: vec![0.0; values] }
    }

    /// How many values there are. `None` if memory could not address them, or the width is 0.
    pub(crate) fn values_of(dims: usize, estimate: Estimate) -> Option<u64> {
        let dims = dims as u64;
        let values = match estimate {
            Estimate::Full => dims.checked_mul(dims.checked_add(1)?)? / 2,
            Estimate::Nystrom { width: 0 } => return None,
            Estimate::Nystrom { width } => {
                let size = dims.div_ceil(u64::from(width)).max(1);
                dims.checked_mul(dims.div_ceil(size))?
            }
        };
        let bytes = values.checked_mul(size_of::<f64>() as u64)?;
        isize::try_from(bytes).is_ok().then_some(values)
    }

    /// Adds or subtracts up to [`panel_rows`] rows, `[row][dims]`. Rows are finite; of others the sums become
    /// infinite or NaN, which [`Factor::new`](super::Factor::new) refuses.
    ///
    /// What is subtracted leaves the rounding of what was added: up to 2^-17 of the subtracted rows' sums, typically
    /// 2^-22.
    pub(crate) fn add(&mut self, rows: &[f32], sign: Sign) {
        self.add_on(Kernel::fastest(), rows, sign);
    }

    /// Whether no sum has overflowed.
    pub(crate) fn is_finite(&self) -> bool {
        self.power.is_finite() && self.values.par_iter().all(|value| value.is_finite())
    }

    /// Adds the sums of other rows of the same block.
    ///
    /// # Panics
    /// If the other has other dims or another estimate.
    pub(crate) fn merge(&mut self, other: &Self) {
        assert_eq!((self.dims, self.estimate), (other.dims, other.estimate), "sums of different kinds");
        self.rows += other.rows;
        self.power += other.power;
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value += other;
        }
    }

    pub(super) fn add_on(&mut self, kernel: Kernel, rows: &[f32], sign: Sign) {
        if rows.is_empty() {
            return;
        }
        let dims = self.dims;
        let count = (rows.len() / dims) as u64;
        let of_rows: Vec<(f64, u32)> = rows
            .par_chunks_exact(dims)
            .map(|row| (kernel.sum_of_squares(row), kernel.largest(row)))
            .collect();
        match sign {
            Sign::Plus => {
                self.rows += count;
                of_rows.iter().for_each(|(power, _)| self.power += power);
            }
            Sign::Minus => {
                self.rows = self.rows.saturating_sub(count);
                of_rows.iter().for_each(|(power, _)| self.power -= power);
            }
        }
        let run = run_rows(dims);
        let runs: Vec<Run<'_>> = rows
            .chunks(run * dims)
            .zip(of_rows.chunks(run))
            .map(|(rows, of_rows)| {
                Run::new(rows, dims, of_rows.iter().fold(0, |most, row| most.max(row.1)), sign)
            })
            .collect();
        match self.estimate {
            Estimate::Full => self.add_triangle(kernel, &runs),
            Estimate::Nystrom { width } => {
                self.add_nested(kernel, &runs, Groups::new(dims, width.max(1) as usize));
            }
        }
    }

    fn add_triangle(&mut self, kernel: Kernel, runs: &[Run<'_>]) {
        let dims = self.dims;
        let rows: usize = runs.iter().map(Run::rows).sum();
        let mut packed = vec![[0.0; WIDTH]; rows * dims.div_ceil(WIDTH)];
        packed.par_chunks_mut(rows).enumerate().for_each(|(place, strip)| {
            for (run, strip) in runs.iter().zip(strip.chunks_mut(RUN)) {
                run.pack(kernel, place * WIDTH, strip);
            }
        });
        let mut parts = Vec::new();
        let mut rest = self.values.as_mut_slice();
        for start in (0..dims).step_by(WIDTH) {
            let part;
            (part, rest) = rest.split_at_mut(triangle(dims.min(start + WIDTH)) - triangle(start));
            parts.push((start, part));
        }
        // The longest first, so that threads end together.
        parts.into_par_iter().rev().with_max_len(1).for_each(|(start, part)| {
            let mut tile = [[0.0; WIDTH]; HEIGHT];
            let left = &packed[start / WIDTH * rows..][..rows];
            for (place, right) in packed.chunks(rows).take(start / WIDTH + 1).enumerate() {
                for ((run, left), right) in runs.iter().zip(left.chunks(RUN)).zip(right.chunks(RUN)) {
                    for top in (start..dims.min(start + WIDTH)).step_by(HEIGHT) {
                        for row in top..dims.min(top + HEIGHT) {
                            let from = triangle(row) - triangle(start);
                            prefetch(&part[from + place * WIDTH..=from + row]);
                        }
                        tile.as_flattened_mut().fill(0.0);
                        kernel.add_f32(left, top - start, right, &mut tile);
                        for (row, sums) in (top..dims).zip(&tile) {
                            let from = triangle(row) - triangle(start);
                            let values = &mut part[from..=from + row];
                            kernel.add_line(sums, run.factor, &mut values[place * WIDTH..]);
                        }
                    }
                }
            }
        });
    }

    fn add_nested(&mut self, kernel: Kernel, runs: &[Run<'_>], groups: Groups) {
        let nested: Vec<Vec<f32>> = runs.par_iter().map(|run| run.nested(groups)).collect();
        let strips = groups.count.div_ceil(WIDTH);
        let packed: Vec<Vec<Line<f32>>> = runs
            .par_iter()
            .zip(&nested)
            .map(|(run, nested)| {
                let mut packed = vec![[0.0; WIDTH]; run.rows() * strips];
                for (place, strip) in packed.chunks_mut(run.rows()).enumerate() {
                    kernel.pack(nested, groups.count, place * WIDTH, 1.0, strip);
                }
                packed
            })
            .collect();
        self.values.par_chunks_mut(WIDTH * groups.count).enumerate().for_each(|(strip, part)| {
            let start = strip * WIDTH;
            let mut tile = [[0.0; WIDTH]; HEIGHT];
            let mut left = [[0.0; WIDTH]; RUN];
            for (run, packed) in runs.iter().zip(&packed) {
                let left = &mut left[..run.rows()];
                run.pack(kernel, start, left);
                for (place, right) in packed.chunks(run.rows()).enumerate() {
                    for (top, rows) in part.chunks_mut(HEIGHT * groups.count).enumerate() {
                        for values in rows.chunks(groups.count) {
                            prefetch(&values[place * WIDTH..]);
                        }
                        tile.as_flattened_mut().fill(0.0);
                        kernel.add_f32(left, top * HEIGHT, right, &mut tile);
                        for (values, sums) in rows.chunks_mut(groups.count).zip(&tile) {
                            kernel.add_line(sums, run.factor, &mut values[place * WIDTH..]);
                        }
                    }
                }
            }
        });
    }
}

/// The numbers of a lower triangle of `rows` rows.
pub(super) fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// Rows that are summed in `f32`, and the power of two that brings the largest magnitude of them to [1, 2), so that
/// products neither overflow nor vanish.
struct Run<'a> {
    values: &'a [f32],
    dims: usize,
    scale: f32,
    /// What undoes the scale in a product, with the sign of the rows.
    factor: f64,
}

impl<'a> Run<'a> {
    /// `most` is the bits of the largest magnitude.
    fn new(values: &'a [f32], dims: usize, most: u32, sign: Sign) -> Self {
        // The biased exponent, which is 254 at most if the rows are finite. 2^-127 would be subnormal.
        let exponent = (most >> 23).clamp(1, 253);
        let scale = f32::from_bits((254 - exponent) << 23);
        let inverse = 1.0 / f64::from(scale);
        let factor = match sign {
            Sign::Plus => inverse * inverse,
            Sign::Minus => -(inverse * inverse),
        };
        Self { values, dims, scale, factor }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.dims
    }

    /// The columns from `first` on, as many as a strip has, scaled.
    fn pack(&self, kernel: Kernel, first: usize, strip: &mut [Line<f32>]) {
        kernel.pack(self.values, self.dims, first, self.scale, strip);
    }

    /// `[row][group]`: the scaled rows' sums of neighbours, each in sixteen lanes.
    fn nested(&self, groups: Groups) -> Vec<f32> {
        let mut nested = Vec::with_capacity(self.rows() * groups.count);
        for row in self.values.chunks_exact(self.dims) {
            nested.extend(row.chunks(groups.size).map(|group| {
                let mut sums = [0.0; lanes::LANES];
                for line in group.chunks(lanes::LANES) {
                    for (sum, value) in sums.iter_mut().zip(line) {
                        *sum += value * self.scale;
                    }
                }
                lanes::halve_f32(sums)
            }));
        }
        nested
    }
}
