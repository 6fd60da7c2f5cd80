//! How scores are distributed.

use serde_json::{Value, json};

/// How many bins a histogram has at most.
const BINS: usize = 40;
/// Bars are drawn on a logarithmic scale if the highest is this many times the lowest.
const LOGARITHMIC_ABOVE: u64 = 100;

/// Counts of scores in at most 40 bins of one width. No bin holds scores of both signs.
///
/// It takes scores one by one, so that those of a whole index can be counted without being kept:
///
/// ```
/// use gradix::report::Histogram;
///
/// // The range: the scores of the strongest opponent and of the strongest proponent.
/// let mut histogram = Histogram::between(-1.0, 2.0);
/// for score in [-1.0, 0.1, 0.2, 2.0] {
///     histogram.add(score);
/// }
/// assert_eq!(histogram.count(), 4);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    first_edge: f64,
    width: f64,
    counts: Vec<u64>,
    left_out: u64,
}

impl Histogram {
    /// A histogram of scores from the lower to the higher bound. Scores beyond them are counted in the outermost bins.
    #[must_use]
    pub fn between(low: f64, high: f64) -> Self {
        let (low, high) = (low.min(high), low.max(high));
        // Halves, because the difference of two large numbers may be infinite.
        let half_width = (high / 2.0 - low / 2.0) / (BINS - 2) as f64;
        let width = 2.0 * half_width;
        if !(width.is_normal() && low.is_finite()) {
            // Scores of one value, or none: one bin.
            let first_edge = if low.is_finite() { low } else { 0.0 };
            return Self { first_edge, width: 0.0, counts: vec![0], left_out: 0 };
        }
        // Edges are multiples of the width, so that 0 is one of them.
        let first = (low / width).floor();
        let bins = (high / width).floor() - first + 1.0;
        Self { first_edge: first * width, width, counts: vec![0; (bins as usize).min(BINS)], left_out: 0 }
    }

    /// The histogram of these scores, between the least and the greatest of them.
    #[must_use]
    pub fn of(scores: &[f64]) -> Self {
        let finite = || scores.iter().copied().filter(|score| score.is_finite());
        let mut histogram =
            Self::between(finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        for &score in scores {
            histogram.add(score);
        }
        histogram
    }

    /// Counts a score. One that is not finite is in no bin; the page says how many were left out.
    pub fn add(&mut self, score: f64) {
        if !score.is_finite() {
            self.left_out += 1;
            return;
        }
        // A cast of a float saturates: what is below the range lies in the first bin.
        let bin = if self.width > 0.0 {
            (score / self.width).floor() - (self.first_edge / self.width).round()
        } else {
            0.0
        };
        let bin = (bin as usize).min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
        }
    }

    /// The number of scores that were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// `first` and `width` of the bins, their counts, each bar's height as a share of the highest, whether these are of
    /// logarithms, and how many scores were left out.
    pub(super) fn to_json(&self) -> Value {
        let highest = self.counts.iter().copied().max().unwrap_or(0);
        let lowest = self.counts.iter().copied().filter(|&count| count > 0).min().unwrap_or(0);
        let is_logarithmic = highest > LOGARITHMIC_ABOVE.saturating_mul(lowest);
        let scaled = |count: u64| if is_logarithmic { (count as f64).ln_1p() } else { count as f64 };
        let top = scaled(highest).max(f64::MIN_POSITIVE);
        let heights: Vec<f64> = self.counts.iter().map(|&count| scaled(count) / top).collect();
        json!({
            "first": self.first_edge,
            "width": self.width,
            "counts": self.counts,
            "heights": heights,
            "logarithmic": is_logarithmic,
            "leftOut": self.left_out,
        })
    }
}
