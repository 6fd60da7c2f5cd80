//! Runs the workers of a scan on the thread pool, distributes the pieces, and merges the results.
//!
//! Workers never wait for each other. Results depend only on the rows, since rankings have one total order,
//! whichever worker scores a row. An executor of the same plan on another device, for example a GPU, would be
//! a sibling of this module.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::control::Control;
use super::error::ScanError;
use super::plan::{Feedback, Plan};
use super::read::{Load, Pieces, RowFilter, Source, Stream};
use super::score::{Counts, EveryWorker, Found, RankWorker, Screen, Thresholds};
use super::scores::InOrder;
use crate::lock::lock;
use crate::segment::LiveSegment;

/// A scan that is ready to run.
pub(super) struct Engine<'e, 'a> {
    plan: &'e Plan,
    filter: &'e RowFilter,
    control: &'e Control<'a>,
    feedback: &'e Feedback,
    source: Source,
    pieces: Pieces<'a>,
    /// The maximum number of workers.
    pub threads: usize,
}

/// The minimum number of pieces of a scan whose times correct the planner.
const MIN_TIMED_PIECES: usize = 4;

impl<'e, 'a> Engine<'e, 'a> {
    pub fn new(
        segments: &'a [LiveSegment],
        plan: &'e Plan,
        filter: &'e RowFilter,
        control: &'e Control<'a>,
        feedback: &'e Feedback,
        threads: usize,
    ) -> Result<Self, ScanError> {
        let source = Source::choose(plan, segments)?;
        let pieces = Pieces::new(segments, plan.grouping, plan.piece_rows(control.rows_total, threads));
        let threads = threads.min(pieces.len()).max(1);
        Ok(Self { plan, filter, control, feedback, source, pieces, threads })
    }

    pub fn source(&self) -> Source {
        self.source
    }

    /// The best rows of each query.
    pub fn rank(&self, screen: Option<&Screen>) -> Result<Found, ScanError> {
        let thresholds = Thresholds::new(self.plan.batch.queries, self.plan.ends);
        let found = Mutex::new(Found::new(self.plan.batch.queries, self.plan.ends));
        self.run_workers(
            false,
            || RankWorker::new(self.plan, screen, self.filter, &thresholds, self.control),
            |worker, load| worker.piece(load.rows.clone(), &load.columns, &mut load.codes),
            |worker| lock(&found).merge(worker.into_found()),
        )?;
        self.control.outcome()?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes the scores of all selected rows to `sink`, in row order.
    pub fn every(&self, sink: &InOrder<'_, 'a>) -> Result<Counts, ScanError> {
        let counts = Mutex::new(Counts::default());
        self.run_workers(
            true,
            || EveryWorker::new(self.plan, self.filter, self.control),
            |worker, load| {
                let scores = worker.piece(load.rows.clone(), &load.columns, &mut load.codes)?;
                sink.deliver(load.ordinal, scores, Arc::clone(&load.columns), self.control);
                Ok(())
            },
            |worker| lock(&counts).merge(worker.counts),
        )?;
        if !sink.is_finished() {
            self.control.outcome()?;
        }
        Ok(counts.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs workers on the current thread pool: each thread makes a worker with `make`, calls `piece` with
    /// piece after piece, and `done` at the end. Failures of pieces go to `control`.
    fn run_workers<W>(
        &self,
        strictly: bool,
        make: impl Fn() -> W + Sync,
        piece: impl Fn(&mut W, &mut Load<'a>) -> Result<(), ScanError> + Sync,
        done: impl Fn(W) + Sync,
    ) -> Result<(), ScanError> {
        self.control.check()?;
        let (plan, pieces) = (self.plan, &self.pieces);
        let stream =
            Stream::new(plan, pieces, self.filter, self.control, self.source, self.threads, strictly);
        let times = Mutex::new(Vec::new());
        let work = || {
            let _stopping = StopOnPanic(self.control);
            let (mut worker, mut taken) = (make(), Vec::new());
            // Held from piece to piece, so that a row group's columns are decoded once.
            let mut columns = None;
            while let Some(load) = stream.next() {
                let mut load = match load {
                    Ok(load) => load,
                    Err((ordinal, error)) => return self.control.fail(ordinal, error),
                };
                let (started, rows) = (Instant::now(), pieces.row_count(load.ordinal));
                if let Err(error) = piece(&mut worker, &mut load) {
                    return self.control.fail(load.ordinal, error);
                }
                taken.push(started.elapsed().as_secs_f64() / f64::from(rows));
                self.control.advance(u64::from(rows));
                drop(columns.replace(Arc::clone(&load.columns)));
                stream.done(load);
            }
            lock(&times).append(&mut taken);
            done(worker);
        };
        stream.run(|| {
            rayon::scope(|scope| {
                for _ in 0..self.threads {
                    scope.spawn(|_| work());
                }
            });
        });
        self.record_times(times.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Records the measured seconds per row relative to the plan, unless codes were read or checked for the
    /// first time.
    fn record_times(&self, mut times: Vec<f64>) {
        if self.source.warm && times.len() >= MIN_TIMED_PIECES {
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable_by(middle, f64::total_cmp);
            let ratio = *median / self.plan.row_seconds;
            let Plan { path, batch, curvature, .. } = self.plan;
            self.feedback.record(*path, curvature.is_some(), batch.queries, ratio);
        }
    }
}

/// Stops the other workers if a caller's callback panics.
struct StopOnPanic<'s, 'a>(&'s Control<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
