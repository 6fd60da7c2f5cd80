//! Linear systems, small enough for plain loops.

/// Solves `A x = b` for each `b` in place, by Cholesky's factorisation. `matrix` is A: symmetric, row-major, `n`
/// squared. None if it is not positive definite.
pub fn solve(mut matrix: Vec<f64>, right_sides: &mut [Vec<f64>]) -> Option<()> {
    let n = matrix.len().isqrt();
    for row in 0..n {
        let (above, own) = matrix.split_at_mut(row * n);
        for column in 0..row {
            let factor = &above[column * n..column * n + n];
            own[column] = (own[column] - dot(&own[..column], &factor[..column])) / factor[column];
        }
        own[row] = Some((own[row] - dot(&own[..row], &own[..row])).sqrt()).filter(|&root| root > 0.0)?;
    }
    for right in right_sides {
        for row in 0..n {
            let factor = &matrix[row * n..row * n + n];
            right[row] = (right[row] - dot(&factor[..row], &right[..row])) / factor[row];
        }
        for row in (0..n).rev() {
            right[row] /= matrix[row * n + row];
            let solved = right[row];
            for (left, factor) in right[..row].iter_mut().zip(&matrix[row * n..]) {
                *left -= factor * solved;
            }
        }
    }
    Some(())
}

/// The inner product, in eight sums so that it vectorises.
pub fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left_chunks, right_chunks) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f64 = left_chunks.remainder().iter().zip(right_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (left, right) in left_chunks.zip(right_chunks) {
        for (sum, (a, b)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Copies what is below the diagonal to above it.
pub fn mirror(matrix: &mut [f64], n: usize) {
    for row in 0..n {
        for column in 0..row {
            matrix[column * n + row] = matrix[row * n + column];
        }
    }
}

/// The inner products of all pairs of rows, row-major. Some columns at a time, which stay in the cache.
pub fn gram(rows: &[Vec<f64>]) -> Vec<f64> {
    const COLUMNS: usize = 128;
    let n = rows.len();
    let mut products = vec![0.0; n * n];
    for first in (0..rows.first().map_or(0, Vec::len)).step_by(COLUMNS) {
        let part = |row: &'_ Vec<f64>| first..row.len().min(first + COLUMNS);
        for (at, (row, products)) in rows.iter().zip(products.chunks_mut(n)).enumerate() {
            for (product, other) in products.iter_mut().zip(&rows[..=at]) {
                *product += dot(&row[part(row)], &other[part(other)]);
            }
        }
    }
    mirror(&mut products, n);
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch a wrong index in either substitution.
    #[test]
    fn solution_gives_the_right_side() {
        // Wider than what is multiplied at once.
        let rows: Vec<Vec<f64>> =
            (0..11).map(|row| (0..300).map(|at| f64::from(row * at) * 0.37 % 1.0 - 0.5).collect()).collect();
        let matrix = gram(&rows);
        assert!((matrix[1] - rows[0].iter().zip(&rows[1]).map(|(a, b)| a * b).sum::<f64>()).abs() < 1e-9);
        let right: Vec<f64> = (0..11).map(f64::from).collect();
        let mut solved = [right.clone()];
        solve(matrix.clone(), &mut solved).unwrap();
        for (row, expected) in matrix.chunks(11).zip(right) {
            assert!((dot(row, &solved[0]) - expected).abs() < 1e-9);
        }
        assert_eq!(solve(vec![1.0, 2.0, 2.0, 1.0], &mut []), None);
    }
}
