//! Chooses the kernel of the fold. All kernels give the same bits.

use std::fmt;

use super::product::{self, Product};
use super::scalar;
use super::tiling::{TILE, Tile, Tiling};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2, avx512};
use crate::codec::{lanes, listed};

/// An implementation of the fold for one instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FoldKernel {
    /// One element at a time, on every machine. The other kernels are tested for equality with it.
    Scalar,
    /// x86-64 with AVX2: two vectors per tile of sixteen elements.
    Avx2,
    /// x86-64 with AVX-512F: one vector per tile of sixteen elements.
    Avx512,
}

listed!(FoldKernel { Scalar, Avx2, Avx512 });

impl FoldKernel {
    /// The kernels that this machine supports, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kernel| kernel.is_available())
    }

    /// Whether this machine supports the kernel.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The fastest kernel that this machine supports.
    #[must_use]
    pub fn fastest() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// The sum of squares in sixteen lanes.
    pub(super) fn sum_of_squares(self, gradient: &[f32]) -> f64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx2 => unsafe { avx2::sum_of_squares(gradient) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx512 => unsafe { avx512::sum_of_squares(gradient) },
            // Never available there.
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => lanes::sum_of_squares(gradient),
            Self::Scalar => lanes::sum_of_squares(gradient),
        }
    }

    /// Adds a whole tensor, times `scale`, to a block's sums. Returns the bits of the largest magnitude of an
    /// element; if an element is not finite, they are at least those of infinity.
    #[expect(clippy::cast_possible_truncation, reason = "a tensor has at most 2^31 tiles")]
    pub(super) fn fold(self, tiling: &Tiling, gradient: &[f32], scale: f32, sums: &mut [Tile]) -> u32 {
        let (tiles, rest) = gradient.as_chunks::<TILE>();
        let most = self.fold_tiles(tiling, 0, tiles, scale, sums);
        if rest.is_empty() {
            return most;
        }
        let mut last = [0.0; TILE];
        last[..rest.len()].copy_from_slice(rest);
        most.max(scalar::fold(tiling, tiles.len() as u32, &[last], scale, sums))
    }

    /// Adds a product of matrices to `sums`.
    pub(in super::super) fn add_products(self, product: &Product<'_>, sums: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx2 => unsafe { avx2::add_products(product, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx512 => unsafe { avx512::add_products(product, sums) },
            // Never available there.
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => product::add::<4, 8>(product, sums),
            Self::Scalar => product::add::<4, 8>(product, sums),
        }
    }

    fn fold_tiles(
        self,
        tiling: &Tiling,
        first: u32,
        tiles: &[[f32; TILE]],
        scale: f32,
        sums: &mut [Tile],
    ) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx2 => unsafe { avx2::fold(tiling, first, tiles, scale, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a sketcher only takes a kernel that is available.
            Self::Avx512 => unsafe { avx512::fold(tiling, first, tiles, scale, sums) },
            // Never available there.
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => scalar::fold(tiling, first, tiles, scale, sums),
            Self::Scalar => scalar::fold(tiling, first, tiles, scale, sums),
        }
    }
}

impl fmt::Display for FoldKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}
