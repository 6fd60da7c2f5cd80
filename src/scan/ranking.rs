//! What a scan gives back.

use std::borrow::Cow;
use std::time::Duration;

use super::options::{Reading, ScanPath};
use crate::segment::Span;

/// The most influential rows or examples for each query of the batch.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Ranking {
    pub(super) proponents: Vec<Vec<Hit>>,
    pub(super) opponents: Vec<Vec<Hit>>,
    pub(super) statistics: Statistics,
}

/// A row, or an example if rows were grouped, in a ranking.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Hit {
    /// The example's id. Serialised as text if it is UTF-8, else as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text_or_bytes"))]
    pub id: Vec<u8>,
    /// Its influence: the inner product or cosine, summed over the selected blocks with their weights.
    pub score: f64,
    /// The part of the example that the row stands for. Of rows grouped by max, that of the row with
    /// the greatest score; of several rows grouped by sum, the whole.
    pub span: Span,
    /// The label of where the example came from, as that row has it.
    pub source: Option<String>,
    /// The row's metadata, if the scan was asked for it with [`Scan::metadata`](super::Scan::metadata).
    #[cfg_attr(feature = "serde", serde(serialize_with = "optional_text_or_bytes"))]
    pub metadata: Option<Vec<u8>>,
}

impl Hit {
    /// The id as text; bytes that are not UTF-8 show as the replacement character.
    #[must_use]
    pub fn id_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.id)
    }
}

impl Ranking {
    /// The proponents of query `query`: highest score first, equal ones by id, then by row order.
    /// At most as many as `top_k`; empty beyond the last query.
    #[must_use]
    pub fn proponents(&self, query: usize) -> &[Hit] {
        self.proponents.get(query).map_or(&[], Vec::as_slice)
    }

    /// The opponents of query `query`: lowest score first, equal ones by id, then by row order.
    /// At most as many as `bottom_k`; empty beyond the last query.
    #[must_use]
    pub fn opponents(&self, query: usize) -> &[Hit] {
        self.opponents.get(query).map_or(&[], Vec::as_slice)
    }

    /// The number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.proponents.len()
    }

    /// What it took.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}

/// What a scan took.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Statistics {
    /// The kernel that it ran on, by the name that [`KernelChoice`](super::KernelChoice) displays.
    pub kernel: &'static str,
    /// The path that it took through the rows.
    pub path: ScanPath,
    /// The probability that a row is missing from the rankings; none if they are exact.
    pub delta: Option<f64>,
    /// Threads that took part.
    pub threads: usize,
    /// How it read; never `Auto`.
    pub reading: Reading,
    /// Rows that took part, each once for the whole batch.
    pub rows: u64,
    /// Rows that did not: deleted, not within the filters, or behind the end of a scan that ended early.
    pub rows_filtered: u64,
    /// Of the rows that took part, those that their norms alone kept from being read.
    pub rows_pruned_by_norm: u64,
    /// Of the rows that took part, those that a screen looked at,
    pub rows_screened: u64,
    /// those that were candidates of at least one query,
    pub candidate_rows: u64,
    /// and the scores of these that were computed.
    pub candidate_scores: u64,
    /// Bytes of the rows' own codes in the selected blocks that were read, padding included.
    pub code_bytes: u64,
    /// Bytes of codes and factors of a tier that were read.
    pub tier_bytes: u64,
    /// Ids of the id filters that the snapshot does not have.
    pub ids_missing: u64,
    /// From the start of the run to the ranking. Serialised in seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds"))]
    pub elapsed: Duration,
}

#[cfg(feature = "serde")]
fn text_or_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
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
