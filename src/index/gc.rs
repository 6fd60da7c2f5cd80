//! Garbage collection: removes old generations and the files that only they use.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::error::MaintenanceError;
use super::now_ms;
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::lock::lock;
use crate::manifest::{Batch, Manifest, ManifestError, SegmentRecord, StateRecord};

/// The number of bytes at which a write batch of the collection is applied.
const BATCH_BYTES: usize = 8 << 20;
const DEFAULT_GRACE: Duration = Duration::from_secs(3600);

/// Options of [`Writer::gc`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct GcOptions {
    keep: u64,
    grace: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { keep: 1, grace: DEFAULT_GRACE }
    }
}

impl GcOptions {
    /// The number of newest generations that stay readable. Default and minimum: 1.
    pub fn keep_generations(mut self, keep: u64) -> Self {
        self.keep = keep.max(1);
        self
    }

    /// How long a generation and its files stay after the commit that replaced it. This protects snapshots of
    /// other processes, which the writer cannot see. Default: one hour.
    ///
    /// For commits of the same writer time is taken from a clock that nobody sets; for earlier ones from that of
    /// the system, as they noted it. If that one is set forward between two writers, the grace is shorter.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// The result of a garbage collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Collection {
    /// The oldest readable generation.
    pub oldest: u64,
    /// Segment files removed.
    pub segments: u64,
    /// Artifact files removed.
    pub artifacts: u64,
    /// The bytes of both.
    pub bytes: u64,
}

impl Writer {
    /// Collects old generations: removes their files, deletes, example versions and payloads. It keeps the newest
    /// [`GcOptions::keep_generations`], every generation replaced within [`GcOptions::grace`], every
    /// generation that a snapshot of this process pins, and all generations after those. Its time depends on what
    /// it removes and on the number of segments, not on the number of examples, and no snapshot waits for it.
    ///
    /// # Errors
    /// There are uncommitted changes, or the storage or the manifest fails, which poisons the writer. The
    /// next writer or the next collection removes the rest.
    pub fn gc(&mut self, options: GcOptions) -> Result<Collection, MaintenanceError> {
        self.check_usable().map_err(MaintenanceError::unusable)?;
        if self.has_changes() {
            return Err(MaintenanceError::Uncommitted);
        }
        let collected = self.collect(options);
        self.poisoned |= collected.is_err();
        collected
    }

    fn collect(&mut self, options: GcOptions) -> Result<Collection, MaintenanceError> {
        self.check_in_place()?;
        let newest = self.state.generation;
        let goal = (newest + 1).saturating_sub(options.keep);
        let state = StateRecord {
            generation: newest,
            oldest: oldest_in_grace(&self.manifest, self.state, &self.made, goal, options.grace)?,
        };
        let state = {
            // From now on no snapshot of this process takes an older generation.
            let mut horizon = lock(&self.shared.horizon);
            let pinned = horizon.pinned().unwrap_or(newest);
            let state = StateRecord { oldest: state.oldest.min(pinned).max(self.state.oldest), ..state };
            horizon.written = Some(state);
            state
        };
        // Made durable before anything is removed: from now on no reader opens an older one.
        let mut batch = self.manifest.batch();
        batch.put_state(&state)?;
        batch.apply()?;
        self.state = state;
        let oldest = state.oldest;
        self.made = self.made.split_off(&oldest);
        let (segments, bytes) = self.remove_segments(oldest)?;
        let (artifacts, artifact_bytes) = self.remove_artifacts(oldest)?;
        self.drop_deletes(oldest)?;
        self.drop_versions(oldest)?;
        self.drop_commits(oldest)?;
        Ok(Collection { oldest, segments, artifacts, bytes: bytes.saturating_add(artifact_bytes) })
    }

    fn remove_segments(&self, oldest: u64) -> Result<(u64, u64), MaintenanceError> {
        let gone = replaced_segments(&self.manifest, oldest)?;
        if gone.is_empty() {
            return Ok((0, 0));
        }
        // An intent replaces the record: after a crash in between, the next writer removes the file.
        let mut batch = self.manifest.batch();
        for (segment, _) in &gone {
            batch.remove_segment(*segment)?;
            batch.put_intent(*segment, now_ms())?;
        }
        batch.apply()?;
        let files: Vec<Uuid> = gone.iter().map(|(segment, _)| *segment).collect();
        self.remove_unpublished(&files)?;
        Ok((gone.len() as u64, total(gone.iter().map(|(_, record)| record.bytes))))
    }

    fn remove_artifacts(&self, oldest: u64) -> Result<(u64, u64), MaintenanceError> {
        let (records, gone) = replaced_artifacts(&self.manifest, oldest)?;
        let mut batch = self.manifest.batch();
        for (name, generation) in &records {
            batch.remove_artifact(name, *generation)?;
        }
        let files: Vec<Uuid> = gone.iter().map(|(file, _)| *file).collect();
        for &file in &files {
            batch.put_intent(file, now_ms())?;
        }
        batch.apply()?;
        self.remove_unpublished(&files)?;
        Ok((files.len() as u64, total(gone.iter().map(|(_, bytes)| *bytes))))
    }

    /// Of each segment, keeps the last bitmap at or before `oldest`, and all later ones; of a segment that is gone,
    /// none.
    fn drop_deletes(&self, oldest: u64) -> Result<(), MaintenanceError> {
        let segments: HashSet<Uuid> =
            self.manifest.segments()?.into_iter().map(|(segment, _)| segment).collect();
        let mut batch = self.manifest.batch();
        let all = self.manifest.deletes()?;
        for (i, &(segment, generation)) in all.iter().enumerate() {
            let is_followed = all.get(i + 1).is_some_and(|&(next, at)| next == segment && at <= oldest);
            if is_followed || !segments.contains(&segment) {
                batch.remove_deletes(segment, generation)?;
            }
        }
        Ok(batch.apply()?)
    }

    fn drop_versions(&self, oldest: u64) -> Result<(), MaintenanceError> {
        let mut batch = self.manifest.batch();
        self.manifest.for_each_superseded(oldest, |generation, id| {
            // In the same batch twice, if several generations have superseded it: the same history each time.
            if let Some(mut history) = self.manifest.example(id)?
                && history.prune(oldest)
            {
                batch.put_example(id, &history)?;
            }
            batch.remove_superseded(generation, id)?;
            if batch.byte_len() > BATCH_BYTES {
                let full: Batch<'_> = std::mem::replace(&mut batch, self.manifest.batch());
                full.apply()?;
            }
            Ok(())
        })?;
        Ok(batch.apply()?)
    }

    fn drop_commits(&self, oldest: u64) -> Result<(), MaintenanceError> {
        let mut batch = self.manifest.batch();
        for generation in self.manifest.commits_before(oldest)? {
            batch.remove_commit(generation)?;
        }
        Ok(batch.apply()?)
    }
}

impl Snapshot {
    /// What [`Writer::gc`] would remove, if this is the newest generation and no snapshot of the writer's process pins an
    /// earlier one. Needs no writer, and changes nothing. As long as another writer is open, which takes the grace of its
    /// own commits from another clock, it may come out a little otherwise.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn plan_gc(&self, options: GcOptions) -> Result<Collection, ManifestError> {
        let manifest = self.manifest()?;
        let state = StateRecord { generation: self.generation(), ..manifest.state()? };
        let goal = (state.generation + 1).saturating_sub(options.keep);
        let pinned = lock(&self.shared().horizon).pinned().unwrap_or(state.generation);
        let oldest = oldest_in_grace(&manifest, state, &BTreeMap::new(), goal, options.grace)?;
        let oldest = oldest.min(pinned).max(state.oldest);
        let segments = replaced_segments(&manifest, oldest)?;
        let (_, artifacts) = replaced_artifacts(&manifest, oldest)?;
        Ok(Collection {
            oldest,
            segments: segments.len() as u64,
            artifacts: artifacts.len() as u64,
            bytes: total(segments.iter().map(|(_, record)| record.bytes))
                .saturating_add(total(artifacts.iter().map(|(_, bytes)| *bytes))),
        })
    }
}

/// The oldest generation, but none after `goal`, that was replaced within the grace time; `goal` if none was.
fn oldest_in_grace(
    manifest: &Manifest,
    state: StateRecord,
    made: &BTreeMap<u64, Instant>,
    goal: u64,
    grace: Duration,
) -> Result<u64, ManifestError> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let late = now_ms().saturating_sub(grace_ms);
    let mut oldest = goal.max(state.oldest);
    // The commit of a generation replaced the one before it.
    while oldest > state.oldest {
        let is_recent = match made.get(&oldest) {
            Some(made) => made.elapsed() < grace,
            None => manifest.commit(oldest)?.is_some_and(|commit| commit.time_ms > late),
        };
        if !is_recent {
            break;
        }
        oldest -= 1;
    }
    Ok(oldest)
}

/// The segments that no generation from `oldest` on has.
fn replaced_segments(manifest: &Manifest, oldest: u64) -> Result<Vec<(Uuid, SegmentRecord)>, ManifestError> {
    let mut gone = manifest.segments()?;
    gone.retain(|(_, record)| record.removed.is_some_and(|removed| removed <= oldest));
    Ok(gone)
}

/// Of each artifact, the last record at or before `oldest` is needed, and all later ones, with the files that these
/// name: returns the records that are not, by name and generation, and the files, with their bytes.
#[expect(clippy::type_complexity, reason = "two lists, for the two functions below and above")]
fn replaced_artifacts(
    manifest: &Manifest,
    oldest: u64,
) -> Result<(Vec<(String, u64)>, Vec<(Uuid, u64)>), ManifestError> {
    let all = manifest.artifact_files()?;
    let (mut records, mut kept, mut gone) = (Vec::new(), HashSet::new(), BTreeMap::new());
    for (i, (name, generation, file)) in all.iter().enumerate() {
        let is_followed = all.get(i + 1).is_some_and(|(next, at, _)| next == name && *at <= oldest);
        let is_over = is_followed || (file.is_none() && *generation <= oldest);
        if is_over {
            records.push((name.clone(), *generation));
        }
        match file {
            Some(file) if is_over => drop(gone.insert(file.artifact(), file.bytes)),
            Some(file) => drop(kept.insert(file.artifact())),
            None => {}
        }
    }
    gone.retain(|artifact, _| !kept.contains(artifact));
    Ok((records, gone.into_iter().collect()))
}

fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::CommitRecord;
    use crate::sketch::{Sketch, SketchSpec};
    use crate::{Encoding, Index, Schema};

    /// Catches a grace time that a clock which is set forward voids: files of a generation that was replaced a
    /// moment ago are removed under the readers of other processes.
    #[test]
    fn grace_of_own_commits_does_not_depend_on_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let spec = SketchSpec::dense("test", "v1", [("all", 1)]);
        let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
        let index = Index::create(folder.path().join("x.gradix"), &schema).unwrap();
        let mut writer = index.writer().unwrap();
        for id in ["a", "b", "c"] {
            writer.append(id, &Sketch::dense(spec.clone(), vec![1.0]).unwrap()).unwrap();
            writer.commit().unwrap();
        }
        // As if all of them had been made in 1970, by a clock that was set since.
        let mut batch = writer.manifest.batch();
        for generation in 1..=3 {
            batch.put_commit(generation, &CommitRecord::default()).unwrap();
        }
        batch.apply().unwrap();
        assert_eq!(writer.gc(GcOptions::default()).unwrap().oldest, 0);
        drop(writer);
        // Another writer knows no better than the clock.
        assert_eq!(index.writer().unwrap().gc(GcOptions::default()).unwrap().oldest, 3);
    }
}
