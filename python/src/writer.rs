//! `Writer`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gradix::curvature::Estimate;
use gradix::{
    Attach, Commit, CompactOptions, Compaction, Error, ErrorKind, FitOptions, GcOptions, Index,
    SelfInfluenceOptions, Writer,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::detached::PyPart;
use crate::errors::{OrRaise as _, exception, invalid_input, invalid_state};
use crate::rows::{ExampleRows, RowBatch, Sources};
use crate::scan::{curvature, queries};
use crate::spec::PySchema;
use crate::values::{Bytes, Id, plain};
use crate::work::{interruptible, with_threads};

/// Changes an index. Made by `Index.writer`; an index has at most one, over all processes.
///
/// In a `with` statement it commits at the end what is not committed yet, and closes; an exception leaves the index as
/// the last commit made it. A writer that is dropped commits nothing.
///
/// Threads may share it: they wait for each other.
#[pyclass(frozen, module = "gradix", name = "Writer", weakref)]
pub struct PyWriter {
    state: Mutex<State>,
    index: Index,
}

enum State {
    Open(Box<Writer>),
    /// Something long is being done, during which Python code may run.
    AtWork,
    Closed,
}

impl PyWriter {
    /// Takes over a writer.
    pub fn new(writer: Writer, index: Index) -> Self {
        Self { state: Mutex::new(State::Open(Box::new(writer))), index }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the state, and returns the one before. Waits without Python's lock: another thread may be appending.
    fn replace_unless_at_work(&self, py: Python<'_>, state: State) -> PyResult<State> {
        let replaced = py.detach(|| {
            let mut own = self.lock();
            (!matches!(*own, State::AtWork)).then(|| std::mem::replace(&mut *own, state))
        });
        replaced.ok_or_else(at_work)
    }

    /// Calls `work` with the writer, without Python's lock.
    fn with<T: Send, E: Into<Error> + Send>(
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
    fn at_work<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Writer) -> PyResult<T>) -> PyResult<T> {
        let taken = self.replace_unless_at_work(py, State::AtWork)?;
        // While the state is `AtWork` nobody holds the lock for long.
        let State::Open(mut writer) = taken else {
            *self.lock() = State::Closed;
            return Err(closed());
        };
        let unless_done = CloseOnPanic(self);
        let done = work(&mut writer);
        std::mem::forget(unless_done);
        *self.lock() = State::Open(writer);
        done
    }
}

/// Closes a writer whose work has panicked: it would be at work for ever.
struct CloseOnPanic<'a>(&'a PyWriter);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        *self.0.lock() = State::Closed;
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
        let spec = self.with(py, |writer| Ok::<_, Error>(writer.schema().spec().clone()))?;
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

    /// Takes over the parts that detached writers have finished in a folder, with the next commit. `how` is "link"
    /// (the files are linked, and stay), "move", or "copy".
    #[pyo3(signature = (folder, how = "link"))]
    fn attach(&self, py: Python<'_>, folder: PathBuf, how: &str) -> PyResult<Vec<PyPart>> {
        let how = match how {
            "link" => Attach::Link,
            "move" => Attach::Move,
            "copy" => Attach::Copy,
            other => return Err(invalid_input(&format!("how is link, move or copy, and not {other:?}"))),
        };
        let attached = self.with(py, |writer| with_threads(|| writer.attach(folder, how)))?;
        Ok(attached.parts.iter().map(PyPart::from).collect())
    }

    /// Copies the live rows of segments into fewer, and drops dead ones: of segments of which at least `dead_fraction`
    /// is dead, and of those below `small_fraction` of the segment size; with `all`, of every segment. Returns what was
    /// done, as a dict. Cancelled, it keeps what it has published.
    #[pyo3(signature = (*, all = false, dead_fraction = None, small_fraction = None, progress = None))]
    fn compact<'py>(
        &self,
        py: Python<'py>,
        all: bool,
        dead_fraction: Option<f64>,
        small_fraction: Option<f64>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let done = self.at_work(py, |writer| {
            interruptible(py, progress, |token, meter| {
                let mut options = if all { CompactOptions::all() } else { CompactOptions::default() };
                if let Some(fraction) = dead_fraction {
                    options = options.dead_fraction(fraction);
                }
                if let Some(fraction) = small_fraction {
                    options = options.small_fraction(fraction);
                }
                let rows = |done: &Compaction| done.rows_copied + done.rows_dropped;
                let total = rows(&self.index.snapshot()?.plan_compaction(&options));
                let options = options.cancel(token).progress(|done| meter.set(rows(&done), total));
                writer.compact(options).map_err(Error::from)
            })
        })?;
        plain(py, &done)
    }

    /// Removes generations but the newest `keep_generations`, those replaced within `grace` seconds and those that
    /// snapshots of this process use, and the files that only they need. Returns what was removed, as a dict.
    #[pyo3(signature = (*, keep_generations = 1, grace = 3600.0))]
    fn gc<'py>(&self, py: Python<'py>, keep_generations: u64, grace: f64) -> PyResult<Bound<'py, PyAny>> {
        let grace = Duration::try_from_secs_f64(grace);
        let grace = grace.map_err(|error| invalid_input(&format!("grace in seconds: {error}")))?;
        let options = GcOptions::default().keep_generations(keep_generations).grace(grace);
        plain(py, &self.with(py, |writer| writer.gc(options))?)
    }

    /// Fits a curvature to the live rows, and commits it; what is fitted already is kept up to date. Returns what was
    /// done, as a dict.
    ///
    /// `estimates` says by block, or prefix of blocks, what is kept: "full", or the width of Nystrom's method. With `refit`
    /// all rows are summed again.
    #[pyo3(signature = (name = None, *, estimates = None, refit = false, progress = None))]
    fn fit_curvature<'py>(
        &self,
        py: Python<'py>,
        name: Option<String>,
        estimates: Option<BTreeMap<String, EstimateName>>,
        refit: bool,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let estimates = estimates.into_iter().flatten();
        let estimates = estimates.map(|(blocks, estimate)| Ok((blocks, estimate.estimate()?)));
        let estimates = estimates.collect::<PyResult<Vec<_>>>()?;
        let fit = self.at_work(py, |writer| {
            interruptible(py, progress, |token, meter| {
                let mut options = FitOptions::default().refit(refit).cancel(token);
                if let Some(name) = name {
                    options = options.name(name);
                }
                for (blocks, estimate) in estimates {
                    options = options.estimate(blocks, estimate);
                }
                writer.fit_curvature(options.progress(|at| meter.set(at.rows_done, at.rows_total)))
            })
        })?;
        plain(py, &fit)
    }

    /// Computes the self-influence of every row with a curvature that was fitted, and commits it. Returns what was done,
    /// as a dict.
    #[pyo3(signature = (curvature = None, *, progress = None))]
    fn fit_self_influence<'py>(
        &self,
        py: Python<'py>,
        curvature: Option<&Bound<'py, PyAny>>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let curvature = self::curvature(curvature)?.unwrap_or_default();
        let fit = self.at_work(py, |writer| {
            interruptible(py, progress, |token, meter| {
                let options = SelfInfluenceOptions::default().curvature(curvature).cancel(token);
                writer.fit_self_influence(options.progress(|at| meter.set(at.rows_done, at.rows_total)))
            })
        })?;
        plain(py, &fit)
    }

    /// Removes a curvature, and the self-influence computed with it. Returns whether it existed.
    fn drop_curvature(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        self.with(py, |writer| writer.drop_curvature(name))
    }

    /// Adds sketches that are not stored, such as those of tokens, to the curvature `name`: all of the example `id`, which
    /// is appended in the same commit.
    fn observe(&self, py: Python<'_>, name: &str, id: Id, sketches: &Bound<'_, PyAny>) -> PyResult<()> {
        let spec = self.with(py, |writer| Ok::<_, Error>(writer.schema().spec().clone()))?;
        let sketches = queries(sketches, &spec)?;
        self.with(py, |writer| with_threads(|| writer.observe(name, &id, &sketches)))
    }

    /// Discards all changes since the last commit.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Writer::abort)
    }

    /// Closes the writer, without a commit: another one can be opened. A closed writer is closed again.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.replace_unless_at_work(py, State::Closed)?;
        py.detach(|| drop(state));
        Ok(())
    }

    /// The generation of the last commit.
    #[getter]
    fn generation(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok::<_, Error>(writer.generation()))
    }

    /// Whether there are changes since the last commit.
    #[getter]
    fn has_changes(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |writer| Ok::<_, Error>(writer.has_changes()))
    }

    /// The index's schema.
    #[getter]
    fn schema(&self, py: Python<'_>) -> PyResult<PySchema> {
        self.with(py, |writer| Ok::<_, Error>(PySchema(writer.schema().clone())))
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
        let is_open = py.detach(|| matches!(&*self.lock(), State::Open(_)));
        let committed = match raised.is_none() && is_open && self.has_changes(py)? {
            true => self.commit(py, None).map(drop),
            false => Ok(()),
        };
        // What is not committed is discarded.
        let closed = self.close(py);
        committed.and(closed)
    }
}

/// What is kept of a block's curvature.
#[derive(FromPyObject)]
pub enum EstimateName {
    /// "full".
    Name(String),
    /// The width of Nystrom's method.
    Width(u32),
}

impl EstimateName {
    fn estimate(self) -> PyResult<Estimate> {
        match self {
            Self::Name(name) if name == "full" => Ok(Estimate::Full),
            Self::Name(name) => {
                Err(invalid_input(&format!("an estimate is full or a width, and not {name:?}")))
            }
            Self::Width(width) => Ok(Estimate::Nystrom { width }),
        }
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
