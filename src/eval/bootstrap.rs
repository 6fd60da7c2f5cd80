//! Intervals by resampling.

use super::EvalError;
use super::error::finite;
use crate::codec::mix::splitmix;

/// A mean and an interval for it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Interval {
    /// The mean of the values.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// How intervals are made: by the percentiles of the means of resampled values (Efron and Tibshirani 1993, *An
/// Introduction to the Bootstrap*, chapter 13).
///
/// ```
/// use gradix::eval::Bootstrap;
/// let interval = Bootstrap::default().resamples(500).level(0.9).mean(&[0.2, 0.4, 0.6])?;
/// assert!((interval.mean - 0.4).abs() < 1e-12 && interval.low >= 0.2 && interval.high <= 0.6);
/// # Ok::<(), gradix::eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Bootstrap {
    resamples: u32,
    level: f64,
    seed: u64,
}

impl Default for Bootstrap {
    /// 2,000 resamples, a level of .95, seed 0.
    fn default() -> Self {
        Self { resamples: 2000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The number of resamples; each costs as many additions as there are values.
    pub fn resamples(mut self, resamples: u32) -> Self {
        self.resamples = resamples;
        self
    }

    /// The share of resampled means that lie within the interval.
    pub fn level(mut self, level: f64) -> Self {
        self.level = level;
        self
    }

    /// The seed of the resamples.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The interval of the mean of these values.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without values or resamples, [`EvalError::NotFinite`] if one is NaN or infinite,
    /// [`EvalError::InvalidLevel`].
    pub fn mean(&self, values: &[f64]) -> Result<Interval, EvalError> {
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(EvalError::InvalidLevel { level: self.level });
        }
        finite(values)?;
        let mean =
            super::mean(values.iter().copied().map(Some)).ok_or(EvalError::Empty { what: "values" })?;
        let mut state = self.seed;
        let mut means: Vec<f64> = (0..self.resamples)
            .map(|_| {
                let drawn = (0..values.len()).filter_map(|_| values.get(below(&mut state, values.len())));
                drawn.sum::<f64>() / values.len() as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        let low = quantile(&means, tail).ok_or(EvalError::Empty { what: "resamples" })?;
        let high = quantile(&means, 1.0 - tail).ok_or(EvalError::Empty { what: "resamples" })?;
        Ok(Interval { mean, low, high })
    }
}

/// The value below which this share of the sorted values lies, between two of them by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(low + (high - low) * at.fract())
}

/// A number below `count`: the high product with it of the next number of SplitMix64.
fn below(state: &mut u64, count: usize) -> usize {
    ((u128::from(splitmix(state)) * count as u128) >> 64) as usize
}
