//! Near-duplicates by gradient.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use super::control::{check, every_score};
use super::error::OperatorError;
use crate::index::{Snapshot, StoredRow};
use crate::scan::{CancelToken, Grouping, Metric, Progress, Scan, ScanError, ScanPath, SpanFilter};
use crate::sketch::Sketch;

/// Finds all pairs of examples whose gradients have at least a given cosine: which data does the model see as
/// the same?
///
/// The cosine of two examples is the greatest of their rows', `Metric::Cosine` over the stored codes with the row
/// of the example with the lesser id as the query: exact, and the same bits as the scan's own scores, whatever
/// the number of threads, the segments and the order of the rows. (With `i8` codes the other direction may differ
/// in the last bits, since queries are quantised too. A curvature of the scan preconditions that row alone.)
/// Rounding can leave identical rows a little below 1.
///
/// Batches of rows are the queries of scans over all rows, so that kernels and screens work as in any scan: the
/// cost is that of `rows / batch` scans, `rows²` products of rows, each pair in both directions; screens and
/// tiers leave out the exact scores of most, norms cannot bound a cosine. Examples with a row that 64
/// or more rows are like, itself counted, are scanned once more, unscreened. Memory: the sketches of a batch (and of one example more), and 64
/// hits for each of its rows; pairs are passed on as they are found.
///
/// ```
/// # use std::ops::ControlFlow;
/// # use gradix::{Encoding, Index, Schema, operators::Duplicates, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # let sketch = |values: [f32; 2]| Sketch::dense(spec.clone(), values.to_vec());
/// writer.append("page 1", &sketch([3.0, 4.0])?)?;
/// writer.append("page 2", &sketch([4.0, 3.0])?)?;
/// writer.append("page 1, again", &sketch([6.0, 8.0])?)?;
/// writer.commit()?;
/// let snapshot = index.snapshot()?;
/// let pairs = Duplicates::new(0.97).configure(|scan| scan.threads(1)).run(&snapshot, |pair| {
///     assert_eq!((&pair.first[..], &pair.second[..], pair.cosine), (&b"page 1"[..], &b"page 1, again"[..], 1.0));
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(pairs, 1);
/// // The lesser cosine connects all three.
/// let clusters = Duplicates::new(0.9).clusters(&snapshot)?;
/// assert_eq!(clusters, [["page 1", "page 1, again", "page 2"].map(|id| id.as_bytes().to_vec())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an operator does nothing until it is run"]
pub struct Duplicates<'a> {
    least: f64,
    batch: usize,
    sources: Option<Vec<String>>,
    spans: SpanFilter,
    configure: Box<Configure<'a>>,
    cancel: CancelToken,
    progress: Option<Box<dyn FnMut(Progress) + Send + 'a>>,
}

type Configure<'a> = dyn for<'q> Fn(Scan<'q>) -> Scan<'q> + 'a;

/// Two examples with nearly the same gradient.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pair {
    /// The lesser id, bytewise. Serialised as text if it is UTF-8, otherwise as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::scan::text_or_bytes"))]
    pub first: Vec<u8>,
    /// The greater id.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::scan::text_or_bytes"))]
    pub second: Vec<u8>,
    /// The cosine.
    pub cosine: f64,
}

/// Hits of a row in the first scan of its batch.
const HITS: usize = 64;

impl<'a> Duplicates<'a> {
    /// Pairs whose cosine is at least this, which is above 0 and at most 1; in batches of 256 rows.
    pub fn new(least_cosine: f64) -> Self {
        Self {
            least: least_cosine,
            batch: 256,
            sources: None,
            spans: SpanFilter::All,
            configure: Box::new(|scan| scan),
            cancel: CancelToken::new(),
            progress: None,
        }
    }

    /// The number of rows that are the queries of a scan, at least 1. Pairs do not depend on it.
    pub fn batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }

    /// Only pairs of rows with one of these source labels. A label that no row has is an error.
    pub fn sources<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.sources = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Only pairs of rows with matching spans.
    pub fn spans(mut self, spans: SpanFilter) -> Self {
        self.spans = spans;
        self
    }

    /// Sets blocks, weights, threads, kernel, path and reading of each scan. A filter of rows is an error, since
    /// it would apply to one side of a pair only; metric, grouping and `k` are the operator's.
    pub fn configure(mut self, configure: impl for<'q> Fn(Scan<'q>) -> Scan<'q> + 'a) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// A token that cancels the operator, from another thread, from the progress callback or from the sink.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Sets a callback for progress: of the live rows, those that have been queries.
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Passes each pair to `sink` once, in an order that depends on the rows and the batch alone; `Break` ends the
    /// operator. Returns the number of pairs passed.
    ///
    /// # Errors
    /// A setting is impossible, a row cannot be read, a scan fails or has a filter, or the operator was cancelled.
    pub fn run(
        mut self,
        snapshot: &Snapshot,
        mut sink: impl FnMut(&Pair) -> ControlFlow<()> + Send,
    ) -> Result<u64, OperatorError> {
        self.check(snapshot)?;
        let (mut batch, mut pairs) = (Batch::default(), Pairs { sink: &mut sink, count: 0, ended: false });
        let rows_total = snapshot.rows();
        let mut progress = self.progress.take();
        let mut rows_done = 0;
        for row in snapshot.iter().with_sketches() {
            check(&self.cancel)?;
            let row = row?;
            if batch.is_complete(self.batch, &row.id) {
                self.join(snapshot, &mut batch, &mut pairs)?;
                if pairs.ended {
                    return Ok(pairs.count);
                }
                if let Some(progress) = &mut progress {
                    progress(Progress { rows_done, rows_total });
                }
            }
            rows_done += 1;
            if self.selects(&row) {
                batch.push(row);
            }
        }
        self.join(snapshot, &mut batch, &mut pairs)?;
        if let Some(progress) = &mut progress
            && !pairs.ended
        {
            progress(Progress { rows_done, rows_total });
        }
        Ok(pairs.count)
    }

    /// Finds the clusters: the examples that pairs connect, directly or through others. Each has at least two ids,
    /// in their order, as have the clusters by their first ids. Examples of one cluster may be less alike than
    /// the least cosine. Memory, besides: the ids of all examples in clusters.
    ///
    /// # Errors
    /// As [`Duplicates::run`].
    pub fn clusters(self, snapshot: &Snapshot) -> Result<Vec<Vec<Vec<u8>>>, OperatorError> {
        let mut clusters = Clusters::default();
        self.run(snapshot, |pair| {
            clusters.join(&pair.first, &pair.second);
            ControlFlow::Continue(())
        })?;
        Ok(clusters.into_groups())
    }

    fn check(&self, snapshot: &Snapshot) -> Result<(), OperatorError> {
        if !(self.least > 0.0 && self.least <= 1.0) {
            let (setting, expected) = ("least_cosine", "above 0 and at most 1");
            return Err(OperatorError::Setting { setting, given: self.least, expected });
        }
        if self.batch == 0 {
            let (setting, expected) = ("batch", "at least 1");
            return Err(OperatorError::Setting { setting, given: 0.0, expected });
        }
        if let Some(names) = &self.sources {
            let known = snapshot.sources()?;
            let is_known = |name: &&String| known.iter().any(|count| count.source.as_ref() == Some(name));
            if let Some(name) = names.iter().find(|name| !is_known(name)) {
                return Err(ScanError::UnknownSource { name: name.clone() }.into());
            }
        }
        check(&self.cancel)
    }

    /// Whether a row is a query. The cosine of a zero row is 0.
    fn selects(&self, row: &StoredRow) -> bool {
        let has_source = |names: &Vec<String>| row.source.as_ref().is_some_and(|name| names.contains(name));
        !row.is_zero() && self.spans.admits(row.span) && self.sources.as_ref().is_none_or(has_source)
    }

    /// Finds the pairs whose lesser id is in the batch, and empties it.
    fn join(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        pairs: &mut Pairs<'_>,
    ) -> Result<(), OperatorError> {
        let Batch { queries, examples } = std::mem::take(batch);
        if queries.is_empty() {
            return Ok(());
        }
        let scan = self.scan(snapshot, &queries)?.grouping(Grouping::Rows);
        let scan = scan.top_k(HITS).bottom_k(0).at_least(self.least);
        let ranking = match scan.run() {
            Err(ScanError::Cancelled) => return Err(OperatorError::Cancelled),
            ranking => ranking?,
        };
        // Those with a row that may have more hits.
        let mut crowded = Batch::default();
        for (id, rows) in examples {
            let hits = |row: usize| ranking.proponents(row);
            if rows.clone().any(|row| hits(row).len() == HITS) {
                let start = crowded.queries.len();
                crowded.queries.extend_from_slice(&queries[rows]);
                crowded.examples.push((id, start..crowded.queries.len()));
                continue;
            }
            let mut found: BTreeMap<&[u8], f64> = BTreeMap::new();
            for hit in rows.flat_map(hits).filter(|hit| hit.id > id) {
                let cosine = found.entry(&hit.id).or_insert(hit.score);
                *cosine = cosine.max(hit.score);
            }
            for (second, cosine) in found {
                pairs.pass(&id, second, cosine);
            }
        }
        drop((ranking, queries));
        if crowded.queries.is_empty() || pairs.ended {
            return Ok(());
        }
        let scan = self.scan(snapshot, &crowded.queries)?.grouping(Grouping::Max).path(ScanPath::Full);
        let least = self.least;
        every_score(scan, |rows| {
            for row in 0..rows.len() {
                for (id, queries) in &crowded.examples {
                    let scores = queries.clone().map(|query| rows.scores(query)[row]);
                    let cosine = scores.fold(f64::NEG_INFINITY, f64::max);
                    if cosine >= least && rows.id(row)? > &id[..] {
                        pairs.pass(id, rows.id(row)?, cosine);
                    }
                }
            }
            if pairs.ended { Err(OperatorError::Cancelled) } else { Ok(()) }
        })
        .or_else(|error| if pairs.ended { Ok(()) } else { Err(error) })
    }

    fn scan<'q>(&self, snapshot: &'q Snapshot, queries: &'q [Sketch]) -> Result<Scan<'q>, OperatorError> {
        let scan = (self.configure)(snapshot.scan(queries)?.cancel(&self.cancel));
        if scan.is_filtered() {
            return Err(OperatorError::Filtered);
        }
        let scan = scan.metric(Metric::Cosine).spans(self.spans);
        Ok(match &self.sources {
            Some(names) => scan.sources(names.iter().cloned()),
            None => scan,
        })
    }
}

impl std::fmt::Debug for Duplicates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, batch, sources, spans, .. } = self;
        let mut debug = f.debug_struct("Duplicates");
        debug.field("least", least).field("batch", batch).field("sources", sources).field("spans", spans);
        debug.finish_non_exhaustive()
    }
}

/// Whole examples whose rows are the queries of a scan.
#[derive(Default)]
struct Batch {
    queries: Vec<Sketch>,
    /// Each id, and the ordinals of its queries.
    examples: Vec<(Vec<u8>, Range<usize>)>,
}

impl Batch {
    /// Whether the batch is full, and a row of this example does not belong to its last one.
    fn is_complete(&self, rows: usize, id: &[u8]) -> bool {
        self.queries.len() >= rows && self.examples.last().is_some_and(|(last, _)| last != id)
    }

    fn push(&mut self, row: StoredRow) {
        self.queries.extend(row.sketch);
        let end = self.queries.len();
        match self.examples.last_mut() {
            Some((last, queries)) if *last == row.id => queries.end = end,
            _ => self.examples.push((row.id, end - 1..end)),
        }
    }
}

/// Where pairs go.
struct Pairs<'s> {
    sink: &'s mut (dyn FnMut(&Pair) -> ControlFlow<()> + Send),
    count: u64,
    ended: bool,
}

impl Pairs<'_> {
    fn pass(&mut self, first: &[u8], second: &[u8], cosine: f64) {
        if !self.ended {
            self.count += 1;
            let pair = Pair { first: first.to_vec(), second: second.to_vec(), cosine };
            self.ended = (self.sink)(&pair).is_break();
        }
    }
}

/// Disjoint sets of ids, joined by union-find.
#[derive(Default)]
struct Clusters {
    ordinals: BTreeMap<Vec<u8>, usize>,
    /// For each ordinal: another of the set, at last the root, which is its own.
    parents: Vec<usize>,
}

impl Clusters {
    fn join(&mut self, a: &[u8], b: &[u8]) {
        let (a, b) = (self.ordinal(a), self.ordinal(b));
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn ordinal(&mut self, id: &[u8]) -> usize {
        if let Some(&ordinal) = self.ordinals.get(id) {
            return ordinal;
        }
        let ordinal = self.parents.len();
        self.parents.push(ordinal);
        self.ordinals.insert(id.to_vec(), ordinal);
        ordinal
    }

    /// The root of a set, with all paths on the way halved.
    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn into_groups(mut self) -> Vec<Vec<Vec<u8>>> {
        let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut places: BTreeMap<usize, usize> = BTreeMap::new();
        for (id, ordinal) in std::mem::take(&mut self.ordinals) {
            let place = *places.entry(self.root(ordinal)).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(id),
                None => groups.push(vec![id]),
            }
        }
        groups
    }
}
