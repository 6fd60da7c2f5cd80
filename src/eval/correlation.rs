//! Spearman's rank correlation.

use super::EvalError;
use super::error::{ordered, same_length};

/// The rank of each number, 1 for the least. Equal numbers share the mean of the ranks that they take.
///
/// ```
/// assert_eq!(gradix::eval::average_ranks(&[7.0, 3.0, 7.0, 9.0])?, [2.5, 1.0, 2.5, 4.0]);
/// # Ok::<(), gradix::eval::EvalError>(())
/// ```
///
/// # Errors
/// [`EvalError::NotFinite`] for NaN, which has no rank.
pub fn average_ranks(values: &[f64]) -> Result<Vec<f64>, EvalError> {
    ordered(values)?;
    let mut numbered: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    numbered.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in numbered.chunk_by(|a, b| a.1 == b.1) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        for &(at, _) in equal {
            if let Some(place) = ranks.get_mut(at) {
                *place = rank;
            }
        }
        before += equal.len();
    }
    Ok(ranks)
}

/// Spearman's correlation: that of the [average ranks](average_ranks), between -1 and 1. None if all numbers of
/// a list are equal, or there are fewer than two: then nothing varies with the other.
///
/// ```
/// use gradix::eval::spearman;
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1000.0])?, Some(1.0));
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0])?, None);
/// # Ok::<(), gradix::eval::EvalError>(())
/// ```
///
/// # Errors
/// [`EvalError::Length`] if the lists differ in length, [`EvalError::NotFinite`] for NaN.
pub fn spearman(left: &[f64], right: &[f64]) -> Result<Option<f64>, EvalError> {
    same_length(left.len(), right.len())?;
    Ok(rank_correlation(&average_ranks(left)?, &average_ranks(right)?))
}

/// Pearson's correlation of two lists of ranks from 1 to their length, whose means are equal.
pub(super) fn rank_correlation(left: &[f64], right: &[f64]) -> Option<f64> {
    let mean = (left.len() as f64 + 1.0) / 2.0;
    let (mut both, mut of_left, mut of_right) = (0.0, 0.0, 0.0);
    for (&a, &b) in left.iter().zip(right) {
        both += (a - mean) * (b - mean);
        of_left += (a - mean) * (a - mean);
        of_right += (b - mean) * (b - mean);
    }
    // One square root for equal sums, so that a perfect correlation is 1 and not almost.
    (of_left > 0.0 && of_right > 0.0).then(|| both / (of_left * of_right).sqrt())
}
