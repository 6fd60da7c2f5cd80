//! The paths of a scan through a real index: they must give one ranking, and prune what they can.

mod fixtures;

use std::ops::ControlFlow;

use fixtures::indexes;
use fixtures::random::Random;
use gradix::scan::{Guarantee, KernelChoice, Metric, Reading, ScanError, ScanPath};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Grouping, Ranking, Scan, Schema, Snapshot, Tier};

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
