//! Artifacts in an index: opened and checked, begun and kept by a writer.

use uuid::Uuid;

use super::Shared;
use super::error::FitError;
use super::snapshot::Snapshot;
use super::writer::{Writer, intend};
use crate::artifact::{ArtifactError, ArtifactKind, ArtifactReader, Region, SealedArtifact};
use crate::curvature::{BlockSums, Estimate};
use crate::manifest::{ArtifactFile, ArtifactRecord, Coverage, ManifestError, SUMS_OF_OBSERVED};
use crate::schema::Schema;
use crate::segment::storage::Storage;

impl Shared {
    pub(super) fn open_artifact(&self, artifact: Uuid) -> Result<ArtifactReader, ArtifactError> {
        ArtifactReader::open(self.artifacts.as_ref(), &self.identity, artifact)
    }

    /// Opens the sums of all blocks.
    pub(super) fn open_sums(&self, artifact: Uuid) -> Result<ArtifactReader, ArtifactError> {
        let reader = self.open_artifact(artifact)?;
        check_regions(&reader, &self.identity.schema)?;
        Ok(reader)
    }
}

impl Writer {
    /// Checks that the writer can be used, and has nothing to commit.
    pub(super) fn check_committed(&self) -> Result<(), FitError> {
        self.check_usable().map_err(FitError::unusable)?;
        if self.has_changes() { Err(FitError::Uncommitted) } else { Ok(()) }
    }

    /// What earlier commits have under a name, which must be sums of this kind.
    pub(super) fn sums_record(
        &self,
        name: &str,
        kind: u8,
    ) -> Result<Option<(ArtifactFile, ArtifactRecord)>, FitError> {
        let Some(record) = self.manifest.artifact(name, self.state.generation)? else { return Ok(None) };
        match record.file {
            Some(file) if record.kind == kind => Ok(Some((file, record))),
            _ if kind == SUMS_OF_OBSERVED => Err(FitError::NotObserved { name: name.to_owned() }),
            _ => Err(FitError::NotOfRows { name: name.to_owned() }),
        }
    }

    /// The sums of a kind that earlier commits have under a name.
    pub(super) fn sums_before(
        &self,
        name: &str,
        kind: u8,
    ) -> Result<Option<(ArtifactReader, ArtifactRecord)>, FitError> {
        let Some((file, record)) = self.sums_record(name, kind)? else { return Ok(None) };
        Ok(Some((self.shared.open_sums(file.artifact())?, record)))
    }

    /// Records durably that an artifact is about to be created.
    pub(super) fn begin_artifact(&mut self) -> Result<Uuid, ManifestError> {
        let artifact = Uuid::new_v4();
        self.check_in_place()?;
        let intended = intend(&self.manifest, artifact);
        self.poisoned |= intended.is_err();
        intended?;
        Ok(artifact)
    }

    /// Gives an artifact to the next commit, in place of what is there under the name.
    pub(super) fn keep_artifact(
        &mut self,
        name: String,
        kind: u8,
        sealed: &SealedArtifact,
        gone: u64,
        coverage: &Coverage,
    ) -> Result<(), ManifestError> {
        let file = ArtifactFile::new(sealed.artifact, sealed.bytes, sealed.sha256);
        let record = ArtifactRecord::new(file, kind, gone, coverage)
            .map_err(|source| self.manifest.unencodable(source))?;
        self.artifacts.push((name, record));
        Ok(())
    }

    /// Removes an unfinished artifact, unless a write failed, and returns the error that the caller gets.
    pub(super) fn give_up(&mut self, artifact: Uuid, error: FitError) -> FitError {
        if matches!(error, FitError::Artifact(ArtifactError::Io { operation, .. }) if operation != "read") {
            self.poisoned = true;
            return error;
        }
        match self.remove_unpublished(&[artifact]) {
            Ok(()) => error,
            Err(failed) => {
                self.poisoned = true;
                failed.into()
            }
        }
    }
}

/// Checks that an artifact has sums for each block of the schema, of its dims.
pub(super) fn check_regions(reader: &ArtifactReader, schema: &Schema) -> Result<(), ArtifactError> {
    let damaged = |reason: String| Err(reader.damaged(0, reason));
    if reader.kind() != ArtifactKind::Sums || reader.regions().len() != schema.spec().blocks().len() {
        return damaged(format!("{} regions of {:?}", reader.regions().len(), reader.kind()));
    }
    for (block, (region, range)) in reader.regions().zip(schema.spec().ranges()).enumerate() {
        let dims = range.len();
        let estimate = Estimate::of_width(region.width);
        let is_whole = region.block as usize == block
            && region.dims as usize == dims
            && estimate.fits(dims)
            && BlockSums::values_of(dims, estimate) == Some(region.count);
        if !is_whole {
            return damaged(format!("region {block} does not have the sums of {dims} dims: {region:?}"));
        }
    }
    Ok(())
}

/// Checks that an artifact has the self-influence of all rows of segments, in blocks of the schema. Segments that were
/// compacted away may be in it.
pub(super) fn check_self_influence(
    reader: &ArtifactReader,
    snapshot: &Snapshot,
) -> Result<(), ArtifactError> {
    let blocks = snapshot.schema().spec().blocks().len();
    let fits = |region: &Region| {
        let rows = snapshot.segment(region.segment).map(|live| u64::from(live.reader.rows()));
        (region.block as usize) < blocks
            && region.count == region.rows
            && rows.is_none_or(|rows| rows == region.rows)
    };
    if reader.kind() != ArtifactKind::SelfInfluence || !reader.regions().all(fits) {
        return Err(reader.damaged(0, "regions that are not those of segments and blocks".into()));
    }
    Ok(())
}

/// Reads the sums of a block.
pub(super) fn block_sums(reader: &ArtifactReader, block: usize) -> Result<BlockSums, ArtifactError> {
    let region = reader.regions().nth(block).copied().unwrap_or_default();
    let (dims, estimate) = (region.dims as usize, Estimate::of_width(region.width));
    Ok(BlockSums { dims, estimate, rows: region.rows, power: region.power, values: reader.f64s(block)? })
}

/// The description of the sums of a block.
pub(super) fn region_of(block: usize, sums: &BlockSums) -> Region {
    Region {
        block: u32::try_from(block).unwrap_or(u32::MAX),
        dims: u32::try_from(sums.dims).unwrap_or(u32::MAX),
        width: sums.estimate.width(),
        rows: sums.rows,
        power: sums.power,
        ..Region::default()
    }
}

/// Makes the names of artifact files durable.
pub(super) fn sync(storage: &dyn Storage) -> Result<(), ArtifactError> {
    storage.sync().map_err(|source| {
        let file = storage.describe("");
        ArtifactError::Io { file, operation: "sync", source }
    })
}
