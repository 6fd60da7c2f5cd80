//! `gradix.formats`: vectors in the files and stores that other programs make.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gradix::formats::stores::{Store, StoreIds, StoreOptions};
use gradix::formats::{Batch, FileFormat, IdSource, ReadOptions, RowSource};
use numpy::{PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise as _, invalid_input};
use crate::spec::PySketchSpec;
use crate::values::{id, span_out};

/// A file or store of vectors, read in its order: an iterator of `FileBatch`. Made by `open_file` and `open_store`.
#[pyclass(frozen, module = "gradix", name = "Source")]
pub struct PySource {
    source: Mutex<Box<dyn RowSource>>,
    batch: usize,
}

#[pymethods]
impl PySource {
    /// The spec of an index of these rows: the store's own, or a dense one with the file's blocks.
    #[getter]
    fn spec(&self, py: Python<'_>) -> PySketchSpec {
        PySketchSpec(py.detach(|| self.source.lock().unwrap_or_else(PoisonError::into_inner).spec().clone()))
    }

    /// The number of rows; `None` if only reading to the end tells it.
    #[getter]
    fn rows(&self, py: Python<'_>) -> Option<u64> {
        py.detach(|| self.source.lock().unwrap_or_else(PoisonError::into_inner).rows())
    }

    /// Passes over the next rows.
    fn skip(&self, py: Python<'_>, rows: u64) -> PyResult<()> {
        py.detach(|| self.source.lock().unwrap_or_else(PoisonError::into_inner).skip(rows)).or_raise()
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyFileBatch>> {
        let read = py.detach(|| {
            let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            let mut batch = Batch::default();
            source.read(self.batch, &mut batch)?;
            Ok::<_, gradix::Error>((batch, source.spec().dims()))
        });
        let (batch, dims) = read.or_raise()?;
        Ok((batch.rows > 0).then_some(PyFileBatch { batch, dims }))
    }
}

/// Rows of a file. What the file does not have is `None`, as `Writer.append_batch` takes it.
#[pyclass(frozen, module = "gradix", name = "FileBatch")]
pub struct PyFileBatch {
    batch: Batch,
    dims: usize,
}

#[pymethods]
impl PyFileBatch {
    /// The id of each row's example; empty if the file has none.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.batch.ids.iter().map(|found| id(py, found)).collect()
    }

    /// The values: float32 of shape [rows, dims].
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        PyArray1::from_slice(py, &self.batch.values).reshape([self.batch.rows, self.dims])
    }

    /// The span of each row.
    #[getter]
    fn spans(&self) -> Option<Vec<Option<(u32, u32)>>> {
        let spans = &self.batch.spans;
        (!spans.is_empty()).then(|| spans.iter().copied().map(span_out).collect())
    }

    /// The source label of each row.
    #[getter]
    fn sources(&self) -> Option<Vec<Option<&str>>> {
        let sources = &self.batch.sources;
        (!sources.is_empty()).then(|| sources.iter().map(Option::as_deref).collect())
    }

    /// The metadata of each row.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Option<Vec<Bound<'py, PyBytes>>> {
        let metadata = &self.batch.metadata;
        (!metadata.is_empty()).then(|| metadata.iter().map(|bytes| PyBytes::new(py, bytes)).collect())
    }

    fn __len__(&self) -> usize {
        self.batch.rows
    }
}

/// Opens a file of vectors: safetensors, npy, npz, Arrow or Parquet, told by its first bytes unless `format` says it.
///
/// Ids are those of `id_column`, or of `ids`: a pattern such as "{stem}-{row}", or `id_file` with one a line.
/// `source_column`, `span_columns` (start and end) and `metadata_columns` name what else is read; `blocks` the columns or
/// tensors that are the blocks, in order; `batch` the most rows that are read at once.
#[pyfunction]
#[pyo3(signature = (path, *, format = None, id_column = None, ids = None, id_file = None, source_column = None, span_columns = None, metadata_columns = None, blocks = None, batch = 1024))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub fn open_file(
    py: Python<'_>,
    path: PathBuf,
    format: Option<&str>,
    id_column: Option<String>,
    ids: Option<String>,
    id_file: Option<PathBuf>,
    source_column: Option<String>,
    span_columns: Option<(String, String)>,
    metadata_columns: Option<Vec<String>>,
    blocks: Option<Vec<String>>,
    batch: usize,
) -> PyResult<PySource> {
    let mut options = ReadOptions::default();
    if let Some(format) = format {
        options = options.format(format.parse::<FileFormat>().map_err(|error| invalid_input(&error))?);
    }
    if let Some(name) = id_column {
        options = options.id_column(name);
    }
    match (ids, id_file) {
        (None, None) => {}
        (Some(pattern), None) => options = options.ids(IdSource::Pattern(pattern)),
        (None, Some(file)) => options = options.ids(IdSource::File(file)),
        (Some(_), Some(_)) => return Err(invalid_input("a pattern of ids or a file of them, and not both")),
    }
    if let Some(name) = source_column {
        options = options.source_column(name);
    }
    if let Some((start, end)) = span_columns {
        options = options.span_columns(start, end);
    }
    let options = options.metadata_columns(metadata_columns.into_iter().flatten());
    let options = match blocks {
        Some(blocks) => options.blocks(blocks),
        None => options,
    };
    source(py.detach(|| gradix::formats::open(path, &options)), batch)
}

/// Opens a store of a peer: `kind` is "bergson", "logix", "rapidin" or "less". Ids are the store's own, or `ids`: a pattern
/// with "{id}" in it. `part` says which of several parts is read.
#[pyfunction]
#[pyo3(signature = (kind, path, *, ids = None, part = None, batch = 1024))]
pub fn open_store(
    py: Python<'_>,
    kind: &str,
    path: PathBuf,
    ids: Option<String>,
    part: Option<String>,
    batch: usize,
) -> PyResult<PySource> {
    let kind: Store = kind
        .parse()
        .map_err(|error: gradix::formats::stores::UnknownStore| invalid_input(&error.to_string()))?;
    let mut options = StoreOptions::default();
    if let Some(pattern) = ids {
        options = options.ids(StoreIds::Pattern(pattern));
    }
    if let Some(part) = part {
        options = options.part(part);
    }
    source(py.detach(|| gradix::formats::stores::open_store(kind, path, &options)), batch)
}

fn source(
    opened: Result<Box<dyn RowSource>, gradix::formats::FormatError>,
    batch: usize,
) -> PyResult<PySource> {
    if batch == 0 {
        return Err(invalid_input("batch is the most rows that are read at once, at least 1"));
    }
    Ok(PySource { source: Mutex::new(opened.or_raise()?), batch })
}
