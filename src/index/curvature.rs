//! Opens and factorises the curvature of a snapshot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use super::artifacts::block_sums;
use super::snapshot::Snapshot;
use crate::artifact::{ArtifactKind, ArtifactReader, Region};
use crate::curvature::{
    BlockCurvature, Conditioner, Curvature, CurvatureError, CurvatureState, Estimate, Factor,
};
use crate::lock::lock;
use crate::manifest::{ArtifactRecord, ManifestError, SELF_INFLUENCE};
use crate::scan::{RowLengths, ScanError};

/// The factors of the curvature that was used last: of one artifact, κ and rank.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    artifact: Uuid,
    kappa: u64,
    rank: Option<u32>,
    /// One for each block, computed on first use.
    factors: Arc<[OnceLock<Arc<Factor>>]>,
}

/// The name of the artifact with the self-influence under a curvature.
pub(super) fn self_influence_name(curvature: &str) -> String {
    format!("{curvature}/self-influence")
}

fn lookup(source: ManifestError) -> CurvatureError {
    CurvatureError::Lookup { source: Box::new(source) }
}

impl Snapshot {
    /// What a scan with this curvature over all blocks would use: λ, effective dims, and which rows were fitted. Computes
    /// the factors, which a scan then need not: about dims³ / 3 floating-point operations for each block with
    /// [`Estimate::Full`].
    ///
    /// # Errors
    /// Nothing was fitted under this name, or it cannot be read or factorised. More missing rows than are allowed are no
    /// error here.
    pub fn curvature(&self, curvature: &Curvature) -> Result<CurvatureState, CurvatureError> {
        let all: Vec<usize> = (0..self.schema().spec().blocks().len()).collect();
        let any = curvature.clone().allow_missing(1.0);
        Ok(self.conditioner(&any, &all, &|| false)?.state)
    }

    fn record(&self, name: &str) -> Result<ArtifactRecord, CurvatureError> {
        let manifest = self.manifest().map_err(lookup)?;
        let record = manifest.artifact(name, self.generation()).map_err(lookup)?;
        record.ok_or_else(|| CurvatureError::NotFitted { name: name.to_owned() })
    }

    /// The factors of some blocks. `stop` ends their computation.
    pub(super) fn conditioner(
        &self,
        curvature: &Curvature,
        blocks: &[usize],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Conditioner, CurvatureError> {
        let (schema, shared) = (self.schema(), self.shared());
        let name = || curvature.name.clone();
        let record = self.record(&curvature.name)?;
        let file = record.file.filter(|_| record.kind != SELF_INFLUENCE);
        let file = file.ok_or_else(|| CurvatureError::NotFitted { name: name() })?;
        let covered = self.covered(&curvature.name, &record).map_err(lookup)?;
        // Not the other way round: a limit that is no number allows nothing.
        let is_allowed = covered.missing() <= curvature.missing;
        if !is_allowed {
            return Err(CurvatureError::Missing { name: name(), covered, limit: curvature.missing });
        }
        let reader = shared.open_sums(file.artifact())?;
        let cached = self.cached(curvature, file.artifact());
        let mut conditioner = Conditioner {
            state: CurvatureState {
                name: name(),
                kappa: curvature.kappa,
                rank: curvature.rank,
                covered,
                blocks: Vec::new(),
            },
            sums: file.artifact(),
            factors: Vec::new(),
        };
        for &block in blocks {
            let block_name = || schema.spec().blocks()[block].name.clone();
            let slot = &cached.factors[block];
            let factor = match slot.get() {
                Some(factor) => Arc::clone(factor),
                None => {
                    let sums = block_sums(&reader, block)?;
                    let factor = Factor::new(&sums, curvature.kappa, curvature.rank, stop);
                    let factor =
                        factor.map_err(|source| CurvatureError::Factor { block: block_name(), source })?;
                    let (dims, rows) = (factor.effective_dims(), sums.rows);
                    if dims > rows as f64 / 5.0 {
                        let block = block_name();
                        tracing::warn!(
                            block,
                            dims,
                            rows,
                            "the curvature follows its rows too closely: take a larger kappa"
                        );
                    }
                    Arc::clone(slot.get_or_init(|| Arc::new(factor)))
                }
            };
            let region = reader.regions().nth(block).copied().unwrap_or_default();
            conditioner.state.blocks.push(BlockCurvature {
                block: block_name(),
                estimate: Estimate::of_width(region.width),
                rows: region.rows,
                lambda: factor.lambda(),
                effective_dims: factor.effective_dims(),
            });
            conditioner.factors.push((block, factor));
        }
        Ok(conditioner)
    }

    /// The factors that were computed so far, which are kept for one curvature at a time.
    fn cached(&self, curvature: &Curvature, artifact: Uuid) -> Cached {
        let mut cached = lock(&self.shared().preconditioner);
        let (kappa, rank) = (curvature.kappa.to_bits(), curvature.rank);
        match &*cached {
            Some(cached) if (cached.artifact, cached.kappa, cached.rank) == (artifact, kappa, rank) => {
                cached.clone()
            }
            _ => {
                let blocks = self.schema().spec().blocks().len();
                let factors = (0..blocks).map(|_| OnceLock::new()).collect();
                cached.insert(Cached { artifact, kappa, rank, factors }).clone()
            }
        }
    }

    /// The self-influence of the rows under a curvature, computed with the sums that it has now.
    pub(super) fn self_influence(&self, curvature: &Curvature) -> Result<SelfInfluence, CurvatureError> {
        let record = self.record(&curvature.name)?;
        let file = record.file.filter(|_| record.kind != SELF_INFLUENCE);
        let file = file.ok_or_else(|| CurvatureError::NotFitted { name: curvature.name.clone() })?;
        self.row_lengths(curvature, file.artifact())
    }

    /// The self-influence of the rows under a curvature, which must have been computed with these sums.
    pub(super) fn row_lengths(
        &self,
        curvature: &Curvature,
        sums: Uuid,
    ) -> Result<SelfInfluence, CurvatureError> {
        let name = self_influence_name(&curvature.name);
        let missing = || CurvatureError::NoSelfInfluence { name: curvature.name.clone() };
        let record = self.record(&name).map_err(|error| match error {
            CurvatureError::NotFitted { .. } => missing(),
            other => other,
        })?;
        let file = record.file.filter(|_| record.kind == SELF_INFLUENCE).ok_or_else(missing)?;
        let reader = self.shared().open_artifact(file.artifact())?;
        let expected = (sums, curvature.kappa, curvature.rank.unwrap_or(0));
        let same = |region: &Region| (region.sums, region.kappa, region.rank) == expected;
        if reader.kind() != ArtifactKind::SelfInfluence || !reader.regions().all(same) {
            return Err(missing());
        }
        let place = |(ordinal, region): (usize, &Region)| ((region.segment, region.block as usize), ordinal);
        let regions = reader.regions().enumerate().map(place).collect();
        Ok(SelfInfluence { name: curvature.name.clone(), reader, regions })
    }
}

/// The roots of the self-influence of rows.
#[derive(Debug)]
pub(super) struct SelfInfluence {
    name: String,
    reader: ArtifactReader,
    /// The region of each segment and block.
    regions: HashMap<(Uuid, usize), usize>,
}

impl SelfInfluence {
    /// The roots of the self-influence of some rows of a segment in a block.
    pub fn roots(&self, segment: Uuid, block: usize, rows: Range<u32>) -> Result<Vec<f32>, CurvatureError> {
        let Some(&region) = self.regions.get(&(segment, block)) else {
            let name = self.name.clone();
            return Err(CurvatureError::RowsWithoutSelfInfluence { name, segment });
        };
        let rows = u64::from(rows.start)..u64::from(rows.end);
        Ok(self.reader.f32s(region, rows)?)
    }
}

impl RowLengths for SelfInfluence {
    fn lengths(&self, segment: Uuid, block: usize, rows: Range<u32>) -> Result<Vec<f32>, ScanError> {
        Ok(self.roots(segment, block, rows)?)
    }
}
