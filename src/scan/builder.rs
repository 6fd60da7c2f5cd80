//! A scan, from its description to its results.

use std::ops::ControlFlow;
use std::time::Instant;

use super::batch::{self, Batch};
use super::control::{CancelToken, Control, Progress};
use super::engine::Engine;
use super::error::ScanError;
use super::filter::{ExampleRows, FilterRequest, Find, SpanFilter};
use super::hits;
use super::kernel::KernelChoice;
use super::options::{Ends, Grouping, Guarantee, Metric, Reading, ScanPath};
use super::plan::{Explanation, Feedback, Limits, Plan, Planner, Wishes};
use super::ranking::{Ranking, Statistics};
use super::read::RowFilter;
use super::score::{Counts, Screen};
use super::scores::{InOrder, ScoredRows};
use crate::schema::Schema;
use crate::segment::LiveSegment;
use crate::sketch::Sketch;

/// A scan that is being described. Setters never fail; [`Scan::run`] says what does not fit.
///
/// The rows are read once for all queries. Memory grows with the batch and the number of threads,
/// and with `k`, never with the index.
#[must_use = "a scan does nothing until it is run"]
pub struct Scan<'a> {
    segments: &'a [LiveSegment],
    schema: &'a Schema,
    feedback: &'a Feedback,
    find: Box<Find<'a>>,
    queries: &'a [Sketch],
    norms: Vec<Vec<f32>>,
    ends: Ends,
    metadata: bool,
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
    /// `find` looks up ids in the snapshot that `segments` belong to; `feedback` is its index's.
    pub(crate) fn new(
        segments: &'a [LiveSegment],
        schema: &'a Schema,
        feedback: &'a Feedback,
        find: impl Fn(&[u8]) -> Result<Option<ExampleRows>, ScanError> + Send + Sync + 'a,
        queries: &'a [Sketch],
    ) -> Result<Self, ScanError> {
        Ok(Self {
            segments,
            schema,
            feedback,
            find: Box::new(find),
            queries,
            norms: batch::check(queries, schema)?,
            ends: Ends::default(),
            metadata: false,
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
        self.ends.top = k;
        self
    }

    /// How many opponents each query gets. Beyond the number of rows: all of them. Default 0.
    pub fn bottom_k(mut self, k: usize) -> Self {
        self.ends.bottom = k;
        self
    }

    /// Whether hits come with their rows' metadata. Default: false.
    pub fn metadata(mut self, metadata: bool) -> Self {
        self.metadata = metadata;
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
    /// is an error. Default: the cheapest.
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
    /// What was asked for makes no sense or is not possible (see [`ScanError`]), a segment is damaged or
    /// cannot be read, or the scan was cancelled.
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

    /// Scores the rows and passes every score on, in row order: rows as they were appended, segment by
    /// segment. `sink` is called from the scan's threads, one call at a time, and ends the scan with
    /// `Break`. A slow sink slows the scan down; memory depends on the batch and the threads alone.
    ///
    /// [`Scan::top_k`] and [`Scan::bottom_k`] have no meaning here, and rows are never pruned.
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
    /// As [`Scan::run`]. What `sink` has got by then stands.
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

    /// Says which path [`Scan::run`] would take through the rows, and what each is expected to cost. Reads no
    /// rows.
    ///
    /// # Errors
    /// What was asked for makes no sense or is not possible (see [`ScanError`]).
    pub fn explain(&self) -> Result<Explanation, ScanError> {
        let threads = self.thread_count();
        self.planner(threads, false)?.explain(self.path)
    }

    /// Calls `work` with the scan and how many threads it may use, on a pool that has as many.
    fn on_threads<R: Send>(
        self,
        work: impl FnOnce(Self, usize) -> Result<R, ScanError> + Send,
    ) -> Result<R, ScanError> {
        let threads = self.thread_count();
        // Starting threads takes longer than a small scan: as many as there are anyway will do.
        if threads == rayon::current_num_threads() {
            return work(self, threads);
        }
        let error = |source| ScanError::Threads { threads, source };
        if threads > rayon::max_num_threads() {
            return Err(error(std::io::ErrorKind::InvalidInput.into()));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|source| error(std::io::Error::other(source)))?;
        pool.install(|| work(self, threads))
    }

    fn thread_count(&self) -> usize {
        if self.threads == 0 { rayon::current_num_threads() } else { self.threads }
    }

    fn rows(&self) -> u64 {
        total_rows(self.segments)
    }

    fn filter(&self) -> Result<RowFilter, ScanError> {
        RowFilter::new(&self.filter, self.segments, &*self.find, &self.cancel)
    }

    fn plan(&self, threads: usize, all_scores: bool) -> Result<Plan, ScanError> {
        let (path, ends, limits) = (self.path, self.ends, self.limits);
        let (reading, keep_cache) = (self.reading, self.keep_cache);
        self.planner(threads, all_scores)?.plan(&Wishes { path, ends, limits, reading, keep_cache })
    }

    /// What can be checked without looking at rows.
    fn planner(&self, threads: usize, all_scores: bool) -> Result<Planner<'a>, ScanError> {
        if let Guarantee::Probable { delta } = self.guarantee
            && !(delta > 0.0 && delta < 1.0)
        {
            return Err(ScanError::InvalidDelta { delta });
        }
        let cosine = self.metric == Metric::Cosine;
        let selected = self.selected_blocks(cosine)?;
        let kernel = self.kernel.kernel()?;
        let batch = Batch::new(self.queries, &self.norms, self.schema, &selected, cosine, &self.cancel)?;
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
        })
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
            .field("ends", &self.ends)
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
