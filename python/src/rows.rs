//! `Row`, and batches of rows from arrays.

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Row, Span};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::Array;
use crate::sketch::PySketch;
use crate::values::{Bytes, Id, span};

/// A row to append: a sketch, or an array of its values, with what is told of it.
///
/// `span` is a pair of tokens, or `None` for the whole example; `source` a label by which scans filter; `metadata` bytes
/// that gradix keeps.
#[pyclass(frozen, module = "gradix", name = "Row")]
pub struct PyRow {
    values: Py<PyAny>,
    span: Span,
    source: Option<String>,
    metadata: Vec<u8>,
}

#[pymethods]
impl PyRow {
    /// A row.
    #[new]
    #[pyo3(signature = (values, *, span = None, source = None, metadata = None))]
    fn new(
        values: Py<PyAny>,
        span: Option<(u32, u32)>,
        source: Option<String>,
        metadata: Option<Bytes>,
    ) -> Self {
        let metadata = metadata.map(|metadata| metadata.0).unwrap_or_default();
        Self { values, span: self::span(span), source, metadata }
    }
}

/// The values of one row, or of several.
enum Values<'py> {
    Sketch(Sketch),
    Array(Array<'py>),
}

impl<'py> Values<'py> {
    fn of(given: &Bound<'py, PyAny>) -> PyResult<Self> {
        match given.cast::<PySketch>() {
            Ok(sketch) => Ok(Self::Sketch(sketch.get().0.clone())),
            Err(_) => Ok(Self::Array(Array::of(given)?)),
        }
    }

    fn row(&self) -> PyResult<Row<'_>> {
        match self {
            Self::Sketch(sketch) => Ok(Row::new(sketch)),
            Self::Array(array) if array.shape().len() == 1 => Ok(Row::of_values(array.values()?)),
            Self::Array(array) => {
                let message =
                    format!("the values of one row are a vector, and not of shape {:?}", array.shape());
                Err(PyValueError::new_err(message))
            }
        }
    }
}

/// The rows of one example, taken from Python.
pub struct ExampleRows<'py>(Vec<(Values<'py>, Span, Option<String>, Vec<u8>)>);

impl<'py> ExampleRows<'py> {
    /// One row.
    pub fn one(
        values: &Bound<'py, PyAny>,
        span: Option<(u32, u32)>,
        source: Option<String>,
        metadata: Option<Bytes>,
    ) -> PyResult<Self> {
        let metadata = metadata.map(|metadata| metadata.0).unwrap_or_default();
        Ok(Self(vec![(Values::of(values)?, self::span(span), source, metadata)]))
    }

    /// An iterable of rows, each a `Row` or what its values are taken from.
    pub fn of(rows: &Bound<'py, PyAny>) -> PyResult<Self> {
        let rows = rows.try_iter()?.map(|row| {
            let row = row?;
            match row.cast::<PyRow>() {
                Ok(row) => {
                    let PyRow { values, span, source, metadata } = row.get();
                    Ok((Values::of(values.bind(row.py()))?, *span, source.clone(), metadata.clone()))
                }
                Err(_) => Ok((Values::of(&row)?, Span::WHOLE, None, Vec::new())),
            }
        });
        Ok(Self(rows.collect::<PyResult<_>>()?))
    }

    /// As the engine takes them.
    pub fn rows(&self) -> PyResult<Vec<Row<'_>>> {
        let rows = self.0.iter().map(|(values, span, source, metadata)| {
            let row = values.row()?.span(*span).metadata(metadata);
            Ok(source.as_deref().map_or(row, |source| row.source(source)))
        });
        rows.collect()
    }
}

/// One source for all rows of a batch, or one for each.
#[derive(FromPyObject)]
pub enum Sources {
    /// For all.
    One(String),
    /// For each.
    Each(Vec<Option<String>>),
}

/// Examples of one row each, taken from Python.
pub struct RowBatch<'py> {
    ids: Vec<Id>,
    values: BatchValues<'py>,
    sources: Option<Sources>,
    spans: Option<Vec<Option<(u32, u32)>>>,
    metadata: Option<Vec<Option<Bytes>>>,
}

enum BatchValues<'py> {
    Matrix(Array<'py>),
    Sketches(Vec<Sketch>),
}

impl<'py> RowBatch<'py> {
    /// Of a matrix with a row for each id, or of an iterable of sketches.
    pub fn of(
        ids: Vec<Id>,
        values: &Bound<'py, PyAny>,
        sources: Option<Sources>,
        spans: Option<Vec<Option<(u32, u32)>>>,
        metadata: Option<Vec<Option<Bytes>>>,
    ) -> PyResult<Self> {
        let sketch = |item: PyResult<Bound<'py, PyAny>>| -> PyResult<Sketch> {
            Ok(item?.cast::<PySketch>()?.get().0.clone())
        };
        let values = match is_sketches(values) {
            true => BatchValues::Sketches(values.try_iter()?.map(sketch).collect::<PyResult<_>>()?),
            false => BatchValues::Matrix(Array::of(values)?),
        };
        Ok(Self { ids, values, sources, spans, metadata })
    }

    /// As the engine takes them.
    pub fn rows(&self, spec: &SketchSpec) -> PyResult<Vec<(&[u8], Row<'_>)>> {
        let rows: Vec<Row<'_>> = match &self.values {
            BatchValues::Matrix(array) => array.rows(spec.dims())?.into_iter().map(Row::of_values).collect(),
            BatchValues::Sketches(sketches) => sketches.iter().map(Row::new).collect(),
        };
        let lengths = [
            ("ids", Some(self.ids.len())),
            (
                "sources",
                self.sources.as_ref().and_then(|sources| match sources {
                    Sources::One(_) => None,
                    Sources::Each(each) => Some(each.len()),
                }),
            ),
            ("spans", self.spans.as_ref().map(Vec::len)),
            ("metadata", self.metadata.as_ref().map(Vec::len)),
        ];
        for (what, length) in lengths {
            if let Some(length) = length.filter(|&length| length != rows.len()) {
                let message = format!("{length} {what} for {} rows", rows.len());
                return Err(PyValueError::new_err(message));
            }
        }
        let tagged = rows.into_iter().zip(&self.ids).enumerate().map(|(at, (mut row, id))| {
            let source = match &self.sources {
                Some(Sources::One(source)) => Some(source),
                Some(Sources::Each(each)) => each.get(at).and_then(Option::as_ref),
                None => None,
            };
            if let Some(source) = source {
                row = row.source(source);
            }
            if let Some(&span) = self.spans.as_ref().and_then(|spans| spans.get(at)) {
                row = row.span(self::span(span));
            }
            if let Some(Some(metadata)) = self.metadata.as_ref().and_then(|metadata| metadata.get(at)) {
                row = row.metadata(&metadata.0);
            }
            (id.as_ref(), row)
        });
        Ok(tagged.collect())
    }
}

/// Whether this is a list or tuple of sketches.
pub fn is_sketches(values: &Bound<'_, PyAny>) -> bool {
    use pyo3::types::{PyList, PyTuple};
    let is_sequence = values.is_instance_of::<PyList>() || values.is_instance_of::<PyTuple>();
    is_sequence && values.get_item(0).is_ok_and(|first| first.is_instance_of::<PySketch>())
}
