/// Which sums of its rows a block keeps for curvature, and so how F, the mean of `f f^T`, is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Estimate {
    /// All of F: the sum of `f f^T`, dims (dims + 1) / 2 numbers.
    Full,
    /// The sum of `f s(f)^T`, where `s(f)` adds neighbours of `f`: about dims times `width` numbers, from which F is
    /// approximated by Nyström's method. F is exact if its rank is no more than `width`.
    Nystrom {
        /// The numbers of `s(f)`, at least 1. Neighbours are added in equal groups, of which there may be fewer.
        width: u32,
    },
}

impl Estimate {
    /// The default for a block of `dims`: [`Full`](Self::Full) up to 4,096 dims, and a width of 512 above.
    #[must_use]
    pub const fn auto(dims: usize) -> Self {
        if dims <= 4096 { Self::Full } else { Self::Nystrom { width: 512 } }
    }

    /// The width; 0 for the full sums.
    pub(crate) const fn width(self) -> u32 {
        match self {
            Self::Full => 0,
            Self::Nystrom { width } => width,
        }
    }

    pub(crate) const fn of_width(width: u32) -> Self {
        if width == 0 { Self::Full } else { Self::Nystrom { width } }
    }

    /// Whether it is possible for a block of `dims`.
    pub(crate) const fn fits(self, dims: usize) -> bool {
        match self {
            Self::Full => true,
            Self::Nystrom { width } => 0 < width && width as usize <= dims,
        }
    }
}

/// The groups of neighbours: `size` dims each, the last one perhaps fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) size: usize,
    pub(super) count: usize,
}

impl Groups {
    /// `width` is at least 1.
    pub(super) fn new(dims: usize, width: usize) -> Self {
        let size = dims.div_ceil(width).max(1);
        Self { size, count: dims.div_ceil(size) }
    }
}
