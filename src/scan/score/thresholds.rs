//! The thresholds of each query, shared by the workers.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::best::Best;
use crate::scan::options::Ends;

/// The thresholds of one query: of a proponent's score, and of an opponent's negated score.
pub(in crate::scan) type Threshold = (f64, f64);

/// The thresholds of all queries. Each worker prunes by the thresholds of all. They only rise: the threshold
/// of one worker is at most that of the merged result.
#[derive(Debug)]
pub(in crate::scan) struct Thresholds(Vec<[AtomicU64; 2]>);

impl Thresholds {
    /// The thresholds before any score. At an end that is not requested, no score reaches the threshold.
    pub fn new(queries: usize, ends: Ends) -> Self {
        let first = |k, least| AtomicU64::new(to_ordered(if k == 0 { f64::INFINITY } else { least }));
        let bottom = || first(ends.bottom, f64::NEG_INFINITY);
        Self((0..queries).map(|_| [first(ends.top, ends.least), bottom()]).collect())
    }

    /// Raises the thresholds of some queries to those of a worker. Relaxed, here and below: a stale threshold
    /// only prunes less.
    pub fn raise(&self, top: &[Best], bottom: &[Best], queries: Range<usize>) {
        for query in queries {
            for (threshold, best) in self.0[query].iter().zip([&top[query], &bottom[query]]) {
                let bits = to_ordered(best.threshold());
                if bits > threshold.load(Ordering::Relaxed) {
                    threshold.fetch_max(bits, Ordering::Relaxed);
                }
            }
        }
    }

    /// The thresholds of a query.
    pub fn of(&self, query: usize) -> Threshold {
        let [top, bottom] = &self.0[query];
        let of = |threshold: &AtomicU64| from_ordered(threshold.load(Ordering::Relaxed));
        (of(top), of(bottom))
    }

    /// The thresholds of all queries.
    pub fn read(&self, thresholds: &mut Vec<Threshold>) {
        thresholds.clear();
        thresholds.extend((0..self.0.len()).map(|query| self.of(query)));
    }
}

/// Maps numbers to integers of the same order.
fn to_ordered(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn from_ordered(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a threshold of a negative score that is taken for a high one.
    #[test]
    fn ordered_bits_sort_as_numbers_do() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        for pair in numbers.windows(2) {
            assert!(to_ordered(pair[0]) < to_ordered(pair[1]), "{pair:?}");
            assert_eq!(from_ordered(to_ordered(pair[0])), pair[0]);
        }
    }
}
