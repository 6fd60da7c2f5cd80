//! Compaction: copies live rows into fewer segments.

use uuid::Uuid;

use super::coverage::Carried;
use super::error::MaintenanceError;
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::segment::{EncodedRow, LiveSegment, RowGroup};

/// Options of [`Writer::compact`]: which segments to compact.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct CompactOptions {
    dead: f64,
    small: f64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { dead: 0.2, small: 0.5 }
    }
}

impl CompactOptions {
    /// Compacts every segment.
    pub fn all() -> Self {
        Self { dead: 0.0, small: f64::INFINITY }
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
    /// published so far remain, and the other segments are unchanged.
    pub fn compact(&mut self, options: CompactOptions) -> Result<Compaction, MaintenanceError> {
        self.check_usable().map_err(MaintenanceError::unusable)?;
        if self.has_changes() {
            return Err(MaintenanceError::Uncommitted);
        }
        let snapshot = Snapshot::take(&self.shared, None)?;
        let limit = self.shared.segment_bytes;
        let mut done = Compaction::default();
        let mut inputs: Vec<&LiveSegment> = Vec::new();
        let (mut bytes, mut rows) = (0, 0);
        for segment in choose(&snapshot, options, limit) {
            let share = u128::from(live_rows(segment)) * u128::from(segment.reader.bytes());
            let alive = u64::try_from(share / u128::from(segment.reader.rows().max(1))).unwrap_or(u64::MAX);
            // A commit's memory grows with the examples that it moves.
            let is_full = rows + live_rows(segment) > self.shared.commit_examples as u64;
            if !inputs.is_empty() && (bytes + alive > limit || is_full) {
                self.compact_into_one(&inputs, &mut done)?;
                inputs.clear();
                (bytes, rows) = (0, 0);
            }
            inputs.push(segment);
            bytes += alive;
            rows += live_rows(segment);
        }
        if !inputs.is_empty() {
            self.compact_into_one(&inputs, &mut done)?;
        }
        Ok(done)
    }

    fn compact_into_one(
        &mut self,
        inputs: &[&LiveSegment],
        done: &mut Compaction,
    ) -> Result<(), MaintenanceError> {
        let mut carried = Carried::new(&self.manifest, self.state.generation, inputs)?;
        let copied = inputs.iter().try_for_each(|segment| self.copy(segment, &mut carried, done));
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
        }
        Ok(())
    }
}

fn live_rows(segment: &LiveSegment) -> u64 {
    u64::from(segment.reader.rows()) - segment.dead.len()
}

/// The segments to compact, in the order of appending.
fn choose(snapshot: &Snapshot, options: CompactOptions, limit: u64) -> Vec<&LiveSegment> {
    let small = |segment: &LiveSegment| (segment.reader.bytes() as f64) < options.small * limit as f64;
    let sparse =
        |segment: &LiveSegment| segment.dead.len() as f64 >= options.dead * f64::from(segment.reader.rows());
    let several = snapshot.segments().iter().filter(|segment| small(segment)).count() > 1;
    snapshot.segments().iter().filter(|segment| sparse(segment) || (several && small(segment))).collect()
}
