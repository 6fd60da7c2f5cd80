//! The operators against the plainest computation of the same, on small indexes that have everything: segments,
//! dead rows, examples of several rows, sources, ties and zeros.

mod fixtures;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use fixtures::indexes;
use fixtures::random::Random;
use gradix::operators::{
    self, BySource, Coreset, Duplicates, Interval, Mixture, MixtureFit, Objective, OperatorError, Selected,
    Selection, SourceScores,
};
use gradix::sketch::{Sketch, SketchError, SketchSpec};
use gradix::{
    CancelToken, CompactOptions, Curvature, Encoding, Error, ErrorKind, FitOptions, Grouping, Index, Metric,
    Row, Scan, ScanError, Schema, Snapshot, Span, SpanFilter, Tier,
};

const DIMS: u32 = 24;

fn spec() -> SketchSpec {
    SketchSpec::dense("operators", "1", [("one.a", 16), ("two.a", DIMS - 16)])
}

fn sketch(values: Vec<f32>) -> Sketch {
    Sketch::dense(spec(), values).unwrap()
}

struct Store {
    _folder: tempfile::TempDir,
    index: Index,
    snapshot: Snapshot,
    queries: Vec<Sketch>,
}

/// Small integers, so that many scores tie; every ninth row is zero, and examples have one to three rows.
fn store(encoding: Encoding, examples: usize) -> Store {
    let (folder, index) = indexes::create(&Schema::new(spec(), encoding).unwrap());
    let mut random = Random(5);
    let mut values = |zero: bool| -> Vec<f32> {
        (0..DIMS).map(|_| if zero { 0.0 } else { random.below(5) as f32 - 2.0 }).collect()
    };
    let mut writer = index.writer().unwrap();
    for example in 0..examples {
        let sketches: Vec<_> =
            (0..1 + example % 3).map(|row| sketch(values((example + row) % 9 == 8))).collect();
        let rows: Vec<_> = (0u32..)
            .zip(&sketches)
            .map(|(at, sketch)| {
                let row = Row::new(sketch).span(Span::tokens(at, at + 1));
                match (example + at as usize) % 4 {
                    0 => row,
                    1 => row.source("wiki"),
                    _ => row.source("news"),
                }
            })
            .collect();
        // Not in the order of the ids.
        writer.append_rows(format!("example {}", example * 37 % 1009), &rows).unwrap();
        if example % 20 == 19 {
            writer.commit().unwrap();
        }
    }
    for example in (0..examples).step_by(11) {
        writer.delete(format!("example {}", example * 37 % 1009)).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    let queries = (0..5).map(|_| sketch(values(false))).collect();
    Store { snapshot: index.snapshot().unwrap(), index, queries, _folder: folder }
}

fn empty() -> Store {
    let (folder, index) = indexes::create(&Schema::new(spec(), Encoding::F16).unwrap());
    let queries = vec![sketch(vec![1.0; DIMS as usize])];
    Store { snapshot: index.snapshot().unwrap(), index, queries, _folder: folder }
}

impl Store {
    fn scan(&self) -> Scan<'_> {
        self.snapshot.scan(&self.queries).unwrap()
    }
}

/// Id, source and the scores of the queries, row by row.
fn rows_of(scan: Scan<'_>) -> Vec<(Vec<u8>, Option<String>, Vec<f64>)> {
    let mut all = Vec::new();
    scan.scores(|rows| {
        for row in 0..rows.len() {
            let scores = (0..).map_while(|query| rows.scores(query).get(row).copied()).collect();
            let source = rows.source(row).unwrap().map(str::to_owned);
            all.push((rows.id(row).unwrap().to_vec(), source, scores));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    all
}

fn cancelled() -> CancelToken {
    let token = CancelToken::new();
    token.cancel();
    token
}

#[track_caller]
fn assert_setting<T: std::fmt::Debug>(result: Result<T, OperatorError>, expected: &str) {
    match result.unwrap_err() {
        OperatorError::Setting { setting, .. } => assert_eq!(setting, expected),
        other => panic!("{other:?}"),
    }
}

/// Catches a difference with the wrong sign, and a factor that is applied to the wrong one or twice.
#[test]
fn contrast_ranks_by_the_difference_of_scores() {
    let store = store(Encoding::F32, 60);
    let [good, bad] = [&store.queries[0], &store.queries[1]];
    let contrast = good.minus(&bad.scaled(0.5).unwrap()).unwrap();
    let found = rows_of(store.snapshot.scan(&[contrast]).unwrap().top_k(1));
    for (row, parts) in found.iter().zip(rows_of(store.scan())) {
        assert_eq!((&row.0, row.2[0]), (&parts.0, parts.2[0] - 0.5 * parts.2[1]));
    }
    assert!(found.len() > 60);
}

/// Catches a combination of sketches that have nothing to do with each other, and one that is infinite.
#[test]
fn contrast_of_other_specs_or_too_large_is_refused() {
    let one = sketch(vec![1.0; DIMS as usize]);
    let other = Sketch::dense(SketchSpec::dense("other", "1", [("a", DIMS)]), vec![1.0; DIMS as usize]);
    assert!(matches!(one.minus(&other.unwrap()), Err(SketchError::OtherSpec { .. })));
    let huge = one.scaled(f32::MAX).unwrap();
    assert!(matches!(huge.minus(&one.scaled(-f32::MAX).unwrap()), Err(SketchError::Overflow { .. })));
    for factor in [f32::NAN, f32::INFINITY] {
        assert!(matches!(one.scaled(factor), Err(SketchError::Overflow { bucket: 0, .. })));
    }
}

/// Catches a mean over examples in place of rows, and one that reads dead rows.
#[test]
fn mean_of_examples_is_that_of_their_rows() {
    let store = store(Encoding::F32, 60);
    let ids: Vec<_> = store.snapshot.ids().map(Result::unwrap).collect();
    let token = CancelToken::new();
    let (mut sums, mut rows) = (vec![0f64; DIMS as usize], 0);
    for row in store.snapshot.iter().with_sketches().map(Result::unwrap) {
        rows += 1;
        sums.iter_mut().zip(row.sketch.unwrap().values()).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let sum = operators::sum_of(&store.snapshot, &ids, &token).unwrap();
    let expected: Vec<_> = sums.iter().map(|sum| *sum as f32).collect();
    assert_eq!(sum.values(), expected);
    let mean = operators::mean_of(&store.snapshot, &ids, &token).unwrap();
    let expected: Vec<_> = sums.iter().map(|sum| (sum / f64::from(rows)) as f32).collect();
    assert_eq!(mean.values(), expected);
    // An id counts as often as it is given.
    let twice = operators::sum_of(&store.snapshot, [&ids[0], &ids[0]], &token).unwrap();
    let once = operators::sum_of(&store.snapshot, [&ids[0]], &token).unwrap();
    assert_eq!(twice.values(), once.scaled(2.0).unwrap().values());
    // It fits the index that it came from.
    store.snapshot.scan(&[mean]).unwrap().top_k(1).run().unwrap();
}

/// Catches a mean that silently leaves out what is not there, or that cannot be stopped.
#[test]
fn mean_of_unknown_ids_names_them() {
    let store = store(Encoding::I8, 30);
    let token = CancelToken::new();
    let error =
        operators::mean_of(&store.snapshot, ["nobody", "example 37", "example 0"], &token).unwrap_err();
    match &error {
        // Example 0 was deleted.
        OperatorError::MissingIds { ids } => assert_eq!(ids, &[b"nobody".to_vec(), b"example 0".to_vec()]),
        other => panic!("{other:?}"),
    }
    assert_eq!(error.to_string(), r#"2 ids are not in the snapshot; the first is "nobody""#);
    assert_eq!(Error::from(error).kind(), ErrorKind::NotFound);
    let none: [&str; 0] = [];
    assert!(matches!(operators::mean_of(&store.snapshot, none, &token), Err(OperatorError::NoExamples)));
    let stopped = operators::sum_of(&store.snapshot, ["example 37"], &cancelled()).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

/// Catches weights that are not normalised, or taken for other tokens.
#[test]
fn informative_query_is_the_weighted_mean() {
    let queries: Vec<_> = (1..4).map(|x| sketch(vec![x as f32; DIMS as usize])).collect();
    let of = |weights: &[f64]| operators::informative(&queries, weights);
    assert_eq!(of(&[1.0, 0.0, 3.0]).unwrap().values(), vec![2.5; DIMS as usize]);
    // The scale of the weights does not matter, even where their sum would overflow or vanish.
    for scale in [1e308, 1e-310] {
        assert_eq!(of(&[scale, 0.0, scale]).unwrap().values(), vec![2.0; DIMS as usize]);
    }
    assert!(matches!(of(&[1.0]), Err(OperatorError::Lengths { given: 1, expected: 3, .. })));
    assert!(matches!(of(&[0.0; 3]), Err(OperatorError::NoWeight)));
    assert!(matches!(operators::informative(&[], &[]), Err(OperatorError::NoWeight)));
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(of(&[1.0, weight, 1.0]), Err(OperatorError::Weight { position: 1, .. })));
    }
    let other = Sketch::dense(SketchSpec::dense("other", "1", [("a", 1)]), vec![1.0]).unwrap();
    let mixed = operators::informative(&[queries[0].clone(), other], &[1.0, 1.0]);
    assert!(matches!(mixed, Err(OperatorError::Sketch(SketchError::OtherSpec { .. }))));
}

/// Catches a divergence with the wrong base, factor or direction, or that takes the first layer only.
#[test]
fn informativeness_is_the_greatest_divergence() {
    let certain = [1.0, 0.0, 0.0];
    let of = |earlier: &[&[f32]]| operators::informativeness(&certain, earlier).unwrap();
    assert_eq!(of(&[]), 0.0);
    // Disjoint distributions diverge by ln 2; half of the mass elsewhere by this much.
    assert!((of(&[&[0.0, 0.5, 0.5]]) - 2f64.ln()).abs() < 1e-15);
    let half = 0.5 * (4f64 / 3.0).ln() + 0.5 * (0.5 * (2f64 / 3.0).ln() + 0.5 * 2f64.ln());
    assert!((of(&[&[0.5, 0.5, 0.0]]) - half).abs() < 1e-15);
    assert!((of(&[&certain, &[0.5, 0.5, 0.0], &certain]) - half).abs() < 1e-15);
    let bad: [&[f32]; 5] =
        [&[1.0, 0.0], &[0.5, 0.5, 0.5], &[1.5, -0.5, 0.0], &[f32::NAN, 0.0, 1.0], &[0.0, 0.0, f32::INFINITY]];
    for bad in bad {
        for result in
            [operators::informativeness(&certain, &[bad]), operators::informativeness(bad, &[&certain])]
        {
            assert!(matches!(result, Err(OperatorError::Distribution { .. })), "{bad:?}");
        }
    }
    assert!(matches!(operators::informativeness(&[], &[]), Err(OperatorError::Distribution { .. })));
}

/// Sums over examples and sources, plainly: source -> example -> score.
fn by_source(
    rows: &[(Vec<u8>, Option<String>, Vec<f64>)],
    score: impl Fn(&[f64]) -> f64,
) -> Vec<SourcePlain> {
    let mut all: BTreeMap<Option<String>, BTreeMap<Vec<u8>, f64>> = BTreeMap::new();
    for (id, source, scores) in rows {
        *all.entry(source.clone()).or_default().entry(id.clone()).or_default() += score(scores);
    }
    let positive: f64 = all.values().flat_map(BTreeMap::values).map(|score| score.max(0.0)).sum();
    let plain = |(source, examples): (Option<String>, BTreeMap<Vec<u8>, f64>)| {
        let (count, sum) = (examples.len() as u64, examples.values().sum::<f64>());
        let share = examples.values().map(|score| score.max(0.0)).sum::<f64>() / positive;
        (source, count, sum, sum / count as f64, share)
    };
    all.into_iter().map(plain).collect()
}

type SourcePlain = (Option<String>, u64, f64, f64, f64);

fn plain(scores: &SourceScores) -> SourcePlain {
    (scores.source.clone(), scores.examples, scores.sum, scores.mean, scores.share)
}

/// Catches rows of one example that count twice, labels that mix, means over rows, and negative scores that
/// take part in shares. All sums here are of small integers, so exact.
#[test]
fn sources_have_the_sums_of_their_examples() {
    let store = store(Encoding::F32, 80);
    let rows = rows_of(store.scan());
    let found = BySource::new().replicates(20).run(store.scan()).unwrap();
    assert_eq!(found.len(), store.queries.len());
    for (query, found) in found.iter().enumerate() {
        let found: Vec<_> = found.iter().map(plain).collect();
        assert_eq!(found, by_source(&rows, |scores| scores[query]));
        assert_eq!(found.len(), 3);
    }
    let found = BySource::new().replicates(20).mean_over_queries(true).run(store.scan()).unwrap();
    let expected = by_source(&rows, |scores| scores.iter().sum::<f64>() / scores.len() as f64);
    assert_eq!(found.len(), 1);
    for (found, expected) in found[0].iter().zip(&expected) {
        assert_eq!((&found.source, found.examples), (&expected.0, expected.1));
        assert!((found.sum - expected.2).abs() < 1e-9 && (found.share - expected.4).abs() < 1e-9);
    }
    // Examples that the scan groups have one source each, that of their representative row.
    let grouped = BySource::new().replicates(1).run(store.scan().grouping(Grouping::Max)).unwrap();
    let expected = by_source(&rows_of(store.scan().grouping(Grouping::Max)), |scores| scores[0]);
    assert_eq!(grouped[0].iter().map(plain).collect::<Vec<_>>(), expected);
}

/// Catches replicates that are not those of the seed and the ids: other bits with other threads, in another
/// order of the rows, or after a compaction.
#[test]
fn sources_have_the_same_bits_for_any_threads_and_order() {
    let store = store(Encoding::F16, 80);
    let run = |scan: Scan<'_>, seed| BySource::new().replicates(64).seed(seed).run(scan).unwrap();
    let expected = run(store.scan().threads(1), 7);
    assert_eq!(run(store.scan().threads(3), 7), expected);
    assert_ne!(run(store.scan(), 8), expected);
    let mut writer = store.index.writer().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    drop(writer);
    let compacted = store.index.snapshot().unwrap();
    assert_eq!(run(compacted.scan(&store.queries).unwrap(), 7), expected);
}

/// Catches intervals that are too narrow or too wide, or about another number. A mean of n examples has a
/// standard error of s / √n; the interval covers the estimate, and is about 3.9 standard errors wide.
#[test]
fn source_intervals_are_as_wide_as_the_standard_error() {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let mut writer = index.writer().unwrap();
    let mut random = Random(3);
    let mut scores = Vec::new();
    for example in 0..400 {
        let mut values = vec![0.0; DIMS as usize];
        values[0] = 1.0 + random.normal();
        scores.push(f64::from(values[0]));
        writer.append_rows(format!("{example}"), &[Row::new(&sketch(values)).source("a")]).unwrap();
    }
    writer.append_rows("alone", &[Row::new(&sketch(vec![1.0; DIMS as usize])).source("b")]).unwrap();
    writer.commit().unwrap();
    let mut query = vec![0.0; DIMS as usize];
    query[0] = 1.0;
    let (snapshot, queries) = (index.snapshot().unwrap(), [sketch(query)]);
    let found = BySource::new().run(snapshot.scan(&queries).unwrap()).unwrap();
    let [a, b] = &found[0][..] else { panic!() };
    let mean = scores.iter().sum::<f64>() / 400.0;
    let error = (scores.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 400.0).sqrt() / 20.0;
    let width = |interval: Interval| interval.high - interval.low;
    let of_mean = a.mean_interval.unwrap();
    assert!(of_mean.low < mean && mean < of_mean.high);
    assert!((3.4..4.4).contains(&(width(of_mean) / error)), "{}", width(of_mean) / error);
    // A sum varies with the number of examples too: its variance is the sum of squares.
    let squares = scores.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((3.4..4.4).contains(&(width(a.sum_interval) / squares)));
    assert!(a.share_interval.low < a.share && a.share < a.share_interval.high);
    assert!(b.share_interval.low == 0.0 && b.share_interval.high > b.share);
    // One example: the mean is the same in each replicate that has it.
    let of_mean = b.mean_interval.unwrap();
    assert_eq!((of_mean.low, of_mean.high), (1.0, 1.0));
}

/// Catches settings that pass unseen, memory that grows without a word, and a scan's error that is swallowed.
#[test]
fn sources_refuse_what_cannot_be() {
    let store = store(Encoding::F16, 40);
    assert_setting(BySource::new().replicates(0).run(store.scan()), "replicates");
    assert_setting(BySource::new().replicates(1_000_001).run(store.scan()), "replicates");
    for confidence in [0.0, 1.0, -1.0, f64::NAN] {
        assert_setting(BySource::new().confidence(confidence).run(store.scan()), "confidence");
    }
    // Three sources of 5 queries, 10 replicates and what is not replicated.
    let needed = 3 * 8 * 11 * 11;
    assert!(BySource::new().replicates(10).memory(needed).run(store.scan()).is_ok());
    match BySource::new().replicates(10).memory(needed - 1).run(store.scan()) {
        Err(OperatorError::Memory { needed: asked, limit, .. }) => {
            assert_eq!((asked, limit), (needed, needed - 1));
        }
        other => panic!("{other:?}"),
    }
    let error = BySource::new().run(store.scan().cancel(&cancelled())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let error = BySource::new().run(store.scan().blocks(["three"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let empty = empty();
    assert_eq!(BySource::new().run(empty.scan()).unwrap(), [vec![]]);
}

/// The selection, plainly: all examples sorted.
fn selected(
    rows: &[(Vec<u8>, Option<String>, Vec<f64>)],
    tasks: &[std::ops::Range<usize>],
) -> Vec<(Vec<u8>, f64, usize)> {
    let mut all = Vec::new();
    for (id, _, scores) in rows {
        let mean =
            |task: &std::ops::Range<usize>| scores[task.clone()].iter().sum::<f64>() / task.len() as f64;
        let means: Vec<_> = tasks.iter().map(mean).collect();
        let best = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        all.push((id.clone(), best, means.iter().position(|mean| *mean == best).unwrap()));
    }
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then_with(|| a.0.cmp(&b.0)));
    all
}

fn flat(selected: Vec<Selected>) -> Vec<(Vec<u8>, f64, usize)> {
    selected.into_iter().map(|one| (one.id, one.score, one.task)).collect()
}

/// Catches a maximum of sums or a mean of maxima, a heap that drops a tie with the lesser id, rows that compete
/// with their own example, and a fraction of the wrong number.
#[test]
fn selection_is_the_best_by_the_maximum_of_means() {
    for encoding in [Encoding::F32, Encoding::I8] {
        let store = store(encoding, 120);
        let tasks = [0..2, 2..3, 1..5];
        let rows = rows_of(store.scan().grouping(Grouping::Sum));
        let all = selected(&rows, &tasks);
        let ties = all.windows(2).filter(|pair| pair[0].1 == pair[1].1).count();
        assert!(ties > 5, "{ties}");
        let with = |selection: Selection| tasks.iter().cloned().fold(selection, Selection::task);
        for count in [0, 1, 7, 30, all.len(), 1000] {
            for threads in [1, 3] {
                let found = with(Selection::count(count)).run(store.scan().threads(threads)).unwrap();
                assert_eq!(flat(found), all[..count.min(all.len())], "{count} {threads}");
            }
        }
        for (fraction, expected) in [(1e-9, 1), (0.1, 11), (0.5, 55), (1.0, all.len())] {
            let found = with(Selection::fraction(fraction)).run(store.scan()).unwrap();
            assert_eq!(flat(found), all[..expected], "{fraction}");
        }
        let max = selected(&rows_of(store.scan().grouping(Grouping::Max)), &tasks);
        let found = with(Selection::count(9)).run(store.scan().grouping(Grouping::Max)).unwrap();
        assert_eq!(flat(found), max[..9]);
        // A fraction of what the scan selects, not of the index.
        let news = rows_of(store.scan().grouping(Grouping::Sum).sources(["news"]));
        let found = with(Selection::fraction(0.5)).run(store.scan().sources(["news"])).unwrap();
        assert_eq!(found.len(), (news.len() as f64 / 2.0).round() as usize);
    }
}

/// Catches weights of checkpoints that do not reach the selection.
#[test]
fn selection_weights_checkpoints() {
    let store = store(Encoding::F32, 60);
    let one = rows_of(store.scan().blocks(["one"]).grouping(Grouping::Sum));
    let two = rows_of(store.scan().blocks(["two"]).grouping(Grouping::Sum));
    let mut rows = one.clone();
    for (row, other) in rows.iter_mut().zip(&two) {
        row.2.iter_mut().zip(&other.2).for_each(|(x, y)| *x = 0.5 * *x + 0.25 * y);
    }
    let scan = store.scan().weights([("one", 0.5), ("two", 0.25)]);
    let found = Selection::count(20).task(0..2).task(2..5).run(scan).unwrap();
    assert_eq!(flat(found), selected(&rows, &[0..2, 2..5])[..20]);
}

/// Catches an operator that scans without the curvature of the scan that it is given.
#[test]
fn operators_score_by_the_curvature_of_their_scan() {
    let store = store(Encoding::F32, 120);
    let mut writer = store.index.writer().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    drop(writer);
    let snapshot = store.index.snapshot().unwrap();
    let scan = || snapshot.scan(&store.queries).map(|scan| scan.curvature(Curvature::default()));
    let rows = rows_of(scan().unwrap().grouping(Grouping::Sum));
    assert_ne!(rows, rows_of(store.scan().grouping(Grouping::Sum)));
    let selection = Selection::count(20).task(0..2).task(2..5);
    assert_eq!(flat(selection.run(scan().unwrap()).unwrap()), selected(&rows, &[0..2, 2..5])[..20]);
    let coreset = Coreset::new(9).candidates(4).objective(Objective::FacilityLocation).choose(scan).unwrap();
    let chosen: Vec<_> = coreset.examples.into_iter().map(|one| (one.id, one.gain)).collect();
    assert_eq!(chosen, greedy(Objective::FacilityLocation, &rows, 9));
    let found = BySource::new().replicates(10).run(scan().unwrap().grouping(Grouping::Sum)).unwrap();
    for (found, expected) in found[0].iter().zip(by_source(&rows, |scores| scores[0])) {
        assert_eq!((&found.source, found.examples), (&expected.0, expected.1));
        assert!((found.sum - expected.2).abs() <= 1e-9 * expected.2.abs());
    }
}

/// Catches a fraction or a task that selects something else in silence.
#[test]
fn selection_refuses_what_cannot_be() {
    let store = store(Encoding::F16, 30);
    for fraction in [0.0, -0.5, 1.5, f64::NAN] {
        assert_setting(Selection::fraction(fraction).task(0..1).run(store.scan()), "fraction");
    }
    assert!(matches!(Selection::count(1).run(store.scan()), Err(OperatorError::NoTask)));
    for given in [1..1, 4..6, 9..12] {
        match Selection::count(1).task(0..1).task(given.clone()).run(store.scan()) {
            Err(OperatorError::Task { task: 1, given: told, queries: 5 }) => assert_eq!(told, given),
            other => panic!("{other:?}"),
        }
    }
    let error = Selection::count(1).task(0..1).run(store.scan().cancel(&cancelled())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(Selection::fraction(0.5).task(0..1).run(empty().scan()).unwrap(), []);
}

const COVERAGE: Objective = Objective::Coverage { share: 0.1 };

/// What an example adds to a set, plainly. `has` and `all` are of the set and of all examples.
fn gain(objective: Objective, scores: &[f64], has: &[f64], all: &[f64]) -> f64 {
    let of_query = |query: usize| match objective {
        Objective::Coverage { share } => {
            let part = scores[query].max(0.0).min((share * all[query] - has[query]).max(0.0));
            if part > 0.0 { part / all[query] } else { 0.0 }
        }
        _ => (scores[query].max(0.0) - has[query]).max(0.0),
    };
    (0..scores.len()).map(of_query).sum()
}

fn join(objective: Objective, has: &mut [f64], scores: &[f64]) {
    for (has, score) in has.iter_mut().zip(scores) {
        *has = match objective {
            Objective::Coverage { .. } => *has + score.max(0.0),
            _ => has.max(*score),
        };
    }
}

fn of_all(objective: Objective, examples: &[(Vec<u8>, Option<String>, Vec<f64>)]) -> Vec<f64> {
    let mut all = vec![0.0; examples[0].2.len()];
    examples.iter().for_each(|(_, _, scores)| join(objective, &mut all, scores));
    all
}

/// The greedy choice, plainly: every example is looked at in every step.
fn greedy(
    objective: Objective,
    examples: &[(Vec<u8>, Option<String>, Vec<f64>)],
    count: usize,
) -> Vec<(Vec<u8>, f64)> {
    let all = of_all(objective, examples);
    let (mut has, mut chosen) = (vec![0.0; all.len()], Vec::<(Vec<u8>, f64)>::new());
    while chosen.len() < count {
        let mut best: Option<(&[u8], f64, &[f64])> = None;
        for (id, _, scores) in examples.iter().filter(|one| chosen.iter().all(|(id, _)| *id != one.0)) {
            let gain = gain(objective, scores, &has, &all);
            if best.is_none_or(|best| gain > best.1 || (gain == best.1 && &id[..] < best.0)) {
                best = Some((id, gain, scores));
            }
        }
        match best {
            Some((id, gain, scores)) if gain > 0.0 => {
                chosen.push((id.to_vec(), gain));
                join(objective, &mut has, scores);
            }
            _ => break,
        }
    }
    chosen
}

/// Catches a candidate that is chosen though one outside of the pool is better, a stale gain, a tie that goes to
/// the greater id, and an example that is chosen twice.
#[test]
fn coreset_is_the_greedy_choice() {
    for encoding in [Encoding::F32, Encoding::I8] {
        let store = store(encoding, 90);
        let examples = rows_of(store.scan().grouping(Grouping::Sum));
        for objective in [COVERAGE, Objective::Coverage { share: 1.0 }, Objective::FacilityLocation] {
            let expected = greedy(objective, &examples, 25);
            let ties = expected.windows(2).filter(|pair| pair[0].1 == pair[1].1).count();
            for candidates in [1, 3, 20, 1000] {
                for threads in [1, 3] {
                    let coreset = Coreset::new(25).objective(objective).candidates(candidates);
                    let found = coreset
                        .choose(|| store.snapshot.scan(&store.queries).map(|scan| scan.threads(threads)));
                    let found = found.unwrap();
                    let chosen: Vec<_> =
                        found.examples.iter().map(|one| (one.id.clone(), one.gain)).collect();
                    assert_eq!(chosen, expected, "{objective:?} {candidates} ({ties} ties)");
                    let counted = usize::from(objective != Objective::FacilityLocation);
                    match candidates {
                        1000 => assert_eq!(found.passes, counted + 1),
                        _ => assert!(found.passes <= counted + expected.len() + 1),
                    }
                    let value: f64 = expected.iter().map(|(_, gain)| gain).sum();
                    assert_eq!(found.value, value);
                }
            }
        }
    }
}

/// Catches a candidate that is chosen at the gain of an example outside of the pool, which has the lesser id.
#[test]
fn coreset_tie_goes_to_the_lesser_id_outside_of_the_pool() {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let of = |first: f32, second: f32| {
        let mut values = vec![0.0; DIMS as usize];
        (values[0], values[1]) = (first, second);
        sketch(values)
    };
    let mut writer = index.writer().unwrap();
    // Once z is chosen, y and b both add 1.
    for (id, row) in [("z", of(5.0, 0.0)), ("y", of(2.0, 1.0)), ("b", of(0.0, 1.0))] {
        writer.append(id, &row).unwrap();
    }
    writer.commit().unwrap();
    let (snapshot, queries) = (index.snapshot().unwrap(), [of(1.0, 0.0), of(0.0, 1.0)]);
    for (candidates, passes) in [(1, 2), (2, 2), (3, 1)] {
        let coreset = Coreset::new(2).objective(Objective::FacilityLocation).candidates(candidates);
        let chosen = coreset.choose(|| snapshot.scan(&queries)).unwrap();
        let ids: Vec<_> = chosen.examples.iter().map(|one| &one.id[..]).collect();
        assert_eq!((ids, chosen.passes), (vec![&b"z"[..], b"b"], passes), "{candidates}");
    }
}

/// Catches a share that is of another sum than that of all positive scores.
#[test]
fn coreset_tells_what_it_keeps() {
    let store = store(Encoding::F32, 90);
    let examples = rows_of(store.scan().grouping(Grouping::Sum));
    for objective in [COVERAGE, Objective::FacilityLocation] {
        let found =
            Coreset::new(12).objective(objective).choose(|| store.snapshot.scan(&store.queries)).unwrap();
        let mut has = vec![0.0; store.queries.len()];
        for chosen in &found.examples {
            let example = examples.iter().find(|example| example.0 == chosen.id).unwrap();
            join(objective, &mut has, &example.2);
        }
        let expected: Vec<_> =
            has.iter().zip(of_all(objective, &examples)).map(|(has, all)| has / all).collect();
        assert_eq!(found.kept, expected);
    }
    // With the share that a set can have, all queries have it before any has much more.
    let found = Coreset::new(90).choose(|| store.snapshot.scan(&store.queries)).unwrap();
    assert!(found.examples.len() < 40 && found.kept.iter().all(|kept| (0.1 - 1e-12..0.25).contains(kept)));
}

/// Catches an objective that is not submodular, for which greedy has no bound: no set of its size is better
/// than its value by more than the bound allows.
#[test]
fn coreset_reaches_its_bound() {
    let store = store(Encoding::F32, 24);
    let examples = rows_of(store.scan().grouping(Grouping::Sum));
    for objective in [Objective::Coverage { share: 0.4 }, Objective::FacilityLocation] {
        let all = of_all(objective, &examples);
        let mut best = 0f64;
        for (at, one) in examples.iter().enumerate() {
            for (next, two) in examples.iter().enumerate().skip(at + 1) {
                for three in examples.iter().skip(next + 1) {
                    let (mut has, mut value) = (vec![0.0; all.len()], 0.0);
                    for (_, _, scores) in [one, two, three] {
                        value += gain(objective, scores, &has, &all);
                        join(objective, &mut has, scores);
                    }
                    best = best.max(value);
                }
            }
        }
        let found =
            Coreset::new(3).objective(objective).choose(|| store.snapshot.scan(&store.queries)).unwrap();
        assert!(found.value <= best + 1e-9 && found.value >= (1.0 - (-1f64).exp()) * best);
    }
}

/// Catches a setting, a changed scan or a scan's error that passes unseen.
#[test]
fn coreset_refuses_what_cannot_be() {
    let store = store(Encoding::F16, 30);
    let scan = || store.snapshot.scan(&store.queries);
    for share in [0.0, 1.5, f64::NAN] {
        let coreset = Coreset::new(3).objective(Objective::Coverage { share });
        assert_setting(coreset.choose(scan), "share");
    }
    assert_setting(Coreset::new(3).candidates(0).choose(scan), "candidates");
    let mut queries = store.queries.len() + 1;
    let fewer = || {
        queries -= 1;
        store.snapshot.scan(&store.queries[..queries])
    };
    assert!(matches!(
        Coreset::new(3).choose(fewer),
        Err(OperatorError::Lengths { given: 4, expected: 5, .. })
    ));
    let token = cancelled();
    let error = Coreset::new(3).choose(|| scan().map(|scan| scan.cancel(&token))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let none = Coreset::new(0).choose(scan).unwrap();
    assert_eq!((none.examples.len(), none.value), (0, 0.0));
    let empty = empty();
    let none = Coreset::new(3).choose(|| empty.snapshot.scan(&empty.queries)).unwrap();
    assert_eq!((none.examples.len(), none.kept), (0, vec![1.0]));
}

/// Rows around few directions, so that many are alike; `copies` examples are the same, and every fifth example
/// has three rows.
fn alike(encoding: Encoding, tiers: &[Tier], examples: usize, copies: usize) -> Store {
    let schema = Schema::new(spec(), encoding).unwrap().with_tiers(tiers.iter().copied()).unwrap();
    let (folder, index) = indexes::create(&schema);
    let mut random = Random(8);
    let directions: Vec<_> = (0..12).map(|_| random.normals(DIMS as usize)).collect();
    let mut values = |group: usize, noise: f32, size: f32| {
        let noises = random.normals(DIMS as usize);
        directions[group].iter().zip(noises).map(|(x, n)| size * (x + noise * n)).collect::<Vec<f32>>()
    };
    let copied = sketch(values(0, 0.0, 1.0));
    let zero = sketch(vec![0.0; DIMS as usize]);
    let mut writer = index.writer().unwrap();
    for example in 0..examples {
        let rows = if example % 5 == 4 { 3 } else { 1 };
        let noise = [0.05, 0.2, 0.3, 1.0][example % 4];
        let mut sketches: Vec<_> = (0..rows)
            .map(|row| sketch(values((example * 7 + row) % 12, noise, 1.0 + example as f32)))
            .collect();
        if example % 13 == 12 {
            sketches[0] = zero.clone();
        } else if example < 2 * copies && example % 2 == 0 {
            sketches[0] = copied.clone();
        }
        let label = if example % 3 == 0 { "wiki" } else { "news" };
        let rows: Vec<_> = (0u32..)
            .zip(&sketches)
            .map(|(at, sketch)| match (rows, at) {
                (1, _) => Row::new(sketch).source(label),
                _ => Row::new(sketch).source(label).span(Span::tokens(at, at + 2)),
            })
            .collect();
        writer.append_rows(format!("example {}", example * 37 % 1009), &rows).unwrap();
        if example % 50 == 49 {
            writer.commit().unwrap();
        }
    }
    for example in (0..examples).step_by(17) {
        writer.delete(format!("example {}", example * 37 % 1009)).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    Store { snapshot: index.snapshot().unwrap(), index, queries: Vec::new(), _folder: folder }
}

type Ids = (Vec<u8>, Vec<u8>);
type Pairs = BTreeMap<Ids, f64>;

/// All pairs, plainly: each row is a query that every row is scored for.
fn pairs(snapshot: &Snapshot, least: f64, configure: impl for<'q> Fn(Scan<'q>) -> Scan<'q>) -> Pairs {
    let mut found = Pairs::new();
    for row in snapshot.iter().with_sketches().map(Result::unwrap) {
        let query = [row.sketch.unwrap()];
        // What the scan leaves out is no query either.
        let scan = configure(snapshot.scan(&query).unwrap());
        let mut selected = false;
        let mut scores = Vec::new();
        scan.metric(Metric::Cosine)
            .scores(|rows| {
                for at in 0..rows.len() {
                    let id = rows.id(at).unwrap().to_vec();
                    selected |= id == row.id && rows.span(at).unwrap() == row.span;
                    scores.push((id, rows.scores(0)[at]));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        for (id, score) in scores {
            if selected && score >= least && id > row.id {
                let best = found.entry((row.id.clone(), id)).or_insert(score);
                *best = best.max(score);
            }
        }
    }
    found
}

/// The pairs that the operator passes on, in its order.
fn passed(duplicates: Duplicates<'_>, snapshot: &Snapshot) -> Vec<(Ids, f64)> {
    let mut found = Vec::new();
    let count = duplicates
        .run(snapshot, |pair| {
            found.push(((pair.first.clone(), pair.second.clone()), pair.cosine));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(count, found.len() as u64);
    found
}

/// Catches a pair that is missed, passed twice, in the wrong direction or with another score; examples whose rows
/// are parted by a batch; and a row with more duplicates than the first scan asks for.
#[test]
fn duplicates_are_all_pairs_above_the_cosine() {
    let sign = Tier::Sign { seed: 2 };
    for (encoding, tiers) in
        [(Encoding::F32, vec![]), (Encoding::F16, vec![sign, Tier::I8]), (Encoding::I8, vec![])]
    {
        for (copies, least) in [(0, 0.9), (90, 0.97)] {
            let store = alike(encoding, &tiers, 220, copies);
            let expected = pairs(&store.snapshot, least, |scan| scan);
            assert!(expected.len() > 100, "{}", expected.len());
            for batch in [1, 7, 64, 1000] {
                let run = |threads: usize| {
                    let duplicates = Duplicates::new(least).batch(batch);
                    passed(duplicates.configure(move |scan| scan.threads(threads)), &store.snapshot)
                };
                let found = run(1);
                assert_eq!(run(3), found, "{batch}");
                let map: Pairs = found.iter().cloned().collect();
                assert_eq!(map.len(), found.len(), "{batch}: passed twice");
                assert_eq!(map, expected, "{encoding:?} {copies} {batch}");
            }
        }
    }
}

/// Catches pairs that depend on where rows lie.
#[test]
fn duplicates_are_the_same_after_compaction() {
    let store = alike(Encoding::I8, &[], 220, 70);
    let before: Pairs = passed(Duplicates::new(0.95), &store.snapshot).into_iter().collect();
    let mut writer = store.index.writer().unwrap();
    writer.compact(CompactOptions::all()).unwrap();
    drop(writer);
    let after: Pairs = passed(Duplicates::new(0.95), &store.index.snapshot().unwrap()).into_iter().collect();
    assert_eq!(after, before);
}

/// Catches a filter that applies to one side of a pair, and blocks that do not apply to both.
#[test]
fn duplicates_are_of_the_selected_rows_and_blocks() {
    let store = alike(Encoding::F16, &[], 220, 40);
    let found =
        |duplicates: Duplicates<'_>| passed(duplicates, &store.snapshot).into_iter().collect::<Pairs>();
    let all = found(Duplicates::new(0.9));
    let wiki = found(Duplicates::new(0.9).sources(["wiki"]));
    assert_eq!(wiki, pairs(&store.snapshot, 0.9, |scan| scan.sources(["wiki"])));
    let whole = found(Duplicates::new(0.9).spans(SpanFilter::Whole));
    assert_eq!(whole, pairs(&store.snapshot, 0.9, |scan| scan.spans(SpanFilter::Whole)));
    assert!(!wiki.is_empty() && wiki.len() < whole.len() && whole.len() < all.len());
    let one = found(Duplicates::new(0.98).configure(|scan| scan.blocks(["one"])));
    assert_eq!(one, pairs(&store.snapshot, 0.98, |scan| scan.blocks(["one"])));
    assert_ne!(one, found(Duplicates::new(0.98)));
}

/// Catches a cluster that is split where pairs connect it, or one that is not of connected examples.
#[test]
fn clusters_are_the_connected_examples() {
    // Examples of several rows would connect all.
    let whole = || Duplicates::new(0.93).spans(SpanFilter::Whole);
    let store = alike(Encoding::F16, &[], 220, 80);
    let edges: Vec<_> = passed(whole(), &store.snapshot).into_iter().map(|(pair, _)| pair).collect();
    let mut left: BTreeSet<Vec<u8>> = edges.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let mut expected = Vec::new();
    while let Some(first) = left.pop_first() {
        let mut cluster = BTreeSet::from([first]);
        loop {
            let reached = edges.iter().filter(|(a, b)| cluster.contains(a) != cluster.contains(b));
            let reached: Vec<_> = reached.flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
            if reached.is_empty() {
                break;
            }
            cluster.extend(reached);
        }
        left.retain(|id| !cluster.contains(id));
        expected.push(cluster.into_iter().collect::<Vec<_>>());
    }
    assert!(expected.len() > 2, "{}", expected.len());
    assert_eq!(whole().clusters(&store.snapshot).unwrap(), expected);
}

/// Catches a sink that cannot end the join, and progress that does not add up.
#[test]
fn duplicates_end_when_told_to() {
    let store = alike(Encoding::F32, &[], 220, 90);
    let whole = passed(Duplicates::new(0.9).batch(16), &store.snapshot);
    // In the middle of a batch, and in the crowded part of one.
    for end in [1, 5, whole.len() as u64 / 2, whole.len() as u64 - 1] {
        let mut seen = 0;
        let count = Duplicates::new(0.9).batch(16).run(&store.snapshot, |_| {
            seen += 1;
            if seen == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((count.unwrap(), seen), (end, end));
    }
    let token = CancelToken::new();
    let error = Duplicates::new(0.9).batch(16).cancel(&token).run(&store.snapshot, |_| {
        token.cancel();
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
    let mut done = Vec::new();
    Duplicates::new(0.9)
        .batch(16)
        .progress(|progress| {
            assert_eq!(progress.rows_total, store.snapshot.rows());
            done.push(progress.rows_done);
        })
        .run(&store.snapshot, |_| ControlFlow::Continue(()))
        .unwrap();
    assert!(done.len() > 10 && done.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(done.last(), Some(&store.snapshot.rows()));
}

/// Catches a setting that finds something else in silence.
#[test]
fn duplicates_refuse_what_cannot_be() {
    let store = alike(Encoding::F32, &[], 30, 0);
    let run = |duplicates: Duplicates<'_>| duplicates.run(&store.snapshot, |_| ControlFlow::Continue(()));
    for least in [0.0, -0.5, 1.1, f64::NAN] {
        assert_setting(run(Duplicates::new(least)), "least_cosine");
    }
    assert_setting(run(Duplicates::new(0.9).batch(0)), "batch");
    let filtered: [Duplicates<'_>; 4] = [
        Duplicates::new(0.9).configure(|scan| scan.ids(["example 0"])),
        Duplicates::new(0.9).configure(|scan| scan.exclude_ids(["example 0"])),
        Duplicates::new(0.9).configure(|scan| scan.sources(["wiki"])),
        Duplicates::new(0.9).configure(|scan| scan.spans(SpanFilter::Whole)),
    ];
    for duplicates in filtered {
        assert!(matches!(run(duplicates), Err(OperatorError::Filtered)));
    }
    let unknown = run(Duplicates::new(0.9).sources(["wiki", "nobody"]));
    match unknown {
        Err(OperatorError::Scan(ScanError::UnknownSource { name })) => assert_eq!(name, "nobody"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(run(Duplicates::new(0.9).cancel(&cancelled())), Err(OperatorError::Cancelled)));
    let none = Duplicates::new(0.9).clusters(&empty().snapshot).unwrap();
    assert_eq!(none, Vec::<Vec<Vec<u8>>>::new());
}

/// Outputs of a model that mixes hidden distributions with these shares, the first of which is the base's.
fn mixed(shares: &[f64], prompts: usize, outputs: usize, noise: f64) -> Vec<Vec<Vec<f32>>> {
    let mut random = Random(4);
    let mut distribution = || {
        let mut numbers: Vec<f64> = (0..outputs).map(|_| random.uniform().powi(4)).collect();
        let sum: f64 = numbers.iter().sum();
        numbers.iter_mut().for_each(|number| *number /= sum);
        numbers
    };
    let mut noisy = |numbers: Vec<f64>| -> Vec<f32> {
        let other = distribution();
        numbers.iter().zip(other).map(|(x, n)| ((1.0 - noise) * x + noise * n) as f32).collect()
    };
    let mut hidden = Random(6);
    let mut distribution = || {
        let mut numbers: Vec<f64> = (0..outputs).map(|_| hidden.uniform().powi(4)).collect();
        let sum: f64 = numbers.iter().sum();
        numbers.iter_mut().for_each(|number| *number /= sum);
        numbers
    };
    (0..prompts)
        .map(|_| {
            let hidden: Vec<_> = shares.iter().map(|_| distribution()).collect();
            let without = (0..outputs)
                .map(|output| shares.iter().zip(&hidden).map(|(share, h)| share * h[output]).sum());
            let with = hidden[1..].iter().map(|h| {
                h.iter()
                    .zip(&hidden[0])
                    .map(|(own, base)| shares[0] * base + (1.0 - shares[0]) * own)
                    .collect()
            });
            std::iter::once(without.collect()).chain(with).map(&mut noisy).collect()
        })
        .collect()
}

fn relative(fit: &MixtureFit) -> Vec<f64> {
    fit.sources.iter().map(|source| source.relative).collect()
}

/// Catches shares of the wrong source, a base that is counted among them, or a fit that does not reach its minimum.
#[test]
fn mixture_recovers_planted_shares() {
    for (shares, outputs) in
        [(vec![0.2, 0.5, 0.2, 0.1], 2), (vec![0.3, 0.05, 0.65], 6), (vec![0.1, 0.9, 0.0], 3)]
    {
        let prompts = mixed(&shares, 60, outputs, 0.0);
        let fit = Mixture::new().replicates(20).fit(&prompts).unwrap();
        for (source, share) in fit.sources.iter().zip(&shares[1..]) {
            assert!((source.relative - share / (1.0 - shares[0])).abs() < 1e-4, "{shares:?} {fit:#?}");
        }
        assert!(fit.converged && fit.replicates_not_converged == 0, "{fit:#?}");
        assert!(fit.residual < 1e-5, "{}", fit.residual);
        // The base's share is bounded by the data, not determined.
        assert!(fit.base <= fit.base_bound + 1e-3 && fit.base_bound >= shares[0] - 1e-6);
        let sum: f64 = fit.sources.iter().map(|source| source.share).sum::<f64>() + fit.base;
        assert!((sum - 1.0).abs() < 1e-12);
        // What is left of the shares follows the relative ones, but for what the ridge does.
        for source in &fit.sources {
            assert!((source.share / (1.0 - fit.base) - source.relative).abs() < 0.03, "{fit:#?}");
        }
    }
}

/// Catches intervals that do not cover, or do not shrink with more prompts.
#[test]
fn mixture_intervals_cover_noisy_shares() {
    let shares = [0.2, 0.5, 0.2, 0.1];
    let width = |prompts: usize| {
        let fit = Mixture::new().replicates(100).ridge(0.01).fit(&mixed(&shares, prompts, 4, 0.1)).unwrap();
        let first = &fit.sources[0];
        let interval = first.relative_interval.unwrap();
        assert!(interval.low < first.relative && first.relative < interval.high, "{fit:#?}");
        assert!((first.relative - 0.625).abs() < 0.1, "{fit:#?}");
        assert!(fit.residual > 0.01);
        interval.high - interval.low
    };
    let (few, many) = (width(15), width(150));
    assert!(many < 0.5 * few && few < 0.5, "{few} {many}");
}

/// Catches a fit that depends on the threads or on the order in which replicates end, and a seed that does nothing.
#[test]
fn mixture_is_the_same_for_any_threads() {
    let prompts = mixed(&[0.2, 0.5, 0.3], 12, 3, 0.2);
    let fit = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mixture = Mixture::new().replicates(30).ridge(0.05).seed(seed);
        pool.install(|| mixture.fit(&prompts).unwrap())
    };
    assert_eq!(fit(1, 7), fit(3, 7));
    assert_ne!(fit(1, 7), fit(1, 8));
    assert_eq!(relative(&fit(1, 7)), relative(&fit(1, 8)));
}

/// Catches a division by zero or a bias where the data say nothing: shares are equal then.
#[test]
fn mixture_of_degenerate_outputs_is_the_documented_one() {
    let same = vec![vec![vec![0.25f32, 0.75]; 4]; 5];
    let fit = Mixture::new().replicates(10).fit(&same).unwrap();
    for source in &fit.sources {
        assert!((source.relative - 1.0 / 3.0).abs() < 1e-12, "{fit:#?}");
    }
    assert!(fit.base_bound > 1.0 - 1e-6 && fit.base_bound <= 1.0);
    // One source: all of what comes from sources is its.
    let one = vec![vec![vec![0.5f32, 0.5], vec![0.9, 0.1]]];
    let fit = Mixture::new().replicates(40).fit(&one).unwrap();
    assert_eq!(fit.sources[0].relative, 1.0);
    assert!(fit.residual > 0.5);
    // One output: nothing to tell apart.
    let certain = vec![vec![vec![1.0f32]; 3]; 2];
    let fit = Mixture::new().replicates(10).fit(&certain).unwrap();
    assert_eq!((relative(&fit), fit.residual), (vec![0.5, 0.5], 0.0));
    // Prompts with different answers.
    let mut other = mixed(&[0.2, 0.5, 0.3], 20, 3, 0.0);
    other.extend(mixed(&[0.2, 0.5, 0.3], 20, 5, 0.0));
    let fit = Mixture::new().replicates(10).fit(&other).unwrap();
    assert!((fit.sources[0].relative - 0.625).abs() < 1e-4);
    // Too few iterations are told.
    let fit = Mixture::new().replicates(10).iterations(1).fit(&other).unwrap();
    assert_eq!((fit.iterations, fit.converged, fit.replicates_not_converged), (1, false, 10));
}

/// Catches numbers that are taken for a distribution, and settings that pass unseen.
#[test]
fn mixture_refuses_what_cannot_be() {
    let good = mixed(&[0.2, 0.5, 0.3], 3, 3, 0.0);
    assert_setting(Mixture::new().replicates(0).fit(&good), "replicates");
    assert_setting(Mixture::new().confidence(1.0).fit(&good), "confidence");
    assert_setting(Mixture::new().iterations(0).fit(&good), "iterations");
    for ridge in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_setting(Mixture::new().ridge(ridge).fit(&good), "ridge");
    }
    let bad: [Vec<f32>; 5] = [
        vec![0.5, 0.5],
        vec![0.5, 0.5, 0.5],
        vec![1.5, -0.5, 0.0],
        vec![f32::NAN, 0.5, 0.5],
        vec![f32::INFINITY, 0.0, 0.0],
    ];
    for bad in bad {
        let mut prompts = good.clone();
        prompts[1][2] = bad;
        let error = Mixture::new().fit(&prompts).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("that of prompt 1 with context from source 1 is no distribution"), "{told}");
        assert_eq!(Error::from(error).kind(), ErrorKind::InvalidInput);
    }
    let lengths = |prompts: &[Vec<Vec<f32>>]| match Mixture::new().fit(prompts) {
        Err(OperatorError::Lengths { given, expected, .. }) => (given, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!(lengths(&[]), (0, 1));
    assert_eq!(lengths(&[vec![vec![1.0]]]), (1, 2));
    assert_eq!(lengths(&[vec![]]), (0, 2));
    let mut uneven = good.clone();
    uneven[2].pop();
    assert_eq!(lengths(&uneven), (2, 3));
    assert!(matches!(Mixture::new().cancel(&cancelled()).fit(&good), Err(OperatorError::Cancelled)));
    // From the callback, in the middle.
    let token = CancelToken::new();
    let mut calls = Vec::new();
    let stopped = Mixture::new()
        .replicates(50)
        .cancel(&token)
        .progress(|done, total| {
            calls.push((done, total));
            token.cancel();
        })
        .fit(&good);
    assert!(matches!(stopped, Err(OperatorError::Cancelled)));
    assert_eq!(calls[0], (1, 51));
}
