//! Compaction: copies live rows into fewer segments.

use std::fmt;

use uuid::Uuid;

use super::coverage::Carried;
use super::error::MaintenanceError;
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::scan::CancelToken;
use crate::segment::{EncodedRow, LiveSegment, RowGroup};

/// Options of [`Writer::compact`]: which segments to compact.
#[must_use]
pub struct CompactOptions<'a> {
    dead: f64,
    small: f64,
    progress: Option<Box<dyn FnMut(Compaction) + 'a>>,
    cancel: CancelToken,
}

impl fmt::Debug for CompactOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dead, small, .. } = self;
        f.debug_struct("CompactOptions").field("dead", dead).field("small", small).finish_non_exhaustive()
    }
}

impl Default for CompactOptions<'_> {
    fn default() -> Self {
        Self { dead: 0.2, small: 0.5, progress: None, cancel: CancelToken::new() }
    }
}

impl<'a> CompactOptions<'a> {
    /// Compacts every segment.
    pub fn all() -> Self {
        Self { dead: 0.0, small: f64::INFINITY, ..Self::default() }
    }

    /// Compacts segments in which at least this fraction of the rows is dead. Default: 0.2.
    pub fn dead_fraction(mut self, fraction: f64) -> Self {
        self.dead = fraction;
        self
    }

    /// Also compacts segments smaller than this fraction of the index's
    /// [segment size](crate::IndexOptions::segment_bytes), if there are at least two. Default: 0.5.
    pub fn small_fraction(mut self, fraction: f64) -> Self {
        self.small = fraction;
        self
    }

    /// Calls a function with what is done so far, after each row group. Default: none.
    pub fn progress(mut self, progress: impl FnMut(Compaction) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Lets [`CancelToken::cancel`] stop the compaction between two row groups: what was published by then stays, and
    /// the rest of the segments is as it was.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Says what is done, and whether to go on.
    fn report(&mut self, done: &Compaction) -> Result<(), MaintenanceError> {
        if let Some(progress) = &mut self.progress {
            progress(*done);
        }
        if self.cancel.is_cancelled() { Err(MaintenanceError::Cancelled) } else { Ok(()) }
    }
}

/// The result of a compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Compaction {
    /// Segments that were compacted.
    pub segments_removed: u64,
    /// Segments that were written to replace them.
    pub segments_added: u64,
    /// Live rows that were copied.
    pub rows_copied: u64,
    /// Dead rows that were dropped.
    pub rows_dropped: u64,
}

impl Writer {
    /// Copies the live rows of the chosen segments into new segments, and publishes about one new segment
    /// per generation. Codes are copied verbatim, never encoded again. The old files stay until
    /// [`Writer::gc`], for snapshots of earlier generations.
    ///
    /// Curvatures keep covering the rows that move. Deleted rows that are still in their sums cannot be subtracted once
    /// they are dropped: [fit](Writer::fit_curvature) before you compact, or the next fit sums all rows again.
    ///
    /// # Errors
    /// There are uncommitted changes, or the storage or the manifest fails. After a failure, the generations
    /// published so far remain, and the other segments are unchanged; so it is after it was cancelled.
    pub fn compact(&mut self, mut options: CompactOptions<'_>) -> Result<Compaction, MaintenanceError> {
        self.check_usable().map_err(MaintenanceError::unusable)?;
        if self.has_changes() {
            return Err(MaintenanceError::Uncommitted);
        }
        let snapshot = Snapshot::take(&self.shared, None)?;
        let mut done = Compaction::default();
        for inputs in plan(&snapshot, &options) {
            self.compact_into_one(&inputs, &mut options, &mut done)?;
        }
        Ok(done)
    }

    fn compact_into_one(
        &mut self,
        inputs: &[&LiveSegment],
        options: &mut CompactOptions<'_>,
        done: &mut Compaction,
    ) -> Result<(), MaintenanceError> {
        let mut carried = Carried::new(&self.manifest, self.state.generation, inputs)?;
        let copied = inputs.iter().try_for_each(|segment| self.copy(segment, &mut carried, options, done));
        if let Err(error) = copied {
            // Discard the copies; the originals are unchanged.
            if !self.poisoned {
                self.abort()?;
            }
            return Err(error);
        }
        self.seal()?;
        carried.finish(self)?;
        done.segments_added += self.sealed.len() as u64;
        done.segments_removed += inputs.len() as u64;
        let removed: Vec<Uuid> = inputs.iter().map(|segment| segment.reader.segment()).collect();
        self.publish(Vec::new(), &removed)?;
        Ok(())
    }

    fn copy(
        &mut self,
        segment: &LiveSegment,
        carried: &mut Carried,
        options: &mut CompactOptions<'_>,
        done: &mut Compaction,
    ) -> Result<(), MaintenanceError> {
        let reader = &segment.reader;
        reader.check_copyable()?;
        for group in 0..reader.groups().len() {
            let mut group = RowGroup::open(reader, group)?;
            let mut next = 0;
            while next < group.len() {
                let run = group.run(next);
                next = run.end;
                // Deletes remove whole examples, so the live rows of a run belong to one example.
                let mut alive = run.clone().collect::<Vec<usize>>();
                alive.retain(|&row| !segment.dead.contains(group.ordinal(row)));
                done.rows_dropped += (run.len() - alive.len()) as u64;
                if alive.is_empty() {
                    continue;
                }
                let encoded = alive.iter().map(|&row| group.encoded(row));
                let encoded: Vec<EncodedRow> = encoded.collect::<Result<_, _>>()?;
                let tags = alive.iter().map(|&row| group.tags(row));
                let id = group.id(run.start);
                let location = self.write(id, encoded.iter().zip(tags))?;
                self.pending.relocate(id, location);
                for (&row, new) in alive.iter().zip(location.first_row..) {
                    carried.moved(reader.segment(), group.ordinal(row), location.segment(), new);
                }
                done.rows_copied += alive.len() as u64;
            }
            options.report(done)?;
        }
        Ok(())
    }
}

fn live_rows(segment: &LiveSegment) -> u64 {
    u64::from(segment.reader.rows()) - segment.dead.len()
}

impl Snapshot {
    /// What [`Writer::compact`] would do with this generation. New segments are counted as if each came out at the size
    /// that is expected of it.
    #[must_use]
    pub fn plan_compaction(&self, options: &CompactOptions<'_>) -> Compaction {
        let mut done = Compaction::default();
        for inputs in plan(self, options) {
            let alive: u64 = inputs.iter().map(|segment| live_rows(segment)).sum();
            done.segments_removed += inputs.len() as u64;
            done.segments_added += u64::from(alive > 0);
            done.rows_copied += alive;
            done.rows_dropped += inputs.iter().map(|segment| segment.dead.len()).sum::<u64>();
        }
        done
    }
}

/// The segments to compact, in the order of appending; those that make about one new segment together.
fn plan<'s>(snapshot: &'s Snapshot, options: &CompactOptions<'_>) -> Vec<Vec<&'s LiveSegment>> {
    let (limit, examples) = (snapshot.shared().segment_bytes, snapshot.shared().commit_examples as u64);
    let small = |segment: &LiveSegment| (segment.reader.bytes() as f64) < options.small * limit as f64;
    let sparse =
        |segment: &LiveSegment| segment.dead.len() as f64 >= options.dead * f64::from(segment.reader.rows());
    let several = snapshot.segments().iter().filter(|segment| small(segment)).count() > 1;
    let mut plan = Vec::new();
    let mut inputs = Vec::new();
    let (mut bytes, mut rows) = (0, 0);
    for segment in snapshot.segments().iter().filter(|segment| sparse(segment) || (several && small(segment)))
    {
        let share = u128::from(live_rows(segment)) * u128::from(segment.reader.bytes());
        let alive = u64::try_from(share / u128::from(segment.reader.rows().max(1))).unwrap_or(u64::MAX);
        // A commit's memory grows with the examples that it moves.
        let is_full = rows + live_rows(segment) > examples;
        if !inputs.is_empty() && (bytes + alive > limit || is_full) {
            plan.push(std::mem::take(&mut inputs));
            (bytes, rows) = (0, 0);
        }
        inputs.push(segment);
        bytes += alive;
        rows += live_rows(segment);
    }
    if !inputs.is_empty() {
        plan.push(inputs);
    }
    plan
}
