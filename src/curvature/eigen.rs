//! All eigenvalues and eigenvectors of a symmetric matrix, by plain rules in a fixed order: Householder's
//! reflections to a tridiagonal matrix, then implicit QL steps (Bowdler, Martin, Reinsch and Wilkinson 1968; Golub
//! and Van Loan 2013, sections 8.3.1 and 8.3.3).

use rayon::prelude::*;

use super::FactorError;
use super::kernel::{Kernel, Line, Rotation, WIDTH};

/// QL steps for each eigenvalue. Two are usual; thirty are what the literature allows.
const STEPS: usize = 30;

/// Eigenvalues, the greatest first, and for each its vector of norm 1.
pub(super) struct Eigen {
    pub(super) values: Vec<f64>,
    pub(super) vectors: Vec<Vec<f64>>,
}

/// A tridiagonal matrix: the diagonal, and what stands below it, ended by a 0.
struct Tridiagonal {
    diagonal: Vec<f64>,
    below: Vec<f64>,
}

impl Eigen {
    /// Of the symmetric `rows`, whose elements are finite and about 1 at most: their squares must not overflow.
    pub(super) fn new(
        kernel: Kernel,
        rows: Vec<Vec<f64>>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, FactorError> {
        let count = rows.len();
        let (tridiagonal, basis) = reduce(kernel, rows, stop)?;
        // Vector `i` is row `i`, in strips of columns that threads turn on their own.
        let mut strips: Vec<Vec<Line<f64>>> = basis
            .par_chunks(WIDTH)
            .map(|columns| {
                let line = |row: usize| -> Line<f64> {
                    std::array::from_fn(|column| columns.get(column).map_or(0.0, |column| column[row]))
                };
                (0..count).map(line).collect()
            })
            .collect();
        let values = diagonalise(kernel, tridiagonal, &mut strips, stop)?;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let vector = |&i: &usize| {
            let mut vector: Vec<f64> = strips.iter().flat_map(|strip| strip[i]).collect();
            vector.truncate(count);
            vector
        };
        Ok(Self {
            vectors: order.iter().map(vector).collect(),
            values: order.iter().map(|&i| values[i]).collect(),
        })
    }
}

/// The tridiagonal matrix T, and the orthogonal Q, row by row, with `Q T Q^T` = `rows`.
fn reduce(
    kernel: Kernel,
    mut rows: Vec<Vec<f64>>,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(Tridiagonal, Vec<Vec<f64>>), FactorError> {
    let count = rows.len();
    let mut diagonal = Vec::with_capacity(count);
    let mut below = Vec::with_capacity(count);
    let mut reflections = Vec::with_capacity(count);
    for k in 0..count {
        if stop() {
            return Err(FactorError::Cancelled);
        }
        diagonal.push(rows[k][k]);
        let mut v = rows[k][k + 1..].to_vec();
        let squares = dot(&v, &v);
        let Some(&first) = v.first() else { break };
        if squares == 0.0 {
            below.push(0.0);
            reflections.push((v, 0.0));
            continue;
        }
        let norm = squares.sqrt();
        below.push(if first > 0.0 { -norm } else { norm });
        v[0] = if first > 0.0 { first + norm } else { first - norm };
        // 2 / v^T v
        let factor = 1.0 / (squares + first.abs() * norm);
        let trailing = &mut rows[k + 1..];
        let mut w = vec![0.0; v.len()];
        for (row, &by) in trailing.iter().zip(&v) {
            kernel.add_scaled(by, &row[k + 1..], &mut w);
        }
        w.iter_mut().for_each(|w| *w *= factor);
        let half = dot(&w, &v) * factor / 2.0;
        kernel.add_scaled(-half, &v, &mut w);
        for ((row, &v_of), &w_of) in trailing.iter_mut().zip(&v).zip(&w) {
            kernel.add_scaled(-v_of, &w, &mut row[k + 1..]);
            kernel.add_scaled(-w_of, &v, &mut row[k + 1..]);
        }
        reflections.push((v, factor));
    }
    below.push(0.0);
    let mut basis: Vec<Vec<f64>> = (0..count)
        .map(|i| {
            let mut row = vec![0.0; count];
            row[i] = 1.0;
            row
        })
        .collect();
    for (k, (v, factor)) in reflections.iter().enumerate().rev() {
        let mut products = vec![0.0; v.len()];
        for (row, &by) in basis[k + 1..].iter().zip(v) {
            kernel.add_scaled(by, &row[k + 1..], &mut products);
        }
        for (row, &by) in basis[k + 1..].iter_mut().zip(v) {
            kernel.add_scaled(-(by * factor), &products, &mut row[k + 1..]);
        }
    }
    Ok((Tridiagonal { diagonal, below }, basis))
}

/// The eigenvalues of the tridiagonal matrix; `strips` take every rotation.
fn diagonalise(
    kernel: Kernel,
    tridiagonal: Tridiagonal,
    strips: &mut [Vec<Line<f64>>],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<f64>, FactorError> {
    let Tridiagonal { diagonal: mut d, below: mut e } = tridiagonal;
    let largest = d.iter().zip(&e).fold(0.0f64, |largest, (d, e)| largest.max(d.abs() + e.abs()));
    let negligible = f64::EPSILON * largest;
    let mut rotations = Vec::new();
    for l in 0..d.len() {
        let mut steps = 0;
        loop {
            let m = (l..d.len() - 1).find(|&m| e[m].abs() <= negligible).unwrap_or(d.len() - 1);
            if m == l {
                break;
            }
            if steps == STEPS {
                return Err(FactorError::NotConverged);
            }
            if stop() {
                return Err(FactorError::Cancelled);
            }
            steps += 1;
            let slope = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let root = length(slope, 1.0);
            let mut g = d[m] - d[l] + e[l] / (slope + if slope < 0.0 { -root } else { root });
            let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
            rotations.clear();
            for i in (l..m).rev() {
                let (f, b) = (sine * e[i], cosine * e[i]);
                let r = length(f, g);
                e[i + 1] = r;
                if r == 0.0 {
                    // Both underflow: the matrix falls into two here.
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    break;
                }
                (sine, cosine) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * sine + 2.0 * cosine * b;
                p = sine * r;
                d[i + 1] = g + p;
                g = cosine * r - b;
                rotations.push(Rotation { row: i, cosine, sine });
            }
            if rotations.len() == m - l {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
            strips.par_iter_mut().for_each(|strip| kernel.rotate(&rotations, strip));
        }
    }
    Ok(d)
}

/// Products by ascending index.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(a: f64, b: f64) -> f64 {
    (a * a + b * b).sqrt()
}
