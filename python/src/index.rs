//! `Index`.

use std::path::PathBuf;

use gradix::{Index, IndexOptions};
use pyo3::prelude::*;

use crate::errors::OrRaise as _;
use crate::spec::PySchema;
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
        Ok(PyWriter::new(py.detach(|| self.0.writer()).or_raise()?))
    }

    fn __repr__(&self) -> String {
        format!("<Index {}>", self.0.path().display())
    }
}
