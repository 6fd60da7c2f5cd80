//! `Sketch`, `Sketcher` and `Fold`.

use gradix::sketch::{Fold, Sketch, Sketcher, SketcherKind};
use numpy::{PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::Array;
use crate::batch::PyFoldBatch;
use crate::errors::{OrRaise as _, invalid_input, invalid_state};
use crate::spec::PySketchSpec;

/// A compressed gradient: `spec.dims` values of float32, block after block.
///
/// >>> import gradix, numpy
/// >>> spec = gradix.SketchSpec.dense("logra", "rank 1", [("layers.0", 3)])
/// >>> gradix.Sketch(spec, numpy.array([1, 2, 3], numpy.float32)).block("layers.0")
/// array([1., 2., 3.], dtype=float32)
#[pyclass(frozen, eq, module = "gradix", name = "Sketch")]
#[derive(Clone, PartialEq)]
pub struct PySketch(pub Sketch);

#[pymethods]
impl PySketch {
    /// A sketch of values that were computed elsewhere, block after block. They are copied.
    #[new]
    fn new(spec: &PySketchSpec, values: &Bound<'_, PyAny>) -> PyResult<Self> {
        let values = Array::of(values)?.values()?.to_vec();
        Ok(Self(Sketch::dense(spec.0.clone(), values).or_raise()?))
    }

    /// The spec.
    #[getter]
    fn spec(&self) -> PySketchSpec {
        PySketchSpec(self.0.spec().clone())
    }

    /// All values, block after block, as a new array of numpy.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, self.0.values())
    }

    /// The values of a block, as a new array of numpy.
    fn block<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let values = self.0.spec().block(name).and_then(|ordinal| self.0.block(ordinal));
        let missing = || {
            let message = format!("no block {name:?} in {}", self.0.spec());
            crate::errors::exception(gradix::ErrorKind::NotFound, &message)
        };
        Ok(PyArray1::from_slice(py, values.ok_or_else(missing)?))
    }

    /// The sketch with `factor` times fewer buckets; only RapidGrad has one.
    fn nested(&self, factor: u32) -> PyResult<Self> {
        Ok(Self(self.0.nested(factor).or_raise()?))
    }

    fn __add__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.plus(&other.0).or_raise()?))
    }

    fn __sub__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.minus(&other.0).or_raise()?))
    }

    fn __mul__(&self, factor: f32) -> PyResult<Self> {
        Ok(Self(self.0.scaled(factor).or_raise()?))
    }

    fn __rmul__(&self, factor: f32) -> PyResult<Self> {
        self.__mul__(factor)
    }

    fn __len__(&self) -> usize {
        self.0.values().len()
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if copy == Some(false) {
            return Err(pyo3::exceptions::PyValueError::new_err("the values of a sketch are copied"));
        }
        let values = self.values(py).into_any();
        dtype.map_or_else(|| Ok(values.clone()), |dtype| values.call_method1("astype", (dtype,)))
    }

    fn __repr__(&self) -> String {
        format!("<Sketch of {}>", self.0.spec())
    }
}

/// Makes sketches of gradients. Its methods let other threads of Python run.
///
/// >>> import gradix, numpy
/// >>> sketcher = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 64))
/// >>> len(sketcher.sketch({"layers.0.weight": numpy.ones((8, 8), numpy.float32)}))
/// 64
#[pyclass(frozen, module = "gradix", name = "Sketcher")]
pub struct PySketcher(pub Sketcher);

#[pymethods]
impl PySketcher {
    /// A sketcher of a spec, which is not dense.
    #[new]
    fn new(spec: &PySketchSpec) -> PyResult<Self> {
        Ok(Self(Sketcher::new(spec.0.clone()).or_raise()?))
    }

    /// The spec.
    #[getter]
    fn spec(&self) -> PySketchSpec {
        PySketchSpec(self.0.spec().clone())
    }

    /// The sketch of a gradient: a dict of arrays or tensors by the names of parameters, in the order of the dict, which
    /// must be the same for all gradients. Under a Kronecker spec the arrays are of shape [inputs, outputs].
    fn sketch(&self, py: Python<'_>, gradient: &Bound<'_, PyDict>) -> PyResult<PySketch> {
        let mut fold = self.0.start();
        for (parameter, values) in gradient {
            add(py, &mut fold, parameter.extract()?, &values, self.takes_matrices())?;
        }
        Ok(PySketch(fold.finish().or_raise()?))
    }

    /// Starts the sketch of one gradient, to which parameters are added one after the other.
    fn start(&self) -> PyFold {
        PyFold { fold: Some(self.0.start()), takes_matrices: self.takes_matrices() }
    }

    /// Starts the sketches of so many gradients, to which parameters are added one after the other, on all cores.
    fn start_batch(&self, gradients: usize) -> PyFoldBatch {
        let folds = std::iter::repeat_with(|| self.0.start()).take(gradients).collect();
        PyFoldBatch::new(folds, self.0.spec().dims())
    }

    /// A sketcher that puts `prefix` and a "." before the names of parameters: as for a checkpoint that has blocks of
    /// its own. `under("a") ` and `under("b")` make sketches that are added.
    fn under(&self, prefix: &str) -> Self {
        Self(self.0.under(prefix))
    }

    /// Under a Kronecker spec: the block's ordinal, the projection of the inputs `[p_in, inputs]`, and that of the outputs
    /// `[p_out, outputs]`. The parameter's part of the sketch is `left @ gradient @ right.T`.
    fn projections<'py>(
        &self,
        py: Python<'py>,
        parameter: &str,
        inputs: usize,
        outputs: usize,
    ) -> PyResult<(usize, Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>)> {
        let projections = self.0.projections(parameter, inputs, outputs).or_raise()?;
        let side = |side: &gradix::sketch::Side| {
            let matrix = py.detach(|| side.matrix());
            PyArray1::from_vec(py, matrix).reshape([side.rows(), side.columns()])
        };
        Ok((projections.block, side(&projections.inputs)?, side(&projections.outputs)?))
    }

    fn __repr__(&self) -> String {
        format!("<Sketcher {}>", self.0.spec())
    }
}

impl PySketcher {
    fn takes_matrices(&self) -> bool {
        matches!(self.0.spec().sketcher(), SketcherKind::Kronecker { .. })
    }
}

/// The sketch of one gradient under construction. Made by `Sketcher.start`.
#[pyclass(module = "gradix", name = "Fold")]
pub struct PyFold {
    fold: Option<Fold>,
    takes_matrices: bool,
}

#[pymethods]
impl PyFold {
    /// Adds the gradient of one whole parameter. Add parameters in the same order for all gradients. Under a Kronecker
    /// spec it is of shape [inputs, outputs].
    fn add(&mut self, py: Python<'_>, parameter: &str, gradient: &Bound<'_, PyAny>) -> PyResult<()> {
        let takes_matrices = self.takes_matrices;
        add(py, self.open()?, parameter, gradient, takes_matrices)
    }

    /// Adds the gradient of one whole parameter of shape [inputs, outputs].
    fn add_matrix(&mut self, py: Python<'_>, parameter: &str, gradient: &Bound<'_, PyAny>) -> PyResult<()> {
        add(py, self.open()?, parameter, gradient, true)
    }

    /// The sketch. The fold cannot be used after it.
    fn finish(&mut self) -> PyResult<PySketch> {
        self.open()?;
        let fold = self.fold.take().ok_or_else(finished)?;
        Ok(PySketch(fold.finish().or_raise()?))
    }
}

impl PyFold {
    fn open(&mut self) -> PyResult<&mut Fold> {
        self.fold.as_mut().ok_or_else(finished)
    }
}

fn finished() -> PyErr {
    invalid_state("this fold is finished: start another one")
}

fn add(
    py: Python<'_>,
    fold: &mut Fold,
    parameter: &str,
    gradient: &Bound<'_, PyAny>,
    as_matrix: bool,
) -> PyResult<()> {
    let array = Array::of(gradient)?;
    let values = array.values()?;
    if !as_matrix {
        return py.detach(|| fold.add(parameter, values)).or_raise();
    }
    let &[inputs, outputs] = array.shape() else {
        let message = format!(
            "{parameter}: a matrix of shape [inputs, outputs] is expected, and not {:?}",
            array.shape()
        );
        return Err(invalid_input(&message));
    };
    py.detach(|| fold.add_matrix(parameter, [inputs, outputs], values)).or_raise()
}
