//! `Ranking` and `Hit`.

use gradix::{Hit, Ranking};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::values::{id, plain, span_out};

/// The most influential rows, or examples, for each query.
///
/// `proponents(q)` and `opponents(q)` are lists of `Hit`; `to_numpy`, `to_pandas` and `to_arrow` give all of them as
/// columns: query, end ("proponents" or "opponents"), rank, id, score, span_start, span_end, source, and metadata if
/// the scan was asked for it.
#[pyclass(frozen, module = "gradix", name = "Ranking")]
pub struct PyRanking(pub Ranking);

/// A row of a ranking, or an example if rows were grouped.
///
/// `id` is str, or bytes if it is not UTF-8; `span` a pair of tokens, or `None` for the whole example.
#[pyclass(frozen, eq, module = "gradix", name = "Hit")]
#[derive(PartialEq)]
pub struct PyHit(Hit);

#[pymethods]
impl PyHit {
    /// The example's id.
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        id(py, &self.0.id)
    }

    /// The influence.
    #[getter]
    fn score(&self) -> f64 {
        self.0.score
    }

    /// The part of the example that the row stands for.
    #[getter]
    fn span(&self) -> Option<(u32, u32)> {
        span_out(self.0.span)
    }

    /// The source label.
    #[getter]
    fn source(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// The metadata, if the scan was asked for it.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.metadata.as_deref().map(|metadata| PyBytes::new(py, metadata))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let shown = |value: Bound<'_, PyAny>| value.repr().map(|text| text.to_string());
        let id = shown(self.id(py))?;
        let span = shown(self.span().into_pyobject(py)?.into_any())?;
        let source = shown(self.source().into_pyobject(py)?.into_any())?;
        let score = shown(self.score().into_pyobject(py)?.into_any())?;
        Ok(format!("Hit(id={id}, score={score}, span={span}, source={source})"))
    }
}

fn hits(hits: &[Hit]) -> Vec<PyHit> {
    hits.iter().cloned().map(PyHit).collect()
}

#[pymethods]
impl PyRanking {
    /// The hits with the highest scores of a query, the highest first.
    #[pyo3(signature = (query = 0))]
    fn proponents(&self, query: usize) -> PyResult<Vec<PyHit>> {
        self.check(query)?;
        Ok(hits(self.0.proponents(query)))
    }

    /// The hits with the lowest scores of a query, the lowest first.
    #[pyo3(signature = (query = 0))]
    fn opponents(&self, query: usize) -> PyResult<Vec<PyHit>> {
        self.check(query)?;
        Ok(hits(self.0.opponents(query)))
    }

    /// The number of queries.
    #[getter]
    fn queries(&self) -> usize {
        self.0.queries()
    }

    /// What the scan read and computed, and how long it took, as a dict.
    #[getter]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, self.0.statistics())
    }

    /// All of the ranking as a dict, as the program's JSON has it.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.0)
    }

    /// A dict of arrays, one for each column. The span of a whole example is from 0 to 4294967295.
    fn to_numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        convert(slf, "to_numpy")
    }

    /// A data frame of pandas.
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        convert(slf, "to_pandas")
    }

    /// A table of pyarrow. Ids are text if all of them are UTF-8, binary otherwise.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        convert(slf, "to_arrow")
    }

    fn __repr__(&self) -> String {
        let (queries, rows) = (self.0.queries(), self.0.statistics().rows);
        format!("<Ranking of {rows} rows for {queries} queries>")
    }
}

impl PyRanking {
    fn check(&self, query: usize) -> PyResult<()> {
        if query < self.0.queries() {
            return Ok(());
        }
        let message = format!("query {query} of {}", self.0.queries());
        Err(pyo3::exceptions::PyIndexError::new_err(message))
    }
}

fn convert<'py>(ranking: &Bound<'py, PyRanking>, how: &str) -> PyResult<Bound<'py, PyAny>> {
    ranking.py().import("gradix._columns")?.call_method1(how, (ranking,))
}
