use super::*;
use crate::random::Random;

fn never() -> bool {
    false
}

/// Sums of `rows` rows, panel by panel.
fn sums_of(rows: &[f32], dims: usize, estimate: Estimate) -> BlockSums {
    let mut sums = BlockSums::new(dims, estimate);
    for panel in rows.chunks(panel_rows(dims) * dims) {
        sums.add(panel, Sign::Plus);
    }
    sums
}

/// `(F + lambda I) x`, from the rows.
fn apply(rows: &[f32], dims: usize, lambda: f64, x: &[f64]) -> Vec<f64> {
    let mut result: Vec<f64> = x.iter().map(|x| x * lambda).collect();
    let count = (rows.len() / dims) as f64;
    for row in rows.chunks(dims) {
        let product: f64 = row.iter().zip(x).map(|(f, x)| f64::from(*f) * x).sum();
        for (result, f) in result.iter_mut().zip(row) {
            *result += f64::from(*f) * product / count;
        }
    }
    result
}

/// Catches a wrong triangle, lambda, order of substitution or scale: `F + lambda I` times the answer must be the query.
#[test]
fn preconditioned_queries_solve_the_system() {
    for (count, dims) in [(1, 1), (40, 5), (300, 48), (100, 49), (700, 131)] {
        let mut random = Random(dims as u64);
        let rows: Vec<f32> = random.normals(count * dims).iter().map(|x| x * 1e-3).collect();
        let sums = sums_of(&rows, dims, Estimate::Full);
        let factor = Factor::new(&sums, 2.0, None, &never).unwrap();
        let query: Vec<f64> = random.normals(dims).into_iter().map(f64::from).collect();
        let mut answers = [query.clone()];
        factor.precondition(&mut answers);
        let back = apply(&rows, dims, factor.lambda(), &answers[0]);
        for (back, query) in back.iter().zip(&query) {
            assert!((back - query).abs() < 1e-4, "{dims} dims: {back} for {query}");
        }
    }
}
