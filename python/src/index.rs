//! `Index`.

use std::path::PathBuf;

use gradix::{Index, IndexOptions, VerifyOptions};
use pyo3::prelude::*;

use crate::detached::PyDetachedWriter;
use crate::errors::OrRaise as _;
use crate::snapshot::PySnapshot;
use crate::spec::PySchema;
use crate::values::plain;
use crate::work::{interruptible, with_threads};
use crate::writer::PyWriter;

/// A gradient index in a folder.
///
/// >>> import gradix, numpy, tempfile
/// >>> spec = gradix.SketchSpec.dense("mine", "v1", [("all", 2)])
/// >>> path = tempfile.mkdtemp() + "/my.gradix"
/// >>> index = gradix.Index.create(path, gradix.Schema(spec, "f32"))
/// >>> with index.writer() as writer:
/// ...     writer.append_batch(["a", "b"], numpy.array([[1, 0], [0, 1]], numpy.float32))
/// >>> with index.snapshot() as snapshot:
/// ...     snapshot.scan(numpy.array([2, 1], numpy.float32), top_k=1).proponents(0)
/// [Hit(id='a', score=2.0, span=None, source=None)]
#[pyclass(frozen, module = "gradix", name = "Index")]
pub struct PyIndex(pub Index);

fn options(
    read_only: bool,
    segment_bytes: Option<u64>,
    commit_examples: Option<usize>,
    map_files: bool,
) -> IndexOptions {
    let mut options = Index::options().read_only(read_only).map_files(map_files);
    if let Some(bytes) = segment_bytes {
        options = options.segment_bytes(bytes);
    }
    if let Some(examples) = commit_examples {
        options = options.commit_examples(examples);
    }
    options
}

#[pymethods]
impl PyIndex {
    /// Creates an index in a folder that does not exist yet or is empty, and opens it.
    ///
    /// `segment_bytes` is the size at which a segment file is full (1 GiB), `commit_examples` the most examples that one
    /// commit may change (2 million), `map_files` whether scans map files into memory.
    #[staticmethod]
    #[pyo3(signature = (path, schema, *, segment_bytes = None, commit_examples = None, map_files = true))]
    fn create(
        py: Python<'_>,
        path: PathBuf,
        schema: &PySchema,
        segment_bytes: Option<u64>,
        commit_examples: Option<usize>,
        map_files: bool,
    ) -> PyResult<Self> {
        let options = options(false, segment_bytes, commit_examples, map_files);
        Ok(Self(py.detach(|| options.create(path, &schema.0)).or_raise()?))
    }

    /// Opens an index. With `read_only` it has no writer, and may lie on a read-only file system.
    #[staticmethod]
    #[pyo3(signature = (path, *, read_only = false, segment_bytes = None, commit_examples = None, map_files = true))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        read_only: bool,
        segment_bytes: Option<u64>,
        commit_examples: Option<usize>,
        map_files: bool,
    ) -> PyResult<Self> {
        let options = options(read_only, segment_bytes, commit_examples, map_files);
        Ok(Self(py.detach(|| options.open(path)).or_raise()?))
    }

    /// The folder.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// The schema.
    #[getter]
    fn schema(&self) -> PySchema {
        PySchema(self.0.schema().clone())
    }

    /// The index's UUID, as text.
    #[getter]
    fn uuid(&self) -> String {
        self.0.uuid().to_string()
    }

    /// Opens the writer, of which there is at most one, over all processes.
    fn writer(&self, py: Python<'_>) -> PyResult<PyWriter> {
        Ok(PyWriter::new(py.detach(|| self.0.writer()).or_raise()?, self.0.clone()))
    }

    /// Opens a writer that builds segments of this index apart from it, in a folder: `Writer.attach` takes them.
    fn detached(&self, py: Python<'_>, folder: PathBuf) -> PyResult<PyDetachedWriter> {
        Ok(PyDetachedWriter::new(py.detach(|| self.0.detached(folder)).or_raise()?))
    }

    /// A view of the newest generation.
    fn snapshot(&self, py: Python<'_>) -> PyResult<PySnapshot> {
        Ok(PySnapshot::new(py.detach(|| self.0.snapshot()).or_raise()?))
    }

    /// A view of an earlier generation that has not been collected.
    fn snapshot_at(&self, py: Python<'_>, generation: u64) -> PyResult<PySnapshot> {
        Ok(PySnapshot::new(py.detach(|| self.0.snapshot_at(generation)).or_raise()?))
    }

    /// Checks every checksum, every stored row and every reference, and reports what it found, as a dict: the index is
    /// sound if its list "findings" is empty. Progress is in bytes.
    #[pyo3(signature = (*, progress = None))]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let report = interruptible(py, progress, |token, meter| {
            let options = VerifyOptions::default().cancel(token);
            self.0.verify_with(options.progress(|at| meter.set(at.bytes_done, at.bytes_total)))
        })?;
        plain(py, &report)
    }

    /// Counts of rows and dead rows, and sizes in bytes, as a dict.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &py.detach(|| self.0.stats()).or_raise()?)
    }

    /// Builds the manifest of an index anew from its segments, where it is lost: move what is left of the folder
    /// `manifest` away first. Deletions and earlier generations are lost. Returns what was found, as a dict.
    #[staticmethod]
    fn recover<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyAny>> {
        let recovery = py.detach(|| with_threads(|| Index::recover(path)));
        plain(py, &recovery.or_raise()?)
    }

    fn __repr__(&self) -> String {
        format!("<Index {}>", self.0.path().display())
    }
}
