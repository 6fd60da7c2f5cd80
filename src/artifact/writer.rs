//! Writes an artifact file, region by region.

use std::io;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::error::ArtifactError;
use super::file_name;
use super::layout::{self, ArtifactKind, CHUNK, Region};
use crate::segment::Identity;
use crate::segment::storage::{Storage, StorageFile};

/// An artifact file that is being written.
pub(crate) struct ArtifactWriter {
    file: Box<dyn StorageFile>,
    name: String,
    artifact: Uuid,
    digest: Sha256,
    offset: u64,
    entries: Vec<u8>,
    regions: u32,
    crcs: Vec<u8>,
}

/// A complete and durable artifact file, but for its name: the storage is synced by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedArtifact {
    pub artifact: Uuid,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

impl std::fmt::Debug for ArtifactWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ArtifactWriter {
    /// Creates the file; the manifest has an intent for it.
    pub fn create(
        storage: &dyn Storage,
        identity: &Identity,
        artifact: Uuid,
        kind: ArtifactKind,
    ) -> Result<Self, ArtifactError> {
        let name = storage.describe(&file_name(artifact));
        let file = storage.create(&file_name(artifact)).map_err(|source| ArtifactError::Io {
            file: name.clone(),
            operation: "create",
            source,
        })?;
        let mut writer = Self {
            file,
            name,
            artifact,
            digest: Sha256::new(),
            offset: 0,
            entries: Vec::new(),
            regions: 0,
            crcs: Vec::new(),
        };
        writer.write(&layout::header(identity, artifact, kind))?;
        Ok(writer)
    }

    /// Writes a region of sums.
    pub fn push_f64(&mut self, region: &Region, numbers: &[f64]) -> Result<(), ArtifactError> {
        self.push(region, numbers, CHUNK / size_of::<f64>(), layout::f64_bytes)
    }

    /// Writes a region with a number for each row.
    pub fn push_f32(&mut self, region: &Region, numbers: &[f32]) -> Result<(), ArtifactError> {
        self.push(region, numbers, CHUNK / size_of::<f32>(), layout::f32_bytes)
    }

    fn push<T>(
        &mut self,
        region: &Region,
        numbers: &[T],
        at_once: usize,
        bytes: fn(&[T]) -> Vec<u8>,
    ) -> Result<(), ArtifactError> {
        for (chunk, numbers) in (0..).zip(numbers.chunks(at_once)) {
            let bytes = bytes(numbers);
            let crc = layout::chunk_crc(self.artifact, self.regions, chunk, &bytes);
            self.crcs.extend(layout::crc_bytes(crc));
            self.write(&bytes)?;
        }
        self.entries.extend(layout::entry(&Region { count: numbers.len() as u64, ..*region }));
        self.regions += 1;
        Ok(())
    }

    /// Writes table and tail, and makes the file's bytes durable.
    pub fn seal(mut self) -> Result<SealedArtifact, ArtifactError> {
        let offset = self.offset;
        let table = [std::mem::take(&mut self.entries), std::mem::take(&mut self.crcs)].concat();
        self.write(&table)?;
        let tail = layout::tail(offset, table.len() as u64, self.regions, layout::table_crc(&table));
        self.write(&tail)?;
        self.file.sync().map_err(|source| self.failed("sync", source))?;
        Ok(SealedArtifact {
            artifact: self.artifact,
            bytes: self.offset,
            sha256: self.digest.finalize().into(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.file.write(bytes).map_err(|source| self.failed("write", source))?;
        self.digest.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> ArtifactError {
        ArtifactError::Io { file: self.name.clone(), operation, source }
    }
}
