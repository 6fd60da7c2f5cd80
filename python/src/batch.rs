//! `FoldBatch`: the sketches of many gradients at once, on all cores.

use gradix::sketch::{Fold, SketchError};
use numpy::{PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rayon::prelude::*;

use crate::arrays::Array;
use crate::errors::{OrRaise as _, invalid_input, invalid_state};
use crate::work::with_threads;

/// The sketches of a batch of gradients under construction. Made by `Sketcher.start_batch`.
///
/// >>> import gradix, numpy
/// >>> folds = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 64)).start_batch(2)
/// >>> folds.add("weight", 0, numpy.ones((2, 8), numpy.float32))
/// >>> values, wrong = folds.finish()
/// >>> values.shape, wrong
/// ((2, 64), {})
#[pyclass(module = "gradix", name = "FoldBatch")]
pub struct PyFoldBatch {
    folds: Option<Vec<Fold>>,
    dims: usize,
}

impl PyFoldBatch {
    /// Of folds of a spec with so many dims, one for each gradient.
    pub fn new(folds: Vec<Fold>, dims: usize) -> Self {
        Self { folds: Some(folds), dims }
    }
}

#[pymethods]
impl PyFoldBatch {
    /// Adds the gradients of one whole parameter, from gradient `first` on: an array of shape [gradients, elements]. All
    /// gradients of a parameter are added before the next parameter. One that is not finite is told by `finish`.
    fn add(
        &mut self,
        py: Python<'_>,
        parameter: &str,
        first: usize,
        gradients: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let array = Array::of(gradients)?;
        let &[rows, elements] = array.shape() else {
            let message = format!(
                "{parameter}: an array of shape [gradients, elements] is expected, and not {:?}",
                array.shape()
            );
            return Err(invalid_input(&message));
        };
        let folds = self.folds.as_mut().ok_or_else(finished)?;
        let all = folds.len();
        let end = first.saturating_add(rows);
        let Some(folds) = folds.get_mut(first..end) else {
            return Err(invalid_input(&format!(
                "{parameter}: gradients {first} to {end} of a batch of {all}"
            )));
        };
        let values = array.values()?;
        let add = |(fold, gradient): (&mut Fold, &[f32])| match fold.add(parameter, gradient) {
            // It stays with its own gradient.
            Err(SketchError::NotFinite { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        };
        py.detach(|| {
            with_threads(|| match elements {
                // A block must take it all the same.
                0 => folds.iter_mut().try_for_each(|fold| add((fold, &[]))),
                _ => folds.par_iter_mut().zip(values.par_chunks_exact(elements)).try_for_each(add),
            })
        })
        .or_raise()
    }

    /// The sketches, an array of shape [gradients, dims], and what is wrong with those that have none, by ordinal: their
    /// rows are zero. The batch cannot be used after it.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyDict>)> {
        let folds = self.folds.take().ok_or_else(finished)?;
        let (rows, dims) = (folds.len(), self.dims);
        let (values, errors) = py
            .detach(|| {
                with_threads(|| {
                    let mut values = vec![0.0; rows * dims];
                    let finish = |(fold, row): (Fold, &mut [f32])| {
                        fold.finish().map(|sketch| row.copy_from_slice(sketch.values())).err()
                    };
                    let errors: Vec<Option<SketchError>> =
                        folds.into_par_iter().zip(values.par_chunks_exact_mut(dims)).map(finish).collect();
                    Ok::<_, gradix::Error>((values, errors))
                })
            })
            .or_raise()?;
        let wrong = PyDict::new(py);
        for (row, error) in errors.into_iter().enumerate() {
            if let Some(error) = error {
                wrong.set_item(row, error.to_string())?;
            }
        }
        Ok((PyArray1::from_vec(py, values).reshape([rows, dims])?, wrong))
    }
}

fn finished() -> PyErr {
    invalid_state("this batch is finished: start another one")
}
