//! What a scan can be asked for: how rows are scored, ranked and read.

use std::fmt;

/// How a row and a query give a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Metric {
    /// The sum of products, over the selected blocks with their weights.
    #[default]
    InnerProduct,
    /// The inner product divided by both lengths over the selected blocks with their weights; 0 if
    /// one of them is 0.
    Cosine,
}

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Grouping {
    /// Each row by itself.
    #[default]
    Rows,
    /// Examples, by the greatest score among their rows that take part.
    Max,
    /// Examples, by the sum of their scores in row order.
    Sum,
}

/// How sure a ranking is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Guarantee {
    /// It is the ranking of all rows over the stored codes, bit for bit.
    #[default]
    Exact,
    /// It is that, but for a probability of at most `delta` for the whole batch. Needs the sign tier, whose
    /// random rotation the probability is over: a row is pruned if its score, given its bits, would
    /// have to be less likely than that (`format-spec/encodings.md`, "The interval"). Scores that are
    /// given are exact.
    ///
    /// Queries must not be made from the tier's seed. That three rounds of signs and Hadamard
    /// transforms act like a uniformly random rotation is an assumption, which tests support.
    Probable {
        /// Above 0 and below 1; 1e-6, say.
        delta: f64,
    },
}

/// A path through the rows. All give the same ranking, but for [`ScanPath::SignTier`], which does with
/// the probability that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ScanPath {
    /// The one that [`Scan::explain`](super::Scan::explain) finds the cheapest.
    #[default]
    Auto,
    /// Scores every row exactly.
    Full,
    /// Multiplies rows and queries as signed bytes, and scores the candidates exactly: for many queries.
    /// Reads the `i8` tier where there is one, else the rows' own codes.
    Bytes,
    /// Reads the `i8` tier of all rows, and scores the candidates exactly: for few queries.
    I8Tier,
    /// Reads the sign tier of all rows, and scores the candidates exactly, with
    /// [`Guarantee::Probable`].
    SignTier,
}

impl ScanPath {
    /// All but `Auto`.
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Bytes, Self::I8Tier, Self::SignTier];

    /// Its name: `auto`, `full`, `bytes`, `i8 tier`, `sign tier`.
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

/// How a scan gets at the codes. A ranking does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reading {
    /// `Mapped` if the codes are in the page cache; else `Buffered` if they fit into half of the memory
    /// that is free and the cache may keep them, so that the next scan finds them there; else `Direct`.
    /// [`Statistics::reading`](super::Statistics::reading) says which it was.
    #[default]
    Auto,
    /// Through mapped files and the page cache; what is not there yet is asked for some pieces ahead.
    /// A chunk's checksum is checked when the snapshot first touches it. An error with storages that
    /// map nothing.
    Mapped,
    /// Through the page cache into buffers, by threads that read ahead; each chunk's checksum is checked
    /// each time. The buffers take some megabytes for each thread of the scan.
    Buffered,
    /// As `Buffered`, but past the page cache. An error with storages that have no such way.
    Direct,
}

impl Reading {
    /// Its name: `auto`, `mapped`, `buffered`, `direct`.
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

/// How many hits each query gets, at either end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// The most proponents.
    pub top: usize,
    /// The most opponents.
    pub bottom: usize,
}

impl Ends {
    /// How many of both ends are asked for.
    pub fn count(self) -> usize {
        usize::from(self.top > 0) + usize::from(self.bottom > 0)
    }

    /// The most hits of a query.
    pub fn hits(self) -> usize {
        self.top.saturating_add(self.bottom)
    }
}
