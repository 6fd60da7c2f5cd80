//! The builder of a scan.

use std::ops::ControlFlow;
use std::time::Instant;

use super::batch::{self, Batch, RowLength};
use super::control::{CancelToken, Control, Progress};
use super::engine::Engine;
use super::error::ScanError;
use super::filter::{FilterRequest, SpanFilter};
use super::hits;
use super::kernel::KernelChoice;
use super::options::{Ends, Grouping, Guarantee, Metric, Reading, ScanPath};
use super::plan::{Explanation, Feedback, Limits, Plan, Planner, Wishes};
use super::ranking::{Ranking, Statistics};
use super::read::RowFilter;
use super::score::{Counts, Screen};
use super::scores::{InOrder, ScoredRows};
use super::source::Lookup;
use crate::curvature::{Conditioner, Curvature, CurvatureError};
use crate::schema::Schema;
use crate::segment::LiveSegment;
use crate::sketch::Sketch;

/// Builder of a scan over a snapshot. Made by [`Snapshot::scan`](crate::Snapshot::scan). Setters never fail;
/// [`Scan::run`], [`Scan::scores`] and [`Scan::explain`] return the errors.
///
/// The rows are read once for all queries. Memory depends on the batch, the number of threads and `k`, never
/// on the size of the index.
///
/// ```
/// # use gradix::{Encoding, Index, Metric, Schema, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("a", 2), ("b", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # writer.append("x", &Sketch::dense(spec.clone(), vec![3.0, 4.0, 0.0, 0.0])?)?;
/// # writer.append("y", &Sketch::dense(spec.clone(), vec![0.0, 1.0, 9.0, 0.0])?)?;
/// # writer.commit()?;
/// # let snapshot = index.snapshot()?;
/// let queries = [Sketch::dense(spec, vec![3.0, 4.0, 1.0, 0.0])?];
/// let scan = snapshot.scan(&queries)?.top_k(5).metric(Metric::Cosine).blocks(["a"]);
/// let ranking = scan.run()?;
/// assert_eq!((&ranking.proponents(0)[0].id[..], ranking.proponents(0)[0].score), (&b"x"[..], 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a scan does nothing until it is run"]
pub struct Scan<'a> {
    segments: &'a [LiveSegment],
    schema: &'a Schema,
    feedback: &'a Feedback,
    lookup: &'a dyn Lookup,
    queries: &'a [Sketch],
    norms: Vec<Vec<f32>>,
    ends: Ends,
    metadata: bool,
    blocks: Option<Vec<String>>,
    weights: Vec<(String, f64)>,
    metric: Metric,
    curvature: Option<Curvature>,
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
    /// `lookup` is the snapshot of `segments`; `feedback` is the index's.
    pub(crate) fn new(
        segments: &'a [LiveSegment],
        schema: &'a Schema,
        feedback: &'a Feedback,
        lookup: &'a dyn Lookup,
        queries: &'a [Sketch],
    ) -> Result<Self, ScanError> {
        Ok(Self {
            segments,
            schema,
            feedback,
            lookup,
            queries,
            norms: batch::check(queries, schema)?,
            ends: Ends::default(),
            metadata: false,
            blocks: None,
            weights: Vec::new(),
            metric: Metric::default(),
            curvature: None,
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

    /// The maximum number of proponents per query. Default: 0.
    pub fn top_k(mut self, k: usize) -> Self {
        self.ends.top = k;
        self
    }

    /// The maximum number of opponents per query. Default: 0.
    pub fn bottom_k(mut self, k: usize) -> Self {
        self.ends.bottom = k;
        self
    }

    /// Whether hits include their rows' metadata. Default: `false`.
    pub fn metadata(mut self, metadata: bool) -> Self {
        self.metadata = metadata;
        self
    }

    /// Selects blocks: scores are over these blocks only, and only these are read. Default: all blocks.
    ///
    /// A name is that of a block, or, if there is none of that name, a prefix of names that ends before a `.`:
    /// `step-100` selects `step-100.layers.0` and `step-100.head`, all blocks of a checkpoint. A name that
    /// selects nothing is an error.
    pub fn blocks<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.blocks = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets weights of selected blocks, as pairs of name and weight: a score is the weighted sum over blocks.
    /// A name is that of a block or a prefix, as in [`Scan::blocks`]; a prefix weights those of its blocks that
    /// are selected, of which there must be one. The last weight given for a block applies. Default: 1 for
    /// each block.
    ///
    /// Weights must be finite, and at least 0 for all metrics but [`Metric::InnerProduct`].
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// let spec = SketchSpec::dense("mine", "v1", [("step-100.a", 1), ("step-100.b", 1), ("step-200.a", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// writer.append("x", &Sketch::dense(spec.clone(), vec![1.0, 2.0, 4.0])?)?;
    /// # writer.commit()?;
    /// # let snapshot = index.snapshot()?;
    /// let queries = [Sketch::dense(spec, vec![1.0, 1.0, 1.0])?];
    /// // Half of one checkpoint, but for one block, and a quarter of the other.
    /// let weights = [("step-100", 0.5), ("step-100.b", 3.0), ("step-200", 0.25)];
    /// let ranking = snapshot.scan(&queries)?.top_k(1).weights(weights).run()?;
    /// assert_eq!(ranking.proponents(0)[0].score, 0.5 * 1.0 + 3.0 * 2.0 + 0.25 * 4.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weights<N: Into<String>>(mut self, weights: impl IntoIterator<Item = (N, f64)>) -> Self {
        self.weights.extend(weights.into_iter().map(|(name, weight)| (name.into(), weight)));
        self
    }

    /// The metric of scores. Default: [`Metric::InnerProduct`].
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Preconditions the queries with the inverse of a curvature that was [fitted](crate::Writer::fit_curvature), block by
    /// block, before rows are scored. [`Statistics::curvature`] says what was used. Queries that were preconditioned by the
    /// same artifact, κ and rank have the same bits on every machine. Default: none.
    ///
    /// The factors of a curvature are computed when it is first used, and kept in memory for the last one that was.
    pub fn curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = Some(curvature);
        self
    }

    /// Whether rows or examples are ranked. Default: [`Grouping::Rows`].
    pub fn grouping(mut self, grouping: Grouping) -> Self {
        self.grouping = grouping;
        self
    }

    /// The guarantee of the ranking. Default: [`Guarantee::Exact`].
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Forces a scan path instead of the planner's choice. It is an error if the index, the grouping or the
    /// guarantee does not allow the path. Default: [`ScanPath::Auto`], the cheapest by [`Scan::explain`].
    pub fn path(mut self, path: ScanPath) -> Self {
        self.path = path;
        self
    }

    /// Includes only the examples with these ids. [`Statistics::ids_missing`] counts ids that are not in the
    /// snapshot. Default: all examples.
    pub fn ids<I: Into<Vec<u8>>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.filter.ids = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Excludes the examples with these ids. [`Statistics::ids_missing`] counts ids that are not in the
    /// snapshot.
    pub fn exclude_ids<I: Into<Vec<u8>>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.filter.excluded.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Includes only the examples whose ids begin with these bytes. Reads the ids of all rows. Default: the empty prefix,
    /// with which all ids begin.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # for (id, value) in [("news/1", 3.0), ("wiki/1", 1.0), ("wiki/2", 2.0)] {
    /// #     writer.append(id, &Sketch::dense(spec.clone(), vec![value])?)?;
    /// # }
    /// # writer.commit()?;
    /// let (snapshot, queries) = (index.snapshot()?, [Sketch::dense(spec, vec![1.0])?]);
    /// let ranking = snapshot.scan(&queries)?.id_prefix("wiki/").top_k(3).run()?;
    /// let ids: Vec<_> = ranking.proponents(0).iter().map(|hit| &hit.id[..]).collect();
    /// assert_eq!(ids, [b"wiki/2", b"wiki/1"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id_prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.filter.prefix = prefix.into();
        self
    }

    /// Includes only the rows with one of these source labels. A label that no segment of the snapshot has is
    /// an error, so that a misspelt label does not give an empty ranking. Default: all rows.
    pub fn sources<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.filter.sources = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Includes only the rows with matching spans. Default: [`SpanFilter::All`].
    pub fn spans(mut self, spans: SpanFilter) -> Self {
        self.filter.spans = spans;
        self
    }

    /// The number of threads. 0, the default, uses rayon's global thread pool; another number than that
    /// pool's starts threads for this scan.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The kernel. All kernels give the same bits. Default: the fastest that the machine supports.
    pub fn kernel(mut self, kernel: KernelChoice) -> Self {
        self.kernel = kernel;
        self
    }

    /// How codes are read. Rankings do not depend on it. Default: [`Reading::Auto`].
    pub fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Whether the codes that this scan reads from disk may stay in the page cache, where they may evict
    /// other data. Default: `true`.
    pub fn keep_cache(mut self, keep: bool) -> Self {
        self.keep_cache = keep;
        self
    }

    /// Sets a callback for progress. The scan's threads call it, one call at a time, with increasing numbers;
    /// after the last call of a successful scan, all rows are done.
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// A token that cancels the scan, from another thread or from the progress callback.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Runs the scan: scores the rows and ranks them.
    ///
    /// # Errors
    /// The request is invalid or unsupported (see [`ScanError`]), a segment is damaged or cannot be read, or
    /// the scan was cancelled.
    pub fn run(self) -> Result<Ranking, ScanError> {
        if self.ends.count() == 0 {
            return Err(ScanError::NoResults);
        }
        let started = Instant::now();
        self.on_threads(|scan, threads| {
            let plan = scan.plan(threads, false)?;
            let filter = scan.filter()?;
            let screen = Screen::new(&plan, scan.rows(), &scan.cancel)?;
            let (segments, feedback, metadata) = (scan.segments, scan.feedback, scan.metadata);
            let control = Control::new(scan.cancel, scan.progress, total_rows(segments));
            let engine = Engine::new(segments, &plan, &filter, &control, feedback, threads)?;
            let found = engine.rank(screen.as_ref())?;
            let counts = found.counts;
            let (proponents, opponents) = hits::resolve(segments, found, metadata)?;
            let statistics = statistics(&plan, &engine, &filter, &control, counts, started);
            Ok(Ranking { proponents, opponents, statistics })
        })
    }

    /// Runs the scan and passes every score to `sink`, in row order: segment by segment, and in the order of
    /// appending. The scan's threads call `sink`, one call at a time; `Break` ends the scan. A slow `sink`
    /// slows the scan down. Memory depends only on the batch and the threads.
    ///
    /// Ignores [`Scan::top_k`] and [`Scan::bottom_k`]; rows are never pruned.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::options().create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # writer.append("far", &Sketch::dense(spec.clone(), vec![0.0, 1.0])?)?;
    /// # writer.append("near", &Sketch::dense(spec.clone(), vec![3.0, 4.0])?)?;
    /// # writer.commit()?;
    /// let queries = [Sketch::dense(spec, vec![1.0, 0.5])?];
    /// let mut all = Vec::new();
    /// index.snapshot()?.scan(&queries)?.scores(|rows| {
    ///     all.extend_from_slice(rows.scores(0));
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(all, [0.5, 5.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scan::run`]. `sink` may have been called before the error.
    pub fn scores(
        self,
        sink: impl FnMut(&ScoredRows<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Statistics, ScanError> {
        let started = Instant::now();
        self.on_threads(|scan, threads| {
            let plan = scan.plan(threads, true)?;
            let filter = scan.filter()?;
            let (segments, feedback) = (scan.segments, scan.feedback);
            let control = Control::new(scan.cancel, scan.progress, total_rows(segments));
            let engine = Engine::new(segments, &plan, &filter, &control, feedback, threads)?;
            let counts = engine.every(&InOrder::new(Box::new(sink), engine.threads))?;
            Ok(statistics(&plan, &engine, &filter, &control, counts, started))
        })
    }

    /// Returns the scan path that [`Scan::run`] would take, and the estimated cost of each path. Reads no
    /// rows.
    ///
    /// # Errors
    /// The request is invalid or unsupported (see [`ScanError`]).
    pub fn explain(&self) -> Result<Explanation, ScanError> {
        let threads = self.thread_count()?;
        self.planner(threads, false)?.explain(self.path)
    }

    /// Groups rows by example, by their sums unless another grouping is set.
    pub(crate) fn by_example(mut self) -> Self {
        if !self.grouping.by_example() {
            self.grouping = Grouping::Sum;
        }
        self
    }

    /// Only proponents with at least this score, which prunes rows from the start.
    pub(crate) fn at_least(mut self, score: f64) -> Self {
        self.ends.least = score;
        self
    }

    pub(crate) fn query_count(&self) -> usize {
        self.queries.len()
    }

    /// Whether rows are excluded by id, source or span.
    pub(crate) fn is_filtered(&self) -> bool {
        let FilterRequest { ids, prefix, excluded, sources, spans } = &self.filter;
        ids.is_some()
            || !prefix.is_empty()
            || !excluded.is_empty()
            || sources.is_some()
            || *spans != SpanFilter::All
    }

    /// Calls `work` with the scan and the number of threads, on a pool of that number of threads.
    fn on_threads<R: Send>(
        self,
        work: impl FnOnce(Self, usize) -> Result<R, ScanError> + Send,
    ) -> Result<R, ScanError> {
        let threads = self.thread_count()?;
        // Starting threads takes longer than a small scan, so the global pool is used if its size matches.
        if threads == rayon::current_num_threads() {
            return work(self, threads);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            pool.map_err(|source| ScanError::Threads { threads, source: std::io::Error::other(source) })?;
        pool.install(|| work(self, threads))
    }

    fn thread_count(&self) -> Result<usize, ScanError> {
        match self.threads {
            0 => Ok(rayon::current_num_threads()),
            threads if threads <= rayon::max_num_threads() => Ok(threads),
            threads => Err(ScanError::Threads { threads, source: std::io::ErrorKind::InvalidInput.into() }),
        }
    }

    /// Rows of the snapshot's segments, including dead ones.
    pub(crate) fn rows(&self) -> u64 {
        total_rows(self.segments)
    }

    fn filter(&self) -> Result<RowFilter, ScanError> {
        RowFilter::new(&self.filter, self.segments, self.lookup, &self.cancel)
    }

    fn plan(&self, threads: usize, all_scores: bool) -> Result<Plan, ScanError> {
        let (path, ends, limits) = (self.path, self.ends, self.limits);
        let (reading, keep_cache) = (self.reading, self.keep_cache);
        self.planner(threads, all_scores)?.plan(&Wishes { path, ends, limits, reading, keep_cache })
    }

    /// Checks all that can be checked without reading rows.
    fn planner(&self, threads: usize, all_scores: bool) -> Result<Planner<'a>, ScanError> {
        if let Guarantee::Probable { delta } = self.guarantee
            && !(delta > 0.0 && delta < 1.0)
        {
            return Err(ScanError::InvalidDelta { delta });
        }
        let selected = self.selected_blocks(self.metric != Metric::InnerProduct)?;
        let kernel = self.kernel.kernel()?;
        let conditioner = self.conditioner(&selected)?;
        let divide = match self.metric {
            Metric::InnerProduct => None,
            Metric::Cosine => Some((RowLength::Norms, true)),
            Metric::UnitRows => Some((RowLength::Norms, false)),
            Metric::Relative => Some((self.self_influence(conditioner.as_ref())?, false)),
        };
        let (schema, cancel) = (self.schema, &self.cancel);
        let batch = match &conditioner {
            None => Batch::new(self.queries, &self.norms, schema, &selected, divide, cancel)?,
            Some(conditioner) => {
                let queries = conditioner.precondition(self.queries, schema.spec())?;
                let norms = batch::check(&queries, schema)?;
                Batch::new(&queries, &norms, schema, &selected, divide, cancel)?
            }
        };
        Ok(Planner {
            schema: self.schema,
            batch,
            grouping: self.grouping,
            guarantee: self.guarantee,
            kernel,
            threads,
            rows: self.rows(),
            all_scores,
            feedback: self.feedback,
            curvature: conditioner.map(|conditioner| conditioner.state),
        })
    }

    fn conditioner(&self, selected: &[(usize, f64)]) -> Result<Option<Conditioner>, ScanError> {
        let Some(curvature) = &self.curvature else { return Ok(None) };
        let blocks: Vec<usize> = selected.iter().map(|&(block, _)| block).collect();
        self.lookup.conditioner(curvature, &blocks, &self.cancel).map(Some)
    }

    fn self_influence(&self, conditioner: Option<&Conditioner>) -> Result<RowLength, ScanError> {
        let (Some(curvature), Some(conditioner)) = (&self.curvature, conditioner) else {
            return Err(CurvatureError::NoCurvature.into());
        };
        Ok(RowLength::SelfInfluence(self.lookup.self_influence(curvature, conditioner.sums)?))
    }

    /// The blocks in the index's order, each with its weight.
    fn selected_blocks(&self, divides: bool) -> Result<Vec<(usize, f64)>, ScanError> {
        let spec = self.schema.spec();
        let named = |name: &String| {
            let blocks = spec.blocks_under(name);
            if blocks.is_empty() { Err(ScanError::UnknownBlock { name: name.clone() }) } else { Ok(blocks) }
        };
        let mut weights: Vec<Option<f64>> = match &self.blocks {
            None => vec![Some(1.0); spec.blocks().len()],
            Some(names) => {
                let mut weights = vec![None; spec.blocks().len()];
                for name in names {
                    for block in named(name)? {
                        weights[block] = Some(1.0);
                    }
                }
                weights
            }
        };
        for (name, weight) in &self.weights {
            if !weight.is_finite() || (divides && *weight < 0.0) {
                return Err(ScanError::InvalidWeight { name: name.clone(), weight: *weight });
            }
            let mut is_selected = false;
            for block in named(name)? {
                if let Some(selected) = &mut weights[block] {
                    *selected = *weight;
                    is_selected = true;
                }
            }
            if !is_selected {
                return Err(ScanError::NotSelected { name: name.clone() });
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
            .field("ends", &self.ends)
            .field("blocks", &self.blocks)
            .field("weights", &self.weights)
            .field("metric", &self.metric)
            .field("curvature", &self.curvature)
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

fn total_rows(segments: &[LiveSegment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.reader.rows())).sum()
}

fn statistics(
    plan: &Plan,
    engine: &Engine<'_, '_>,
    filter: &RowFilter,
    control: &Control<'_>,
    counts: Counts,
    started: Instant,
) -> Statistics {
    let statistics = Statistics {
        kernel: plan.kernel.name(),
        path: plan.path,
        delta: plan.delta,
        curvature: plan.curvature.clone(),
        threads: engine.threads,
        reading: engine.source().reading,
        rows: counts.rows,
        rows_filtered: control.rows_total - counts.rows,
        rows_pruned_by_norm: counts.pruned_by_norm,
        rows_screened: counts.screened,
        candidate_rows: counts.candidates,
        candidate_scores: counts.candidate_scores,
        code_bytes: counts.code_bytes,
        tier_bytes: counts.tier_bytes,
        ids_missing: filter.ids_missing,
        elapsed: started.elapsed(),
    };
    tracing::debug!(
        kernel = statistics.kernel,
        path = statistics.path.name(),
        threads = statistics.threads,
        rows = statistics.rows,
        bytes = statistics.code_bytes + statistics.tier_bytes,
        seconds = statistics.elapsed.as_secs_f64(),
        "scanned"
    );
    statistics
}
