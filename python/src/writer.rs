//! `Writer`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gradix::{Commit, ErrorKind, Writer};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise as _, exception, invalid_state};
use crate::rows::{ExampleRows, RowBatch, Sources};
use crate::spec::PySchema;
use crate::values::{Bytes, Id};
use crate::work::with_threads;

/// Changes an index. Made by `Index.writer`; an index has at most one, over all processes.
///
/// In a `with` statement it commits at the end what is not committed yet, and closes; an exception leaves the index as
/// the last commit made it. A writer that is dropped commits nothing.
///
/// Threads may share it: they wait for each other.
#[pyclass(frozen, module = "gradix", name = "Writer", weakref)]
pub struct PyWriter {
    state: Mutex<State>,
}

enum State {
    Open(Box<Writer>),
    /// Something long is being done, during which Python code may run.
    AtWork,
    Closed,
}

impl PyWriter {
    /// Takes over a writer.
    pub fn new(writer: Writer) -> Self {
        Self { state: Mutex::new(State::Open(Box::new(writer))) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` with the writer, without Python's lock.
    fn with<T: Send, E: Into<gradix::Error> + Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Writer) -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| match &mut *self.lock() {
            State::Open(writer) => Ok(work(writer)),
            State::AtWork => Err(at_work as fn() -> PyErr),
            State::Closed => Err(closed as fn() -> PyErr),
        });
        done.map_err(|error| error())?.or_raise()
    }

    /// Calls `work` with the writer, which everybody else finds at work meanwhile.
    fn at_work<T>(&self, work: impl FnOnce(&mut Writer) -> PyResult<T>) -> PyResult<T> {
        let mut writer = match std::mem::replace(&mut *self.lock(), State::AtWork) {
            State::Open(writer) => writer,
            State::AtWork => return Err(at_work()),
            State::Closed => {
                *self.lock() = State::Closed;
                return Err(closed());
            }
        };
        let done = work(&mut writer);
        *self.lock() = State::Open(writer);
        done
    }
}

fn at_work() -> PyErr {
    exception(
        ErrorKind::Busy,
        "the writer is at work: in another thread, or in the call whose progress this is",
    )
}

fn closed() -> PyErr {
    invalid_state("the writer is closed: open another one with Index.writer")
}

#[pymethods]
impl PyWriter {
    /// Appends an example with one row: a sketch, or an array of its values.
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
        self.with(py, |writer| writer.append_rows(&id, &rows))
    }

    /// Appends an example with several rows, usually one for each span: an iterable of `Row`, or of sketches.
    fn append_rows(&self, py: Python<'_>, id: Id, rows: &Bound<'_, PyAny>) -> PyResult<()> {
        let rows = ExampleRows::of(rows)?;
        let rows = rows.rows()?;
        self.with(py, |writer| writer.append_rows(&id, &rows))
    }

    /// Appends examples of one row each: an array of shape [ids, dims], or a list of sketches. If one cannot be appended,
    /// none is.
    ///
    /// `sources` is a label for all or a list with one, or `None`, for each; `spans` and `metadata` are lists likewise.
    /// An array of float32 in row-major order is read where it lies; it must not change meanwhile.
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
        self.with(py, |writer| with_threads(|| writer.append_batch(&rows)))
    }

    /// Replaces an example: deletes its rows and appends new ones, in one commit.
    fn replace(&self, py: Python<'_>, id: Id, rows: &Bound<'_, PyAny>) -> PyResult<()> {
        let rows = ExampleRows::of(rows)?;
        let rows = rows.rows()?;
        self.with(py, |writer| writer.replace(&id, &rows))
    }

    /// Deletes an example. Returns whether it existed.
    fn delete(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        self.with(py, |writer| writer.delete(&id))
    }

    /// Whether an example exists, uncommitted changes included.
    fn contains(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        self.with(py, |writer| writer.contains(&id))
    }

    fn __contains__(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        self.contains(py, id)
    }

    /// Makes all changes since the last commit durable and visible, as a new generation, with bytes of the caller's.
    #[pyo3(signature = (payload = None))]
    fn commit(&self, py: Python<'_>, payload: Option<Bytes>) -> PyResult<PyCommit> {
        let payload = payload.map(|payload| payload.0).unwrap_or_default();
        let commit = |writer: &mut Writer| writer.prepare_commit()?.payload(payload).commit();
        Ok(PyCommit::from(self.with(py, commit)?))
    }

    /// Discards all changes since the last commit.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Writer::abort)
    }

    /// Closes the writer, without a commit: another one can be opened. A closed writer is closed again.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let state = match std::mem::replace(&mut *self.lock(), State::Closed) {
            State::AtWork => {
                *self.lock() = State::AtWork;
                return Err(at_work());
            }
            state => state,
        };
        py.detach(|| drop(state));
        Ok(())
    }

    /// The generation of the last commit.
    #[getter]
    fn generation(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok::<_, gradix::Error>(writer.generation()))
    }

    /// Whether there are changes since the last commit.
    #[getter]
    fn has_changes(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |writer| Ok::<_, gradix::Error>(writer.has_changes()))
    }

    /// The index's schema.
    #[getter]
    fn schema(&self, py: Python<'_>) -> PyResult<PySchema> {
        self.with(py, |writer| Ok::<_, gradix::Error>(PySchema(writer.schema().clone())))
    }

    /// The payload of a commit; `None` if there is no such generation any more.
    fn payload<'py>(&self, py: Python<'py>, generation: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let payload = self.with(py, |writer| writer.payload(generation))?;
        Ok(payload.map(|payload| PyBytes::new(py, &payload)))
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
        let is_open = matches!(&*self.lock(), State::Open(_));
        let committed = match raised.is_none() && is_open && self.has_changes(py)? {
            true => self.commit(py, None).map(drop),
            false => Ok(()),
        };
        // What is not committed is discarded.
        let closed = self.close(py);
        committed.and(closed)
    }
}

/// A commit that is durable.
#[pyclass(frozen, eq, module = "gradix", name = "Commit", get_all)]
#[derive(PartialEq)]
pub struct PyCommit {
    /// The new generation.
    generation: u64,
    /// Rows appended.
    appended: u64,
    /// Rows deleted, those of replaced examples included.
    deleted: u64,
}

impl From<Commit> for PyCommit {
    fn from(commit: Commit) -> Self {
        let Commit { generation, appended, deleted, .. } = commit;
        Self { generation, appended, deleted }
    }
}

#[pymethods]
impl PyCommit {
    fn __repr__(&self) -> String {
        let Self { generation, appended, deleted } = self;
        format!("Commit(generation={generation}, appended={appended}, deleted={deleted})")
    }
}
