//! Methods that keep no index: baselines without gradients, and whole gradients.

use crate::digits::{Gradient, QUERIES, ROWS, Task};
use crate::linear;

/// The influence of each row on each query, `[query][row]`.
pub type Influences = Vec<Vec<f64>>;

/// Influences from what a row and a query have in common, by their places in the task.
pub fn of_pairs(influence: impl Fn(usize, usize) -> f64) -> Influences {
    QUERIES.map(|query| (0..ROWS).map(|row| influence(query, row)).collect()).collect()
}

/// Numbers without meaning, by SplitMix64 of the pair.
pub fn random(query: usize, row: usize) -> f64 {
    let mut mixed = ((query * 2 * ROWS + row + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64
}

/// Similar images: of the query's label they help, of others they harm. The best of fifteen such baselines that were
/// tried (kernels of widths 1 to 8 and correlations; with and without the sign).
pub fn pixels(task: &Task, query: usize, row: usize) -> f64 {
    let pairs = task.pixels[query].iter().zip(&task.pixels[row]);
    let distance: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let sign = if task.labels[query] == task.labels[row] { 1.0 } else { -1.0 };
    sign * (-distance / 2.0).exp()
}

/// The gradients of rows and queries at one model.
pub struct Gradients {
    pub rows: Vec<Gradient>,
    pub queries: Vec<Gradient>,
}

impl Gradients {
    pub fn new(task: &Task, model: usize) -> Self {
        let of = |row| task.gradient(model, row);
        Self { rows: (0..ROWS).map(of).collect(), queries: QUERIES.map(of).collect() }
    }

    /// Inner products of whole gradients: TracIn (Pruthi et al. 2020, arXiv:2002.08484).
    pub fn products(&self) -> Influences {
        self.queries.iter().map(|query| self.rows.iter().map(|row| row.dot(query)).collect()).collect()
    }

    /// `q (F + λI)⁻¹ g` with the whole F = Σ g gᵀ / N and λ = κ mean‖g‖² / N, from the products of the N rows alone:
    /// `G (GᵀG / N + λI)⁻¹ = (GGᵀ / N + λI)⁻¹ G`.
    pub fn preconditioned(&self, kappa: f64) -> Influences {
        let mut influences = self.products();
        linear::solve(self.curvature(kappa), &mut influences).expect("a sum of squares and a positive λ");
        influences
    }

    /// `g (F + λI)⁻¹ g` of each row.
    pub fn self_influences(&self, kappa: f64) -> Vec<f64> {
        let mut influences: Influences =
            self.row_products().chunks(self.rows.len()).map(<[f64]>::to_vec).collect();
        linear::solve(self.curvature(kappa), &mut influences).expect("a sum of squares and a positive λ");
        influences.iter().enumerate().map(|(row, influences)| influences[row]).collect()
    }

    /// `GGᵀ`.
    fn row_products(&self) -> Vec<f64> {
        let n = self.rows.len();
        let mut products = vec![0.0; n * n];
        for (at, row) in self.rows.iter().enumerate() {
            for (product, other) in products[at * n..].iter_mut().zip(&self.rows[..=at]) {
                *product = row.dot(other);
            }
        }
        linear::mirror(&mut products, n);
        products
    }

    /// `GGᵀ / N + λI`.
    fn curvature(&self, kappa: f64) -> Vec<f64> {
        let n = self.rows.len();
        let mut matrix = self.row_products();
        matrix.iter_mut().for_each(|product| *product /= n as f64);
        let mean: f64 = (0..n).map(|row| matrix[row * n + row]).sum();
        (0..n).for_each(|row| matrix[row * n + row] += kappa * mean / n as f64);
        matrix
    }
}

/// The sum over checkpoints.
pub fn sum(parts: Vec<Influences>) -> Influences {
    parts
        .into_iter()
        .reduce(|mut sum, part| {
            for (sum, part) in sum.iter_mut().flatten().zip(part.iter().flatten()) {
                *sum += part;
            }
            sum
        })
        .unwrap_or_default()
}
