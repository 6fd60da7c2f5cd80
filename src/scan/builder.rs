//! What a scan is asked for.

use std::time::Instant;

use super::control::{CancelToken, Progress};
use super::engine::{Engine, Limits, Plan, Watch};
use super::error::ScanError;
use super::filter::{ExampleRows, FilterRequest, Find, RowFilter, SpanFilter};
use super::kernel::{Kernel, KernelChoice};
use super::planner::{Explanation, ScanPath, Task};
use super::query::{self, Batch};
use super::ranking::Ranking;
use super::screen::{BlockScreen, Screen};
use super::stream::Reading;
use crate::schema::Schema;
use crate::segment::LiveSegment;
use crate::sketch::Sketch;

/// How a row and a query give a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
#[non_exhaustive]
pub enum Guarantee {
    /// It is the ranking of all rows over the stored codes, bit for bit.
    #[default]
    Exact,
    /// It is that, but for a probability of at most `delta`, for the whole batch: a row may be left out
    /// whose score under the index's random rotation came out less likely than that (the module's page
    /// says how it follows). Scores that are given are exact. Without the sign tier it is `Exact`.
    ///
    /// The probability is over the seed of the tier, so queries must not be made from it.
    Probable {
        /// Above 0 and below 1; 1e-6, say.
        delta: f64,
    },
}

/// A scan that is being described. Setters never fail; [`Scan::run`] says what does not fit.
///
/// The rows are read once for all queries. Memory grows with the batch and the number of threads,
/// and with `k`, never with the index.
#[must_use = "a scan does nothing until it is run"]
pub struct Scan<'a> {
    segments: &'a [LiveSegment],
    schema: &'a Schema,
    find: Box<Find<'a>>,
    queries: &'a [Sketch],
    norms: Vec<Vec<f32>>,
    top_k: usize,
    bottom_k: usize,
    blocks: Option<Vec<String>>,
    weights: Vec<(String, f64)>,
    metric: Metric,
    grouping: Grouping,
    guarantee: Guarantee,
    path: ScanPath,
    filter: FilterRequest,
    threads: usize,
    kernel: KernelChoice,
    reading: Reading,
    keep_cache: bool,
    progress: Option<Box<dyn FnMut(Progress) + Send + 'a>>,
    cancel: CancelToken,
    pub(super) limits: Limits,
}

impl<'a> Scan<'a> {
    /// `find` looks up ids in the snapshot that `segments` belong to.
    pub(crate) fn new(
        segments: &'a [LiveSegment],
        schema: &'a Schema,
        find: impl Fn(&[u8]) -> Result<Option<ExampleRows>, ScanError> + 'a,
        queries: &'a [Sketch],
    ) -> Result<Self, ScanError> {
        Ok(Self {
            segments,
            schema,
            find: Box::new(find),
            queries,
            norms: query::check(queries, schema)?,
            top_k: 0,
            bottom_k: 0,
            blocks: None,
            weights: Vec::new(),
            metric: Metric::default(),
            grouping: Grouping::default(),
            guarantee: Guarantee::default(),
            path: ScanPath::default(),
            filter: FilterRequest::default(),
            threads: 0,
            kernel: KernelChoice::default(),
            reading: Reading::default(),
            keep_cache: true,
            progress: None,
            cancel: CancelToken::new(),
            limits: Limits::DEFAULT,
        })
    }

    /// How many proponents each query gets. Beyond the number of rows: all of them. Default 0.
    pub fn top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// How many opponents each query gets. Beyond the number of rows: all of them. Default 0.
    pub fn bottom_k(mut self, k: usize) -> Self {
        self.bottom_k = k;
        self
    }

    /// Reads only the blocks with these names. Default: all.
    pub fn blocks<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.blocks = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Weights of blocks by name; 1 for those that are not named. Of several for one block the last
    /// counts.
    pub fn weights<N: Into<String>>(mut self, weights: impl IntoIterator<Item = (N, f64)>) -> Self {
        self.weights.extend(weights.into_iter().map(|(name, weight)| (name.into(), weight)));
        self
    }

    /// How a row and a query give a score. Default: the inner product.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Whether rows or examples are ranked. Default: rows.
    pub fn grouping(mut self, grouping: Grouping) -> Self {
        self.grouping = grouping;
        self
    }

    /// How sure the ranking must be. Default: exact.
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// The path through the rows, for those who know better than [`Scan::explain`]. One that cannot be taken
    /// gives way to [`ScanPath::Full`]. Default: the cheapest.
    pub fn path(mut self, path: ScanPath) -> Self {
        self.path = path;
        self
    }

    /// Only examples with these ids take part. Ids that the snapshot does not have are counted in the
    /// statistics.
    pub fn ids<I: Into<Vec<u8>>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.filter.ids = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Examples with these ids do not take part. Ids that the snapshot does not have are counted in
    /// the statistics.
    pub fn exclude_ids<I: Into<Vec<u8>>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.filter.excluded.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Only rows with these sources take part. A source that no segment of the snapshot knows is an
    /// error, so that a misspelt name does not look like an empty ranking.
    pub fn sources<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.filter.sources = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Which rows take part, by their spans. Default: all.
    pub fn spans(mut self, spans: SpanFilter) -> Self {
        self.filter.spans = spans;
        self
    }

    /// How many threads the scan runs on: rayon's global ones if there are as many, else its own. 0, the
    /// default, means all of rayon's.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The kernel to compute with; all give the same bits. Default: the fastest.
    pub fn kernel(mut self, kernel: KernelChoice) -> Self {
        self.kernel = kernel;
        self
    }

    /// How codes are read; a ranking does not depend on it. Default: [`Reading::Auto`].
    pub fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Whether the page cache may keep codes that it did not have before the scan, at the expense of
    /// what others keep there. Default: true.
    pub fn keep_cache(mut self, keep: bool) -> Self {
        self.keep_cache = keep;
        self
    }

    /// Called now and then from the scan's threads, one call at a time, with numbers that only grow;
    /// the last call of a scan that succeeds has all rows done.
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// A token to stop the scan with, from another thread or from the progress callback.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Scores the rows and ranks them.
    ///
    /// # Errors
    /// What was asked for makes no sense (see [`ScanError`]), a segment is damaged or cannot be read,
    /// or the scan was cancelled.
    pub fn run(self) -> Result<Ranking, ScanError> {
        let started = Instant::now();
        let (batch, kernel, threads) = self.prepare()?;
        let (path, break_even) = self.task(&batch, kernel, threads).choose(self.path);
        let filter = RowFilter::new(&self.filter, self.segments, &*self.find, &self.cancel)?;
        let break_even = self.limits.break_even.unwrap_or(break_even);
        let screen = self.screen(&batch, kernel, threads, path, break_even)?;
        let ends = (self.top_k, self.bottom_k);
        let delta = match self.guarantee {
            Guarantee::Probable { delta } if path == ScanPath::SignTier => Some(delta),
            _ => None,
        };
        let (grouping, limits) = (self.grouping, self.limits);
        let (reading, keep_cache) = (self.reading, self.keep_cache);
        let plan =
            Plan { batch, filter, grouping, kernel, ends, limits, path, screen, delta, reading, keep_cache };
        let watch = Watch::new(self.cancel, self.progress, self.segments);
        let engine = Engine::new(self.segments, plan, watch, threads);
        // Starting threads takes longer than a small scan: as many as there are anyway will do.
        let ranking = if self.threads == 0 || threads == rayon::current_num_threads() {
            engine.run(threads, started)?
        } else {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(|source| ScanError::Threads { threads, source })?;
            pool.install(|| engine.run(threads, started))?
        };
        let statistics = ranking.statistics();
        tracing::debug!(
            kernel = statistics.kernel,
            path = statistics.path.name(),
            threads = statistics.threads,
            rows = statistics.rows_scored,
            bytes = statistics.bytes_read,
            seconds = statistics.elapsed.as_secs_f64(),
            "scanned"
        );
        Ok(ranking)
    }

    /// Says which path [`Scan::run`] would take through the rows, and what each is expected to cost. Reads no
    /// rows; measures kernels and memory the first time, some ten milliseconds.
    ///
    /// # Errors
    /// What was asked for makes no sense (see [`ScanError`]).
    pub fn explain(&self) -> Result<Explanation, ScanError> {
        let (batch, kernel, threads) = self.prepare()?;
        Ok(self.task(&batch, kernel, threads).explain(self.path))
    }

    /// What can be checked without looking at rows.
    fn prepare(&self) -> Result<(Batch, &'static dyn Kernel, usize), ScanError> {
        if self.top_k == 0 && self.bottom_k == 0 {
            return Err(ScanError::NoResults);
        }
        if let Guarantee::Probable { delta } = self.guarantee
            && !(delta > 0.0 && delta < 1.0)
        {
            return Err(ScanError::InvalidDelta { delta });
        }
        let cosine = self.metric == Metric::Cosine;
        let selected = self.selected_blocks(cosine)?;
        let kernel = self.kernel.kernel()?;
        let batch = Batch::new(self.queries, &self.norms, self.schema, &selected, cosine, &self.cancel)?;
        let threads = if self.threads == 0 { rayon::current_num_threads() } else { self.threads };
        Ok((batch, kernel, threads))
    }

    fn task<'t>(&'t self, batch: &'t Batch, kernel: &'static dyn Kernel, threads: usize) -> Task<'t> {
        Task {
            schema: self.schema,
            batch,
            grouping: self.grouping,
            guarantee: self.guarantee,
            kernel,
            threads,
            rows: self.rows(),
        }
    }

    fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.reader.rows())).sum()
    }

    /// The screen that a path needs, with the queries packed for it.
    fn screen(
        &self,
        batch: &Batch,
        kernel: &'static dyn Kernel,
        threads: usize,
        path: ScanPath,
        break_even: f64,
    ) -> Result<Option<Screen>, ScanError> {
        if path == ScanPath::Full {
            return Ok(None);
        }
        let tier_bytes = self.task(batch, kernel, threads).tier_bytes(path);
        let ranges: Vec<_> = self.schema.spec().ranges().collect();
        let mut blocks = Vec::with_capacity(batch.blocks.len());
        for block in &batch.blocks {
            let queries = self.queries.iter().map(|query| &query.values()[ranges[block.block].clone()]);
            blocks.push(BlockScreen::new(self.schema, block, queries, path, &self.cancel)?);
        }
        let confidence = match self.guarantee {
            Guarantee::Probable { delta } if path == ScanPath::SignTier => {
                let ends = usize::from(self.top_k > 0) + usize::from(self.bottom_k > 0);
                let pairs = self.rows() as f64 * (batch.queries * ends) as f64;
                2.0 * (pairs / delta).ln()
            }
            _ => 0.0,
        };
        let reads_codes = tier_bytes == 0;
        Ok(Some(Screen { blocks, confidence, break_even, tier_bytes, reads_codes }))
    }

    /// The blocks in the index's order, each with its weight.
    fn selected_blocks(&self, cosine: bool) -> Result<Vec<(usize, f64)>, ScanError> {
        let spec = self.schema.spec();
        let ordinal =
            |name: &String| spec.block(name).ok_or_else(|| ScanError::UnknownBlock { name: name.clone() });
        let mut weights: Vec<Option<f64>> = match &self.blocks {
            None => vec![Some(1.0); spec.blocks().len()],
            Some(names) => {
                let mut weights = vec![None; spec.blocks().len()];
                for name in names {
                    weights[ordinal(name)?] = Some(1.0);
                }
                weights
            }
        };
        for (name, weight) in &self.weights {
            if !weight.is_finite() || (cosine && *weight < 0.0) {
                return Err(ScanError::InvalidWeight { name: name.clone(), weight: *weight });
            }
            match &mut weights[ordinal(name)?] {
                Some(selected) => *selected = *weight,
                None => return Err(ScanError::NotSelected { name: name.clone() }),
            }
        }
        let selected: Vec<_> =
            weights.into_iter().enumerate().filter_map(|(block, weight)| Some((block, weight?))).collect();
        if selected.is_empty() { Err(ScanError::NoBlocks) } else { Ok(selected) }
    }
}

impl std::fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("queries", &self.queries.len())
            .field("top_k", &self.top_k)
            .field("bottom_k", &self.bottom_k)
            .field("blocks", &self.blocks)
            .field("weights", &self.weights)
            .field("metric", &self.metric)
            .field("grouping", &self.grouping)
            .field("guarantee", &self.guarantee)
            .field("path", &self.path)
            .field("filter", &self.filter)
            .field("threads", &self.threads)
            .field("kernel", &self.kernel)
            .field("reading", &self.reading)
            .field("keep_cache", &self.keep_cache)
            .finish_non_exhaustive()
    }
}
