use super::factor_error::FactorError;
use super::options::Covered;
use crate::artifact::ArtifactError;

/// Why a curvature cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurvatureError {
    /// Nothing was fitted under this name, in the generation that was asked.
    #[error("no curvature {name:?} was fitted; see Writer::fit_curvature")]
    NotFitted {
        /// The name.
        name: String,
    },
    /// What was fitted is not what the index has now.
    #[error(
        "curvature {name:?} covers {} rows of the index, but {} others are not in it, and {} that are in it are deleted: \
         fit it again, or allow more than {limit} of the rows to be missing",
        covered.rows, covered.uncovered, covered.stale
    )]
    Missing {
        /// The name.
        name: String,
        /// The rows.
        covered: Covered,
        /// The fraction that is allowed.
        limit: f64,
    },
    /// Without a curvature there is no self-influence.
    #[error("Metric::Relative needs Scan::curvature")]
    NoCurvature,
    /// The self-influence of the rows was not computed, or with other sums, κ or rank.
    #[error(
        "the self-influence of the rows was not computed with this curvature {name:?}, κ and rank; see \
         Writer::fit_self_influence"
    )]
    NoSelfInfluence {
        /// The curvature's name.
        name: String,
    },
    /// The self-influence of some rows was not computed.
    #[error("segment {segment} has no self-influence in {name:?}; see Writer::fit_self_influence")]
    RowsWithoutSelfInfluence {
        /// The curvature's name.
        name: String,
        /// The segment of the rows.
        segment: uuid::Uuid,
    },
    /// A block cannot be factorised.
    #[error("block {block:?}")]
    Factor {
        /// The block's name.
        block: String,
        /// Why.
        source: FactorError,
    },
    /// The artifact cannot be read.
    #[error("cannot read the curvature")]
    Artifact(#[from] ArtifactError),
    /// The manifest cannot be read.
    #[error("cannot find the curvature")]
    Lookup {
        /// The index's error, a [`ManifestError`](crate::ManifestError).
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
