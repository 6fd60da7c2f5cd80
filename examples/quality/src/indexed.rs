//! gradix: rows in an index, queries scanned against it.

use std::ops::ControlFlow;

use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{Encoding, Index, Scan, Schema, Snapshot};
use tempfile::TempDir;

use crate::digits::{Gradient, QUERIES};
use crate::exact::{Gradients, Influences};

/// An index of rows, and the queries' sketches.
pub struct Indexed {
    pub snapshot: Snapshot,
    pub queries: Vec<Sketch>,
    _folder: TempDir,
}

/// The sketch of a gradient at each model: one block, or one for each model.
fn sketch(sketcher: &Sketcher, models: &[(String, &Gradient)]) -> Result<Sketch, gradix::Error> {
    let mut fold = sketcher.start();
    for (prefix, gradient) in models {
        for (name, shape, values) in gradient.tensors() {
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            fold.add_matrix(&name, shape, &values)?;
        }
    }
    Ok(fold.finish()?)
}

impl Indexed {
    /// Sketches and indexes the rows at each model; with several, each has a block of `dims`: `step-1`, `step-2` ...
    pub fn new(models: &[Gradients], dims: u32, encoding: Encoding) -> Result<Self, gradix::Error> {
        let names: Vec<String> = (1..=models.len()).map(|step| format!("step-{step}")).collect();
        let (spec, names) = match models {
            [_] => (SketchSpec::rapid_grad(7, dims), vec![String::new()]),
            _ => (SketchSpec::rapid_grad_blocks(7, names.iter().map(|name| (name.clone(), dims))), names),
        };
        Self::with_spec(models, &names, spec, encoding)
    }

    pub fn with_spec(
        models: &[Gradients],
        names: &[String],
        spec: SketchSpec,
        encoding: Encoding,
    ) -> Result<Self, gradix::Error> {
        let sketcher = Sketcher::new(spec.clone())?;
        let sketched = |of: &dyn for<'g> Fn(&'g Gradients) -> &'g Gradient| {
            let at_models: Vec<_> = names.iter().cloned().zip(models.iter().map(of)).collect();
            sketch(&sketcher, &at_models)
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = Index::create(folder.path().join("quality.gradix"), &Schema::new(spec, encoding)?)?;
        let mut writer = index.writer()?;
        let rows = models.first().map_or(0, |model| model.rows.len());
        for row in 0..rows {
            writer.append(format!("{row:04}"), &sketched(&|model| &model.rows[row])?)?;
        }
        writer.commit()?;
        let queries = (0..QUERIES.len())
            .map(|query| sketched(&|model| &model.queries[query]))
            .collect::<Result<_, _>>()?;
        Ok(Self { snapshot: index.snapshot()?, queries, _folder: folder })
    }

    /// The scores of a scan.
    pub fn influences(
        &self,
        configure: impl for<'a> Fn(Scan<'a>) -> Scan<'a>,
    ) -> Result<Influences, gradix::Error> {
        let mut influences = vec![Vec::new(); self.queries.len()];
        configure(self.snapshot.scan(&self.queries)?).scores(|rows| {
            for (query, influences) in influences.iter_mut().enumerate() {
                influences.extend_from_slice(rows.scores(query));
            }
            ControlFlow::Continue(())
        })?;
        Ok(influences)
    }

    /// The squared length of each row: its influence on itself, without curvature.
    pub fn squared_norms(&self) -> Result<Vec<f64>, gradix::Error> {
        let squared = |norms: &[f32]| norms.iter().map(|&norm| f64::from(norm).powi(2)).sum();
        self.snapshot.iter().map(|row| Ok(squared(&row?.norms))).collect()
    }
}
