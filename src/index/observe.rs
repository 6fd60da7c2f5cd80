//! Sums of sketches that are not stored: of the tokens of an example, say, whose whole gradient is.

use uuid::Uuid;

use super::artifacts::{block_sums, region_of, sync};
use super::error::{CommitError, FitError};
use super::fit::estimates;
use super::observed::Observed;
use super::writer::{Writer, intend};
use crate::artifact::{ArtifactError, ArtifactKind, ArtifactReader, ArtifactWriter, SealedArtifact};
use crate::curvature::check_name;
use crate::manifest::SUMS_OF_OBSERVED;
use crate::segment::Identity;
use crate::segment::storage::Storage;
use crate::sketch::{Sketch, SketchSpec};

impl Writer {
    /// Adds sketches to the sums of a curvature without storing them: those of an example's tokens or positions, for
    /// example, whose gradients together are the one that is stored. A curvature of finer rows ranks better than that of
    /// the stored ones. The next commit publishes the sums under `name`, beside those that earlier commits have.
    ///
    /// The example's rows count as covered. If the example is deleted or replaced later, its sketches stay in the sums, and
    /// count as stale ([`Covered`](crate::curvature::Covered)).
    ///
    /// Memory, until the writer commits: the sums of all blocks (8 bytes times dims · (dims + 1) / 2, or dims · 512 for blocks
    /// of more than 4,096 dims), for each block at most 64 MiB of sketches, and about 100 bytes and the id for each example, of
    /// which there are at most [`IndexOptions::commit_examples`](crate::IndexOptions::commit_examples). A commit reads and writes
    /// the sums once, when it is published: not when it is prepared.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// use gradix::Curvature;
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// let mut writer = index.writer()?;
    /// let tokens = [Sketch::dense(spec.clone(), vec![1.0, 2.0])?, Sketch::dense(spec, vec![2.0, -1.0])?];
    /// writer.append("a", &tokens[0].plus(&tokens[1])?)?;
    /// writer.observe("tokens", "a", &tokens)?;
    /// writer.commit()?;
    /// let state = index.snapshot()?.curvature(&Curvature::default().name("tokens"))?;
    /// assert_eq!((state.blocks[0].rows, state.covered.rows), (2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no such example; the name is invalid, or that of sums of stored rows; a sketch has another spec than the
    /// index; or as many examples have been observed as a commit may change. In these cases nothing has changed. Or the
    /// manifest or the sums that are there cannot be read.
    pub fn observe(&mut self, name: &str, id: impl AsRef<[u8]>, sketches: &[Sketch]) -> Result<(), FitError> {
        self.check_usable().map_err(FitError::unusable)?;
        check_name(name).map_err(|name| FitError::InvalidName { name })?;
        let id = id.as_ref();
        let spec = self.shared.identity.schema.spec();
        check_specs(sketches, spec)?;
        let place = self.find(id)?.ok_or_else(|| FitError::NotFound { id: id.to_owned() })?;
        if !self.observations.0.contains_key(name) {
            let before = self.sums_before(name, SUMS_OF_OBSERVED)?;
            let estimates = estimates(spec, before.as_ref().map(|(reader, _)| reader), &[])?;
            self.observations.0.insert(name.to_owned(), Observed::new(spec, &estimates));
        }
        let limit = self.shared.commit_examples;
        let Some(observed) = self.observations.0.get_mut(name) else { return Ok(()) };
        if observed.kind != SUMS_OF_OBSERVED {
            return Err(FitError::NotObserved { name: name.to_owned() });
        }
        if observed.examples.len() >= limit && !observed.examples.contains_key(id) {
            return Err(FitError::CommitFull { limit });
        }
        sketches.iter().for_each(|sketch| observed.add(sketch));
        // It may have been observed, and replaced since.
        if let Some(Some(before)) = observed.examples.insert(id.into(), Some(place))
            && before != place
        {
            observed.gone += u64::from(before.rows);
        }
        Ok(())
    }

    /// Writes what was observed and attached since the last commit, for the next one to publish.
    pub(super) fn write_observations(&mut self) -> Result<(), CommitError> {
        for (name, mut observed) in std::mem::take(&mut self.observations.0) {
            observed.flush();
            let before = self.sums_before(&name, observed.kind)?;
            let artifact = Uuid::new_v4();
            intend(&self.manifest, artifact)?;
            let (storage, identity) = (self.shared.artifacts.as_ref(), &self.shared.identity);
            let before_it = before.as_ref().map(|(reader, _)| reader);
            let sealed = write_sums(storage, identity, artifact, &observed, before_it)?;
            let (mut coverage, mut gone) = match &before {
                Some((_, record)) => (self.manifest.coverage(&name, record)?, record.gone),
                None => Default::default(),
            };
            coverage.append(&mut observed.attached);
            gone += observed.gone;
            for (id, place) in &observed.examples {
                let Some(place) = place else { continue };
                if self.find(id)?.as_ref() == Some(place) {
                    let rows = place.first_row..u32::try_from(place.end()).unwrap_or(u32::MAX);
                    coverage.entry(place.segment()).or_default().insert_range(rows);
                } else {
                    // Replaced or deleted before it was committed.
                    gone += u64::from(place.rows);
                }
            }
            self.keep_artifact(name, observed.kind, &sealed, gone, &coverage)?;
        }
        Ok(())
    }
}

/// Writes sums, added to those before.
pub(super) fn write_sums(
    storage: &dyn Storage,
    identity: &Identity,
    artifact: Uuid,
    observed: &Observed,
    before: Option<&ArtifactReader>,
) -> Result<SealedArtifact, ArtifactError> {
    let mut writer = ArtifactWriter::create(storage, identity, artifact, ArtifactKind::Sums)?;
    for (block, (sums, _)) in observed.blocks.iter().enumerate() {
        match before {
            Some(reader) => {
                let mut all = block_sums(reader, block)?;
                all.merge(sums);
                writer.push_f64(&region_of(block, &all), &all.values)?;
            }
            None => writer.push_f64(&region_of(block, sums), &sums.values)?,
        }
    }
    let sealed = writer.seal()?;
    sync(storage)?;
    Ok(sealed)
}

/// Checks that sketches are of the index's spec.
pub(super) fn check_specs(sketches: &[Sketch], spec: &SketchSpec) -> Result<(), FitError> {
    match sketches.iter().find(|sketch| sketch.spec() != spec) {
        None => Ok(()),
        Some(other) => {
            let (given, index) = (Box::new(other.spec().clone()), Box::new(spec.clone()));
            Err(FitError::OtherSpec { given, index })
        }
    }
}
