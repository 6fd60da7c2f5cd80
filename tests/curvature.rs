//! The curvature of an index, as its users see it: fitted, appended to, deleted from, compacted, damaged, used in scans.

#[path = "fixtures/random.rs"]
mod random;

use std::fs;
use std::path::{Path, PathBuf};

use gradix::curvature::{Estimate, FactorError};
use gradix::operators::{OperatorError, highest_self_influence};
use gradix::scan::{CancelToken, ScanPath};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    CompactOptions, Curvature, CurvatureError, Encoding, Error, ErrorKind, FitError, FitOptions, GcOptions,
    Index, Metric, Row, ScanError, Schema, SelfInfluenceOptions, Snapshot, Span, Tier,
};
use random::Random;
use tempfile::TempDir;

const BLOCKS: [(&str, u32); 2] = [("a", 24), ("b", 40)];

fn spec() -> SketchSpec {
    SketchSpec::dense("test", "v1", BLOCKS)
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    (folder, path)
}

fn create(path: &Path, encoding: Encoding) -> Index {
    Index::options().segment_bytes(1 << 20).create(path, &Schema::new(spec(), encoding).unwrap()).unwrap()
}

/// Rows with a few directions that all share, as gradients have, and noise.
fn sketch(random: &mut Random) -> Sketch {
    let dims = spec().dims();
    let common = random.normal() + 3.0;
    let noise = random.normals(dims);
    let value = |(i, x): (usize, f32)| common * ((i % 7) as f32 - 3.0) + x * (1.0 + (i % 3) as f32);
    Sketch::dense(spec(), noise.into_iter().enumerate().map(value).collect()).unwrap()
}

fn append(index: &Index, ids: std::ops::Range<usize>) {
    let mut random = Random(ids.start as u64 + 1);
    let mut writer = index.writer().unwrap();
    for id in ids {
        writer.append(format!("id{id:04}"), &sketch(&mut random)).unwrap();
    }
    writer.commit().unwrap();
}

fn stored(snapshot: &Snapshot) -> Vec<(Vec<u8>, Vec<f64>)> {
    let rows = snapshot.iter().with_sketches().map(|row| row.unwrap());
    rows.map(|row| (row.id, row.sketch.unwrap().values().iter().copied().map(f64::from).collect())).collect()
}

/// Solves `A x = b` by Gaussian elimination with pivots.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for at in 0..n {
        let pivot = (at..n).max_by(|&i, &j| a[i][at].abs().total_cmp(&a[j][at].abs())).unwrap();
        a.swap(at, pivot);
        b.swap(at, pivot);
        for row in at + 1..n {
            let factor = a[row][at] / a[at][at];
            let (above, below) = a.split_at_mut(row);
            below[0][at..].iter_mut().zip(&above[at][at..]).for_each(|(x, of_pivot)| *x -= factor * of_pivot);
            b[row] -= factor * b[at];
        }
    }
    for row in (0..n).rev() {
        for column in row + 1..n {
            b[row] -= a[row][column] * b[column];
        }
        b[row] /= a[row][row];
    }
    b
}

/// `(F + λI)⁻¹ x`, block by block, from the rows themselves.
fn inverse_times(rows: &[Vec<f64>], kappa: f64, x: &[f64]) -> Vec<f64> {
    let (n, mut result) = (rows.len() as f64, Vec::new());
    for range in spec().ranges() {
        let power: f64 = rows.iter().flat_map(|row| &row[range.clone()]).map(|x| x * x).sum();
        let lambda = kappa * power / n / n;
        let element = |i: usize, j: usize| {
            let sum: f64 = rows.iter().map(|row| row[range.start + i] * row[range.start + j]).sum();
            sum / n + if i == j { lambda } else { 0.0 }
        };
        let matrix = (0..range.len()).map(|i| (0..range.len()).map(|j| element(i, j)).collect());
        result.extend(solve(matrix.collect(), x[range].to_vec()));
    }
    result
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn scores(
    snapshot: &Snapshot,
    query: &Sketch,
    curvature: &Curvature,
    metric: Metric,
) -> Result<Vec<f64>, ScanError> {
    let mut all = Vec::new();
    let queries = [query.clone()];
    snapshot.scan(&queries)?.curvature(curvature.clone()).metric(metric).scores(|rows| {
        all.extend_from_slice(rows.scores(0));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(all)
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * scale,
            "{at}: {found}, expected {expected}, of {scale}"
        );
    }
}

fn artifacts(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(path.join("artifacts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn expected(snapshot: &Snapshot, kappa: f64, query: &Sketch) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = stored(snapshot).into_iter().map(|(_, row)| row).collect();
    let query: Vec<f64> = query.values().iter().copied().map(f64::from).collect();
    let conditioned = inverse_times(&rows, kappa, &query);
    rows.iter().map(|row| dot(row, &conditioned)).collect()
}

/// Catches sums, a λ, a factor or a query that are not those of the formula, in any encoding, over several segments with
/// dead rows in them.
#[test]
fn curvature_scores_are_those_of_a_dense_solve() {
    for encoding in [Encoding::F32, Encoding::F16, Encoding::I8] {
        let (_folder, path) = folder();
        let index = create(&path, encoding);
        for start in [0, 100, 200] {
            append(&index, start..start + 100);
        }
        let mut writer = index.writer().unwrap();
        for id in (0..300).step_by(7) {
            assert!(writer.delete(format!("id{id:04}")).unwrap());
        }
        writer.commit().unwrap();
        let fit = writer.fit_curvature(FitOptions::default()).unwrap();
        assert_eq!((fit.added, fit.subtracted, fit.refitted), (257, 0, true));
        assert_eq!((fit.covered.rows, fit.covered.uncovered, fit.covered.stale), (257, 0, 0));
        let snapshot = index.snapshot().unwrap();
        let query = sketch(&mut Random(99));
        for kappa in [0.1, 2.0, 1e6] {
            let found =
                scores(&snapshot, &query, &Curvature::default().kappa(kappa), Metric::InnerProduct).unwrap();
            let tolerance = if encoding == Encoding::I8 { 2e-3 } else { 1e-4 };
            close(&found, &expected(&snapshot, kappa, &query), tolerance);
        }
        let state = snapshot.curvature(&Curvature::default()).unwrap();
        assert_eq!(state.blocks.iter().map(|block| block.rows).collect::<Vec<_>>(), [257, 257]);
        for (block, (_, dims)) in state.blocks.iter().zip(BLOCKS) {
            assert!(
                block.lambda > 0.0 && block.effective_dims > 1.0 && block.effective_dims < f64::from(dims)
            );
        }
    }
}

/// Catches new rows that are not added or deleted ones that are not subtracted, and a fit that streams what it has.
#[test]
fn fit_streams_only_what_has_changed() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..300);
    let mut writer = index.writer().unwrap();
    let first = writer.fit_curvature(FitOptions::default()).unwrap();
    let again = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((again.generation, again.added, again.subtracted), (first.generation, 0, 0));
    drop(writer);
    append(&index, 300..350);
    let mut writer = index.writer().unwrap();
    for id in 0..40 {
        writer.delete(format!("id{id:04}")).unwrap();
    }
    writer.commit().unwrap();
    let mut told = Vec::new();
    let options = FitOptions::default().progress(|progress| told.push(progress));
    let fit = writer.fit_curvature(options).unwrap();
    assert_eq!((fit.added, fit.subtracted, fit.refitted), (50, 40, false));
    let last = told.last().unwrap();
    assert_eq!((last.rows_done, last.rows_total), (180, 180));
    let snapshot = index.snapshot().unwrap();
    let query = sketch(&mut Random(99));
    let curvature = Curvature::default();
    close(
        &scores(&snapshot, &query, &curvature, Metric::InnerProduct).unwrap(),
        &expected(&snapshot, 2.0, &query),
        1e-3,
    );
    // Most of them.
    for id in 40..200 {
        writer.delete(format!("id{id:04}")).unwrap();
    }
    writer.commit().unwrap();
    let fit = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((fit.added, fit.subtracted, fit.refitted), (150, 0, true));
}

/// Catches sums that keep the rounding of a great row that was subtracted, or become less than nothing where no row is
/// left that is not zero.
#[test]
fn great_rows_leave_nothing_behind() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..300);
    let scaled = |factor: f32, zeros: usize| {
        let values = sketch(&mut Random(7)).into_values().into_iter().enumerate();
        let value = |(i, x): (usize, f32)| if i < zeros { 0.0 } else { factor * x };
        Sketch::dense(spec(), values.map(value).collect()).unwrap()
    };
    let mut writer = index.writer().unwrap();
    writer.append("great", &scaled(1e5, 0)).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    writer.delete("great").unwrap();
    writer.commit().unwrap();
    let fit = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((fit.added, fit.subtracted, fit.refitted), (0, 1, false));
    let snapshot = index.snapshot().unwrap();
    let query = sketch(&mut Random(99));
    let found = scores(&snapshot, &query, &Curvature::default(), Metric::InnerProduct).unwrap();
    close(&found, &expected(&snapshot, 2.0, &query), 1e-4);

    let (_folder, path) = self::folder();
    let index = create(&path, Encoding::F32);
    let mut writer = index.writer().unwrap();
    for (id, factor, zeros) in [("a", 0.32, 0), ("b", 1.23, 0), ("c", 1.0, 24), ("d", 1.0, 24)] {
        writer.append(id, &scaled(factor, zeros)).unwrap();
    }
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    writer.delete("a").unwrap();
    writer.delete("b").unwrap();
    writer.commit().unwrap();
    assert!(!writer.fit_curvature(FitOptions::default()).unwrap().refitted);
    let state = index.snapshot().unwrap().curvature(&Curvature::default()).unwrap();
    assert_eq!((state.blocks[0].lambda, state.blocks[0].rows), (0.0, 2));
    assert!(index.verify().unwrap().is_sound());
}

/// Catches a width that is forgotten by the next fit, and a name that is left when its curvature is dropped.
#[test]
fn fit_keeps_its_estimates_until_another_is_asked_for() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..100);
    let mut writer = index.writer().unwrap();
    let narrow = Estimate::Nystrom { width: 8 };
    writer.fit_curvature(FitOptions::default().estimate("b", narrow)).unwrap();
    writer.append("more", &sketch(&mut Random(1))).unwrap();
    writer.commit().unwrap();
    let fit = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((fit.added, fit.refitted), (1, false));
    let state = index.snapshot().unwrap().curvature(&Curvature::default()).unwrap();
    assert_eq!([state.blocks[0].estimate, state.blocks[1].estimate], [Estimate::Full, narrow]);
    let fit = writer.fit_curvature(FitOptions::default().estimate("b", Estimate::Full)).unwrap();
    assert!(fit.refitted);
    writer.fit_self_influence(SelfInfluenceOptions::default()).unwrap();
    assert_eq!(index.stats().unwrap().artifacts.len(), 2);
    assert!(writer.drop_curvature("curvature").unwrap());
    assert!(index.stats().unwrap().artifacts.is_empty());
}

/// Catches coverage that a compaction loses or keeps of rows that it drops, and sums that go on with rows that nobody can
/// subtract any more.
#[test]
fn compaction_carries_coverage_along() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..100);
    append(&index, 100..200);
    let mut writer = index.writer().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    drop(writer);
    append(&index, 200..203);
    let mut writer = index.writer().unwrap();
    for id in 0..4 {
        writer.delete(format!("id{id:04}")).unwrap();
    }
    writer.commit().unwrap();
    let query = sketch(&mut Random(99));
    let covered = |index: &Index| index.snapshot().unwrap().curvature(&Curvature::default()).unwrap().covered;
    let before = covered(&index);
    assert_eq!((before.rows, before.uncovered, before.stale), (196, 3, 4));
    let map = |index: &Index| {
        let snapshot = index.snapshot().unwrap();
        let ids = stored(&snapshot).into_iter().map(|(id, _)| id);
        let scores = scores(&snapshot, &query, &Curvature::default(), Metric::InnerProduct).unwrap();
        ids.zip(scores.into_iter().map(f64::to_bits)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let scores_before = map(&index);
    // At the second one, covered and uncovered rows are in one segment.
    for _ in 0..2 {
        writer.compact(CompactOptions::all()).unwrap();
        assert_eq!(covered(&index), before);
        assert_eq!(map(&index), scores_before);
    }
    // The file of the generation before is that of this one too.
    let now = GcOptions::default().grace(std::time::Duration::ZERO);
    assert_eq!(writer.gc(now).unwrap().artifacts, 0);
    assert_eq!((map(&index), artifacts(&path).len()), (scores_before, 1));
    assert!(index.verify().unwrap().is_sound());
    let fit = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((fit.added, fit.subtracted, fit.refitted), (199, 0, true));
    // What a compaction only moves is not summed again.
    writer.compact(CompactOptions::all()).unwrap();
    let fit = writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!((fit.added, fit.subtracted, fit.refitted), (0, 0, false));
}

/// Catches a curvature that is used in silence although it is that of other rows.
#[test]
fn missing_rows_are_refused_unless_allowed() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..100);
    index.writer().unwrap().fit_curvature(FitOptions::default()).unwrap();
    append(&index, 100..105);
    let query = sketch(&mut Random(99));
    let run =
        |curvature: Curvature| scores(&index.snapshot().unwrap(), &query, &curvature, Metric::InnerProduct);
    assert_eq!(run(Curvature::default()).unwrap().len(), 105);
    append(&index, 105..106);
    let error = run(Curvature::default()).unwrap_err();
    assert!(
        matches!(&error, ScanError::Curvature(CurvatureError::Missing { covered, .. }) if covered.uncovered == 6),
        "{error:?}"
    );
    assert_eq!(Error::from(error).kind(), ErrorKind::InvalidState);
    run(Curvature::default().allow_missing(0.06)).unwrap();
    assert!(run(Curvature::default().allow_missing(f64::NAN)).is_err());
    // Deleted rows in the sums are as wrong as uncovered ones.
    let mut writer = index.writer().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    for id in 0..8 {
        writer.delete(format!("id{id:04}")).unwrap();
    }
    writer.commit().unwrap();
    let error = run(Curvature::default()).unwrap_err();
    assert!(
        matches!(&error, ScanError::Curvature(CurvatureError::Missing { covered, .. }) if covered.stale == 8)
    );
}

/// Catches a generation that gets the curvature of another one, and files that are collected too early or never.
#[test]
fn each_generation_has_its_own_curvature() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..60);
    let query = sketch(&mut Random(99));
    let run = |snapshot: &Snapshot| scores(snapshot, &query, &Curvature::default(), Metric::InnerProduct);
    let first = {
        let mut writer = index.writer().unwrap();
        writer.fit_curvature(FitOptions::default()).unwrap().generation
    };
    let of_first = run(&index.snapshot().unwrap()).unwrap();
    append(&index, 60..120);
    let mut writer = index.writer().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    assert_eq!(artifacts(&path).len(), 2);
    let pinned = index.snapshot_at(first).unwrap();
    assert_eq!(run(&pinned).unwrap(), of_first);
    let before_it = index.snapshot_at(first - 1).unwrap();
    assert!(matches!(run(&before_it), Err(ScanError::Curvature(CurvatureError::NotFitted { .. }))));
    drop(before_it);
    let now = GcOptions::default().grace(std::time::Duration::ZERO);
    assert_eq!(writer.gc(now).unwrap().artifacts, 0);
    drop(pinned);
    let collected = writer.gc(now).unwrap();
    assert_eq!((collected.artifacts, artifacts(&path).len()), (1, 1));
    assert!(index.verify().unwrap().is_sound());
    // Dropped, it stays for the generations that had it.
    let fitted = writer.generation();
    assert!(writer.drop_curvature("curvature").unwrap());
    assert!(!writer.drop_curvature("curvature").unwrap());
    assert!(run(&index.snapshot().unwrap()).is_err());
    run(&index.snapshot_at(fitted).unwrap()).unwrap();
    assert_eq!(writer.gc(now).unwrap().artifacts, 1);
    assert!(artifacts(&path).is_empty());
}

/// Catches a fit that cannot be stopped, leaves something behind, or harms the writer.
#[test]
fn cancelled_fit_leaves_nothing() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..60);
    let mut writer = index.writer().unwrap();
    let token = CancelToken::new();
    let options = FitOptions::default().cancel(&token).progress(|_| token.cancel());
    let error = writer.fit_curvature(options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(artifacts(&path).is_empty());
    writer.append("more", &sketch(&mut Random(1))).unwrap();
    assert!(matches!(writer.fit_curvature(FitOptions::default()), Err(FitError::Uncommitted)));
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
}

/// Catches bad input that panics or is taken for something else.
#[test]
fn bad_requests_are_named() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    let mut writer = index.writer().unwrap();
    // An index without rows has sums without rows.
    writer.fit_curvature(FitOptions::default()).unwrap();
    let query = sketch(&mut Random(99));
    let run =
        |curvature: Curvature| scores(&index.snapshot().unwrap(), &query, &curvature, Metric::InnerProduct);
    let error = run(Curvature::default()).unwrap_err();
    assert!(matches!(
        &error,
        ScanError::Curvature(CurvatureError::Factor { block, source: FactorError::NoRows }) if block == "a"
    ));
    writer.append("a", &sketch(&mut Random(1))).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    for kappa in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = run(Curvature::default().kappa(kappa)).unwrap_err();
        assert!(
            matches!(
                &error,
                ScanError::Curvature(CurvatureError::Factor { source: FactorError::InvalidKappa { .. }, .. })
            ),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(matches!(
        run(Curvature::default().name("other")),
        Err(ScanError::Curvature(CurvatureError::NotFitted { name })) if name == "other"
    ));
    let relative =
        scores(&index.snapshot().unwrap(), &query, &Curvature::default(), Metric::Relative).unwrap_err();
    assert!(matches!(relative, ScanError::Curvature(CurvatureError::NoSelfInfluence { .. })));
    let queries = [query.clone()];
    let snapshot = index.snapshot().unwrap();
    let without = snapshot.scan(&queries).unwrap().top_k(1).metric(Metric::Relative).run().unwrap_err();
    assert!(matches!(without, ScanError::Curvature(CurvatureError::NoCurvature)));
    for name in ["", "a\nb", "curvature/self-influence", &"x".repeat(65)] {
        assert!(matches!(
            writer.fit_curvature(FitOptions::default().name(name)),
            Err(FitError::InvalidName { .. })
        ));
    }
    let width = Estimate::Nystrom { width: 41 };
    let error = writer.fit_curvature(FitOptions::default().estimate("b", width)).unwrap_err();
    assert!(matches!(error, FitError::InvalidEstimate { dims: 40, .. }));
    assert!(matches!(
        writer.fit_curvature(FitOptions::default().estimate("c", Estimate::Full)),
        Err(FitError::UnknownBlock { .. })
    ));
    let other = Sketch::dense(SketchSpec::dense("other", "v1", BLOCKS), vec![0.0; 64]).unwrap();
    assert!(matches!(writer.observe("t", "a", &[other]), Err(FitError::OtherSpec { .. })));
    assert!(matches!(writer.observe("t", "none", &[]), Err(FitError::NotFound { .. })));
    assert!(matches!(writer.observe("curvature", "a", &[]), Err(FitError::NotObserved { .. })));
}

/// Catches zero rows that make NaN, and rows that are all the same that cannot be factorised.
#[test]
fn rows_without_a_gradient_or_all_the_same() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    let query = sketch(&mut Random(99));
    let mut values = vec![0.0; 64];
    values[24..].copy_from_slice(&query.values()[24..]);
    let row = Sketch::dense(spec(), values.clone()).unwrap();
    let mut writer = index.writer().unwrap();
    for id in 0..20 {
        writer.append(format!("id{id:04}"), &row).unwrap();
    }
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    let snapshot = index.snapshot().unwrap();
    let found = scores(&snapshot, &query, &Curvature::default(), Metric::InnerProduct).unwrap();
    let power: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    // F = f fᵀ, whose eigenvalue is ‖f‖².
    let expected = power / (power + 2.0 * power / 20.0);
    close(&found, &[expected; 20], 1e-4);
    let state = snapshot.curvature(&Curvature::default()).unwrap();
    assert_eq!((state.blocks[0].lambda, state.blocks[0].effective_dims), (0.0, 0.0));
    assert!((state.blocks[1].effective_dims - expected).abs() < 1e-5);
}

/// Catches a byte of an artifact that nothing checks, and an index that cannot be read any more because of it.
#[test]
fn damaged_artifact_is_named_and_the_index_stays_readable() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..30);
    let mut writer = index.writer().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    drop(writer);
    let [file] = artifacts(&path).try_into().unwrap();
    let sound = fs::read(&file).unwrap();
    let query = [sketch(&mut Random(99))];
    let mut random = Random(5);
    let at: Vec<usize> =
        (0..sound.len()).filter(|&at| at < 200 || at + 300 > sound.len() || random.below(40) == 0).collect();
    for at in at {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << random.below(8);
        fs::write(&file, bytes).unwrap();
        let snapshot = Index::open(&path).unwrap().snapshot().unwrap();
        let scan = snapshot.scan(&query).unwrap().top_k(3);
        let error = scan.curvature(Curvature::default()).run().unwrap_err();
        assert!(matches!(&error, ScanError::Curvature(CurvatureError::Artifact(_))), "byte {at}: {error:?}");
        assert_eq!(snapshot.scan(&query).unwrap().top_k(3).run().unwrap().proponents(0).len(), 3);
    }
    for length in [0, 7, 127, 128, 191, sound.len() / 2, sound.len() - 1] {
        fs::write(&file, &sound[..length]).unwrap();
        let index = Index::open(&path).unwrap();
        let error = index.snapshot().unwrap().curvature(&Curvature::default()).unwrap_err();
        assert!(matches!(&error, CurvatureError::Artifact(_)), "{length} bytes: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(!index.verify().unwrap().is_sound());
    }
    // A damaged one is no obstacle for a new one.
    let index = Index::open(&path).unwrap();
    let mut writer = index.writer().unwrap();
    writer.fit_curvature(FitOptions::default().refit(true)).unwrap();
    index.snapshot().unwrap().curvature(&Curvature::default()).unwrap();
    // Another index's.
    let other_path = path.with_file_name("other.gradix");
    let other = create(&other_path, Encoding::F32);
    append(&other, 0..30);
    other.writer().unwrap().fit_curvature(FitOptions::default()).unwrap();
    fs::write(artifacts(&other_path).pop().unwrap(), &sound).unwrap();
    let error = other.snapshot().unwrap().curvature(&Curvature::default()).unwrap_err();
    assert!(error.to_string().contains("cannot read") && error.kind() == ErrorKind::Damaged);
}

/// Catches observed sketches that are lost between commits, or forgotten when an example is deleted.
#[test]
fn observed_sketches_are_summed_over_commits() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    let mut random = Random(3);
    let mut all = Vec::new();
    let mut writer = index.writer().unwrap();
    for commit in 0..3 {
        for example in 0..10 {
            let id = format!("{commit}/{example}");
            let tokens: Vec<Sketch> = (0..7).map(|_| sketch(&mut random)).collect();
            let whole = tokens.iter().skip(1).fold(tokens[0].clone(), |sum, token| sum.plus(token).unwrap());
            writer.append_rows(&id, &[Row::new(&whole).span(Span::WHOLE)]).unwrap();
            writer.observe("tokens", &id, &tokens).unwrap();
            all.extend(tokens);
        }
        writer.commit().unwrap();
    }
    writer.append("aborted", &all[0]).unwrap();
    writer.observe("tokens", "aborted", &all[..5]).unwrap();
    writer.abort().unwrap();
    let rows: Vec<Vec<f64>> =
        all.iter().map(|token| token.values().iter().copied().map(f64::from).collect()).collect();
    let query = sketch(&mut random);
    let as_f64: Vec<f64> = query.values().iter().copied().map(f64::from).collect();
    let conditioned = inverse_times(&rows, 5.0, &as_f64);
    let snapshot = index.snapshot().unwrap();
    let expected: Vec<f64> = stored(&snapshot).iter().map(|(_, row)| dot(row, &conditioned)).collect();
    let tokens = Curvature::default().name("tokens").kappa(5.0);
    close(&scores(&snapshot, &query, &tokens, Metric::InnerProduct).unwrap(), &expected, 1e-3);
    assert_eq!(snapshot.curvature(&tokens).unwrap().blocks[0].rows, 210);
    assert_eq!(artifacts(&path).len(), 3);
    assert!(matches!(
        writer.fit_curvature(FitOptions::default().name("tokens")),
        Err(FitError::NotOfRows { .. })
    ));
    // Replaced in the commit that observed it: its tokens are in the sums, its new rows are not.
    writer.observe("tokens", "0/1", &all[..2]).unwrap();
    writer.replace("0/1", &[Row::new(&all[0])]).unwrap();
    writer.commit().unwrap();
    let covered = index.snapshot().unwrap().curvature(&tokens).unwrap().covered;
    assert_eq!((covered.rows, covered.uncovered, covered.stale), (29, 1, 2));
    writer.replace("0/1", &[Row::new(&all[0])]).unwrap();
    writer.observe("tokens", "0/1", &all[..1]).unwrap();
    writer.commit().unwrap();
    let covered = index.snapshot().unwrap().curvature(&tokens).unwrap().covered;
    assert_eq!((covered.rows, covered.uncovered, covered.stale), (30, 0, 2));
    writer.delete("0/0").unwrap();
    writer.commit().unwrap();
    let covered = index.snapshot().unwrap().curvature(&tokens).unwrap().covered;
    assert_eq!((covered.rows, covered.uncovered, covered.stale), (29, 0, 3));
    assert!(index.verify().unwrap().is_sound());
}

/// Catches self-influence that is not that of the formula, and metrics that divide by something else or take another way
/// than the cosine does.
#[test]
fn metrics_divide_by_the_lengths_of_rows() {
    let (_folder, path) = folder();
    let tiers = [Tier::I8, Tier::Sign { seed: 3 }];
    let schema = Schema::new(spec(), Encoding::F32).unwrap().with_tiers(tiers).unwrap();
    let index = Index::create(&path, &schema).unwrap();
    append(&index, 0..400);
    let mut writer = index.writer().unwrap();
    let zero = Sketch::dense(spec(), vec![0.0; 64]).unwrap();
    writer.append("zero", &zero).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    let fit = writer.fit_self_influence(SelfInfluenceOptions::default()).unwrap();
    assert_eq!((fit.added, fit.covered.rows), (401, 401));
    let snapshot = index.snapshot().unwrap();
    let rows: Vec<Vec<f64>> = stored(&snapshot).into_iter().map(|(_, row)| row).collect();
    let own: Vec<f64> = rows.iter().map(|row| dot(row, &inverse_times(&rows, 2.0, row))).collect();
    let read = snapshot.iter().with_self_influence(&Curvature::default()).unwrap();
    let read: Vec<f64> = read.map(|row| row.unwrap().self_influence.unwrap()).collect();
    close(&read, &own, 1e-4);
    let highest = highest_self_influence(&snapshot, &Curvature::default(), 7, &CancelToken::new()).unwrap();
    let mut order: Vec<usize> = (0..read.len()).collect();
    order.sort_by(|&a, &b| read[b].total_cmp(&read[a]));
    let values: Vec<f64> = order[..7].iter().map(|&row| read[row]).collect();
    assert_eq!(highest.iter().map(|row| row.value).collect::<Vec<_>>(), values);
    assert_eq!(highest[0].id, stored(&snapshot)[order[0]].0);
    let stopped = CancelToken::new();
    stopped.cancel();
    let stopped = highest_self_influence(&snapshot, &Curvature::default(), 7, &stopped);
    assert!(matches!(stopped, Err(OperatorError::Cancelled)));
    let query = sketch(&mut Random(99));
    let plain = scores(&snapshot, &query, &Curvature::default(), Metric::InnerProduct).unwrap();
    let divided = |by: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let score = |(row, score): (usize, &f64)| if by(row) == 0.0 { 0.0 } else { score / by(row) };
        plain.iter().enumerate().map(score).collect()
    };
    let relative = scores(&snapshot, &query, &Curvature::default(), Metric::Relative).unwrap();
    close(&relative, &divided(&|row| own[row].sqrt()), 1e-5);
    let unit = scores(&snapshot, &query, &Curvature::default(), Metric::UnitRows).unwrap();
    close(&unit, &divided(&|row| dot(&rows[row], &rows[row]).sqrt()), 1e-5);
    // The same ranking on every path.
    let queries = [query];
    for metric in [Metric::Relative, Metric::UnitRows, Metric::Cosine, Metric::InnerProduct] {
        let scan = |path| {
            let scan = snapshot.scan(&queries).unwrap().top_k(20).bottom_k(20).metric(metric).path(path);
            scan.curvature(Curvature::default()).run().unwrap()
        };
        let full = scan(ScanPath::Full);
        for path in [ScanPath::Bytes, ScanPath::I8Tier] {
            let other = scan(path);
            assert_eq!(full.proponents(0), other.proponents(0), "{metric:?} {path}");
            assert_eq!(full.opponents(0), other.opponents(0), "{metric:?} {path}");
        }
    }
    // It belongs to the curvature that it was computed with.
    for other in [Curvature::default().kappa(3.0), Curvature::default().rank(4)] {
        let error = scores(&snapshot, &queries[0], &other, Metric::Relative).unwrap_err();
        assert!(matches!(error, ScanError::Curvature(CurvatureError::NoSelfInfluence { .. })));
    }
    writer.append("later", &zero).unwrap();
    writer.commit().unwrap();
    let error =
        scores(&index.snapshot().unwrap(), &queries[0], &Curvature::default(), Metric::Relative).unwrap_err();
    assert!(
        matches!(error, ScanError::Curvature(CurvatureError::RowsWithoutSelfInfluence { .. })),
        "{error:?}"
    );
    writer.fit_curvature(FitOptions::default()).unwrap();
    let snapshot = index.snapshot().unwrap();
    let error = scores(&snapshot, &queries[0], &Curvature::default(), Metric::Relative).unwrap_err();
    assert!(matches!(error, ScanError::Curvature(CurvatureError::NoSelfInfluence { .. })), "{error:?}");
    assert!(index.verify().unwrap().is_sound());
}

/// Catches a scan that does not say what it was preconditioned with, blocks that are factorised without need, and bits
/// that depend on the number of threads.
#[test]
fn statistics_say_which_curvature_was_used() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::I8);
    append(&index, 0..100);
    index.writer().unwrap().fit_curvature(FitOptions::default()).unwrap();
    let snapshot = index.snapshot().unwrap();
    let queries = [sketch(&mut Random(99)), sketch(&mut Random(98))];
    let run = |threads| {
        let scan = snapshot.scan(&queries).unwrap().top_k(100).blocks(["b"]).threads(threads);
        scan.curvature(Curvature::default().kappa(1.0)).run().unwrap()
    };
    let (one, three) = (run(1), run(3));
    for query in 0..2 {
        assert_eq!(one.proponents(query), three.proponents(query));
    }
    let state = one.statistics().curvature.as_ref().unwrap();
    assert_eq!((state.kappa, state.blocks.len(), &state.blocks[0].block[..]), (1.0, 1, "b"));
    // A query alone has the bits that it has in a batch.
    let alone = snapshot.scan(&queries[1..]).unwrap().top_k(100).blocks(["b"]);
    let alone = alone.curvature(Curvature::default().kappa(1.0)).run().unwrap();
    assert_eq!(alone.proponents(0), one.proponents(1));
    assert!(snapshot.scan(&queries).unwrap().top_k(1).run().unwrap().statistics().curvature.is_none());
}

/// Catches orphans that stay after a crash, and files of others that are removed.
#[test]
fn lost_manifest_takes_its_artifacts_along() {
    let (_folder, path) = folder();
    let index = create(&path, Encoding::F32);
    append(&index, 0..30);
    index.writer().unwrap().fit_curvature(FitOptions::default()).unwrap();
    drop(index);
    let stranger = path.join("artifacts/ffffffff-ffff-ffff-ffff-ffffffffffff.art");
    fs::write(&stranger, b"not ours").unwrap();
    fs::rename(path.join("manifest"), path.join("lost")).unwrap();
    assert_eq!(Index::recover(&path).unwrap().rows, 30);
    let index = Index::open(&path).unwrap();
    assert!(index.snapshot().unwrap().curvature(&Curvature::default()).is_err());
    assert_eq!(artifacts(&path).len(), 2);
    let mut writer = index.writer().unwrap();
    assert_eq!(artifacts(&path), [stranger]);
    writer.fit_curvature(FitOptions::default()).unwrap();
}
