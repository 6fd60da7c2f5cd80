use proptest::prelude::*;

use super::estimate::Groups;
use super::kernel::Kernel;
use super::*;
use crate::random::Random;

const FULL: Estimate = Estimate::Full;

const fn nystrom(width: u32) -> Estimate {
    Estimate::Nystrom { width }
}

fn never() -> bool {
    false
}

/// Sums of rows, panel by panel.
fn sums_of(rows: &[f32], dims: usize, estimate: Estimate) -> BlockSums {
    let mut sums = BlockSums::new(dims, estimate);
    for panel in rows.chunks(panel_rows(dims) * dims) {
        sums.add(panel, Sign::Plus);
    }
    sums
}

fn factor(sums: &BlockSums, rank: Option<u32>) -> Factor {
    Factor::new(sums, 2.0, rank, &never).unwrap()
}

fn preconditioned(factor: &Factor, query: &[f64]) -> Vec<f64> {
    let mut queries = [query.to_vec()];
    factor.precondition(&mut queries);
    let [query] = queries;
    query
}

fn normals(random: &mut Random, count: usize) -> Vec<f64> {
    random.normals(count).into_iter().map(f64::from).collect()
}

fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

/// The rows' F, row by row, from nothing but the definition.
fn mean_of_products(rows: &[f32], dims: usize) -> Vec<Vec<f64>> {
    let mut f = vec![vec![0.0; dims]; dims];
    for row in rows.chunks(dims) {
        for (sums, &x) in f.iter_mut().zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
        }
    }
    let count = (rows.len() / dims) as f64;
    f.iter_mut().flatten().for_each(|sum| *sum /= count);
    f
}

/// `(matrix + lambda I) x = y` by elimination with pivots.
fn solved(mut matrix: Vec<Vec<f64>>, lambda: f64, y: &[f64]) -> Vec<f64> {
    let dims = y.len();
    for (i, (row, &y)) in matrix.iter_mut().zip(y).enumerate() {
        row[i] += lambda;
        row.push(y);
    }
    for column in 0..dims {
        let size = |row: &usize| matrix[*row][column].abs();
        let pivot = (column..dims).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap();
        matrix.swap(column, pivot);
        let by = matrix[column].clone();
        for row in &mut matrix[column + 1..] {
            let factor = row[column] / by[column];
            row.iter_mut().zip(&by).for_each(|(value, by)| *value -= factor * by);
        }
    }
    let mut x = vec![0.0; dims];
    for row in (0..dims).rev() {
        let known: f64 = (row + 1..dims).map(|column| matrix[row][column] * x[column]).sum();
        x[row] = (matrix[row][dims] - known) / matrix[row][row];
    }
    x
}

/// The greatest difference, relative to the greatest magnitude.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f64, |largest, b| largest.max(b.abs()));
    a.iter().zip(b).fold(0.0f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

fn assert_near(a: &[f64], b: &[f64], relative: f64) {
    let difference = difference(a, b);
    assert!(difference <= relative, "they differ by {difference:e}, more than {relative:e}");
}

/// `format-spec/curvature.md`, number by number.
fn by_the_page(sums: &mut BlockSums, rows: &[f32], sign: f64) {
    let dims = sums.dims;
    let run = panel_rows(dims).min(256);
    for row in rows.chunks(dims) {
        let mut lanes = [0.0; 16];
        for (i, &value) in row.iter().enumerate() {
            lanes[i % 16] += f64::from(value) * f64::from(value);
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        sums.power += sign * lanes[0];
        sums.rows = sums.rows.checked_add_signed(sign as i64).unwrap();
    }
    for rows in rows.chunks(run * dims) {
        let most = rows.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let exponent = (-126..=126).rev().find(|e| f64::from(most) >= 2f64.powi(*e)).unwrap_or(-126);
        let scale = 2f32.powi(-exponent);
        let unscale = 2f64.powi(2 * exponent);
        let scaled: Vec<f32> = rows.iter().map(|value| value * scale).collect();
        let nested: Vec<f32> = match sums.estimate {
            Estimate::Full => scaled.clone(),
            Estimate::Nystrom { width } => {
                let size = dims.div_ceil(width as usize);
                let groups = scaled.chunks(dims).flat_map(|row| row.chunks(size));
                groups
                    .map(|group| {
                        let mut lanes = [0.0f32; 16];
                        group.iter().enumerate().for_each(|(i, value)| lanes[i % 16] += value);
                        for half in [8, 4, 2, 1] {
                            for lane in 0..half {
                                lanes[lane] += lanes[lane + half];
                            }
                        }
                        lanes[0]
                    })
                    .collect()
            }
        };
        let columns = nested.len() / (rows.len() / dims);
        let mut at = 0;
        for i in 0..dims {
            let end = if sums.estimate == FULL { i + 1 } else { columns };
            for j in 0..end {
                let mut sum = 0.0f32;
                for (row, nested) in scaled.chunks(dims).zip(nested.chunks(columns)) {
                    sum = row[i].mul_add(nested[j], sum);
                }
                sums.values[at] += sign * f64::from(sum) * unscale;
                at += 1;
            }
        }
    }
}

/// Catches sums in another order, of another run, scale or nesting, or of rows and columns that a tile has too many;
/// on every kernel, and however many threads share the tiles.
#[test]
fn sums_equal_the_page() {
    let cases = [
        (1, 1, FULL),
        (1, 300, FULL),
        (5, 17, nystrom(2)),
        (47, 3, FULL),
        (48, 256, nystrom(48)),
        (49, 257, FULL),
        (97, 1, nystrom(96)),
        (97, 600, FULL),
        (230, 530, nystrom(7)),
        (401, 9, nystrom(1000)),
        (1000, 2, nystrom(50)),
    ];
    for (dims, rows, estimate) in cases {
        let mut random = Random(dims as u64);
        let magnitudes = [1.0, 1e-20, 1e15, 1e-42];
        let magnitude = |i: usize| magnitudes[i / dims / 256 % magnitudes.len()];
        let rows: Vec<f32> =
            random.normals(rows * dims).iter().enumerate().map(|(i, x)| x * magnitude(i)).collect();
        let less = &rows[..rows.len() / dims / 2 * dims];
        let mut expected = BlockSums::new(dims, estimate);
        by_the_page(&mut expected, &rows, 1.0);
        by_the_page(&mut expected, less, -1.0);
        assert_eq!(BlockSums::values_of(dims, estimate), Some(expected.values.len() as u64));
        for kernel in Kernel::available() {
            for threads in [1, 2, 3] {
                let sums = on_threads(threads, || {
                    let mut sums = BlockSums::new(dims, estimate);
                    sums.add_on(kernel, &rows, Sign::Plus);
                    sums.add_on(kernel, less, Sign::Minus);
                    sums
                });
                assert!(sums == expected, "{kernel}, {threads} threads, {dims} dims, {estimate:?}");
            }
        }
    }
}

/// Catches sums that depend on how the rows were cut into panels: whoever streams them may choose any whole runs.
#[test]
fn sums_of_whole_runs_equal_those_of_the_panel() {
    let (dims, count) = (33, 900);
    let rows = Random(3).normals(count * dims);
    for estimate in [FULL, nystrom(8)] {
        let whole = sums_of(&rows, dims, estimate);
        let mut cut = BlockSums::new(dims, estimate);
        for rows in rows.chunks(512 * dims) {
            cut.add(rows, Sign::Plus);
        }
        assert!(cut == whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Catches sums of segments that are not the sums of all rows, and rows that leave more than rounding behind
    /// when they are subtracted. (Each `f32` sum is of 256 rows at most, which leaves 2^-16 of the sum of magnitudes.)
    #[test]
    fn sums_are_linear(
        seed: u64,
        dims in 1usize..120,
        count in 1usize..700,
        at in 0.0f64..1.0,
        width in prop::option::of(1u32..130),
    ) {
        let estimate = width.map_or(FULL, nystrom);
        let mut random = Random(seed);
        let rows = random.normals(count * dims);
        let middle = (count as f64 * at) as usize * dims;
        let whole = sums_of(&rows, dims, estimate);
        let scale = whole.power / dims as f64 * (dims as f64 / whole.values.len() as f64).max(1.0).sqrt();
        let mut merged = sums_of(&rows[..middle], dims, estimate);
        merged.merge(&sums_of(&rows[middle..], dims, estimate));
        prop_assert_eq!(merged.rows, whole.rows);
        prop_assert!((merged.power - whole.power).abs() <= 1e-12 * whole.power);
        // Of the groups of a nested row the sums are larger, as is their rounding.
        let size = width.map_or(1, |width| Groups::new(dims, width as usize).size) as f64;
        let bound = scale * size * 2f64.powi(-16);
        for (a, b) in merged.values.iter().zip(&whole.values) {
            prop_assert!((a - b).abs() <= bound, "{a} for {b}");
        }
        let mut less = whole.clone();
        less.add(&rows[middle..], Sign::Minus);
        let left = sums_of(&rows[..middle], dims, estimate);
        prop_assert_eq!(less.rows, left.rows);
        for (a, b) in less.values.iter().zip(&left.values) {
            prop_assert!((a - b).abs() <= bound, "{a} for {b}");
        }
    }

    /// Catches a wrong triangle, scale, lambda or order of substitution, where dims are not whole strips too.
    #[test]
    fn answers_solve_the_system(seed: u64, dims in 1usize..150, count in 1usize..300, kappa in 0.01f64..100.0) {
        let mut random = Random(seed);
        let rows: Vec<f32> = random.normals(count * dims).iter().map(|x| x * 1e-3).collect();
        let factor = Factor::new(&sums_of(&rows, dims, FULL), kappa, None, &never).unwrap();
        let squares: f64 = rows.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let lambda = kappa * squares / (count * count) as f64;
        prop_assert!((factor.lambda() / lambda - 1.0).abs() < 1e-12);
        let query = normals(&mut random, dims);
        let expected = solved(mean_of_products(&rows, dims), lambda, &query);
        // The rounding of the sums in relation to lambda.
        let bound = 2e-6 * (1.0 + count as f64 / kappa);
        prop_assert!(difference(&preconditioned(&factor, &query), &expected) < bound);
    }
}

/// Catches a permutation of rows that changes more than the rounding.
#[test]
fn order_of_rows_changes_rounding_only() {
    let (dims, count) = (60, 400);
    let rows = Random(5).normals(count * dims);
    let backwards: Vec<f32> = rows.chunks(dims).rev().flatten().copied().collect();
    for estimate in [FULL, nystrom(20)] {
        let (a, b) = (sums_of(&rows, dims, estimate), sums_of(&backwards, dims, estimate));
        assert!(a.values != b.values, "the test must be able to see a difference");
        assert_near(&a.values, &b.values, 1e-6);
    }
}

/// Catches a Nyström approximation that is not F where its columns see all of F.
#[test]
fn nystrom_of_all_dims_equals_the_gram() {
    for (dims, count) in [(1, 5), (30, 20), (130, 1000)] {
        let mut random = Random(dims as u64);
        let rows = random.normals(count * dims);
        let query = normals(&mut random, dims);
        let exact = factor(&sums_of(&rows, dims, FULL), None);
        let nystrom = factor(&sums_of(&rows, dims, nystrom(dims as u32)), Some(dims as u32));
        assert_near(&preconditioned(&nystrom, &query), &preconditioned(&exact, &query), 1e-4);
        assert!((nystrom.effective_dims() / exact.effective_dims() - 1.0).abs() < 1e-4);
        let (a, b) = (nystrom.self_influence(&rows), exact.self_influence(&rows));
        assert_near(&a, &b, 1e-4);
    }
}

/// Rows on few directions. Whole numbers below 2^24 in all their sums, or normal ones.
fn rows_of_few_directions(dims: usize, count: usize, directions: usize, are_whole: bool) -> Vec<f32> {
    let mut random = Random(11);
    let mut numbers = |count: usize| -> Vec<f32> {
        let numbers = random.normals(count);
        numbers.into_iter().map(|x| if are_whole { (x * 2.0).round() } else { x }).collect()
    };
    let span = numbers(directions * dims);
    let row = |_| {
        let mut row = vec![0.0; dims];
        for (weight, direction) in numbers(directions).iter().zip(span.chunks(dims)) {
            row.iter_mut().zip(direction).for_each(|(value, x)| *value += weight * x);
        }
        row
    };
    (0..count).flat_map(row).collect()
}

/// Catches an approximation that loses part of an F whose rank is no more than what its columns see, and a shift
/// that is larger than the sums' rounding asks for.
#[test]
fn nystrom_of_few_directions_is_exact() {
    let dims = 200;
    for (are_whole, bound) in [(true, 1e-8), (false, 1e-5)] {
        let rows = rows_of_few_directions(dims, 500, 10, are_whole);
        let query = normals(&mut Random(12), dims);
        let exact = factor(&sums_of(&rows, dims, FULL), None);
        let expected = preconditioned(&exact, &query);
        for (estimate, rank) in
            [(nystrom(50), None), (nystrom(20), Some(10)), (nystrom(20), Some(1000)), (FULL, Some(10))]
        {
            let approximate = factor(&sums_of(&rows, dims, estimate), rank);
            assert_near(&preconditioned(&approximate, &query), &expected, bound);
            assert_near(&[approximate.effective_dims()], &[exact.effective_dims()], bound);
        }
    }
}

/// Catches an answer that depends on the other queries of the batch, or on the threads that share the work.
#[test]
fn answers_are_the_same_on_every_kernel_and_thread() {
    let (dims, count) = (150, 400);
    let mut random = Random(21);
    let rows = random.normals(count * dims);
    let queries: Vec<Vec<f64>> = (0..61).map(|_| normals(&mut random, dims)).collect();
    for (estimate, rank) in [(FULL, None), (FULL, Some(20)), (nystrom(60), Some(50))] {
        let sums = sums_of(&rows, dims, estimate);
        let answers = |kernel: Kernel| {
            let factor = Factor::on(kernel, &sums, 2.0, rank, &never).unwrap();
            let mut answers = queries.clone();
            factor.precondition(&mut answers);
            (answers, factor.self_influence(&rows[..77 * dims]), factor.effective_dims())
        };
        let expected = answers(Kernel::fastest());
        for kernel in Kernel::available() {
            for threads in [1, 2, 3] {
                assert!(on_threads(threads, || answers(kernel)) == expected, "{kernel}, {threads} threads");
            }
        }
        let factor = factor(&sums, rank);
        for (query, answer) in queries.iter().zip(&expected.0) {
            assert_eq!(preconditioned(&factor, query), *answer);
        }
        for (row, influence) in rows.chunks(dims).zip(&expected.1) {
            assert_eq!(factor.self_influence(row), [*influence]);
        }
    }
}

/// Catches self-influences and effective dims of another matrix than the one that queries are divided by.
#[test]
fn self_influence_is_the_row_by_its_own_answer() {
    let (dims, count) = (90, 200);
    let rows = Random(22).normals(count * dims);
    for (estimate, rank) in [(FULL, None), (FULL, Some(7)), (nystrom(45), Some(30))] {
        let factor = factor(&sums_of(&rows, dims, estimate), rank);
        let influences = factor.self_influence(&rows);
        for (row, influence) in rows.chunks(dims).zip(&influences) {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let expected: f64 = row.iter().zip(preconditioned(&factor, &row)).map(|(g, x)| g * x).sum();
            assert_near(&[*influence], &[expected], 1e-10);
        }
        if rank.is_none() {
            // The mean of g^T (F + lambda I)^-1 g over the rows is the trace of F (F + lambda I)^-1.
            let mean = influences.iter().sum::<f64>() / count as f64;
            assert_near(&[factor.effective_dims()], &[mean], 1e-5);
        }
    }
}

/// Catches a rank that keeps the wrong eigenvalues, or another complement than lambda plus the first one left out:
/// on a diagonal F everything is known.
#[test]
fn rank_keeps_the_greatest_and_raises_the_rest() {
    let dims = 6;
    // Row i has 2^i in dim i alone.
    let rows: Vec<f32> = (0..dims * dims)
        .map(|at| if at / dims == at % dims { (1 << (at % dims)) as f32 } else { 0.0 })
        .collect();
    for (estimate, rank) in [(FULL, 2), (nystrom(6), 2), (FULL, 5), (nystrom(6), 6), (FULL, 9)] {
        let factor = factor(&sums_of(&rows, dims, estimate), Some(rank));
        let eigenvalue = |i: usize| f64::from(1u32 << (2 * i)) / dims as f64;
        let lambda = 2.0 * (0..dims).map(eigenvalue).sum::<f64>() / dims as f64;
        assert_near(&[factor.lambda()], &[lambda], 1e-12);
        let left_out = dims.checked_sub(rank as usize + 1);
        let expected: Vec<f64> = (0..dims)
            .map(|i| {
                let kept = left_out.is_none_or(|left_out| i > left_out);
                1.0 / (lambda + if kept { eigenvalue(i) } else { eigenvalue(left_out.unwrap_or(i)) })
            })
            .collect();
        assert_near(&preconditioned(&factor, &[1.0; 6]), &expected, 1e-10);
        let effective: f64 = (0..dims).map(eigenvalue).map(|value| value / (value + lambda)).sum();
        assert_near(&[factor.effective_dims()], &[effective], 1e-10);
    }
}

/// Catches rows, sums or arguments for which there is no curvature and that are taken all the same.
#[test]
fn bad_sums_and_arguments_are_refused() {
    let dims = 10;
    let rows = Random(23).normals(50 * dims);
    for (estimate, rank) in [(FULL, None), (FULL, Some(3)), (nystrom(5), None)] {
        let sums = sums_of(&rows, dims, estimate);
        let refusal = |sums: &BlockSums, kappa, rank| Factor::new(sums, kappa, rank, &never).unwrap_err();
        for kappa in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(refusal(&sums, kappa, rank), FactorError::InvalidKappa { kappa });
        }
        assert!(matches!(refusal(&sums, f64::NAN, rank), FactorError::InvalidKappa { .. }));
        assert_eq!(refusal(&sums, 2.0, Some(0)), FactorError::RankZero);
        assert_eq!(refusal(&BlockSums::new(dims, estimate), 2.0, rank), FactorError::NoRows);
        for value in [f64::NAN, f64::INFINITY] {
            let mut bad = sums.clone();
            *bad.values.last_mut().unwrap() = value;
            assert_eq!(refusal(&bad, 2.0, rank), FactorError::NotFinite);
            let mut bad = sums.clone();
            bad.power = value;
            assert_eq!(refusal(&bad, 2.0, rank), FactorError::NotFinite);
        }
        for value in [f32::NAN, f32::INFINITY] {
            let mut bad = sums.clone();
            let mut row = vec![1.0; dims];
            row[3] = value;
            bad.add(&row, Sign::Plus);
            assert_eq!(refusal(&bad, 2.0, rank), FactorError::NotFinite);
        }
        // Rows that were never added.
        let mut less = sums.clone();
        less.add(&Random(24).normals(40 * dims), Sign::Minus);
        assert_eq!(refusal(&less, 2.0, rank), FactorError::NotPositive);
        less.add(&rows[..20 * dims], Sign::Minus);
        assert_eq!(refusal(&less, 2.0, rank), FactorError::NoRows);
        less.rows = 3;
        less.power = -1e-9;
        assert_eq!(refusal(&less, 2.0, rank), FactorError::NotPositive);
    }
}

/// Catches a factorisation that goes on after it was cancelled, at any of the places that ask.
#[test]
fn cancelled_factorisation_ends() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let dims = 130;
    let rows = Random(25).normals(300 * dims);
    for (estimate, rank) in [(FULL, None), (FULL, Some(30)), (nystrom(60), None)] {
        let sums = sums_of(&rows, dims, estimate);
        let asked = AtomicUsize::new(0);
        let stop_at = |at: usize| {
            asked.store(0, Ordering::Relaxed);
            Factor::new(&sums, 2.0, rank, &|| asked.fetch_add(1, Ordering::Relaxed) >= at).map(|_| ())
        };
        assert_eq!(stop_at(usize::MAX), Ok(()));
        let times = asked.load(Ordering::Relaxed);
        assert!(times > 3, "it asks {times} times");
        for at in 0..times {
            assert_eq!(stop_at(at), Err(FactorError::Cancelled), "after {at} of {times} times");
        }
    }
}

/// Catches rows without any or with one direction that are refused, or divided by something else than is documented.
#[test]
fn zero_and_equal_rows_have_their_result() {
    let dims = 70;
    let mut random = Random(26);
    let query = normals(&mut random, dims);
    let row = random.normals(dims);
    for (estimate, rank) in [(FULL, None), (FULL, Some(3)), (nystrom(20), None)] {
        let zero = factor(&sums_of(&vec![0.0; 30 * dims], dims, estimate), rank);
        assert_eq!(preconditioned(&zero, &query), query);
        assert_eq!((zero.lambda(), zero.effective_dims()), (0.0, 0.0));
        let influence = zero.self_influence(&row)[0];
        let norm: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert_near(&[influence], &[norm], 1e-12);
        for count in [1, 300] {
            let equal = factor(&sums_of(&row.repeat(count), dims, estimate), rank);
            // F is f f^T, so that (F + lambda I)^-1 q = (q - f (f q) / (f f + lambda)) / lambda.
            let lambda = 2.0 * norm / count as f64;
            let product: f64 = row.iter().zip(&query).map(|(f, q)| f64::from(*f) * q).sum();
            let expected: Vec<f64> = row
                .iter()
                .zip(&query)
                .map(|(f, q)| (q - f64::from(*f) * product / (norm + lambda)) / lambda)
                .collect();
            assert_near(&preconditioned(&equal, &query), &expected, 2e-3);
            assert_near(&[equal.effective_dims()], &[norm / (norm + lambda)], 2e-3);
        }
    }
}

/// Catches scales that overflow or vanish: rows of the largest norm that an index takes, and tiny ones.
#[test]
fn magnitude_of_rows_does_not_matter() {
    let dims = 50;
    let rows = Random(27).normals(120 * dims);
    let query = normals(&mut Random(28), dims);
    for (estimate, rank) in [(FULL, None), (nystrom(25), Some(20))] {
        let expected = preconditioned(&factor(&sums_of(&rows, dims, estimate), rank), &query);
        for exponent in [-60, 58] {
            let scale = 2f32.powi(exponent);
            let scaled: Vec<f32> = rows.iter().map(|x| x * scale).collect();
            let factor = factor(&sums_of(&scaled, dims, estimate), rank);
            let answer: Vec<f64> = preconditioned(&factor, &query)
                .iter()
                .map(|x| x * f64::from(scale) * f64::from(scale))
                .collect();
            assert_eq!(answer, expected);
        }
    }
}

/// Catches sizes that overflow instead of being refused, and panels that are empty or too large for memory.
#[test]
fn sizes_are_known_before_memory_is_taken() {
    assert_eq!(BlockSums::values_of(4096, FULL), Some(4096 * 4097 / 2));
    assert_eq!(BlockSums::values_of(65_536, nystrom(512)), Some(65_536 * 512));
    assert_eq!(BlockSums::values_of(1000, nystrom(300)), Some(1000 * 250));
    assert_eq!(BlockSums::values_of(10, nystrom(0)), None);
    assert_eq!(BlockSums::values_of(usize::MAX, FULL), None);
    assert_eq!(BlockSums::values_of(1 << 33, FULL), None);
    assert_eq!(BlockSums::values_of(1 << 40, nystrom(u32::MAX)), None);
    for (dims, rows) in [(1, 1024), (16_384, 1024), (20_000, 768), (65_536, 256), (65_537, 255), (1 << 30, 1)]
    {
        assert_eq!(panel_rows(dims), rows, "{dims} dims");
    }
}

fn f64_of(word: &serde_json::Value) -> f64 {
    f64::from_bits(u64::from_str_radix(word.as_str().unwrap(), 16).unwrap())
}

fn f64s_of(words: &serde_json::Value) -> Vec<f64> {
    words.as_array().unwrap().iter().map(f64_of).collect()
}

/// Catches sums and answers that differ from those an independent program made by the same page.
#[test]
fn curvature_equals_the_known_answers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/curvature-v1.json");
    let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = answers["cases"].as_array().unwrap();
    assert!(cases.len() >= 9);
    for case in cases {
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        let (dims, count) = (number("dims"), number("rows"));
        let scale = case["exponent"].as_i64().map_or(0.0, |exponent| 2f64.powi(exponent as i32));
        let rows: Vec<f32> = (0..dims * count)
            .map(|i| {
                let value = ((i * 7919 % 1009) as f64 - 504.0) / 300.0;
                (f64::from(value as f32) * scale) as f32
            })
            .collect();
        let estimate = case["width"].as_u64().map_or(FULL, |width| nystrom(width as u32));
        let query: Vec<f64> = case["query"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| f32::from_bits(u32::from_str_radix(word.as_str().unwrap(), 16).unwrap()).into())
            .collect();
        for kernel in Kernel::available() {
            let mut sums = BlockSums::new(dims, estimate);
            sums.add_on(kernel, &rows, Sign::Plus);
            sums.add_on(kernel, &rows[..number("taken_out") * dims], Sign::Minus);
            let what = format!("{kernel}, {dims} dims, {estimate:?}, {count} rows");
            assert_eq!(sums.power, f64_of(&case["power"]), "{what}");
            assert_eq!(sums.values, f64s_of(&case["values"]), "{what}");
            let rank = case["rank"].as_u64().map(|rank| rank as u32);
            let factor = Factor::on(kernel, &sums, case["kappa"].as_f64().unwrap(), rank, &never).unwrap();
            assert_eq!(factor.lambda(), f64_of(&case["lambda"]), "{what}");
            assert_eq!(factor.effective_dims(), f64_of(&case["effective_dims"]), "{what}");
            assert_eq!(preconditioned(&factor, &query), f64s_of(&case["preconditioned"]), "{what}");
            let influence = factor.self_influence(&rows[(count - 1) * dims..])[0];
            assert_eq!(influence, f64_of(&case["self_influence"]), "{what}");
        }
    }
}
