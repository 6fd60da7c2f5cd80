//! Lets go of generations that nobody needs any more, and of the files that only they need.

use std::time::Duration;

use super::error::MaintenanceError;
use super::now_ms;
use super::writer::Writer;
use crate::lock::lock;
use crate::manifest::{Batch, StateRecord};
use crate::segment::file_name;

/// A batch of the clean-up is applied when it has this many bytes.
const BATCH_BYTES: usize = 8 << 20;
const DEFAULT_GRACE: Duration = Duration::from_secs(3600);

/// What garbage collection may take.
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
    /// How many of the newest generations stay readable; 1 unless given, and at least 1.
    pub fn keep_generations(mut self, keep: u64) -> Self {
        self.keep = keep.max(1);
        self
    }

    /// A generation, and with it its files, stays for this long after the commit that replaced it, for
    /// the snapshots of other processes, which the writer does not see; one hour unless given.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// What garbage collection took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Collection {
    /// The oldest generation that can still be read.
    pub oldest: u64,
    /// Segment files that were removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Writer {
    /// Lets go of old generations: their files, deletes and example versions. Generations that a
    /// snapshot in this process shows are kept, those that were replaced within the grace time, and
    /// all later ones.
    ///
    /// # Errors
    /// There are uncommitted changes; or storage or manifest fail: what is left is taken by the
    /// next collection, or by the next writer.
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
        // No snapshot is taken while the floor rises.
        let shared = std::sync::Arc::clone(&self.shared);
        let _loading = lock(&shared.loading);
        let newest = self.state.generation;
        let pinned = lock(&shared.pins).keys().next().copied().unwrap_or(newest);
        let mut oldest = (newest + 1).saturating_sub(options.keep).min(pinned).max(self.state.oldest);
        let grace = u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX);
        let late = now_ms().saturating_sub(grace);
        // The commit of a generation is what replaced the one before it.
        while oldest > self.state.oldest
            && self.manifest.commit(oldest)?.is_some_and(|commit| commit.time_ms > late)
        {
            oldest -= 1;
        }

        // First the promise, durably: from now on nobody may ask for less. Then its consequences.
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
        // An intent in place of the record: a crash in between leaves the file to the next writer.
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

    /// Keeps, of each segment, the last bitmap at or below the floor and all above it.
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
