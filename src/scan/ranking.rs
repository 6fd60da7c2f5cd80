//! What a scan gives back.

use std::borrow::Cow;
use std::time::Duration;

use crate::segment::Span;

/// The most influential rows or examples for each query of the batch.
#[derive(Debug, Clone)]
pub struct Ranking {
    pub(super) proponents: Vec<Vec<Hit>>,
    pub(super) opponents: Vec<Vec<Hit>>,
    pub(super) statistics: Statistics,
}

/// A row, or an example if rows were grouped, in a ranking.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The example's id.
    pub id: Vec<u8>,
    /// Its influence: the inner product or cosine, summed over the selected blocks with their weights.
    pub score: f64,
    /// The part of the example that the row stands for. Of rows grouped by max, that of the row with
    /// the greatest score; of several rows grouped by sum, the whole.
    pub span: Span,
    /// The label of where the example came from, as that row has it.
    pub source: Option<String>,
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
    pub fn query(&self, query: usize) -> &[Hit] {
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
#[non_exhaustive]
pub struct Statistics {
    /// The kernel that it ran on: `scalar`, `avx2`, `avx512` or `amx`.
    pub kernel: &'static str,
    /// Threads that took part.
    pub threads: usize,
    /// Rows that were scored, each once for the whole batch.
    pub rows_scored: u64,
    /// Rows left out: deleted, or not within the filters.
    pub rows_skipped: u64,
    /// Bytes of codes of the scored rows in the selected blocks, padding included.
    pub bytes_read: u64,
    /// Ids of the id filters that the snapshot does not have.
    pub ids_missing: u64,
    /// From the start of the run to the ranking.
    pub elapsed: Duration,
}
