//! The operators against the plainest computation of the same, on small indexes that have everything: segments,
//! dead rows, examples of several rows, sources, ties and zeros.

mod fixtures;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fixtures::indexes;
use fixtures::random::Random;
use gradix::operators::{self, BySource, Interval, OperatorError, Selected, Selection, SourceScores};
use gradix::sketch::{Sketch, SketchError, SketchSpec};
use gradix::{CancelToken, Encoding, Error, ErrorKind, Grouping, Index, Row, Scan, Schema, Snapshot, Span};

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

    /// Id, source and the scores of the queries, row by row.
    fn rows(&self, scan: Scan<'_>) -> Vec<(Vec<u8>, Option<String>, Vec<f64>)> {
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
    let found = store.rows(store.snapshot.scan(&[contrast]).unwrap().top_k(1));
    for (row, parts) in found.iter().zip(store.rows(store.scan())) {
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
    let rows = store.rows(store.scan());
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
    let expected = by_source(&store.rows(store.scan().grouping(Grouping::Max)), |scores| scores[0]);
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
    writer.compact(gradix::CompactOptions::all()).unwrap();
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
        let rows = store.rows(store.scan().grouping(Grouping::Sum));
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
        let max = selected(&store.rows(store.scan().grouping(Grouping::Max)), &tasks);
        let found = with(Selection::count(9)).run(store.scan().grouping(Grouping::Max)).unwrap();
        assert_eq!(flat(found), max[..9]);
        // A fraction of what the scan selects, not of the index.
        let news = store.rows(store.scan().grouping(Grouping::Sum).sources(["news"]));
        let found = with(Selection::fraction(0.5)).run(store.scan().sources(["news"])).unwrap();
        assert_eq!(found.len(), (news.len() as f64 / 2.0).round() as usize);
    }
}

/// Catches weights of checkpoints that do not reach the selection.
#[test]
fn selection_weights_checkpoints() {
    let store = store(Encoding::F32, 60);
    let one = store.rows(store.scan().blocks(["one"]).grouping(Grouping::Sum));
    let two = store.rows(store.scan().blocks(["two"]).grouping(Grouping::Sum));
    let mut rows = one.clone();
    for (row, other) in rows.iter_mut().zip(&two) {
        row.2.iter_mut().zip(&other.2).for_each(|(x, y)| *x = 0.5 * *x + 0.25 * y);
    }
    let scan = store.scan().weights([("one", 0.5), ("two", 0.25)]);
    let found = Selection::count(20).task(0..2).task(2..5).run(scan).unwrap();
    assert_eq!(flat(found), selected(&rows, &[0..2, 2..5])[..20]);
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
