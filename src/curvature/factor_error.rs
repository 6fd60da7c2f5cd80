/// Why there is no curvature of a block.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FactorError {
    /// κ is NaN, infinite, or not above 0.
    #[error("kappa is {kappa}; it must be a finite number above 0")]
    InvalidKappa {
        /// The κ given.
        kappa: f64,
    },
    /// The rank is 0.
    #[error("a rank of 0 keeps nothing of the curvature")]
    RankZero,
    /// The sums are those of no rows.
    #[error("the curvature's sums have no rows")]
    NoRows,
    /// A sum is NaN or infinite.
    #[error("a sum of the curvature is NaN or infinite")]
    NotFinite,
    /// The sums plus λ are not positive definite: more was subtracted than had been added, or the rounding of what
    /// was subtracted is above λ.
    #[error(
        "the curvature's sums are not positive definite, even with lambda added: fit them again from all rows, by FitOptions::refit"
    )]
    NotPositive,
    /// An eigenvalue was not found in thirty steps, which no matrix is known to need.
    #[error("the eigenvalues of the curvature did not converge")]
    NotConverged,
    /// The caller has cancelled.
    #[error("the factorisation was cancelled")]
    Cancelled,
}
