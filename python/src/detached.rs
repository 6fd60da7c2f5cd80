//! `DetachedWriter`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use gradix::{DetachedWriter, Part};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise as _, invalid_state};
use crate::rows::{ExampleRows, RowBatch, Sources};
use crate::spec::PySchema;
use crate::values::{Bytes, Id};
use crate::work::with_threads;

/// Builds segments apart from the index, in a folder, as one of many processes or machines. Made by `Index.detached`.
///
/// In a `with` statement it finishes at the end what is not finished yet, and closes; an exception leaves what was
/// finished. `Writer.attach` takes the folder.
#[pyclass(frozen, module = "gradix", name = "DetachedWriter", weakref)]
pub struct PyDetachedWriter {
    writer: Mutex<Option<DetachedWriter>>,
    has_changes: AtomicBool,
}

impl PyDetachedWriter {
    /// Takes over a writer.
    pub fn new(writer: DetachedWriter) -> Self {
        Self { writer: Mutex::new(Some(writer)), has_changes: AtomicBool::new(false) }
    }

    fn with<T: Send, E: Into<gradix::Error> + Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut DetachedWriter) -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.as_mut().map(work)
        });
        done.ok_or_else(|| invalid_state("the writer is closed: open another one with Index.detached"))?
            .or_raise()
    }

    fn changed(&self) {
        self.has_changes.store(true, Ordering::Relaxed);
    }
}

#[pymethods]
impl PyDetachedWriter {
    /// As `Writer.append`.
    #[pyo3(signature = (id, values, *, span = None, source = None, metadata = None))]
    fn append(
        &self,
        py: Python<'_>,
        id: Id,
        values: &Bound<'_, PyAny>,
        span: Option<(u32, u32)>,
        source: Option<String>,
        metadata: Option<Bytes>,
    ) -> PyResult<()> {
        let rows = ExampleRows::one(values, span, source, metadata)?;
        let rows = rows.rows()?;
        self.with(py, |writer| writer.append_rows(&id, &rows))?;
        self.changed();
        Ok(())
    }

    /// As `Writer.append_rows`.
    fn append_rows(&self, py: Python<'_>, id: Id, rows: &Bound<'_, PyAny>) -> PyResult<()> {
        let rows = ExampleRows::of(rows)?;
        let rows = rows.rows()?;
        self.with(py, |writer| writer.append_rows(&id, &rows))?;
        self.changed();
        Ok(())
    }

    /// As `Writer.append_batch`.
    #[pyo3(signature = (ids, values, *, sources = None, spans = None, metadata = None))]
    fn append_batch(
        &self,
        py: Python<'_>,
        ids: Vec<Id>,
        values: &Bound<'_, PyAny>,
        sources: Option<Sources>,
        spans: Option<Vec<Option<(u32, u32)>>>,
        metadata: Option<Vec<Option<Bytes>>>,
    ) -> PyResult<()> {
        let batch = RowBatch::of(ids, values, sources, spans, metadata)?;
        let spec = self.with(py, |writer| Ok::<_, gradix::Error>(writer.schema().spec().clone()))?;
        let rows = batch.rows(&spec)?;
        self.with(py, |writer| with_threads(|| writer.append_batch(&rows)))?;
        self.changed();
        Ok(())
    }

    /// Whether an example was appended by this writer, or is in one of the folder's parts.
    fn contains(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        self.with(py, |writer| Ok::<_, gradix::Error>(writer.contains(&id)))
    }

    fn __contains__(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        self.contains(py, id)
    }

    /// Makes what was appended durable, as the next part of the folder, with bytes of the caller's.
    #[pyo3(signature = (payload = None))]
    fn finish(&self, py: Python<'_>, payload: Option<Bytes>) -> PyResult<PyPart> {
        let payload = payload.map(|payload| payload.0).unwrap_or_default();
        let part = self.with(py, |writer| writer.finish(payload))?;
        self.has_changes.store(false, Ordering::Relaxed);
        Ok(PyPart::from(&part))
    }

    /// The number of parts that are finished in the folder.
    #[getter]
    fn finished(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok::<_, gradix::Error>(writer.finished()))
    }

    /// The payload of a part that is finished in the folder, from 1; `None` if it is not there any more.
    fn payload<'py>(&self, py: Python<'py>, number: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let payload = self.with(py, |writer| writer.payload(number))?;
        Ok(payload.map(|payload| PyBytes::new(py, &payload)))
    }

    /// The index's schema.
    #[getter]
    fn schema(&self, py: Python<'_>) -> PyResult<PySchema> {
        self.with(py, |writer| Ok::<_, gradix::Error>(PySchema(writer.schema().clone())))
    }

    /// Discards what is not finished.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, DetachedWriter::abort)?;
        self.has_changes.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Closes the writer; what is not finished is discarded.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        raised: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let finished = match raised.is_none() && self.has_changes.load(Ordering::Relaxed) {
            true => self.finish(py, None).map(drop),
            false => Ok(()),
        };
        self.close(py);
        finished
    }
}

/// A finished part of a detached writer's folder.
#[pyclass(frozen, eq, module = "gradix", name = "Part", get_all)]
#[derive(PartialEq)]
pub struct PyPart {
    /// Its folder.
    path: PathBuf,
    /// Its number in the writer's folder; the first is 1.
    number: u64,
    /// Its rows.
    rows: u64,
    /// Its examples.
    examples: u64,
    /// The bytes of its files.
    bytes: u64,
    /// The bytes that were given to `finish`.
    payload: Vec<u8>,
}

impl From<&Part> for PyPart {
    fn from(part: &Part) -> Self {
        Self {
            path: part.path.clone(),
            number: part.number,
            rows: part.rows(),
            examples: part.examples(),
            bytes: part.bytes(),
            payload: part.payload.clone(),
        }
    }
}

#[pymethods]
impl PyPart {
    fn __repr__(&self) -> String {
        let Self { number, rows, examples, bytes, .. } = self;
        format!("Part(number={number}, rows={rows}, examples={examples}, bytes={bytes})")
    }
}
