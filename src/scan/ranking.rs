//! The result of a scan.

use std::borrow::Cow;
use std::time::Duration;

use super::options::{Reading, ScanPath};
use crate::curvature::CurvatureState;
use crate::segment::Span;

/// The most influential rows or examples for each query of the batch. Made by
/// [`Scan::run`](super::Scan::run).
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Ranking {
    pub(super) proponents: Vec<Vec<Hit>>,
    pub(super) opponents: Vec<Vec<Hit>>,
    pub(super) statistics: Statistics,
}

/// A row of a ranking, or an example if rows were grouped.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Hit {
    /// The example's id. Serialised as text if it is UTF-8, otherwise as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text_or_bytes"))]
    pub id: Vec<u8>,
    /// The influence: what the [metric](super::Metric) makes of the inner products over the selected blocks with their
    /// weights.
    pub score: f64,
    /// The part of the example that the row stands for. With [`Grouping::Max`](super::Grouping::Max), the
    /// span of the row with the greatest score; with [`Grouping::Sum`](super::Grouping::Sum) over several
    /// rows, [`Span::WHOLE`].
    pub span: Span,
    /// The source label of that row, if it has one.
    pub source: Option<String>,
    /// The metadata of that row, if [`Scan::metadata`](super::Scan::metadata) was set.
    #[cfg_attr(feature = "serde", serde(serialize_with = "optional_text_or_bytes"))]
    pub metadata: Option<Vec<u8>>,
}

impl Hit {
    /// The id as text; invalid UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn id_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.id)
    }
}

impl Ranking {
    /// The proponents of query `query`, at most `top_k`: highest score first; ties by id, then by row order.
    /// Empty if there is no such query.
    #[must_use]
    pub fn proponents(&self, query: usize) -> &[Hit] {
        self.proponents.get(query).map_or(&[], Vec::as_slice)
    }

    /// The opponents of query `query`, at most `bottom_k`: lowest score first; ties by id, then by row order.
    /// Empty if there is no such query.
    #[must_use]
    pub fn opponents(&self, query: usize) -> &[Hit] {
        self.opponents.get(query).map_or(&[], Vec::as_slice)
    }

    /// The number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.proponents.len()
    }

    /// What the scan read and computed, and how long it took.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}

/// What a scan read and computed, and how long it took.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Statistics {
    /// The kernel, by the name that [`KernelChoice`](super::KernelChoice) displays.
    pub kernel: &'static str,
    /// The scan path; never `Auto`.
    pub path: ScanPath,
    /// The failure probability: that a row is missing from the rankings. `None` if they are exact.
    pub delta: Option<f64>,
    /// The curvature that the queries were preconditioned with, if they were.
    pub curvature: Option<CurvatureState>,
    /// The number of threads.
    pub threads: usize,
    /// How codes were read; never `Auto`.
    pub reading: Reading,
    /// Selected rows, each counted once for the whole batch.
    pub rows: u64,
    /// Rows not selected: dead, excluded by filters, or not reached by a scan that ended early.
    pub rows_filtered: u64,
    /// Selected rows that were pruned by their norms, without reading their codes.
    pub rows_pruned_by_norm: u64,
    /// Selected rows that were screened.
    pub rows_screened: u64,
    /// Screened rows that were candidates of at least one query.
    pub candidate_rows: u64,
    /// Scores of candidates that were computed: pairs of a row and a query.
    pub candidate_scores: u64,
    /// Bytes read of the rows' own codes in the selected blocks, including padding.
    pub code_bytes: u64,
    /// Bytes read of the codes and factors of a tier.
    pub tier_bytes: u64,
    /// Ids of the id filters that are not in the snapshot.
    pub ids_missing: u64,
    /// The duration of the run. Serialised in seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds"))]
    pub elapsed: Duration,
}

#[cfg(feature = "serde")]
pub(crate) fn text_or_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_seq(bytes),
    }
}

#[cfg(feature = "serde")]
#[expect(clippy::ref_option, reason = "as serde calls it")]
fn optional_text_or_bytes<S: serde::Serializer>(
    bytes: &Option<Vec<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => text_or_bytes(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(feature = "serde")]
fn seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}
