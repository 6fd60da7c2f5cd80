//! Scores by source.

use std::collections::BTreeMap;

use super::bootstrap::{Bootstrap, Interval};
use super::control::every_score;
use super::error::OperatorError;
use crate::scan::{Scan, ScoredRows};

/// Adds up scores by source: which corpus made the model do this?
///
/// For each query, or for the mean over the queries, and each source label: the sum and the mean of the scores
/// of its examples, and its share of the positive part, `P_s / sum of P` with `P_s` the sum of `max(score, 0)`.
/// Each comes with an interval of confidence over the choice of examples: the percentile interval of a Poisson
/// bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012), in which each replicate takes each example a
/// Poisson(1) number of times, a function of the seed, the example's id and the replicate alone. It says what
/// other examples from the same sources would have given, not how well the scores predict retraining.
///
/// The rows of one example in one source count as one, with the sum of their scores (or as the scan's
/// [`Grouping`](crate::Grouping) has it); so the example is the unit that is resampled. Beside it stands
/// [`Mixture`](super::Mixture), which asks the same from outputs alone.
///
/// One pass over the rows, in row order, which gives the same bits for any number of threads. Memory: 16 bytes
/// for each query, source and replicate, and 8 for each source and replicate, which
/// [`memory`](BySource::memory) limits. Besides the scan it costs about 10 ns for each example and replicate, and
/// 1 to 3 ns more for each further query, on one thread (`benches/operators.rs`).
///
/// ```
/// # use gradix::{Encoding, Index, Row, Schema, operators::BySource, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # let sketch = |x| Sketch::dense(spec.clone(), vec![x]);
/// writer.append_rows("a", &[Row::new(&sketch(3.0)?).source("wiki")])?;
/// writer.append_rows("b", &[Row::new(&sketch(1.0)?).source("news")])?;
/// writer.append_rows("c", &[Row::new(&sketch(-2.0)?).source("news")])?;
/// writer.commit()?;
/// let (snapshot, queries) = (index.snapshot()?, [sketch(1.0)?]);
/// let scores = BySource::new().replicates(200).run(snapshot.scan(&queries)?)?;
/// let [news, wiki] = &scores[0][..] else { panic!() };
/// assert_eq!((news.source.as_deref(), news.examples, news.sum, news.mean), (Some("news"), 2, -1.0, -0.5));
/// assert_eq!((wiki.share, news.share), (0.75, 0.25));
/// println!("{} of {}", wiki.share, wiki.share_interval.low);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing until it is run"]
pub struct BySource {
    bootstrap: Bootstrap,
    mean_over_queries: bool,
    memory: u64,
}

/// The scores of one source. Made by [`BySource::run`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SourceScores {
    /// The label; `None` for the rows without one.
    pub source: Option<String>,
    /// Examples with at least one row of the source. One whose rows have several labels counts for each.
    pub examples: u64,
    /// The sum of their scores.
    pub sum: f64,
    /// The interval of the sum.
    pub sum_interval: Interval,
    /// The mean of their scores.
    pub mean: f64,
    /// The interval of the mean, over the replicates that have an example of the source; `None` if none has.
    pub mean_interval: Option<Interval>,
    /// The source's share of the positive part of all scores, from 0 to 1; 0 if no score is positive.
    pub share: f64,
    /// The interval of the share.
    pub share_interval: Interval,
}

impl Default for BySource {
    fn default() -> Self {
        Self::new()
    }
}

impl BySource {
    /// 1,000 replicates, 95% confidence, seed 0, each query by itself, at most 1 GiB.
    pub fn new() -> Self {
        Self { bootstrap: Bootstrap::DEFAULT, mean_over_queries: false, memory: 1 << 30 }
    }

    /// The number of bootstrap replicates, from 1 to 1,000,000.
    pub fn replicates(mut self, replicates: usize) -> Self {
        self.bootstrap.replicates = replicates;
        self
    }

    /// The confidence of the intervals, above 0 and below 1.
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.bootstrap.confidence = confidence;
        self
    }

    /// The seed of the replicates.
    pub fn seed(mut self, seed: u64) -> Self {
        self.bootstrap.seed = seed;
        self
    }

    /// Whether the scores are the means over the queries, so that there is one result for all of them.
    pub fn mean_over_queries(mut self, mean: bool) -> Self {
        self.mean_over_queries = mean;
        self
    }

    /// The bytes that sums may take; more is an error.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Scans, and returns the sources for each query, or once for the mean: first no label, then in the order
    /// of the labels. Progress and cancellation are the scan's.
    ///
    /// # Errors
    /// A setting is impossible, the sums need more memory than allowed or overflow, or the scan fails or is
    /// cancelled.
    pub fn run(self, scan: Scan<'_>) -> Result<Vec<Vec<SourceScores>>, OperatorError> {
        self.bootstrap.check()?;
        let queries = if self.mean_over_queries { 1 } else { scan.query_count() };
        let mut sums = Sums::new(&self, queries, scan.query_count());
        every_score(scan, |rows| sums.add(rows))?;
        sums.close_example();
        sums.results()
    }
}

/// The sums of one source.
struct OfSource {
    examples: u64,
    /// For each query: of the scores, and of their positive part.
    sums: Vec<[f64; 2]>,
    /// For each replicate: examples taken.
    taken: Vec<f64>,
    /// The same as `sums`, for each query and replicate.
    replicated: Vec<[Vec<f64>; 2]>,
}

struct Sums<'o> {
    options: &'o BySource,
    queries: usize,
    scan_queries: usize,
    /// Ordinals by label.
    ordinals: BTreeMap<Option<String>, usize>,
    sources: Vec<OfSource>,
    /// The example whose rows are being read, and its scores in each of its sources.
    id: Vec<u8>,
    open: Vec<(usize, Vec<f64>)>,
    times: Vec<u8>,
}

impl<'o> Sums<'o> {
    fn new(options: &'o BySource, queries: usize, scan_queries: usize) -> Self {
        let (ordinals, sources, id) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { options, queries, scan_queries, ordinals, sources, id, open: Vec::new(), times: Vec::new() }
    }

    fn add(&mut self, rows: &ScoredRows<'_>) -> Result<(), OperatorError> {
        let mut last: Option<(Option<&str>, usize)> = None;
        for row in 0..rows.len() {
            let (id, label) = (rows.id(row)?, rows.source(row)?);
            if self.open.is_empty() || self.id != id {
                self.close_example();
                self.id.clear();
                self.id.extend_from_slice(id);
            }
            let source = match last {
                Some((before, source)) if before == label => source,
                _ => self.source(label)?,
            };
            last = Some((label, source));
            let (queries, all) = (self.queries, self.scan_queries);
            let score = |query: usize| match self.options.mean_over_queries {
                true => (0..all).map(|query| rows.scores(query)[row]).sum::<f64>() / all as f64,
                false => rows.scores(query)[row],
            };
            match self.open.iter_mut().find(|(open, _)| *open == source) {
                Some((_, scores)) => {
                    scores.iter_mut().enumerate().for_each(|(query, sum)| *sum += score(query));
                }
                None => self.open.push((source, (0..queries).map(score).collect())),
            }
        }
        Ok(())
    }

    /// The ordinal of a source, which may be new.
    fn source(&mut self, label: Option<&str>) -> Result<usize, OperatorError> {
        let label = label.map(str::to_owned);
        if let Some(&source) = self.ordinals.get(&label) {
            return Ok(source);
        }
        let (replicates, queries) = (self.options.bootstrap.replicates, self.queries);
        let bytes = 8 * (1 + replicates as u64) * (1 + 2 * queries as u64);
        let needed = bytes.saturating_mul(self.sources.len() as u64 + 1);
        if needed > self.options.memory {
            let (what, limit) = ("the sums of the sources", self.options.memory);
            return Err(OperatorError::Memory { what, needed, limit });
        }
        self.sources.push(OfSource {
            examples: 0,
            sums: vec![[0.0; 2]; queries],
            taken: vec![0.0; replicates],
            replicated: (0..queries).map(|_| [vec![0.0; replicates], vec![0.0; replicates]]).collect(),
        });
        self.ordinals.insert(label, self.sources.len() - 1);
        Ok(self.sources.len() - 1)
    }

    fn close_example(&mut self) {
        if self.open.is_empty() {
            return;
        }
        self.options.bootstrap.times(&self.id, &mut self.times);
        for (source, scores) in self.open.drain(..) {
            let source = &mut self.sources[source];
            source.examples += 1;
            add_times(&mut source.taken, &self.times, 1.0);
            for ((score, sums), replicated) in scores.iter().zip(&mut source.sums).zip(&mut source.replicated)
            {
                let parts = [*score, score.max(0.0)];
                for ((part, sum), replicated) in parts.iter().zip(sums).zip(replicated) {
                    *sum += part;
                    add_times(replicated, &self.times, *part);
                }
            }
        }
    }

    fn results(self) -> Result<Vec<Vec<SourceScores>>, OperatorError> {
        (0..self.queries).map(|query| self.results_of(query)).collect()
    }

    fn results_of(&self, query: usize) -> Result<Vec<SourceScores>, OperatorError> {
        let bootstrap = &self.options.bootstrap;
        let share = |part: f64, total: f64| if total > 0.0 { part / total } else { 0.0 };
        let positive: f64 = self.sources.iter().map(|source| source.sums[query][1]).sum();
        let replicated: Vec<f64> = (0..bootstrap.replicates)
            .map(|replicate| self.sources.iter().map(|source| source.replicated[query][1][replicate]).sum())
            .collect();
        let result = |(label, &source): (&Option<String>, &usize)| {
            let source = &self.sources[source];
            let [sum, part] = source.sums[query];
            let [sums, parts] = &source.replicated[query];
            let means = sums.iter().zip(&source.taken).filter(|(_, taken)| **taken > 0.0);
            let shares = parts.iter().zip(&replicated).map(|(part, total)| share(*part, *total));
            let all_finite = sums.iter().chain(&replicated).all(|sum| sum.is_finite());
            let (sum_interval, share_interval) =
                (bootstrap.interval(sums.clone()), bootstrap.interval(shares.collect()));
            match (sum_interval, share_interval) {
                (Some(sum_interval), Some(share_interval)) if all_finite && sum.is_finite() => {
                    Ok(SourceScores {
                        source: label.clone(),
                        examples: source.examples,
                        sum,
                        sum_interval,
                        mean: sum / source.examples as f64,
                        mean_interval: bootstrap.interval(means.map(|(sum, taken)| sum / taken).collect()),
                        share: share(part, positive),
                        share_interval,
                    })
                }
                _ => Err(OperatorError::Overflow),
            }
        };
        self.ordinals.iter().map(result).collect()
    }
}

fn add_times(sums: &mut [f64], times: &[u8], score: f64) {
    sums.iter_mut().zip(times).for_each(|(sum, &times)| *sum += f64::from(times) * score);
}
