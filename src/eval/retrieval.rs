//! Whether a ranking finds what is known to be relevant.

use super::EvalError;
use super::error::{ordered, same_length};

/// The mean of those that have a value; none where none has.
#[must_use]
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u64);
    for value in values.into_iter().flatten() {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// 1 / the place of the first relevant row of a ranking, which is given from its top; 0 without one.
/// Its mean over queries is the mean reciprocal rank (MRR).
#[must_use]
pub fn reciprocal_rank(relevant: impl IntoIterator<Item = bool>) -> f64 {
    relevant.into_iter().position(|relevant| relevant).map_or(0.0, |at| 1.0 / (at as f64 + 1.0))
}

/// The share of relevant rows among the first `k` of a ranking (among all, where it has fewer); none for an
/// empty cut.
#[must_use]
pub fn precision_at(relevant: impl IntoIterator<Item = bool>, k: usize) -> Option<f64> {
    let (mut found, mut passed) = (0_u64, 0_u64);
    for relevant in relevant.into_iter().take(k) {
        found += u64::from(relevant);
        passed += 1;
    }
    (passed > 0).then(|| found as f64 / passed as f64)
}

/// The share of all `total` relevant rows that are among the first `k` of a ranking; none if there are none.
///
/// # Errors
/// [`EvalError::TooManyRelevant`] if more than `total` are among them.
pub fn recall_at(
    relevant: impl IntoIterator<Item = bool>,
    total: usize,
    k: usize,
) -> Result<Option<f64>, EvalError> {
    let found = relevant.into_iter().take(k).filter(|&relevant| relevant).count();
    if found > total {
        return Err(EvalError::TooManyRelevant { found, total });
    }
    Ok((total > 0).then(|| found as f64 / total as f64))
}

/// The area under the ROC curve: the chance that a positive row has a higher score than a negative one, a tie
/// counting one half (Mann and Whitney 1947). None without a positive or without a negative row.
///
/// # Errors
/// [`EvalError::Length`] if there is not one mark for each score, [`EvalError::NotFinite`] for NaN.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Result<Option<f64>, EvalError> {
    let steps = steps(scores, positive)?;
    let positives: usize = steps.iter().map(|step| step.hits).sum();
    let negatives = scores.len() - positives;
    let (mut found, mut outranked) = (0, 0.0);
    for step in &steps {
        outranked += step.misses as f64 * (found as f64 + 0.5 * step.hits as f64);
        found += step.hits;
    }
    Ok((positives > 0 && negatives > 0).then(|| outranked / (positives as f64 * negatives as f64)))
}

/// The area under the precision-recall curve, as the average precision `Σ (R_n - R_(n-1)) · P_n` over the distinct
/// scores from the top, so that the order among equal ones has no effect. None without a positive row.
///
/// # Errors
/// As [`roc_auc`].
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Result<Option<f64>, EvalError> {
    let steps = steps(scores, positive)?;
    let positives: usize = steps.iter().map(|step| step.hits).sum();
    let (mut found, mut passed, mut area) = (0, 0, 0.0);
    for step in &steps {
        found += step.hits;
        passed += step.hits + step.misses;
        area += step.hits as f64 / positives as f64 * (found as f64 / passed as f64);
    }
    Ok((positives > 0).then_some(area))
}

/// The rows with one score.
struct Step {
    hits: usize,
    misses: usize,
}

/// The rows by distinct scores, the highest first.
fn steps(scores: &[f64], positive: &[bool]) -> Result<Vec<Step>, EvalError> {
    same_length(scores.len(), positive.len())?;
    ordered(scores)?;
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let steps = rows.chunk_by(|a, b| a.0 == b.0).map(|equal| {
        let hits = equal.iter().filter(|row| row.1).count();
        Step { hits, misses: equal.len() - hits }
    });
    Ok(steps.collect())
}
