//! Least squares on the probability simplex.

/// The nearest point of the simplex (numbers of at least 0 whose sum is 1): all numbers less a shift, cut off at 0
/// (Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008). The shift
/// is found without their sorting, by leaving out what is below that of the rest until nothing is (Michelot, "A
/// finite algorithm for finding the projection of a point onto the canonical simplex", 1986). `rest` is scratch.
pub(super) fn project(values: &mut [f64], rest: &mut Vec<f64>) {
    rest.clear();
    rest.extend_from_slice(values);
    let mut shift = 0.0;
    while !rest.is_empty() {
        let before = rest.len();
        shift = (rest.iter().sum::<f64>() - 1.0) / before as f64;
        rest.retain(|value| *value > shift);
        if rest.len() == before {
            break;
        }
    }
    values.iter_mut().for_each(|value| *value = (*value - shift).max(0.0));
}

/// A symmetric matrix, row by row.
#[derive(Debug, Clone)]
pub(super) struct Symmetric {
    size: usize,
    values: Vec<f64>,
}

impl Symmetric {
    pub fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    pub fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.values[row * self.size + column]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.size)
    }

    /// An upper bound of the greatest eigenvalue.
    pub fn bound(&self) -> f64 {
        self.rows().map(|row| row.iter().map(|value| value.abs()).sum()).fold(0.0, f64::max)
    }
}

/// Moves `x`, several points of the simplex of `width` numbers each, towards the minimum of `1/2 tr(xᵀ A x) - tr(bᵀ
/// x)` by accelerated projected gradients (Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm",
/// 2009). `x` and `b` hold, for each row of `A`, `width` numbers; `by_column` says that each column of `x` is a point
/// of the simplex, else each row is.
pub(super) fn descend(a: &Symmetric, b: &[f64], x: &mut [f64], points: Points, steps: usize) {
    let (bound, width) = (a.bound(), b.len() / a.size.max(1));
    if bound <= 0.0 || width == 0 {
        return;
    }
    let mut ahead = x.to_vec();
    let (mut next, mut rest) = (vec![0.0; x.len()], Vec::new());
    let mut pace = 1f64;
    for _ in 0..steps {
        for (row, (of_a, next)) in a.rows().zip(next.chunks_exact_mut(width)).enumerate() {
            let at = row * width..(row + 1) * width;
            next.copy_from_slice(&b[at.clone()]);
            for (of_a, ahead) in of_a.iter().zip(ahead.chunks_exact(width)) {
                next.iter_mut().zip(ahead).for_each(|(next, ahead)| *next -= of_a * ahead);
            }
            next.iter_mut().zip(&ahead[at]).for_each(|(next, ahead)| *next = ahead + *next / bound);
        }
        match points {
            Points::Rows => next.chunks_exact_mut(width).for_each(|row| project(row, &mut rest)),
            Points::Column => project(&mut next, &mut rest),
        }
        let faster = 0.5 * (1.0 + (1.0 + 4.0 * pace * pace).sqrt());
        let momentum = (pace - 1.0) / faster;
        pace = faster;
        for ((x, next), ahead) in x.iter_mut().zip(&next).zip(&mut ahead) {
            *ahead = next + momentum * (next - *x);
            *x = *next;
        }
    }
}

/// What is a point of the simplex.
#[derive(Debug, Clone, Copy)]
pub(super) enum Points {
    /// Each row.
    Rows,
    /// The only column.
    Column,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Catches a shift from the wrong count: the projection is on the simplex, and no point of it is nearer.
    #[test]
    fn projection_is_the_nearest_point() {
        let mut random = Random(1);
        let mut rest = Vec::new();
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        for size in 1..6 {
            for _ in 0..200 {
                let point: Vec<f64> = random.normals(size).into_iter().map(f64::from).collect();
                let mut nearest = point.clone();
                project(&mut nearest, &mut rest);
                assert!((nearest.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(nearest.iter().all(|x| *x >= 0.0));
                for _ in 0..50 {
                    let mut other: Vec<f64> = (0..size).map(|_| random.uniform()).collect();
                    let sum: f64 = other.iter().sum();
                    other.iter_mut().for_each(|x| *x /= sum);
                    assert!(distance(&point, &nearest) <= distance(&point, &other) + 1e-12);
                }
            }
        }
    }

    /// Catches a step in the wrong direction: the minimum has no descent direction left between any two points.
    #[test]
    fn descent_ends_in_the_minimum() {
        let mut random = Random(2);
        for size in 1..6 {
            let factors = random.normals(size * size);
            let mut a = Symmetric::zeros(size);
            for (row, column) in (0..size * size).map(|at| (at / size, at % size)) {
                *a.at(row, column) = (0..size)
                    .map(|i| f64::from(factors[i * size + row]) * f64::from(factors[i * size + column]))
                    .sum();
                *a.at(row, column) += if row == column { 0.1 } else { 0.0 };
            }
            let b: Vec<f64> = random.normals(size).into_iter().map(f64::from).collect();
            let mut x = vec![1.0 / size as f64; size];
            descend(&a, &b, &mut x, Points::Column, 2000);
            let gradient: Vec<f64> = a
                .rows()
                .zip(&b)
                .map(|(row, b)| row.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>() - b)
                .collect();
            let least = gradient.iter().copied().fold(f64::INFINITY, f64::min);
            for (gradient, x) in gradient.iter().zip(&x) {
                assert!(*x < 1e-9 || *gradient < least + 1e-6, "{gradient} above {least} at {x}");
            }
        }
    }
}
