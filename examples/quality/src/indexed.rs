//! gradix: rows in an index, queries scanned against it.

use std::ops::ControlFlow;

use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{Curvature, Encoding, FitOptions, Index, Scan, Schema, SelfInfluenceOptions, Snapshot};
use tempfile::TempDir;

use crate::digits::{Gradient, QUERIES};
use crate::exact::{Gradients, Influences};

/// An index of rows, and the queries' sketches.
pub struct Indexed {
    index: Index,
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

    /// The same with a Kronecker sketch: name and sides of each layer's block.
    pub fn kronecker(
        model: &[Gradients],
        blocks: [(&str, u32, u32); 3],
        encoding: Encoding,
    ) -> Result<Self, gradix::Error> {
        Self::with_spec(model, &[String::new()], SketchSpec::kronecker(7, blocks), encoding)
    }

    fn with_spec(
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
        drop(writer);
        Ok(Self { snapshot: index.snapshot()?, index, queries, _folder: folder })
    }

    /// Fits the curvature of the rows.
    pub fn fitted(mut self) -> Result<Self, gradix::Error> {
        self.index.writer()?.fit_curvature(FitOptions::default())?;
        self.snapshot = self.index.snapshot()?;
        Ok(self)
    }

    /// Fits the self-influence of the rows, after the curvature.
    pub fn with_self_influence(mut self) -> Result<Self, gradix::Error> {
        self.index.writer()?.fit_self_influence(SelfInfluenceOptions::default())?;
        self.snapshot = self.index.snapshot()?;
        Ok(self)
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

    /// The influence of each row on itself, under the curvature.
    pub fn self_influences(&self) -> Result<Vec<f64>, gradix::Error> {
        let rows = self.snapshot.iter().with_self_influence(&Curvature::default())?;
        rows.map(|row| Ok(row?.self_influence.unwrap_or_default())).collect()
    }

    /// The squared length of each row: its influence on itself, without curvature.
    pub fn squared_norms(&self) -> Result<Vec<f64>, gradix::Error> {
        let squared = |norms: &[f32]| norms.iter().map(|&norm| f64::from(norm).powi(2)).sum();
        self.snapshot.iter().map(|row| Ok(squared(&row?.norms))).collect()
    }
}
