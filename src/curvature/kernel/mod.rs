//! The inner loops of curvature: sums of products, tile by tile, and what is solved within a block. Each sum takes
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

/// A row of a strip.
pub(crate) type Line<T> = [T; WIDTH];
/// `[column of the left strip][column of the right strip]`.
pub(crate) type Tile<T> = [Line<T>; HEIGHT];
/// As many rows of a strip as it has columns.
pub(crate) type Square = [Line<f64>; WIDTH];

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

    /// Adds to `tile` the products of columns `first..first + HEIGHT` of `left` with those of `right`, row by row.
    /// Both have the same rows.
    pub(crate) fn add_f32(self, left: &[Line<f32>], first: usize, right: &[Line<f32>], tile: &mut Tile<f32>) {
        match self.0 {
            Instructions::Any => portable::add::<f32, 4, 8>(left, first, right, tile),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::add_f32(left, first, right, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::add_f32(left, first, right, tile) },
        }
    }

    /// [`add_f32`](Self::add_f32) in `f64`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the factorisation"))]
    pub(crate) fn add_f64(self, left: &[Line<f64>], first: usize, right: &[Line<f64>], tile: &mut Tile<f64>) {
        match self.0 {
            Instructions::Any => portable::add::<f64, 4, 8>(left, first, right, tile),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::add_f64(left, first, right, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::add_f64(left, first, right, tile) },
        }
    }

    /// [`add_f64`](Self::add_f64) with every product subtracted.
    pub(crate) fn subtract_f64(
        self,
        left: &[Line<f64>],
        first: usize,
        right: &[Line<f64>],
        tile: &mut Tile<f64>,
    ) {
        match self.0 {
            Instructions::Any => portable::subtract::<4, 8>(left, first, right, tile),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::subtract_f64(left, first, right, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::subtract_f64(left, first, right, tile) },
        }
    }

    /// Solves `L x = block` in place for each column of `block`. `lower` has the columns of L as lines, zeros above
    /// the diagonal.
    pub(crate) fn solve(self, lower: &Square, block: &mut Square) {
        match self.0 {
            Instructions::Any => portable::solve(lower, block),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::solve(lower, block) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::solve(lower, block) },
        }
    }

    /// Replaces the symmetric `block` by L, with `L L^T = block`, as [`solve`](Self::solve) takes it. Of `block`
    /// only the lower triangle is read. Returns `false` if a square of L's diagonal is not above `least`.
    pub(crate) fn factor(self, block: &mut Square, least: &Line<f64>) -> bool {
        match self.0 {
            Instructions::Any => portable::factor(block, least),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `available` has asked it.
            Instructions::Avx2 => unsafe { avx2::factor(block, least) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::factor(block, least) },
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
