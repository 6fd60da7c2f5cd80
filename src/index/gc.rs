//! Garbage collection: removes old generations and the files that only they use.

use std::time::Duration;

use super::error::MaintenanceError;
use super::now_ms;
use super::writer::Writer;
use crate::lock::lock;
use crate::manifest::{Batch, StateRecord};
use crate::segment::file_name;

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
    /// Their bytes.
    pub bytes: u64,
}

impl Writer {
    /// Collects old generations: removes their files, deletes and example versions. It keeps the newest
    /// [`GcOptions::keep_generations`], every generation replaced within [`GcOptions::grace`], every
    /// generation that a snapshot of this process pins, and all generations after those.
    ///
    /// # Errors
    /// There are uncommitted changes, or the storage or the manifest fails, which poisons the writer. The
    /// next writer or the next collection removes the rest.
    pub fn gc(&mut self, options: GcOptions) -> Result<Collection, MaintenanceError> {
        if self.poisoned {
            return Err(MaintenanceError::Poisoned);
        }
        if !self.pending.is_empty() {
            return Err(MaintenanceError::Uncommitted);
        }
        let collected = self.collect(options);
        self.poisoned |= collected.is_err();
        collected
    }

    fn collect(&mut self, options: GcOptions) -> Result<Collection, MaintenanceError> {
        // No snapshot is taken while the oldest generation advances.
        let shared = std::sync::Arc::clone(&self.shared);
        let _loading = lock(&shared.loading);
        let newest = self.state.generation;
        let pinned = lock(&shared.pins).keys().next().copied().unwrap_or(newest);
        let mut oldest = (newest + 1).saturating_sub(options.keep).min(pinned).max(self.state.oldest);
        let grace = u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX);
        let late = now_ms().saturating_sub(grace);
        // The commit of a generation replaced the one before it.
        while oldest > self.state.oldest
            && self.manifest.commit(oldest)?.is_some_and(|commit| commit.time_ms > late)
        {
            oldest -= 1;
        }

        // First make the new oldest generation durable: from now on no reader opens an older one. Then
        // remove.
        let state = StateRecord { generation: newest, oldest };
        let mut batch = self.manifest.batch();
        batch.put_state(&state)?;
        batch.apply()?;
        self.state = state;
        let (segments, bytes) = self.remove_segments(oldest)?;
        self.drop_deletes(oldest)?;
        self.drop_versions(oldest)?;
        Ok(Collection { oldest, segments, bytes })
    }

    fn remove_segments(&self, oldest: u64) -> Result<(u64, u64), MaintenanceError> {
        let mut gone = self.manifest.segments()?;
        gone.retain(|(_, record)| record.removed.is_some_and(|removed| removed <= oldest));
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
        let storage = &self.shared.storage;
        let io = |name: &str, operation, source| crate::segment::SegmentError::Io {
            file: storage.describe(name),
            operation,
            source,
        };
        let mut batch = self.manifest.batch();
        for (segment, _) in &gone {
            let name = file_name(*segment);
            storage.remove(&name).map_err(|source| io(&name, "remove", source))?;
            batch.remove_intent(*segment)?;
        }
        storage.sync().map_err(|source| io("", "sync", source))?;
        batch.apply()?;
        Ok((gone.len() as u64, gone.iter().fold(0u64, |sum, (_, record)| sum.saturating_add(record.bytes))))
    }

    /// Of each segment, keeps the last bitmap at or before `oldest`, and all later ones.
    fn drop_deletes(&self, oldest: u64) -> Result<(), MaintenanceError> {
        let mut batch = self.manifest.batch();
        for (segment, _) in self.manifest.segments()? {
            let mut old: Vec<u64> =
                self.manifest.deletes_of(segment)?.into_iter().map(|(at, _)| at).collect();
            old.retain(|&at| at <= oldest);
            old.pop();
            for generation in old {
                batch.remove_deletes(segment, generation)?;
            }
        }
        Ok(batch.apply()?)
    }

    fn drop_versions(&self, oldest: u64) -> Result<(), MaintenanceError> {
        let mut batch = self.manifest.batch();
        self.manifest.for_each_example(|id, mut history| {
            if history.prune(oldest) {
                batch.put_example(id, &history)?;
            }
            if batch.byte_len() > BATCH_BYTES {
                let full: Batch<'_> = std::mem::replace(&mut batch, self.manifest.batch());
                full.apply()?;
            }
            Ok(())
        })?;
        Ok(batch.apply()?)
    }
}
