//! What is measured on the tasks of `tests/fixtures/digits`.

use std::error::Error;
use std::time::Instant;

use gradix::eval::{Bootstrap, roc_auc};
use gradix::{Curvature, Encoding, Metric, Scan};

use crate::digits::{CHECKPOINTS, MODELS, ROWS, Task};
use crate::exact::{self, Gradients, Influences};
use crate::indexed::Indexed;
use crate::table::Line;
use crate::trak;

const I8: Encoding = Encoding::I8;
/// Bytes of a whole gradient, in f32.
const GRADIENT_BYTES: f64 = 17_226.0 * 4.0;
/// TRAK wants fewer dims than rows: the best of 32 to 1,024 on both tasks.
const TRAK_DIMS: u32 = 128;

const LDS: &str = "LDS";
/// By the rows' influence on themselves.
const MISLABELLED: &str = "mislabelled AUC";

/// What a method needs, besides its influences.
#[derive(Clone, Copy, Default)]
struct Cost {
    dims: Option<usize>,
    encoding: Option<Encoding>,
    bytes_per_example: Option<f64>,
}

struct Lines<'a> {
    name: &'a str,
    task: &'a Task,
    lines: &'a mut Vec<Line>,
}

impl Lines<'_> {
    /// Adds a method's LDS.
    fn lds(
        &mut self,
        method: &str,
        influences: impl FnOnce() -> Result<(Influences, Cost), gradix::Error>,
    ) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        let (influences, cost) = influences()?;
        let seconds = started.elapsed().as_secs_f64();
        let interval = self.task.truth.lds(&influences)?.interval(&Bootstrap::default())?;
        let value = (Some(interval.mean), Some([interval.low, interval.high]));
        self.push(LDS, method, value, cost, seconds);
        Ok(())
    }

    /// Adds the LDS of a scan of an index.
    fn gradix(
        &mut self,
        method: &str,
        index: impl FnOnce() -> Result<Indexed, gradix::Error>,
        configure: impl for<'a> Fn(Scan<'a>) -> Scan<'a>,
    ) -> Result<(), Box<dyn Error>> {
        self.lds(method, || {
            let index = index()?;
            Ok((index.influences(configure)?, cost(&index)))
        })
    }

    /// Adds how well scores find the rows with a wrong label.
    fn mislabelled(
        &mut self,
        method: &str,
        scores: impl FnOnce() -> Result<(Vec<f64>, Cost), gradix::Error>,
    ) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        let (scores, cost) = scores()?;
        let seconds = started.elapsed().as_secs_f64();
        let found = roc_auc(&scores, &self.task.wrong)?;
        self.push(MISLABELLED, method, (found, None), cost, seconds);
        Ok(())
    }

    fn push(
        &mut self,
        metric: &str,
        method: &str,
        value: (Option<f64>, Option<[f64; 2]>),
        cost: Cost,
        seconds: f64,
    ) {
        self.lines.push(Line {
            task: self.name.to_owned(),
            method: method.to_owned(),
            dims: cost.dims,
            encoding: cost.encoding.map(|encoding| encoding.to_string()),
            metric: metric.to_owned(),
            value: value.0,
            interval: value.1,
            bytes_per_example: cost.bytes_per_example,
            seconds: Some(seconds),
        });
    }
}

fn curved(scan: Scan<'_>) -> Scan<'_> {
    scan.curvature(Curvature::default())
}

fn cost(index: &Indexed) -> Cost {
    let schema = index.snapshot.schema();
    Cost {
        dims: Some(schema.spec().dims()),
        encoding: schema.encodings().first().copied(),
        bytes_per_example: Some(schema.row_bytes() as f64),
    }
}

/// Measures every method on the task `name`.
pub fn task(name: &str, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    let task = Task::load(name);
    let checkpoints: Vec<_> = CHECKPOINTS.map(|model| Gradients::new(&task, model)).collect();
    let models: Vec<_> = MODELS.map(|model| Gradients::new(&task, model)).collect();
    let last = &models[..1];
    let mut to = Lines { name, task: &task, lines };

    to.lds("random", || Ok((exact::of_pairs(exact::random), Cost::default())))?;
    to.lds("pixels, same label", || {
        Ok((exact::of_pairs(|query, row| exact::pixels(&task, query, row)), Cost::default()))
    })?;
    let whole = || Cost { bytes_per_example: Some(GRADIENT_BYTES), ..Cost::default() };
    let five = || Cost { bytes_per_example: Some(5.0 * GRADIENT_BYTES), ..Cost::default() };
    to.lds("exact TracIn", || Ok((last[0].products(), whole())))?;
    to.lds("exact TracIn, 5 checkpoints", || {
        Ok((exact::sum(checkpoints.iter().map(Gradients::products).collect()), five()))
    })?;
    to.lds("exact Gram", || Ok((last[0].preconditioned(2.0), whole())))?;
    to.lds("exact Gram, 5 checkpoints", || {
        let parts = checkpoints.iter().map(|model| model.preconditioned(2.0)).collect();
        Ok((exact::sum(parts), five()))
    })?;

    for (models, of) in [(last, ""), (&models[..], ", 5 models")] {
        for (dims, ridge, with) in [(TRAK_DIMS, 0.0, ""), (4096, 1.0, " with a ridge")] {
            to.lds(&format!("TRAK{with}{of}"), || {
                let bytes_per_example = Some(f64::from(dims) * models.len() as f64 * 4.0);
                let cost =
                    Cost { dims: Some(dims as usize * models.len()), bytes_per_example, encoding: None };
                Ok((trak::influences(models, dims, ridge)?, cost))
            })?;
        }
    }

    let sizes = [512, 4096, 65_536].map(|dims| [(dims, Encoding::F16), (dims, I8)]);
    for (dims, encoding) in sizes.into_iter().flatten() {
        to.gradix("gradix", || Indexed::new(last, dims, encoding), |scan| scan)?;
    }
    to.gradix("gradix, cosine", || Indexed::new(last, 4096, I8), |scan| scan.metric(Metric::Cosine))?;
    to.gradix("gradix, 5 checkpoints", || Indexed::new(&checkpoints, 4096, I8), |scan| scan)?;
    for (dims, encoding) in sizes.into_iter().flatten() {
        to.gradix("gradix, curvature", || Indexed::new(last, dims, encoding)?.fitted(), curved)?;
    }
    to.gradix(
        "gradix, curvature, l-relative",
        || Indexed::new(last, 4096, I8)?.fitted()?.with_self_influence(),
        |scan| curved(scan).metric(Metric::Relative),
    )?;
    to.gradix("gradix, curvature, 5 checkpoints", || Indexed::new(&checkpoints, 4096, I8)?.fitted(), curved)?;
    // Inputs and outputs of each layer apart; the last has ten outputs.
    let kronecker =
        || Indexed::kronecker(last, [("layers.0", 32, 32), ("layers.1", 32, 32), ("layers.2", 32, 10)], I8);
    to.gradix("gradix, Kronecker", kronecker, |scan| scan)?;
    to.gradix("gradix, Kronecker, curvature", || kronecker()?.fitted(), curved)?;
    to.push(LDS, "ceiling", (task.truth.ceiling()?, None), Cost::default(), 0.0);

    if task.wrong.contains(&true) {
        mislabelled(&mut to, &models[0])?;
    }
    Ok(())
}

/// Whether rows with a wrong label stand out.
fn mislabelled(to: &mut Lines<'_>, model: &Gradients) -> Result<(), Box<dyn Error>> {
    to.mislabelled("random", || Ok(((0..ROWS).map(|row| exact::random(0, row)).collect(), Cost::default())))?;
    to.mislabelled("loss", || Ok((model.rows.iter().map(|row| row.doubt).collect(), Cost::default())))?;
    let whole = || Cost { bytes_per_example: Some(GRADIENT_BYTES), ..Cost::default() };
    to.mislabelled("exact self-influence", || {
        Ok((model.rows.iter().map(|row| row.dot(row)).collect(), whole()))
    })?;
    to.mislabelled("exact self-influence, Gram", || Ok((model.self_influences(2.0), whole())))?;
    for dims in [512, 4096] {
        to.mislabelled("gradix, norms", || {
            let index = Indexed::new(std::slice::from_ref(model), dims, I8)?;
            Ok((index.squared_norms()?, cost(&index)))
        })?;
    }
    to.mislabelled("gradix, self-influence under curvature", || {
        let index = Indexed::new(std::slice::from_ref(model), 4096, I8)?.fitted()?.with_self_influence()?;
        Ok((index.self_influences()?, cost(&index)))
    })
}
