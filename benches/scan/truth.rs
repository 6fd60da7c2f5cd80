//! The true ranking: inner products in f64 over the values before encoding.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use rayon::prelude::*;

/// The number of best rows of each query.
pub const KEPT: usize = 100;
/// Dims multiplied at once: those of all queries stay in a core's cache.
const TILE: usize = 512;
/// Rows that one thread takes at once.
const ROWS: usize = 32;
/// Rows and queries whose sums stay in registers.
const ROW_STEP: usize = 4;
const QUERY_STEP: usize = 4;

/// A score and its row; equal scores go to the earlier row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored(f64, u32);

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Finds the best rows for each query while the rows stream by.
pub struct Truth {
    /// Tile by tile, and in each query by query; queries and dims are padded with zeros.
    packed: Vec<f64>,
    queries: usize,
    dims: usize,
    best: Vec<BinaryHeap<Reverse<Scored>>>,
}

impl Truth {
    pub fn new(queries: &[Vec<f32>]) -> Self {
        let dims = queries.first().map_or(0, Vec::len);
        let wide = queries.len().next_multiple_of(QUERY_STEP);
        let mut packed = vec![0.0; dims.div_ceil(TILE) * wide * TILE];
        for (tile, part) in packed.chunks_exact_mut(wide * TILE).enumerate() {
            for (query, lanes) in queries.iter().zip(part.chunks_exact_mut(TILE)) {
                let numbers = &query[tile * TILE..dims.min((tile + 1) * TILE)];
                lanes.iter_mut().zip(numbers).for_each(|(lane, number)| *lane = f64::from(*number));
            }
        }
        Self { packed, queries: queries.len(), dims, best: vec![BinaryHeap::new(); queries.len()] }
    }

    /// Scores these rows, of which the first one is row `first`.
    pub fn add(&mut self, first: usize, rows: &[Vec<f32>]) {
        let parts: Vec<Vec<f64>> = rows.par_chunks(ROWS).map(|rows| self.scores(rows)).collect();
        let wide = self.queries.next_multiple_of(QUERY_STEP);
        self.best.par_iter_mut().enumerate().for_each(|(query, best)| {
            for (part, scores) in parts.iter().enumerate() {
                for (row, scores) in scores.chunks_exact(wide).enumerate() {
                    let row = first + part * ROWS + row;
                    if row >= first + rows.len() {
                        break;
                    }
                    let scored = Reverse(Scored(scores[query], row as u32));
                    if best.len() < KEPT {
                        best.push(scored);
                    } else if best.peek().is_some_and(|worst| scored < *worst) {
                        best.pop();
                        best.push(scored);
                    }
                }
            }
        });
    }

    /// The best rows of each query, best first.
    pub fn finish(self) -> Vec<Vec<u32>> {
        let sorted = |heap: BinaryHeap<Reverse<Scored>>| {
            heap.into_sorted_vec().into_iter().map(|Reverse(scored)| scored.1).collect()
        };
        self.best.into_iter().map(sorted).collect()
    }

    /// The scores of at most `ROWS` rows, row by row, with those that fill up the last step.
    fn scores(&self, rows: &[Vec<f32>]) -> Vec<f64> {
        let wide = self.queries.next_multiple_of(QUERY_STEP);
        let tall = rows.len().next_multiple_of(ROW_STEP);
        let mut scores = vec![0.0; tall * wide];
        let mut tile_rows = vec![0.0; tall * TILE];
        for (tile, queries) in self.packed.chunks_exact(wide * TILE).enumerate() {
            let range = tile * TILE..self.dims.min((tile + 1) * TILE);
            for (row, lanes) in rows.iter().zip(tile_rows.chunks_exact_mut(TILE)) {
                let (lanes, rest) = lanes.split_at_mut(range.len());
                lanes.iter_mut().zip(&row[range.clone()]).for_each(|(lane, x)| *lane = f64::from(*x));
                rest.fill(0.0);
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the feature was just detected.
                unsafe { add_tile_avx512(&tile_rows, queries, &mut scores, wide) };
                continue;
            }
            add_tile(&tile_rows, queries, &mut scores, wide);
        }
        scores
    }
}

/// Adds the products of one tile's rows and queries to the scores.
fn add_tile(rows: &[f64], queries: &[f64], scores: &mut [f64], wide: usize) {
    for (row, scores) in rows.chunks_exact(TILE).zip(scores.chunks_exact_mut(wide)) {
        for (query, score) in queries.chunks_exact(TILE).zip(scores) {
            let mut lanes = [0.0; 8];
            for (x, q) in row.as_chunks::<8>().0.iter().zip(query.as_chunks::<8>().0) {
                for lane in 0..8 {
                    lanes[lane] += x[lane] * q[lane];
                }
            }
            *score += lanes.iter().sum::<f64>();
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn add_tile_avx512(rows: &[f64], queries: &[f64], scores: &mut [f64], wide: usize) {
    use std::arch::x86_64::{_mm512_fmadd_pd, _mm512_loadu_pd, _mm512_reduce_add_pd, _mm512_setzero_pd};
    for (row_step, rows) in rows.chunks_exact(ROW_STEP * TILE).enumerate() {
        for (query_step, queries) in queries.chunks_exact(QUERY_STEP * TILE).enumerate() {
            let mut sums = [[_mm512_setzero_pd(); QUERY_STEP]; ROW_STEP];
            for at in (0..TILE).step_by(8) {
                // SAFETY: eight numbers from `at` on lie within each of the tiles.
                let q: [_; QUERY_STEP] = std::array::from_fn(|query| unsafe {
                    _mm512_loadu_pd(queries.as_ptr().add(query * TILE + at))
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let x = unsafe { _mm512_loadu_pd(rows.as_ptr().add(row * TILE + at)) };
                    for (sum, q) in sums.iter_mut().zip(q) {
                        *sum = _mm512_fmadd_pd(x, q, *sum);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let scores = &mut scores[(row_step * ROW_STEP + row) * wide + query_step * QUERY_STEP..];
                for (score, sum) in scores.iter_mut().zip(sums) {
                    *score += _mm512_reduce_add_pd(*sum);
                }
            }
        }
    }
}
