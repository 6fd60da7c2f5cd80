//! The inner loops of curvature: sums of products, tile by tile, and what is solved within a square. Each sum takes
//! its terms in order, each with one rounding (a fused multiply-add). All kernels give the same bits.
//!
//! A matrix lies in *strips* of [`WIDTH`] columns: a strip has a [`Line`] for each row. A [`Tile`] is what [`HEIGHT`]
//! columns of one strip make with all columns of another.

mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;

#[cfg(target_arch = "x86_64")]
use x86_64::{avx2, avx512};

/// Columns of a strip.
pub(crate) const WIDTH: usize = 48;
/// Columns of the left strip that belong to a tile.
pub(crate) const HEIGHT: usize = 8;

/// Squares whose products are added before the next ones are read: those of two strips fit into a core's cache.
pub(crate) const CACHED: usize = 8;

/// A row of a strip.
pub(crate) type Line<T> = [T; WIDTH];
/// `[column of the left strip][column of the right strip]`.
pub(crate) type Tile<T> = [Line<T>; HEIGHT];
/// As many rows of a strip as it has columns.
pub(crate) type Square = [Line<f64>; WIDTH];

pub(crate) static EMPTY: Square = [[0.0; WIDTH]; WIDTH];

/// What turns `row` and the one after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    pub(crate) row: usize,
    pub(crate) cosine: f64,
    pub(crate) sine: f64,
}

/// An implementation that this machine supports: only [`available`](Self::available) makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// Those that the compiler may use everywhere: on aarch64 they include the fused multiply-add.
    Any,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Calls a function in the form that the kernel has.
macro_rules! call {
    ($kernel:expr, $name:ident $arguments:tt) => {
        match $kernel.0 {
            Instructions::Any => portable::$name $arguments,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::$name $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::$name $arguments },
        }
    };
}

impl Kernel {
    /// The kernels that this machine supports, the slowest first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let all = [
            (Instructions::Any, true),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, is_x86_feature_detected!("avx512f")),
        ];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(instructions, _)| Self(instructions))
    }

    /// The fastest kernel that this machine supports.
    pub(crate) fn fastest() -> Self {
        Self::available().last().unwrap_or(Self(Instructions::Any))
    }

    /// The bits of the largest magnitude; those of infinity or above if a value is not finite.
    pub(crate) fn largest(self, values: &[f32]) -> u32 {
        call!(self, largest(values))
    }

    /// The sum of squares in sixteen lanes.
    pub(crate) fn sum_of_squares(self, values: &[f32]) -> f64 {
        call!(self, sum_of_squares(values))
    }

    /// For each line of `strip` one row of `rows`, which have `columns`: those from `first` on, times `scale`, and
    /// zeros for columns that there are not.
    pub(crate) fn pack(
        self,
        rows: &[f32],
        columns: usize,
        first: usize,
        scale: f32,
        strip: &mut [Line<f32>],
    ) {
        call!(self, pack(rows, columns, first, scale, strip));
    }

    /// Adds to `tile` the products of columns `first..first + HEIGHT` of `left` with those of `right`, row by row.
    /// Both have the same rows.
    pub(crate) fn add_f32(self, left: &[Line<f32>], first: usize, right: &[Line<f32>], tile: &mut Tile<f32>) {
        call!(self, add_f32(left, first, right, tile));
    }

    /// Adds `factor` times the sums to `values`, which may end before the sums do.
    pub(crate) fn add_line(self, sums: &Line<f32>, factor: f64, values: &mut [f64]) {
        call!(self, add_line(sums, factor, values));
    }

    /// Adds to `sums`, `[column of the left][column of the right]`, the products of the two strips, row by row; of
    /// the left the first `columns`, and what completes a tile.
    pub(crate) fn add(self, left: &[Square], columns: usize, right: &[Square], sums: &mut Square) {
        for (left, right) in left.chunks(CACHED).zip(right.chunks(CACHED)) {
            for (first, tile) in (0..columns).step_by(HEIGHT).zip(sums.as_chunks_mut().0) {
                call!(self, add_f64(left.as_flattened(), first, right.as_flattened(), tile));
            }
        }
    }

    /// [`add`](Self::add) with every product subtracted.
    pub(crate) fn subtract(self, left: &[Square], columns: usize, right: &[Square], sums: &mut Square) {
        for (left, right) in left.chunks(CACHED).zip(right.chunks(CACHED)) {
            for (first, tile) in (0..columns).step_by(HEIGHT).zip(sums.as_chunks_mut().0) {
                call!(self, subtract_f64(left.as_flattened(), first, right.as_flattened(), tile));
            }
        }
    }

    /// Solves `L x = block` in place for each column of `block`. `lower` has the columns of L as lines, zeros above
    /// the diagonal.
    pub(crate) fn solve(self, lower: &Square, block: &mut Square) {
        call!(self, solve(lower, block));
    }

    /// Replaces the symmetric `block` by L, with `L L^T = block`, as [`solve`](Self::solve) takes it. Of `block`
    /// only the lower triangle is read. Returns `false` if a square of L's diagonal is not above `least`.
    pub(crate) fn factor(self, block: &mut Square, least: &Line<f64>) -> bool {
        call!(self, factor(block, least))
    }

    /// Adds `by` times `values` to `sums`, element by element.
    pub(crate) fn add_scaled(self, by: f64, values: &[f64], sums: &mut [f64]) {
        call!(self, add_scaled(by, values, sums));
    }

    /// Turns pairs of rows, one pair after the other.
    pub(crate) fn rotate(self, rotations: &[Rotation], rows: &mut [Line<f64>]) {
        call!(self, rotate(rotations, rows));
    }
}

/// Has values of one line brought into the cache in advance, on machines where that is known to help.
pub(crate) fn prefetch(values: &[f64]) {
    #[cfg(target_arch = "x86_64")]
    x86_64::prefetch(values);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Writes the first `columns` columns of a square as the rows of another.
pub(crate) fn transpose(square: &Square, columns: usize, rows: &mut Square) {
    // In parts that stay in the first cache.
    for from in (0..WIDTH).step_by(HEIGHT) {
        for (column, row) in rows.iter_mut().enumerate().take(columns) {
            for (value, line) in row[from..from + HEIGHT].iter_mut().zip(&square[from..]) {
                *value = line[column];
            }
        }
    }
}

/// Writes a square with rows and columns exchanged, and both read backwards.
pub(crate) fn turn(square: &Square, turned: &mut Square) {
    for from in (0..WIDTH).step_by(HEIGHT) {
        for (column, row) in turned.iter_mut().rev().enumerate() {
            let row = row.iter_mut().rev().skip(from).take(HEIGHT);
            row.zip(&square[from..]).for_each(|(value, line)| *value = line[column]);
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Instructions::Any => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX-512",
        })
    }
}
