//! Computes the self-influence of the live rows, kept as an artifact and published by a commit.

use uuid::Uuid;

use super::artifacts::sync;
use super::coverage::covered;
use super::curvature::self_influence_name;
use super::error::FitError;
use super::fit::{Fit, FitProgress, for_each_panel, live_rows};
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::artifact::{ArtifactKind, ArtifactWriter, Region, SealedArtifact};
use crate::curvature::{Conditioner, Curvature, CurvatureError, FactorError};
use crate::manifest::{Coverage, SELF_INFLUENCE};
use crate::scan::CancelToken;

/// Options of [`Writer::fit_self_influence`].
#[must_use = "options do nothing until they are given to `Writer::fit_self_influence`"]
pub struct SelfInfluenceOptions<'a> {
    curvature: Curvature,
    progress: Option<Box<dyn FnMut(FitProgress) + 'a>>,
    cancel: CancelToken,
}

impl Default for SelfInfluenceOptions<'_> {
    fn default() -> Self {
        Self { curvature: Curvature::default(), progress: None, cancel: CancelToken::new() }
    }
}

impl std::fmt::Debug for SelfInfluenceOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfInfluenceOptions").field("curvature", &self.curvature).finish_non_exhaustive()
    }
}

impl<'a> SelfInfluenceOptions<'a> {
    /// The curvature, κ and rank that it is computed with. Default: [`Curvature::default`].
    pub fn curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = curvature;
        self
    }

    /// Sets a callback for progress.
    pub fn progress(mut self, progress: impl FnMut(FitProgress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// A token that cancels the computation, from another thread or from the progress callback.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }
}

impl Writer {
    /// Computes the self-influence `gᵀ(F + λI)⁻¹g` of every live row, block by block, and publishes it by a commit of its
    /// own. [`Rows::with_self_influence`](crate::Rows::with_self_influence) reads it: mislabelled and outlying examples have the
    /// highest. [`Metric::Relative`](crate::Metric::Relative) divides by its root.
    ///
    /// It belongs to the sums, κ and rank that it was computed with; rows that were appended or moved by a compaction since
    /// have none. Then compute it again.
    ///
    /// Memory: the factors of all blocks, 64 MiB of decoded rows, 4 bytes for each row of a segment, and 400 bytes for each of
    /// a block's dims on each thread. Time: about dims² floating-point operations for each row and block, on rayon's global
    /// thread pool.
    ///
    /// # Errors
    /// There are uncommitted changes, the curvature cannot be used, or it was cancelled: then nothing has changed. Or a
    /// segment cannot be read; or the storage or the manifest fails, which poisons the writer.
    pub fn fit_self_influence(&mut self, mut options: SelfInfluenceOptions<'_>) -> Result<Fit, FitError> {
        self.check_committed()?;
        let snapshot = Snapshot::take(&self.shared, None)?;
        let blocks: Vec<usize> = (0..self.schema().spec().blocks().len()).collect();
        let cancel = options.cancel.clone();
        let conditioner = match snapshot.conditioner(&options.curvature, &blocks, &|| cancel.is_cancelled()) {
            Err(CurvatureError::Factor { source: FactorError::Cancelled, .. }) => {
                return Err(FitError::Cancelled);
            }
            other => other?,
        };
        let artifact = self.begin_artifact()?;
        let sealed = match self.write_self_influence(artifact, &snapshot, &conditioner, &mut options) {
            Ok(sealed) => sealed,
            Err(error) => return Err(self.give_up(artifact, error)),
        };
        let coverage: Coverage = snapshot.segments().iter().map(live_rows).collect();
        let covered = covered(&coverage, snapshot.segments(), 0);
        let name = self_influence_name(&conditioner.state.name);
        self.keep_artifact(name, SELF_INFLUENCE, &sealed, 0, &coverage)?;
        let generation = self.publish(Vec::new(), &[])?.generation;
        let (added, bytes) = (covered.rows, sealed.bytes);
        Ok(Fit { generation, added, subtracted: 0, refitted: true, bytes, covered })
    }

    fn write_self_influence(
        &self,
        artifact: Uuid,
        snapshot: &Snapshot,
        conditioner: &Conditioner,
        options: &mut SelfInfluenceOptions<'_>,
    ) -> Result<SealedArtifact, FitError> {
        let (storage, identity) = (self.shared.artifacts.as_ref(), &self.shared.identity);
        let mut writer = ArtifactWriter::create(storage, identity, artifact, ArtifactKind::SelfInfluence)?;
        let rows_total = snapshot.rows() * conditioner.factors.len() as u64;
        let mut rows_done = 0;
        let SelfInfluenceOptions { curvature, progress, cancel } = options;
        for segment in snapshot.segments() {
            let (uuid, live) = live_rows(segment);
            for (block, factor) in &conditioner.factors {
                let mut roots = vec![0f32; segment.reader.rows() as usize];
                let mut next = live.iter();
                for_each_panel(segment, *block, &live, |panel| {
                    if cancel.is_cancelled() {
                        return Err(FitError::Cancelled);
                    }
                    let values = factor.self_influence(panel);
                    for (value, row) in values.iter().zip(next.by_ref()) {
                        // Rounding may leave less than 0; what is NaN must not pass for 0.
                        roots[row as usize] = if *value < 0.0 { 0.0 } else { value.sqrt() as f32 };
                    }
                    rows_done += values.len() as u64;
                    if let Some(progress) = progress {
                        progress(FitProgress { rows_done, rows_total });
                    }
                    Ok(())
                })?;
                if !roots.iter().all(|root| root.is_finite()) {
                    let block = identity.schema.spec().blocks()[*block].name.clone();
                    return Err(FitError::Overflow { block });
                }
                let region = Region {
                    segment: uuid,
                    block: u32::try_from(*block).unwrap_or(u32::MAX),
                    rank: curvature.rank.unwrap_or(0),
                    rows: u64::from(segment.reader.rows()),
                    kappa: curvature.kappa,
                    sums: conditioner.sums,
                    ..Region::default()
                };
                writer.push_f32(&region, &roots)?;
            }
        }
        let sealed = writer.seal()?;
        sync(storage)?;
        Ok(sealed)
    }
}
