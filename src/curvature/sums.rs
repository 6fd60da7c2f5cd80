use rayon::prelude::*;

use super::Estimate;
use super::estimate::Groups;
use super::kernel::{HEIGHT, Kernel, Line, Tile, WIDTH};
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
        let powers: Vec<f64> = rows.par_chunks_exact(dims).map(lanes::sum_of_squares).collect();
        match sign {
            Sign::Plus => {
                self.rows += count;
                powers.iter().for_each(|power| self.power += power);
            }
            Sign::Minus => {
                self.rows = self.rows.saturating_sub(count);
                powers.iter().for_each(|power| self.power -= power);
            }
        }
        let runs: Vec<Run<'_>> =
            rows.par_chunks(run_rows(dims) * dims).map(|rows| Run::new(rows, sign)).collect();
        match self.estimate {
            Estimate::Full => self.add_triangle(kernel, &runs),
            Estimate::Nystrom { width } => {
                self.add_nested(kernel, &runs, Groups::new(dims, width.max(1) as usize));
            }
        }
    }

    fn add_triangle(&mut self, kernel: Kernel, runs: &[Run<'_>]) {
        let dims = self.dims;
        let packed: Vec<Vec<Vec<Line<f32>>>> = (0..dims.div_ceil(WIDTH))
            .into_par_iter()
            .map(|strip| runs.iter().map(|run| run.strip(dims, strip * WIDTH)).collect())
            .collect();
        let mut parts = Vec::with_capacity(packed.len());
        let mut rest = self.values.as_mut_slice();
        for strip in 0..packed.len() {
            let (start, end) = (strip * WIDTH, dims.min((strip + 1) * WIDTH));
            let part;
            (part, rest) = rest.split_at_mut(triangle(end) - triangle(start));
            parts.push((strip, part));
        }
        // The longest first, so that threads end together.
        parts.into_par_iter().rev().with_max_len(1).for_each(|(strip, part)| {
            let start = strip * WIDTH;
            for (right_strip, right) in packed[..=strip].iter().enumerate() {
                for ((run, left), right) in runs.iter().zip(&packed[strip]).zip(right) {
                    for top in (0..WIDTH.min(dims - start)).step_by(HEIGHT) {
                        let tile = products(kernel, left, top, right);
                        let rows = start + top..dims.min(start + top + HEIGHT);
                        for (row, sums) in rows.zip(&tile) {
                            let from = triangle(row) - triangle(start);
                            let values = &mut part[from..=from + row];
                            run.add_to(&mut values[right_strip * WIDTH..], sums);
                        }
                    }
                }
            }
        });
    }

    fn add_nested(&mut self, kernel: Kernel, runs: &[Run<'_>], groups: Groups) {
        let dims = self.dims;
        let nested: Vec<Vec<f32>> = runs.par_iter().map(|run| run.nested(dims, groups)).collect();
        let packed: Vec<Vec<Vec<Line<f32>>>> = (0..groups.count.div_ceil(WIDTH))
            .into_par_iter()
            .map(|strip| nested.iter().map(|rows| pack(rows, groups.count, strip * WIDTH, 1.0)).collect())
            .collect();
        self.values.par_chunks_mut(WIDTH * groups.count).enumerate().for_each(|(strip, part)| {
            for (at, run) in runs.iter().enumerate() {
                let left = run.strip(dims, strip * WIDTH);
                for (right_strip, right) in packed.iter().enumerate() {
                    let mut rows = part.chunks_mut(groups.count);
                    for top in (0..WIDTH).step_by(HEIGHT) {
                        if rows.len() == 0 {
                            break;
                        }
                        let tile = products(kernel, &left, top, &right[at]);
                        for (values, sums) in rows.by_ref().take(HEIGHT).zip(&tile) {
                            run.add_to(&mut values[right_strip * WIDTH..], sums);
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

fn products(kernel: Kernel, left: &[Line<f32>], first: usize, right: &[Line<f32>]) -> Tile<f32> {
    let mut tile = [[0.0; WIDTH]; HEIGHT];
    kernel.add_f32(left, first, right, &mut tile);
    tile
}

/// Rows that are summed in `f32`, and the power of two that brings the largest magnitude of them to [1, 2), so that
/// products neither overflow nor vanish.
struct Run<'a> {
    rows: &'a [f32],
    scale: f32,
    /// What undoes the scale in a product, with the sign of the rows.
    factor: f64,
}

impl<'a> Run<'a> {
    fn new(rows: &'a [f32], sign: Sign) -> Self {
        const EXPONENT: u32 = 0xFF;
        let most = rows.iter().fold(0, |most, value| most.max(value.abs().to_bits()));
        // The biased exponent, which is 254 at most if the rows are finite. 1 / 2^127 would be subnormal.
        let exponent = (most >> 23).clamp(1, EXPONENT - 2);
        let scale = f32::from_bits((EXPONENT - 1 - exponent) << 23);
        let inverse = 1.0 / f64::from(scale);
        let factor = match sign {
            Sign::Plus => inverse * inverse,
            Sign::Minus => -(inverse * inverse),
        };
        Self { rows, scale, factor }
    }

    /// The columns from `first` on, as many as a strip has, scaled.
    fn strip(&self, dims: usize, first: usize) -> Vec<Line<f32>> {
        pack(self.rows, dims, first, self.scale)
    }

    /// `[row][group]`: the scaled rows' sums of neighbours, each in sixteen lanes.
    fn nested(&self, dims: usize, groups: Groups) -> Vec<f32> {
        let mut nested = Vec::with_capacity(self.rows.len() / dims * groups.count);
        for row in self.rows.chunks_exact(dims) {
            nested.extend(row.chunks(groups.size).map(|group| {
                let mut lanes = [0.0; lanes::LANES];
                for line in group.chunks(lanes::LANES) {
                    for (lane, value) in lanes.iter_mut().zip(line) {
                        *lane += value * self.scale;
                    }
                }
                lanes::halve_f32(lanes)
            }));
        }
        nested
    }

    /// Adds the run's sums to `values`, which may end before the sums do.
    fn add_to(&self, values: &mut [f64], sums: &Line<f32>) {
        for (value, sum) in values.iter_mut().zip(sums) {
            *value += f64::from(*sum) * self.factor;
        }
    }
}

/// The columns from `first` on, as many as a strip has, times `scale`, and zeros for columns that there are not.
fn pack(rows: &[f32], columns: usize, first: usize, scale: f32) -> Vec<Line<f32>> {
    let pack = |row: &[f32]| {
        let mut line = [0.0; WIDTH];
        for (packed, value) in line.iter_mut().zip(&row[first..]) {
            *packed = value * scale;
        }
        line
    };
    rows.chunks_exact(columns).map(pack).collect()
}
