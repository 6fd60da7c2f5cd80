//! What a score must reach to be among the best, as far as any worker knows.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::best::Best;

/// Of one query: what a proponent's score must reach, and what an opponent's must when it is negated.
pub(super) type Bar = (f64, f64);

/// Shared by the workers, so that each leaves out what another one's best already beat. Only ever
/// raised: the worst of any worker's best is no better than that of the best of all.
#[derive(Debug)]
pub(super) struct Bars(Vec<[AtomicU64; 2]>);

impl Bars {
    /// For so many proponents and opponents; of none, none is good enough.
    pub fn new(queries: usize, (top_k, bottom_k): (usize, usize)) -> Self {
        let least = |k| AtomicU64::new(to_ordered(if k == 0 { f64::INFINITY } else { f64::NEG_INFINITY }));
        Self((0..queries).map(|_| [least(top_k), least(bottom_k)]).collect())
    }

    /// Raises the bars of some queries to what a worker has found. Relaxed, here and below: a bar only
    /// saves work.
    pub fn raise(&self, top: &[Best], bottom: &[Best], queries: Range<usize>) {
        for query in queries {
            for (bar, best) in self.0[query].iter().zip([&top[query], &bottom[query]]) {
                let bits = to_ordered(best.threshold());
                if bits > bar.load(Ordering::Relaxed) {
                    bar.fetch_max(bits, Ordering::Relaxed);
                }
            }
        }
    }

    /// The bar of a query.
    pub fn of(&self, query: usize) -> Bar {
        let [top, bottom] = &self.0[query];
        let of = |bar: &AtomicU64| from_ordered(bar.load(Ordering::Relaxed));
        (of(top), of(bottom))
    }

    /// The bars of all queries.
    pub fn read(&self, bars: &mut Vec<Bar>) {
        bars.clear();
        bars.extend((0..self.0.len()).map(|query| self.of(query)));
    }
}

/// Integers in the order of the numbers.
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

    /// Catches a bar of a negative score that is taken for a high one.
    #[test]
    fn ordered_bits_sort_as_numbers_do() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        for pair in numbers.windows(2) {
            assert!(to_ordered(pair[0]) < to_ordered(pair[1]), "{pair:?}");
            assert_eq!(from_ordered(to_ordered(pair[0])), pair[0]);
        }
    }
}
