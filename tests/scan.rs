//! The paths of a scan through a real index: they must give one ranking, and prune what they can.

mod fixtures;

use std::ops::ControlFlow;

use fixtures::indexes;
use fixtures::random::Random;
use gradix::scan::{Guarantee, KernelChoice, Metric, Reading, ScanError, ScanPath};
use gradix::sketch::{OptimizerStep, Sketch, SketchSpec, Sketcher};
use gradix::{AppendError, Encoding, Grouping, Ranking, Scan, Schema, Snapshot, Tier};

const DIMS: u32 = 1024;
const ROWS: usize = 6000;

struct Store {
    _folder: tempfile::TempDir,
    snapshot: Snapshot,
    queries: Vec<Sketch>,
}

/// Rows in forty groups around common directions, as gradients are; the norms of some are small.
fn store(encoding: Encoding, tiers: &[Tier], small_norms: bool) -> Store {
    let spec = SketchSpec::dense("test", "1", [("all", DIMS)]);
    let schema = Schema::new(spec.clone(), encoding).unwrap().with_tiers(tiers.iter().copied()).unwrap();
    let (folder, index) = indexes::create(&schema);
    let mut random = Random(77);
    let directions: Vec<Vec<f32>> = (0..40).map(|_| random.normals(DIMS as usize)).collect();
    let mut numbers = |group: usize, share: f32, size: f32| -> Vec<f32> {
        let noise = random.normals(DIMS as usize);
        directions[group].iter().zip(noise).map(|(d, n)| size * (share * d + (1.0 - share) * n)).collect()
    };
    let mut writer = index.writer().unwrap();
    for row in 0..ROWS {
        let size = if small_norms && row % 16 != 0 { 0.01 } else { 1.0 };
        let values = numbers(row * 7 % 40, 0.3 + 0.4 * ((row % 10) as f32 / 10.0), size);
        writer.append(format!("row {row}"), &Sketch::dense(spec.clone(), values).unwrap()).unwrap();
    }
    writer.commit().unwrap();
    let queries = (0..20).map(|i| Sketch::dense(spec.clone(), numbers(i, 0.8, 1.0)).unwrap()).collect();
    Store { snapshot: index.snapshot().unwrap(), queries, _folder: folder }
}

impl Store {
    fn scan(&self, queries: usize, path: ScanPath, opponents: usize) -> Ranking {
        let scan = self.snapshot.scan(&self.queries[..queries]).unwrap().top_k(10).bottom_k(opponents);
        let has_sign = self.snapshot.schema().tiers().iter().any(|tier| matches!(tier, Tier::Sign { .. }));
        let guarantee = if has_sign { Guarantee::Probable { delta: 1e-9 } } else { Guarantee::Exact };
        scan.path(path).guarantee(guarantee).run().unwrap()
    }
}

fn assert_same(found: &Ranking, expected: &Ranking, what: &str) {
    for query in 0..expected.queries() {
        for (found, expected) in [
            (found.proponents(query), expected.proponents(query)),
            (found.opponents(query), expected.opponents(query)),
        ] {
            let bits = |hits: &[gradix::Hit]| -> Vec<(Vec<u8>, u64)> {
                hits.iter().map(|hit| (hit.id.clone(), hit.score.to_bits())).collect()
            };
            assert_eq!(bits(found), bits(expected), "{what}, query {query}");
        }
    }
}

/// Catches a screen that leaves out one of the best, or gives other bits than the full pass.
#[test]
fn screens_leave_out_none_of_the_best() {
    let sign = Tier::Sign { seed: 3 };
    let stores = [
        (store(Encoding::I8, &[sign], false), vec![ScanPath::Bytes, ScanPath::SignTier]),
        (store(Encoding::F16, &[], false), vec![ScanPath::Bytes]),
        (store(Encoding::F32, &[], false), vec![ScanPath::Bytes]),
        (
            store(Encoding::F16, &[sign, Tier::I8], false),
            vec![ScanPath::Bytes, ScanPath::I8Tier, ScanPath::SignTier],
        ),
    ];
    for (store, paths) in &stores {
        for queries in [1, 20] {
            let expected = store.scan(queries, ScanPath::Full, 0);
            let both_ends = store.scan(queries, ScanPath::Full, 5);
            assert_eq!((expected.statistics().rows_screened, expected.statistics().delta), (0, None));
            for &path in paths {
                assert_same(&store.scan(queries, path, 5), &both_ends, path.name());
                let found = store.scan(queries, path, 0);
                assert_same(&found, &expected, path.name());
                let statistics = found.statistics();
                assert_eq!(statistics.path, path);
                assert_eq!(statistics.rows, ROWS as u64);
                assert_eq!(statistics.delta.is_some(), path == ScanPath::SignTier);
                assert!(statistics.candidate_rows <= statistics.rows_screened, "{path}");
                assert!(statistics.rows_screened > 0, "{path}");
            }
        }
    }
}

/// Catches a bound that forgets the query's or the row's norm: most rows are too small to matter, and
/// need not be read.
#[test]
fn small_norms_leave_rows_unread() {
    let store = store(Encoding::I8, &[], true);
    let every =
        store.snapshot.scan(&store.queries[..1]).unwrap().top_k(ROWS).path(ScanPath::Full).run().unwrap();
    let found = store.snapshot.scan(&store.queries[..1]).unwrap().top_k(10).threads(1).path(ScanPath::Full);
    let found = found.run().unwrap();
    assert_eq!(found.proponents(0), &every.proponents(0)[..10]);
    let statistics = found.statistics();
    assert!(statistics.rows_pruned_by_norm > ROWS as u64 / 2, "{} left", statistics.rows_pruned_by_norm);
    let read = statistics.rows - statistics.rows_pruned_by_norm;
    assert_eq!(statistics.code_bytes, read * u64::from(DIMS));
}

/// Catches cosines whose interval was not divided by the lengths.
#[test]
fn screens_hold_for_cosines() {
    let store = store(Encoding::F16, &[Tier::Sign { seed: 9 }, Tier::I8], true);
    let scan = |path| {
        let scan = store.snapshot.scan(&store.queries).unwrap().top_k(20).bottom_k(3).metric(Metric::Cosine);
        scan.path(path).guarantee(Guarantee::Probable { delta: 1e-9 }).run().unwrap()
    };
    let expected = scan(ScanPath::Full);
    for path in [ScanPath::Bytes, ScanPath::I8Tier, ScanPath::SignTier] {
        assert_same(&scan(path), &expected, path.name());
    }
}

/// Catches a ranking that depends on where the codes were read from.
#[test]
fn readings_give_one_ranking() {
    let store = store(Encoding::F16, &[Tier::I8], false);
    let scan = |reading, keep, path| {
        let scan = store.snapshot.scan(&store.queries).unwrap().top_k(10).reading(reading).keep_cache(keep);
        scan.path(path).run().unwrap()
    };
    let expected = scan(Reading::Mapped, true, ScanPath::Full);
    for (reading, keep) in [
        (Reading::Buffered, true),
        (Reading::Direct, true),
        (Reading::Direct, false),
        (Reading::Mapped, false),
    ] {
        for path in [ScanPath::Full, ScanPath::Bytes, ScanPath::I8Tier] {
            assert_same(&scan(reading, keep, path), &expected, &format!("{reading:?} {path}"));
        }
    }
}

/// Catches a path, a guarantee or a probability that is not possible and gives way in silence, and a plan
/// that takes a path that the index, the guarantee or the grouping does not allow.
#[test]
fn paths_that_are_not_possible_are_explained_and_refused() {
    let store = store(Encoding::I8, &[Tier::Sign { seed: 1 }], false);
    let scan = || store.snapshot.scan(&store.queries[..1]).unwrap().top_k(1);
    let explained = scan().explain().unwrap();
    assert_eq!(explained.chosen, ScanPath::Full);
    let why = |path| explained.paths.iter().find(|cost| cost.path == path).unwrap().impossible;
    assert_eq!(why(ScanPath::Full), None);
    assert_eq!(why(ScanPath::Bytes), None);
    assert_eq!(why(ScanPath::SignTier), Some("the guarantee is exact"));
    assert_eq!(why(ScanPath::I8Tier), Some("the index has no i8 tier"));
    assert!(explained.to_string().contains("-> full"), "{explained}");

    let refused = |scan: Scan<'_>, asked| {
        let error = scan.path(asked).explain().unwrap_err();
        assert!(matches!(error, ScanError::ImpossiblePath { path, .. } if path == asked), "{error}");
        error.to_string()
    };
    assert!(refused(scan(), ScanPath::SignTier).contains("the guarantee is exact"));
    assert!(refused(scan(), ScanPath::I8Tier).contains("no i8 tier; ScanPath::Auto"));
    assert!(refused(scan().grouping(Grouping::Max), ScanPath::Bytes).contains("rows are grouped"));
    let error = scan().path(ScanPath::I8Tier).run().unwrap_err();
    assert!(matches!(error, ScanError::ImpossiblePath { path: ScanPath::I8Tier, .. }), "{error}");
    let all = scan().path(ScanPath::Bytes).scores(|_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(all, ScanError::ImpossiblePath { path: ScanPath::Bytes, .. }), "{all}");

    let probable = || scan().guarantee(Guarantee::Probable { delta: 1e-6 });
    let explained = probable().path(ScanPath::SignTier).explain().unwrap();
    assert_eq!((explained.chosen, explained.rows, explained.queries), (ScanPath::SignTier, ROWS as u64, 1));
    let bytes = |path| explained.paths.iter().find(|cost| cost.path == path).unwrap().bytes;
    assert!(bytes(ScanPath::SignTier) * 4 < bytes(ScanPath::Full));
    // Grouped rows are ranked exactly, and the statistics say so.
    let grouped = probable().grouping(Grouping::Max).run().unwrap();
    assert_eq!((grouped.statistics().path, grouped.statistics().delta), (ScanPath::Full, None));
    let without = self::store(Encoding::I8, &[], false);
    let error = without.snapshot.scan(&without.queries[..1]).unwrap().top_k(1);
    let error = error.guarantee(Guarantee::Probable { delta: 1e-6 }).run().unwrap_err();
    assert!(matches!(error, ScanError::NoSignTier) && error.to_string().contains("Tier::Sign"), "{error}");

    for delta in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = scan().guarantee(Guarantee::Probable { delta }).run().unwrap_err();
        assert!(matches!(error, ScanError::InvalidDelta { .. }), "{delta}: {error}");
    }
    for threads in [usize::MAX, 1 << 61] {
        let error = scan().threads(threads).run().unwrap_err();
        assert!(matches!(error, ScanError::Threads { .. }), "{error}");
    }
}

/// Catches a kernel that screens otherwise than the oracle.
#[test]
fn kernels_screen_alike() {
    let store = store(Encoding::F16, &[Tier::Sign { seed: 2 }, Tier::I8], false);
    let scan = |kernel, path| {
        let scan = store.snapshot.scan(&store.queries[..3]).unwrap().top_k(10).kernel(kernel).path(path);
        scan.threads(1).guarantee(Guarantee::Probable { delta: 1e-9 }).run()
    };
    for path in [ScanPath::Bytes, ScanPath::I8Tier, ScanPath::SignTier] {
        let expected = scan(KernelChoice::Scalar, path).unwrap();
        for kernel in KernelChoice::ALL {
            let found = match scan(kernel, path) {
                Err(ScanError::Kernel(_)) => continue,
                found => found.unwrap(),
            };
            assert_same(&found, &expected, &format!("{kernel} {path}"));
        }
    }
}

/// An index of these blocks, its rows, and a query.
fn checkpoints(names: &[&str], rows: usize) -> (tempfile::TempDir, Snapshot, Vec<Sketch>, Sketch) {
    let spec = SketchSpec::dense("test", "1", names.iter().map(|name| (*name, 4)));
    let (folder, index) = indexes::create(&Schema::new(spec.clone(), Encoding::F32).unwrap());
    let mut random = Random(5);
    let mut sketch = || {
        let values = (0..spec.dims()).map(|_| random.below(17) as f32 - 8.0).collect();
        Sketch::dense(spec.clone(), values).unwrap()
    };
    let sketches: Vec<Sketch> = (0..rows).map(|_| sketch()).collect();
    let query = sketch();
    let mut writer = index.writer().unwrap();
    for (row, sketch) in sketches.iter().enumerate() {
        writer.append(format!("{row}"), sketch).unwrap();
    }
    writer.commit().unwrap();
    (folder, index.snapshot().unwrap(), sketches, query)
}

fn all_scores(scan: Scan<'_>) -> Result<Vec<f64>, ScanError> {
    let mut found = Vec::new();
    scan.scores(|rows| {
        found.extend_from_slice(rows.scores(0));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Catches a prefix that ends within a name or passes over a block, and a name that stands for more than
/// the block of that name.
#[test]
fn prefix_selects_and_weights_the_blocks_below_it() {
    let names = ["step-1.a", "step-1.b", "step-10.a", "step-2", "step-2.a"];
    let (_folder, snapshot, sketches, query) = checkpoints(&names, 20);
    let query = [query];
    let scan = || snapshot.scan(&query).unwrap();
    let expected = |weights: [f64; 5]| -> Vec<f64> {
        let dot = |sketch: &Sketch, block: usize| -> f64 {
            let pairs = sketch.block(block).unwrap().iter().zip(query[0].block(block).unwrap());
            pairs.map(|(a, b)| f64::from(a * b)).sum()
        };
        let score = |sketch| (0..5).map(|block| weights[block] * dot(sketch, block)).sum();
        sketches.iter().map(score).collect()
    };
    assert_eq!(all_scores(scan().blocks(["step-1"])).unwrap(), expected([1.0, 1.0, 0.0, 0.0, 0.0]));
    assert_eq!(all_scores(scan().blocks(["step-2"])).unwrap(), expected([0.0, 0.0, 0.0, 1.0, 0.0]));
    assert_eq!(
        all_scores(scan().blocks(["step-2.a", "step-10"])).unwrap(),
        expected([0.0, 0.0, 1.0, 0.0, 1.0])
    );
    // What comes later applies, whichever is the longer name.
    let weights = [("step-1", 0.5), ("step-1.b", 2.0), ("step-10", 4.0), ("step-2", -1.0)];
    assert_eq!(all_scores(scan().weights(weights)).unwrap(), expected([0.5, 2.0, 4.0, -1.0, 1.0]));
    let weights = [("step-1.b", 2.0), ("step-1", 0.5)];
    assert_eq!(all_scores(scan().weights(weights)).unwrap(), expected([0.5, 0.5, 1.0, 1.0, 1.0]));
    // A prefix weights what is selected of it.
    let found = all_scores(scan().blocks(["step-1.b"]).weights([("step-1", 3.0)])).unwrap();
    assert_eq!(found, expected([0.0, 3.0, 0.0, 0.0, 0.0]));

    for name in ["step", "step-", "step-1.", "step-1.a.x", ".", "", "step-3"] {
        let error = all_scores(scan().blocks([name])).unwrap_err();
        assert!(matches!(&error, ScanError::UnknownBlock { name: named } if named == name), "{error}");
        let error = all_scores(scan().weights([(name, 1.0)])).unwrap_err();
        assert!(matches!(&error, ScanError::UnknownBlock { name: named } if named == name), "{error}");
    }
    let error = all_scores(scan().blocks(["step-2"]).weights([("step-1", 1.0)])).unwrap_err();
    assert!(matches!(&error, ScanError::NotSelected { name } if name == "step-1"), "{error}");
}

/// Catches a sum over checkpoints whose weights or gradients are those of another checkpoint: each score is
/// the weighted sum of the scores of two indexes, one for each checkpoint (TracIn's sum).
#[test]
fn weighted_scan_of_checkpoints_is_the_sum_over_them() {
    const LAYERS: [(&str, [usize; 2]); 2] = [("layers.0.weight", [12, 9]), ("head.weight", [9, 5])];
    let steps = [("step-100", 0.25), ("step-200", 2.0)];
    let mut random = Random(6);
    // Of each checkpoint the gradients of eight examples and of a query.
    let gradients: Vec<Vec<[Vec<f32>; 2]>> = steps
        .iter()
        .map(|_| (0..9).map(|_| LAYERS.map(|(_, [n, m])| random.normals(n * m))).collect())
        .collect();
    let sketch = |sketcher: &Sketcher, gradient: &[Vec<f32>; 2]| {
        let mut fold = sketcher.start();
        for ((name, shape), gradient) in LAYERS.iter().zip(gradient) {
            fold.add_matrix(name, *shape, gradient).unwrap();
        }
        fold.finish().unwrap()
    };
    let kronecker =
        |names: &[String]| SketchSpec::kronecker(7, names.iter().map(|name| (name.as_str(), 4, 3)));
    let folding =
        |names: &[String]| SketchSpec::rapid_grad_blocks(7, names.iter().map(|name| (name.as_str(), 16)));
    for spec_of in [&kronecker as &dyn Fn(&[String]) -> SketchSpec, &folding] {
        let blocks = |step: &str| ["layers.0", "head"].map(|layer| format!("{step}.{layer}"));
        let spec = spec_of(&steps.map(|(step, _)| blocks(step)).concat());
        let sketcher = Sketcher::new(spec.clone()).unwrap();
        let both = |example: usize| {
            let [early, late] = [0, 1].map(|c| sketch(&sketcher.under(steps[c].0), &gradients[c][example]));
            early.plus(&late).unwrap()
        };
        let (_folder, index) = indexes::create(&Schema::new(spec, Encoding::F32).unwrap());
        let mut writer = index.writer().unwrap();
        (0..8).for_each(|example| writer.append(format!("{example}"), &both(example)).unwrap());
        writer.commit().unwrap();
        let (snapshot, queries) = (index.snapshot().unwrap(), [both(8)]);
        let found = all_scores(snapshot.scan(&queries).unwrap().weights(steps)).unwrap();
        let alone = all_scores(snapshot.scan(&queries).unwrap().blocks(["step-200"])).unwrap();

        for example in 0..8 {
            let score = |c: usize| -> f64 {
                let sketcher = Sketcher::new(spec_of(&blocks(steps[c].0))).unwrap().under(steps[c].0);
                let [row, query] = [example, 8].map(|of| sketch(&sketcher, &gradients[c][of]));
                row.values().iter().zip(query.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let expected = steps[0].1 * score(0) + steps[1].1 * score(1);
            assert!((found[example] - expected).abs() < 1e-3, "{} for {expected}", found[example]);
            assert!((alone[example] - score(1)).abs() < 1e-3);
        }
    }
}

/// Catches rows and queries that an optimizer's step made unlike each other and that meet all the same, and
/// LESS's pair of the two that does not.
#[test]
fn optimizer_aware_rows_meet_plain_queries_only() {
    let plain = SketchSpec::rapid_grad(7, 16);
    let step = |state| OptimizerStep::adam(0.9, 0.999, 1e-8, state);
    let stepped = plain.clone().with_optimizer(step("a"));
    let foreign = plain.clone().with_optimizer(step("b"));
    assert_eq!((stepped.for_queries(), stepped.optimizer()), (plain.clone(), Some(&step("a"))));
    let sketch = |spec: &SketchSpec| {
        Sketcher::new(spec.clone()).unwrap().sketch([("w", &[1.0, 2.0, -4.0][..])]).unwrap()
    };
    let index_of = |spec: &SketchSpec, refused: &[&SketchSpec]| {
        let (folder, index) = indexes::create(&Schema::new(spec.clone(), Encoding::F32).unwrap());
        let mut writer = index.writer().unwrap();
        writer.append("x", &sketch(spec)).unwrap();
        for other in refused {
            let error = writer.append("y", &sketch(other)).unwrap_err();
            assert!(
                matches!(&error, AppendError::OtherSpec { given, index, .. } if **given == **other && **index == *spec),
                "{error}"
            );
            assert!(error.to_string().contains("after adam 0.9 0.999 0.00000001 of state"), "{error}");
        }
        writer.commit().unwrap();
        drop(writer);
        // The spec is read from the file.
        let snapshot = gradix::Index::open(index.path()).unwrap().snapshot().unwrap();
        assert_eq!(snapshot.schema().spec(), spec);
        (folder, snapshot)
    };
    let scores = |snapshot: &Snapshot, spec: &SketchSpec| {
        let query = [sketch(spec)];
        snapshot.scan(&query).and_then(all_scores)
    };
    let (_folder, snapshot) = index_of(&stepped, &[&plain, &foreign]);
    assert_eq!(scores(&snapshot, &stepped).unwrap(), [21.0]);
    assert_eq!(scores(&snapshot, &plain).unwrap(), [21.0]);
    let others = [foreign.clone(), SketchSpec::rapid_grad(8, 16), SketchSpec::rapid_grad(7, 32)];
    for other in others {
        let error = scores(&snapshot, &other).unwrap_err();
        assert!(
            matches!(&error, ScanError::OtherSpec { query: 0, given, index } if **given == other && **index == stepped),
            "{error}"
        );
    }
    let (_folder, snapshot) = index_of(&plain, &[&stepped]);
    assert!(matches!(scores(&snapshot, &stepped), Err(ScanError::OtherSpec { .. })));
}
