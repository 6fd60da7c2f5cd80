//! Whether influences say what retraining would do: the figures of `make quality` that hold with a margin, on its
//! smallest index. The ones that come out are in `tests/fixtures/digits/README.md`.

mod fixtures;

use std::ops::ControlFlow;

use fixtures::digits::{CHECKPOINTS, QUERIES, ROWS, Task};
use fixtures::indexes;
use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{Curvature, Encoding, FitOptions, Scan, Schema, Snapshot};
use tempfile::TempDir;

/// The model that has been trained to the end.
const LAST: usize = CHECKPOINTS.end - 1;
const DIMS: u32 = 512;

/// The task's rows at the last model, sketched, indexed and fitted, and its queries.
struct Bench {
    task: Task,
    snapshot: Snapshot,
    queries: Vec<Sketch>,
    _folder: TempDir,
}

impl Bench {
    fn new(task: &str, encoding: Encoding) -> Self {
        let task = Task::load(task);
        let spec = SketchSpec::rapid_grad(7, DIMS);
        let sketcher = Sketcher::new(spec.clone()).unwrap();
        let sketch = |row| {
            let tensors = task.gradient(LAST, row).tensors();
            sketcher.sketch(tensors.iter().map(|(name, _, values)| (name.as_str(), &values[..]))).unwrap()
        };
        let (folder, index) = indexes::create(&Schema::new(spec, encoding).unwrap());
        let mut writer = index.writer().unwrap();
        for row in 0..ROWS {
            writer.append(format!("{row:04}"), &sketch(row)).unwrap();
        }
        writer.commit().unwrap();
        writer.fit_curvature(FitOptions::default()).unwrap();
        let queries = QUERIES.map(sketch).collect();
        Self { snapshot: index.snapshot().unwrap(), queries, task, _folder: folder }
    }

    /// The LDS of what a scan gives.
    fn lds(&self, configure: impl for<'a> Fn(Scan<'a>) -> Scan<'a>) -> f64 {
        let mut influences = vec![Vec::new(); self.queries.len()];
        let scan = configure(self.snapshot.scan(&self.queries).unwrap());
        scan.scores(|rows| {
            for (query, influences) in influences.iter_mut().enumerate() {
                influences.extend_from_slice(rows.scores(query));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        self.task.truth.lds(&influences).unwrap().mean().unwrap()
    }
}

/// The LDS of inner products of whole gradients: exact TracIn.
fn exact_lds(task: &Task) -> f64 {
    let rows: Vec<_> = (0..ROWS).map(|row| task.gradient(LAST, row)).collect();
    let influences: Vec<Vec<f64>> = QUERIES
        .map(|query| {
            let query = task.gradient(LAST, query);
            rows.iter().map(|row| row.dot(&query)).collect()
        })
        .collect();
    task.truth.lds(&influences).unwrap().mean().unwrap()
}

/// Catches a fixture that is read otherwise than it was written, and an LDS or ceiling that scipy's ranks and numpy do
/// not give: these figures are theirs.
#[test]
fn truth_is_as_numpy_reads_it() {
    for (name, reliability, exact) in [("digits", 0.822_50, 0.303), ("flip", 0.934_17, 0.412)] {
        let task = Task::load(name);
        let found = task.truth.reliability().unwrap().unwrap();
        assert!((found - reliability).abs() < 1e-4, "{name}: {found}");
        let found = exact_lds(&task);
        assert!((found - exact).abs() < 2e-3, "{name}: {found}");
        let wrong = task.wrong.iter().filter(|&&wrong| wrong).count();
        assert_eq!(wrong, if name == "flip" { 180 } else { 0 });
    }
}

/// Catches a gradient that is not that of the loss: it is compared with the loss's differences.
#[test]
fn gradient_is_that_of_the_loss() {
    let task = Task::load("digits");
    // A row that the first checkpoint is not sure of.
    let row = (0..ROWS).find(|&row| task.gradient(0, row).doubt > 0.4).unwrap();
    let gradient = task.gradient(0, row);
    let mut moved = Task::load("digits");
    let mut at = 0;
    for (name, _, values) in gradient.tensors() {
        let largest = (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs())).unwrap();
        let mut loss = |by: f32| -(1.0 - moved.gradient_moved(0, row, at + largest, by).doubt).ln();
        let (step, expected) = (1e-3, f64::from(values[largest]));
        let difference = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
        assert!((difference / expected - 1.0).abs() < 0.02, "{name}: {difference}, not {expected}");
        at += values.len();
    }
}

/// Catches a sketch, an encoding or a scan that loses what exact inner products say.
#[test]
fn sketches_predict_as_gradients_do() {
    for name in ["digits", "flip"] {
        let whole = Bench::new(name, Encoding::F32);
        let (exact, sketched) = (exact_lds(&whole.task), whole.lds(|scan| scan));
        assert!((exact - sketched).abs() < 0.03, "{name}: {sketched} sketched, {exact} exact");
        let rounded = Bench::new(name, Encoding::I8).lds(|scan| scan);
        assert!((rounded - sketched).abs() < 0.005, "{name}: {rounded} with i8, {sketched} with f32");
    }
}

/// Catches a curvature that is not worth its pass: the inverse that is not applied, another λ, rows that are left out of
/// the sums. The figures that come out leave a margin to these, at a third and three times the default κ too.
#[test]
fn curvature_predicts_what_products_miss() {
    for name in ["digits", "flip"] {
        let (whole, rounded) = (Bench::new(name, Encoding::F32), Bench::new(name, Encoding::I8));
        let plain = rounded.lds(|scan| scan);
        for kappa in [2.0, 2.0 / 3.0, 6.0] {
            let curvature = Curvature::default().kappa(kappa);
            let curved = rounded.lds(|scan| scan.curvature(curvature.clone()));
            assert!(
                curved > 1.5 * plain && curved > plain + 0.15,
                "{name}, κ = {kappa}: {plain}, then {curved}"
            );
            let exact = whole.lds(|scan| scan.curvature(curvature.clone()));
            assert!(
                (curved - exact).abs() < 0.005,
                "{name}, κ = {kappa}: {curved} with i8, {exact} with f32"
            );
        }
    }
}
