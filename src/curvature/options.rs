//! What a scan asks of a curvature, and what it was.

/// The name of a curvature, unless another is given.
pub(crate) const DEFAULT_NAME: &str = "curvature";

/// The fraction of uncovered or stale rows above which a scan refuses a curvature.
const DEFAULT_MISSING: f64 = 0.05;

/// The curvature of a scan: its queries are multiplied by `(F + λI)⁻¹`, block by block, before rows are scored.
///
/// `F` is the mean of `f fᵀ` over the `N` rows (or observed sketches) that were [fitted](crate::Writer::fit_curvature), and
/// `λ = κ · mean ‖f‖² / N`. Koh and Liang, "Understanding Black-box Predictions via Influence Functions", 2017
/// (arXiv:1703.04730), with `F` for the Hessian.
///
/// ```
/// use gradix::curvature::Curvature;
/// let stronger = Curvature::default().kappa(0.5).rank(64);
/// # let _ = stronger;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "it does nothing until it is given to a scan"]
pub struct Curvature {
    pub(crate) name: String,
    pub(crate) kappa: f64,
    pub(crate) rank: Option<u32>,
    pub(crate) missing: f64,
}

impl Default for Curvature {
    fn default() -> Self {
        Self { name: DEFAULT_NAME.into(), kappa: 2.0, rank: None, missing: DEFAULT_MISSING }
    }
}

impl Curvature {
    /// The name under which it was fitted. Default: `curvature`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The damping κ, finite and above 0. A large one tends to the scores without curvature (times a constant); one that
    /// is too small follows the noise of the fit. Default: 2.
    pub fn kappa(mut self, kappa: f64) -> Self {
        self.kappa = kappa;
        self
    }

    /// Uses the `rank` largest eigenvalues of each block only, at least 1; for the complement the first one that is left
    /// out is added to λ. Default: all of them for [`Estimate::Full`](super::Estimate::Full), 256 for
    /// [`Estimate::Nystrom`](super::Estimate::Nystrom).
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = Some(rank);
        self
    }

    /// The greatest fraction of the live rows that may be uncovered, and of the rows that were summed that may be deleted
    /// since: with more, a scan is refused. 1 allows all. Default: 0.05.
    pub fn allow_missing(mut self, fraction: f64) -> Self {
        self.missing = fraction;
        self
    }
}

/// How the rows of a generation and the rows that were fitted meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Covered {
    /// Live rows that were fitted.
    pub rows: u64,
    /// Live rows that were not.
    pub uncovered: u64,
    /// Rows that were fitted, and are deleted since.
    pub stale: u64,
}

impl Covered {
    /// The greater of two fractions: of the live rows, those that were not fitted; of the rows that were fitted, those
    /// that are deleted since. 0 without rows.
    #[must_use]
    pub fn missing(&self) -> f64 {
        let fraction = |part: u64| if part == 0 { 0.0 } else { part as f64 / (part + self.rows) as f64 };
        fraction(self.uncovered).max(fraction(self.stale))
    }
}

/// A curvature as it was used, or would be.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CurvatureState {
    /// Its name.
    pub name: String,
    /// The damping κ.
    pub kappa: f64,
    /// The rank that was asked for.
    pub rank: Option<u32>,
    /// Which rows of the generation were fitted.
    pub covered: Covered,
    /// The blocks that were asked for, in the index's order.
    pub blocks: Vec<BlockCurvature>,
}

/// The curvature of one block.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BlockCurvature {
    /// The block's name.
    pub block: String,
    /// What is kept of it.
    pub estimate: super::Estimate,
    /// The number `N` of rows, or of observed sketches, that were fitted.
    pub rows: u64,
    /// λ; 0 if all rows are zero in this block, whose queries then stay as they are.
    pub lambda: f64,
    /// The trace of `F (F + λI)⁻¹`. Above `N / 5` the fit follows its rows too closely: take a larger κ, or fit finer rows.
    pub effective_dims: f64,
}

/// Checks the name of an artifact. The error is the name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    // Behind a slash stands what belongs to a curvature.
    let is_allowed = |letter: char| !letter.is_control() && letter != '/';
    if (1..=64).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    Err(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a fraction that is not one: of nothing, of all rows, of rows that are gone.
    #[test]
    fn missing_of_covered_rows() {
        assert_eq!(Covered::default().missing(), 0.0);
        assert_eq!(Covered { rows: 3, uncovered: 1, stale: 0 }.missing(), 0.25);
        assert_eq!(Covered { rows: 3, uncovered: 1, stale: 9 }.missing(), 0.75);
        assert_eq!(Covered { rows: 0, uncovered: 2, stale: 0 }.missing(), 1.0);
    }
}
