use super::*;

fn close(got: Option<f64>, expected: f64) {
    assert!(got.is_some_and(|got| (got - expected).abs() < 1e-12), "{got:?}, not {expected}");
}

/// Random numbers of a fixed sequence, uniform in 0..1.
fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut random = crate::random::Random(seed);
    (0..count).map(|_| random.uniform()).collect()
}

// Would catch ties that get the first or the last of their ranks, as sorting alone gives them.
#[test]
fn ranks_of_ties_are_their_mean() {
    assert!(average_ranks(&[]).unwrap().is_empty());
    assert_eq!(average_ranks(&[2.0, 1.0, 2.0, 2.0, 5.0]).unwrap(), [3.0, 1.0, 3.0, 3.0, 5.0]);
    assert_eq!(average_ranks(&[0.0, -0.0, f64::NEG_INFINITY]).unwrap(), [2.5, 2.5, 1.0]);
}

// Would catch the shortcut formula 1 - 6 Σ d² / (n³ - n), which is wrong with ties: scipy's spearmanr gives this.
#[test]
fn spearman_with_ties() {
    close(spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[3.0, 1.0, 2.0, 2.0, 9.0]).unwrap(), 11.0 / 38.0);
    close(spearman(&[1.0, 2.0, 3.0], &[9.0, 4.0, 1.0]).unwrap(), -1.0);
}

// Would catch a NaN where nothing varies, and a NaN that is taken for a number.
#[test]
fn spearman_without_variation() {
    assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]).unwrap(), None);
    assert_eq!(spearman(&[], &[]).unwrap(), None);
    assert_eq!(spearman(&[1.0], &[2.0]).unwrap(), None);
    assert_eq!(spearman(&[1.0], &[]), Err(EvalError::Length { expected: 1, found: 0 }));
    let refused = spearman(&[1.0, f64::NAN], &[1.0, 2.0]);
    assert!(matches!(refused, Err(EvalError::NotFinite { at: 1, .. })), "{refused:?}");
}

/// Outputs `[repeat][subset][query]` that are the sums of these influences, plus noise of this size.
fn measured(
    subsets: &[Vec<usize>],
    influences: &[Vec<f64>],
    noise: f64,
    repeats: usize,
) -> Vec<Vec<Vec<f64>>> {
    let noises = random(repeats * subsets.len() * influences.len(), 5);
    let mut noises = noises.iter();
    let mut output = |subset: &Vec<usize>, query: &Vec<f64>| {
        subset.iter().map(|&row| query[row]).sum::<f64>() + noise * (noises.next().unwrap() - 0.5)
    };
    (0..repeats)
        .map(|_| {
            subsets
                .iter()
                .map(|subset| influences.iter().map(|query| output(subset, query)).collect())
                .collect()
        })
        .collect()
}

fn random_subsets(count: usize, rows: usize) -> Vec<Vec<usize>> {
    let draws = random(count * rows, 3);
    draws.chunks(rows).map(|draws| (0..rows).filter(|&row| draws[row] < 0.5).collect()).collect()
}

// Would catch a transposed output, a subset that is read as its complement, or a sign.
#[test]
fn lds_of_the_truth_is_one() {
    let subsets = random_subsets(30, 20);
    let influences: Vec<Vec<f64>> = (0..4).map(|query| random(20, 10 + query)).collect();
    let truth = Retrainings::new(20, subsets.clone(), &measured(&subsets, &influences, 0.0, 2)).unwrap();
    assert_eq!((truth.rows(), truth.queries(), truth.repeats()), (20, 4, 2));
    let lds = truth.lds(&influences).unwrap();
    lds.per_query.iter().for_each(|&query| close(query, 1.0));
    let negated: Vec<Vec<f64>> = influences.iter().map(|query| query.iter().map(|x| -x).collect()).collect();
    close(truth.lds(&negated).unwrap().mean(), -1.0);
    close(truth.ceiling().unwrap(), 1.0);
}

// Would catch an LDS that takes single repeats instead of their mean, or ranks over queries: each query's
// correlation is computed here from its definition.
#[test]
fn lds_equals_its_definition() {
    let subsets = random_subsets(25, 12);
    let influences: Vec<Vec<f64>> = (0..3).map(|query| random(12, 20 + query)).collect();
    let outputs = measured(&subsets, &influences, 4.0, 3);
    let guesses: Vec<Vec<f64>> = (0..3).map(|query| random(12, 30 + query)).collect();
    let truth = Retrainings::new(12, subsets.clone(), &outputs).unwrap();
    let lds = truth.lds(&guesses).unwrap();
    for (query, guess) in guesses.iter().enumerate() {
        let sums: Vec<f64> =
            subsets.iter().map(|subset| subset.iter().map(|&row| guess[row]).sum()).collect();
        let means: Vec<f64> = (0..subsets.len())
            .map(|subset| outputs.iter().map(|repeat| repeat[subset][query]).sum::<f64>() / 3.0)
            .collect();
        close(lds.per_query[query], spearman(&sums, &means).unwrap().unwrap());
    }
}

// Would catch constant predictions that count as missing, so that a method gains by saying nothing; and a query
// without anything to predict that counts as a failure.
#[test]
fn lds_of_what_does_not_vary() {
    let subsets = vec![vec![0], vec![1], vec![0, 1]];
    let outputs = vec![vec![vec![1.0, 7.0], vec![2.0, 7.0], vec![3.0, 7.0]]];
    let truth = Retrainings::new(2, subsets, &outputs).unwrap();
    let lds = truth.lds(&[vec![0.0, 0.0], vec![1.0, 2.0]]).unwrap();
    assert_eq!(lds.per_query, [Some(0.0), None]);
    assert_eq!(lds.mean(), Some(0.0));
    assert_eq!(truth.ceiling().unwrap(), None);
}

// Would catch the ceiling of one retraining that is given out as that of all, or a half that is correlated with
// itself: noise of known size has a known reliability.
#[test]
fn reliability_of_known_noise() {
    let rows = 200;
    let subsets = random_subsets(150, rows);
    let influences: Vec<Vec<f64>> = (0..40).map(|query| random(rows, 50 + query)).collect();
    let sums: Vec<f64> =
        subsets.iter().map(|subset| subset.iter().map(|&row| influences[0][row]).sum()).collect();
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    let signal = sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / sums.len() as f64;
    // Noise of the same variance: the reliability of one repeat is 1/2, of four 4/5, of five 5/6.
    let noise = (12.0 * signal).sqrt();
    for (repeats, expected) in [(4, 0.8), (5, 5.0 / 6.0)] {
        let outputs = measured(&subsets, &influences, noise, repeats);
        let truth = Retrainings::new(rows, subsets.clone(), &outputs).unwrap();
        let reliability = truth.reliability().unwrap().unwrap();
        assert!((reliability - expected).abs() < 0.04, "{repeats} repeats: {reliability}");
        assert_eq!(truth.ceiling().unwrap(), Some(reliability.sqrt()));
        // And the truth gets what the ceiling says.
        let reached = truth.lds(&influences).unwrap().mean().unwrap();
        assert!((reached - reliability.sqrt()).abs() < 0.03, "{reached}");
    }
    let once = Retrainings::new(rows, subsets.clone(), &measured(&subsets, &influences, noise, 1)).unwrap();
    assert_eq!(once.reliability().unwrap(), None);
}

// Would catch each way in which the parts of a measurement do not fit together.
#[test]
fn retrainings_that_do_not_fit_are_refused() {
    let new = |rows, subsets: &[Vec<usize>], outputs: &[Vec<Vec<f64>>]| {
        Retrainings::new(rows, subsets.to_vec(), outputs).unwrap_err()
    };
    let subsets = [vec![0], vec![1]];
    let outputs = [vec![vec![1.0], vec![2.0]]];
    assert_eq!(new(2, &subsets[..1], &outputs), EvalError::Empty { what: "two subsets" });
    assert_eq!(new(1, &subsets, &outputs), EvalError::UnknownRow { subset: 1, row: 1, rows: 1 });
    assert_eq!(new(2, &subsets, &[]), EvalError::Empty { what: "outputs" });
    assert_eq!(new(2, &subsets, &[vec![vec![1.0]]]), EvalError::Length { expected: 2, found: 1 });
    let ragged = [vec![vec![1.0], vec![2.0, 3.0]]];
    assert_eq!(new(2, &subsets, &ragged), EvalError::Length { expected: 1, found: 2 });
    let infinite = [vec![vec![1.0], vec![f64::INFINITY]]];
    assert_eq!(new(2, &subsets, &infinite), EvalError::NotFinite { at: 0, value: f64::INFINITY });
    let huge = [outputs[0].clone(), vec![vec![f64::MAX], vec![f64::MAX]], vec![vec![f64::MAX], vec![0.0]]];
    assert!(matches!(new(2, &subsets, &huge), EvalError::NotFinite { .. }));

    let truth = Retrainings::new(2, subsets.to_vec(), &outputs).unwrap();
    assert_eq!(truth.lds(&[]), Err(EvalError::Length { expected: 1, found: 0 }));
    assert_eq!(truth.lds(&[vec![1.0]]), Err(EvalError::Length { expected: 2, found: 1 }));
    let refused = truth.lds(&[vec![1.0, f64::NAN]]);
    assert!(matches!(refused, Err(EvalError::NotFinite { at: 1, .. })), "{refused:?}");
}

// Would catch resamples of another size than the values, or ends that are not quantiles: the interval of the mean
// of n values with variance v is about 1.96 √(v / n) to each side.
#[test]
fn bootstrap_interval_has_the_known_width() {
    let values = random(400, 1);
    let interval = Bootstrap::default().mean(&values).unwrap();
    close(Some(interval.mean), values.iter().sum::<f64>() / 400.0);
    let expected = 1.96 * (1.0 / 12.0 / 400.0_f64).sqrt();
    for side in [interval.mean - interval.low, interval.high - interval.mean] {
        assert!((side / expected - 1.0).abs() < 0.15, "{interval:?}");
    }
    assert_eq!(interval, Bootstrap::default().mean(&values).unwrap());
    assert_ne!(interval, Bootstrap::default().seed(1).mean(&values).unwrap());
    let narrow = Bootstrap::default().level(0.5).mean(&values).unwrap();
    assert!(narrow.low > interval.low && narrow.high < interval.high);
    let one = Bootstrap::default().mean(&[3.0]).unwrap();
    assert_eq!((one.mean, one.low, one.high), (3.0, 3.0, 3.0));
}

// Would catch an interval of nothing.
#[test]
fn bootstrap_of_bad_input_is_refused() {
    let bootstrap = Bootstrap::default();
    assert_eq!(bootstrap.mean(&[]), Err(EvalError::Empty { what: "values" }));
    assert_eq!(bootstrap.resamples(0).mean(&[1.0]), Err(EvalError::Empty { what: "resamples" }));
    for level in [0.0, 1.0, f64::NAN] {
        assert!(matches!(bootstrap.level(level).mean(&[1.0]), Err(EvalError::InvalidLevel { .. })));
    }
    assert!(matches!(bootstrap.mean(&[f64::INFINITY]), Err(EvalError::NotFinite { at: 0, .. })));
}

// Would catch places counted from 0, and cuts that divide by k where fewer are ranked.
#[test]
fn ranked_rows_at_several_cuts() {
    let ranking = [false, true, false, true];
    assert_eq!(reciprocal_rank(ranking), 0.5);
    assert_eq!(reciprocal_rank([false; 3]), 0.0);
    assert_eq!(reciprocal_rank([]), 0.0);
    assert_eq!(precision_at(ranking, 1), Some(0.0));
    assert_eq!(precision_at(ranking, 2), Some(0.5));
    assert_eq!(precision_at(ranking, 99), Some(0.5));
    assert_eq!(precision_at(ranking, 0), None);
    assert_eq!(recall_at(ranking, 4, 2).unwrap(), Some(0.25));
    assert_eq!(recall_at(ranking, 4, 99).unwrap(), Some(0.5));
    assert_eq!(recall_at([false], 0, 1).unwrap(), None);
    assert_eq!(recall_at(ranking, 1, 4), Err(EvalError::TooManyRelevant { found: 2, total: 1 }));
    assert_eq!(mean([Some(1.0), None, Some(0.5)]), Some(0.75));
    assert_eq!(mean([None]), None);
}

// Would catch a result that depends on how equal scores happen to be ordered.
#[test]
fn areas_count_ties_one_half() {
    let scores = [2.0, 1.0, 1.0, 0.0];
    for marks in [[true, true, false, false], [true, false, true, false]] {
        // ROC: of 4 pairs 3 are in order and one is tied. AP = 1/2 · 1 + 1/2 · 2/3.
        close(roc_auc(&scores, &marks).unwrap(), 0.875);
        close(average_precision(&scores, &marks).unwrap(), 5.0 / 6.0);
    }
    close(roc_auc(&[1.0, 2.0, 3.0, 4.0], &[true, false, true, false]).unwrap(), 0.25);
    close(roc_auc(&[0.0; 4], &[true, false, false, false]).unwrap(), 0.5);
}

// Would catch a NaN or a perfect score where there is one class only, and NaN that is ranked.
#[test]
fn areas_of_one_class() {
    assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]).unwrap(), None);
    assert_eq!(roc_auc(&[1.0, 2.0], &[false, false]).unwrap(), None);
    assert_eq!(average_precision(&[1.0, 2.0], &[false, false]).unwrap(), None);
    assert_eq!(average_precision(&[1.0, 2.0], &[true, true]).unwrap(), Some(1.0));
    assert_eq!(roc_auc(&[], &[]).unwrap(), None);
    assert_eq!(roc_auc(&[1.0], &[]), Err(EvalError::Length { expected: 1, found: 0 }));
    assert!(matches!(average_precision(&[f64::NAN], &[true]), Err(EvalError::NotFinite { at: 0, .. })));
}
