//! The options of a scan: how rows are scored, ranked and read.

use std::fmt;

use crate::codec::listed;

/// How the score of a row for a query is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Metric {
    /// The weighted sum of the inner products over the selected blocks.
    #[default]
    InnerProduct,
    /// The inner product divided by the lengths of row and query, both weighted over the selected blocks; 0
    /// if one of the lengths is 0.
    Cosine,
    /// The inner product divided by the length of the row, weighted over the selected blocks; 0 if that is 0.
    UnitRows,
    /// The inner product divided by the root of the row's self-influence `gᵀ(F + λI)⁻¹g`, weighted over the selected
    /// blocks; 0 if that is 0. Needs [`Scan::curvature`](super::Scan::curvature), and
    /// [`Writer::fit_self_influence`](crate::Writer::fit_self_influence) with the same κ and rank. Relative influence: Barshan,
    /// Brunet and Dziugaite, "RelatIF", 2020 (arXiv:2003.11630). It finds rows that are about the same as the query.
    Relative,
}

/// Whether rows or examples are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Grouping {
    /// Ranks rows.
    #[default]
    Rows,
    /// Ranks examples by the greatest score of their selected rows.
    Max,
    /// Ranks examples by the sum of the scores of their selected rows, in row order.
    Sum,
}

impl Grouping {
    /// Whether rows are grouped by example.
    pub(super) const fn by_example(self) -> bool {
        match self {
            Self::Rows => false,
            Self::Max | Self::Sum => true,
        }
    }
}

/// The guarantee of a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Guarantee {
    /// The ranking is that of all rows over the stored codes, bit for bit.
    #[default]
    Exact,
    /// With a probability of at least `1 - delta`, the rankings of the whole batch are those of
    /// [`Guarantee::Exact`]; otherwise rows may be missing. The scores of the hits are exact in any case.
    /// Needs a [sign tier](crate::Tier::Sign): the probability is over its random rotation
    /// (`format-spec/encodings.md`, "The interval").
    ///
    /// Queries must be independent of the tier's seed. The bound assumes that three rounds of random signs
    /// and Hadamard transforms act like a uniformly random rotation; tests support this assumption.
    Probable {
        /// The failure probability, above 0 and below 1, for example 1e-6.
        delta: f64,
    },
}

/// How a scan finds the best rows. All paths give the same ranking, except [`ScanPath::SignTier`], which
/// gives it with the requested probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ScanPath {
    /// The planner chooses the cheapest path; [`Scan::explain`](super::Scan::explain) returns its choice.
    #[default]
    Auto,
    /// Scores every row from its codes.
    Full,
    /// Screens all rows with products of signed bytes, and scores the candidates from their codes. Reads the
    /// `i8` tier if there is one, otherwise the rows' codes. For many queries.
    Bytes,
    /// Screens all rows with the `i8` tier, and scores the candidates from their codes. For few queries.
    I8Tier,
    /// Screens all rows with the sign tier, and scores the candidates from their codes. Needs
    /// [`Guarantee::Probable`].
    SignTier,
}

listed!(pub(super) ScanPath { Full, Bytes, I8Tier, SignTier } and ScanPath::Auto);

impl ScanPath {
    /// Whether the path screens rows before it scores the candidates.
    pub(super) const fn screens(self) -> bool {
        match self {
            Self::Auto | Self::Full => false,
            Self::Bytes | Self::I8Tier | Self::SignTier => true,
        }
    }

    /// Whether its screen can prune a row wrongly, with the probability of [`Guarantee::Probable`].
    pub(super) const fn is_probable(self) -> bool {
        match self {
            Self::Auto | Self::Full | Self::Bytes | Self::I8Tier => false,
            Self::SignTier => true,
        }
    }

    /// The name: `auto`, `full`, `bytes`, `i8 tier`, `sign tier`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Bytes => "bytes",
            Self::I8Tier => "i8 tier",
            Self::SignTier => "sign tier",
        }
    }
}

impl fmt::Display for ScanPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a scan reads codes. Rankings do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reading {
    /// Chooses `Mapped` if the codes are in the page cache; otherwise `Buffered` if they fit into half of the
    /// available memory and [`Scan::keep_cache`](super::Scan::keep_cache) is set; otherwise `Direct`.
    /// [`Statistics::reading`](super::Statistics::reading) is the choice.
    #[default]
    Auto,
    /// Memory-mapped files, with read-ahead of codes that are not in the page cache. A chunk's checksum is
    /// checked when the snapshot first reads it. An error if the storage does not map files.
    Mapped,
    /// Read-ahead threads read through the page cache into buffers. A chunk's checksum is checked every time
    /// it is read. The buffers take some megabytes per thread of the scan.
    Buffered,
    /// As `Buffered`, but bypasses the page cache. An error if the storage does not support this.
    Direct,
}

impl Reading {
    /// The name: `auto`, `mapped`, `buffered`, `direct`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Mapped => "mapped",
            Self::Buffered => "buffered",
            Self::Direct => "direct",
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The maximum number of hits of each query at either end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ends {
    /// The maximum number of proponents.
    pub top: usize,
    /// The maximum number of opponents.
    pub bottom: usize,
    /// The least score of a proponent.
    pub least: f64,
}

impl Default for Ends {
    fn default() -> Self {
        Self { top: 0, bottom: 0, least: f64::NEG_INFINITY }
    }
}

impl Ends {
    /// The number of ends with at least one hit.
    pub fn count(self) -> usize {
        usize::from(self.top > 0) + usize::from(self.bottom > 0)
    }

    /// The maximum number of hits of a query.
    pub fn hits(self) -> usize {
        self.top.saturating_add(self.bottom)
    }
}
