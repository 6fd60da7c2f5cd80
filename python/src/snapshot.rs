//! `Snapshot`, and what it iterates over.

use std::ops::{Bound as End, ControlFlow};
use std::sync::{Mutex, PoisonError};

use gradix::{ExampleRow, Ids, Snapshot, StoredRow};
use numpy::{PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{OrRaise as _, invalid_state};
use crate::ranking::PyRanking;
use crate::scan::{ScanOptions, curvature, queries};
use crate::sketch::PySketch;
use crate::spec::PySchema;
use crate::stream::Stream;
use crate::values::{Id, id, plain, span_out};
use crate::work::interruptible;

/// A view of one generation of an index, which stays readable as long as the snapshot is open.
///
/// In a `with` statement it is closed at the end. Threads may share it.
#[pyclass(frozen, module = "gradix", name = "Snapshot", weakref)]
pub struct PySnapshot(Mutex<Option<Snapshot>>);

impl PySnapshot {
    /// Takes over a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Mutex::new(Some(snapshot)))
    }

    /// The snapshot, unless it is closed.
    pub fn get(&self) -> PyResult<Snapshot> {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.ok_or_else(|| invalid_state("the snapshot is closed: take another one with Index.snapshot"))
    }
}

#[pymethods]
impl PySnapshot {
    /// The generation.
    #[getter]
    fn generation(&self) -> PyResult<u64> {
        Ok(self.get()?.generation())
    }

    /// The index's schema.
    #[getter]
    fn schema(&self) -> PyResult<PySchema> {
        Ok(PySchema(self.get()?.schema().clone()))
    }

    /// The payload of the commit that made this generation, or an earlier one; `None` if that does not exist any more.
    #[pyo3(signature = (generation = None))]
    fn payload<'py>(
        &self,
        py: Python<'py>,
        generation: Option<u64>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let snapshot = self.get()?;
        let payload = py.detach(|| match generation {
            Some(generation) => snapshot.payload_of(generation),
            None => snapshot.payload().map(Some),
        });
        Ok(payload.or_raise()?.map(|payload| PyBytes::new(py, &payload)))
    }

    /// The commits up to this generation that are still there, the oldest first, as dicts.
    fn commits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let snapshot = self.get()?;
        plain(py, &py.detach(|| snapshot.commits()).or_raise()?)
    }

    /// The rows of an example, in the order in which they were appended; `None` if there is no such example.
    #[pyo3(name = "get")]
    fn example(&self, py: Python<'_>, id: Id) -> PyResult<Option<Vec<PyStoredRow>>> {
        let snapshot = self.get()?;
        let found = py.detach(|| snapshot.get(&id)).or_raise()?;
        let row = |row: ExampleRow| PyStoredRow::of_example(&id.0, row);
        Ok(found.map(|example| example.rows.into_iter().map(row).collect()))
    }

    fn __contains__(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        let snapshot = self.get()?;
        Ok(py.detach(|| snapshot.get(&id)).or_raise()?.is_some())
    }

    /// The live rows in row order. With `sketches` their values are read too, and with `self_influence`, a curvature,
    /// what was fitted of it.
    #[pyo3(signature = (*, sketches = false, self_influence = None))]
    fn rows(&self, sketches: bool, self_influence: Option<&Bound<'_, PyAny>>) -> PyResult<PyRows> {
        let (snapshot, curvature) = (self.get()?, curvature(self_influence)?);
        let stream =
            Stream::start(move |token, pass| read_rows(&snapshot, sketches, curvature, token, pass))?;
        Ok(PyRows { stream, piece: Mutex::default() })
    }

    fn __iter__(&self) -> PyResult<PyRows> {
        self.rows(false, None)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(usize::try_from(self.get()?.rows()).unwrap_or(usize::MAX))
    }

    /// The ids in their order: all of them, those with a prefix, or those from `start` up to and without `end`.
    #[pyo3(signature = (prefix = None, *, start = None, end = None))]
    fn ids(&self, prefix: Option<Id>, start: Option<Id>, end: Option<Id>) -> PyResult<PyIds> {
        let snapshot = self.get()?;
        let ids = match (prefix, start, end) {
            (None, None, None) => snapshot.ids(),
            (Some(prefix), None, None) => snapshot.ids_with_prefix(prefix),
            (None, start, end) => snapshot.ids_in((
                start.map_or(End::Unbounded, End::Included),
                end.map_or(End::Unbounded, End::Excluded),
            )),
            (Some(_), ..) => {
                return Err(crate::errors::invalid_input("a prefix, or start and end, but not both"));
            }
        };
        Ok(PyIds(Mutex::new(ids)))
    }

    /// The source labels with their numbers of rows and examples, as dicts.
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let snapshot = self.get()?;
        plain(py, &py.detach(|| snapshot.sources()).or_raise()?)
    }

    /// Counts and sizes, as a dict.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let snapshot = self.get()?;
        plain(py, &py.detach(|| snapshot.stats()).or_raise()?)
    }

    /// The files of this generation, as a dict: a reader needs no manifest with it.
    fn listing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let snapshot = self.get()?;
        let listing = py.detach(|| snapshot.listing()).or_raise()?;
        py.import("json")?.call_method1("loads", (listing,))
    }

    /// What a scan with a curvature would use, as a dict: damping, effective dims, and the rows that were fitted.
    #[pyo3(signature = (curvature = None))]
    fn curvature<'py>(
        &self,
        py: Python<'py>,
        curvature: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (snapshot, curvature) = (self.get()?, self::curvature(curvature)?.unwrap_or_default());
        let state = interruptible(py, None, |_, _| snapshot.curvature(&curvature))?;
        plain(py, &state)
    }

    /// Ranks the rows for a batch of queries, in one pass: a sketch, a list of them, or an array of shape [dims] or
    /// [queries, dims].
    ///
    /// Options:
    /// `top_k`, `bottom_k`: how many proponents and opponents.
    /// `metadata`: whether hits have their rows' metadata.
    /// `blocks`: names, or prefixes of names, of the blocks that count. `weights`: a dict of their weights.
    /// `metric`: "inner_product", "cosine", "unit_rows" or "relative".
    /// `curvature`: `True`, the name of a fit, or a `Curvature`.
    /// `grouping`: "rows", or "max" or "sum" over the rows of an example.
    /// `guarantee`: "exact", or the probability with which the ranking may lack a row.
    /// `ids`, `exclude_ids`, `sources`: only, or not, these. `spans`: "all", "whole", "tokens", or the pair of tokens
    /// that they overlap.
    /// `path`: "auto", "full", "bytes", "i8_tier" or "sign_tier". `kernel`: its name. `threads`: 0 for all.
    /// `reading`: "auto", "mapped", "buffered" or "direct". `keep_cache`: whether what is read may stay in the page cache.
    /// `progress`: `True` for a bar of tqdm, or a callable(done, total).
    #[pyo3(signature = (queries, **options))]
    fn scan(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyRanking> {
        let (snapshot, options) = (self.get()?, ScanOptions::of(options)?);
        let queries = self::queries(queries, snapshot.schema().spec())?;
        let ranking = interruptible(py, options.progress(py), |token, meter| {
            let scan = options.set(snapshot.scan(&queries)?).cancel(token);
            scan.progress(|at| meter.set(at.rows_done, at.rows_total)).run()
        })?;
        Ok(PyRanking(ranking))
    }

    /// Every score, in row order, as an iterator of `ScoredRows`, in bounded memory. Options as in `scan`, but for the
    /// numbers of hits and progress.
    #[pyo3(signature = (queries, **options))]
    fn scores(&self, queries: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<PyScores> {
        let (snapshot, options) = (self.get()?, ScanOptions::of(options)?);
        if options.progress(queries.py()).is_some() {
            let message = "scores has no progress: the iterator shows it";
            return Err(pyo3::exceptions::PyTypeError::new_err(message));
        }
        let queries = self::queries(queries, snapshot.schema().spec())?;
        let stream = Stream::start(move |token, pass| {
            let mut failed = None;
            options.set(snapshot.scan(&queries)?).cancel(token).scores(|rows| {
                match Scored::of(rows, queries.len()) {
                    Ok(piece) => pass(piece),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            failed.map_or(Ok(()), Err)
        })?;
        Ok(PyScores(stream))
    }

    /// The path that `scan` would take with these options, and what the others would cost, as text.
    #[pyo3(signature = (queries, **options))]
    fn explain(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let (snapshot, options) = (self.get()?, ScanOptions::of(options)?);
        let queries = self::queries(queries, snapshot.schema().spec())?;
        let explanation = interruptible(py, None, |_, _| options.set(snapshot.scan(&queries)?).explain())?;
        Ok(explanation.to_string())
    }

    /// Closes the snapshot: its generation may be collected.
    fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _raised: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        match self.get() {
            Ok(snapshot) => format!("<Snapshot {}: {} rows>", snapshot.generation(), snapshot.rows()),
            Err(_) => "<Snapshot, closed>".into(),
        }
    }
}

/// One row of an index.
///
/// `id` is str, or bytes if it is not UTF-8; `span` a pair of tokens, or `None` for the whole example; `norms` the L2 norm
/// of each block; `sketch` and `self_influence` are there if they were asked for.
#[pyclass(frozen, module = "gradix", name = "StoredRow")]
pub struct PyStoredRow(StoredRowParts);

struct StoredRowParts {
    id: Vec<u8>,
    span: Option<(u32, u32)>,
    source: Option<String>,
    metadata: Vec<u8>,
    norms: Vec<f32>,
    sketch: Option<PySketch>,
    self_influence: Option<f64>,
}

impl PyStoredRow {
    fn of_example(id: &[u8], row: ExampleRow) -> Self {
        let ExampleRow { span, source, metadata, sketch, norms, .. } = row;
        let (id, span, sketch) = (id.to_owned(), span_out(span), Some(PySketch(sketch)));
        Self(StoredRowParts { id, span, source, metadata, norms, sketch, self_influence: None })
    }

    fn of(row: StoredRow) -> Self {
        let StoredRow { id, span, source, metadata, norms, sketch, self_influence, .. } = row;
        let (span, sketch) = (span_out(span), sketch.map(PySketch));
        Self(StoredRowParts { id, span, source, metadata, norms, sketch, self_influence })
    }
}

#[pymethods]
impl PyStoredRow {
    /// The example's id.
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        id(py, &self.0.id)
    }

    /// The part of the example that the row stands for.
    #[getter]
    fn span(&self) -> Option<(u32, u32)> {
        self.0.span
    }

    /// The source label.
    #[getter]
    fn source(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// The metadata; empty if there is none.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.metadata)
    }

    /// The L2 norm of each block's stored values.
    #[getter]
    fn norms<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, &self.0.norms)
    }

    /// The sketch, decoded: unless the encoding is f32, its values are rounded.
    #[getter]
    fn sketch(&self) -> Option<PySketch> {
        self.0.sketch.clone()
    }

    /// The self-influence, over all blocks.
    #[getter]
    fn self_influence(&self) -> Option<f64> {
        self.0.self_influence
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let id = self.id(py).repr()?.to_string();
        let span = self.span().into_pyobject(py)?.into_any().repr()?.to_string();
        let source = self.source().into_pyobject(py)?.into_any().repr()?.to_string();
        Ok(format!("StoredRow(id={id}, span={span}, source={source})"))
    }
}

/// The bytes of rows that are passed on together.
const PIECE_BYTES: usize = 1 << 20;

fn read_rows(
    snapshot: &Snapshot,
    sketches: bool,
    curvature: Option<gradix::Curvature>,
    token: &gradix::CancelToken,
    pass: &mut (dyn FnMut(Vec<StoredRow>) -> ControlFlow<()> + Send),
) -> Result<(), gradix::Error> {
    let mut rows = snapshot.iter();
    if sketches {
        rows = rows.with_sketches();
    }
    if let Some(curvature) = curvature {
        rows = rows.with_self_influence(&curvature)?;
    }
    let dims = if sketches { snapshot.schema().spec().dims() } else { 0 };
    let most = (PIECE_BYTES / (4 * dims + 256)).max(1);
    let mut piece = Vec::with_capacity(most);
    for row in rows {
        if token.is_cancelled() {
            return Ok(());
        }
        piece.push(row?);
        if piece.len() == most && pass(std::mem::take(&mut piece)).is_break() {
            return Ok(());
        }
    }
    if !piece.is_empty() {
        let _ = pass(piece);
    }
    Ok(())
}

/// Iterator over rows. Made by `Snapshot.rows`.
#[pyclass(frozen, module = "gradix", name = "Rows")]
pub struct PyRows {
    stream: Stream<Vec<StoredRow>>,
    piece: Mutex<std::vec::IntoIter<StoredRow>>,
}

#[pymethods]
impl PyRows {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyStoredRow>> {
        loop {
            let row = self.piece.lock().unwrap_or_else(PoisonError::into_inner).next();
            if let Some(row) = row {
                return Ok(Some(PyStoredRow::of(row)));
            }
            // Two threads may both wait here: each gets a piece, of which the rest is kept in the order that they come.
            let Some(piece) = self.stream.next(py)? else { return Ok(None) };
            let mut kept = self.piece.lock().unwrap_or_else(PoisonError::into_inner);
            let rest: Vec<StoredRow> = kept.by_ref().chain(piece).collect();
            *kept = rest.into_iter();
        }
    }
}

/// Iterator over ids. Made by `Snapshot.ids`.
#[pyclass(frozen, module = "gradix", name = "Ids")]
pub struct PyIds(Mutex<Ids>);

#[pymethods]
impl PyIds {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).next());
        next.transpose().or_raise().map(|found| found.map(|found| id(py, &found)))
    }
}

/// Adjacent rows, or examples if rows are grouped, with their scores.
#[pyclass(frozen, module = "gradix", name = "ScoredRows")]
pub struct PyScoredRows(Scored);

struct Scored {
    ids: Vec<Vec<u8>>,
    spans: Vec<Option<(u32, u32)>>,
    sources: Vec<Option<String>>,
    /// Those of the first query, then those of the next.
    scores: Vec<f64>,
    queries: usize,
}

impl Scored {
    fn of(rows: &gradix::scan::ScoredRows<'_>, queries: usize) -> Result<Self, gradix::ScanError> {
        let mut piece = Self {
            ids: Vec::with_capacity(rows.len()),
            spans: Vec::with_capacity(rows.len()),
            sources: Vec::with_capacity(rows.len()),
            scores: Vec::with_capacity(rows.len() * queries),
            queries,
        };
        for row in 0..rows.len() {
            piece.ids.push(rows.id(row)?.to_owned());
            piece.spans.push(span_out(rows.span(row)?));
            piece.sources.push(rows.source(row)?.map(str::to_owned));
        }
        for query in 0..queries {
            piece.scores.extend_from_slice(rows.scores(query));
        }
        Ok(piece)
    }
}

#[pymethods]
impl PyScoredRows {
    /// The id of each row.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.0.ids.iter().map(|found| id(py, found)).collect()
    }

    /// The span of each row; `None` for a whole example.
    #[getter]
    fn spans(&self) -> Vec<Option<(u32, u32)>> {
        self.0.spans.clone()
    }

    /// The source label of each row.
    #[getter]
    fn sources(&self) -> Vec<Option<&str>> {
        self.0.sources.iter().map(Option::as_deref).collect()
    }

    /// The scores: an array of float64 of shape [queries, rows].
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        PyArray1::from_slice(py, &self.0.scores).reshape([self.0.queries, self.0.ids.len()])
    }

    fn __len__(&self) -> usize {
        self.0.ids.len()
    }
}

/// Iterator over all scores. Made by `Snapshot.scores`.
#[pyclass(frozen, module = "gradix", name = "Scores")]
pub struct PyScores(Stream<Scored>);

#[pymethods]
impl PyScores {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyScoredRows>> {
        Ok(self.0.next(py)?.map(PyScoredRows))
    }
}
