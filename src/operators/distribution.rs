//! Probability distributions that a caller brings.

use super::error::OperatorError;

/// What the sum of a distribution may differ from 1 by: the rounding of a softmax in half precision.
const TOLERANCE: f64 = 1e-3;

/// Checks that numbers are a distribution over `outputs` outputs. Returns their sum.
pub(super) fn check(
    numbers: &[f32],
    outputs: usize,
    what: impl Fn() -> String,
) -> Result<f64, OperatorError> {
    let fault = |reason| Err(OperatorError::Distribution { what: what(), reason });
    if numbers.is_empty() || numbers.len() != outputs {
        return fault(format!("{} numbers, where there are {outputs} outputs", numbers.len()));
    }
    if let Some(at) = numbers.iter().position(|number| !(number.is_finite() && *number >= 0.0)) {
        return fault(format!("output {at} has {}", numbers[at]));
    }
    let sum: f64 = numbers.iter().copied().map(f64::from).sum();
    if (sum - 1.0).abs() > TOLERANCE {
        return fault(format!("the sum is {sum}"));
    }
    Ok(sum)
}
