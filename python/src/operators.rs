//! `gradix.operators`: what researchers ask besides rankings.

use gradix::operators::{BySource, Coreset, Duplicates, Objective, Selection};
use gradix::sketch::Sketch;
use gradix::{Error, SpanFilter};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{OrRaise as _, invalid_input};
use crate::scan::{ScanOptions, curvature, queries};
use crate::sketch::PySketch;
use crate::snapshot::PySnapshot;
use crate::stream::Stream;
use crate::values::{Id, id, plain, span_out};
use crate::work::interruptible;

/// Scores by source, with shares and bootstrap intervals: for each query, or once for their mean, a list of dicts.
#[pyfunction]
#[pyo3(signature = (snapshot, queries, *, replicates = None, confidence = None, seed = None, mean_over_queries = false, memory = None, **options))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub fn by_source<'py>(
    py: Python<'py>,
    snapshot: &PySnapshot,
    queries: &Bound<'py, PyAny>,
    replicates: Option<usize>,
    confidence: Option<f64>,
    seed: Option<u64>,
    mean_over_queries: bool,
    memory: Option<u64>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut operator = BySource::new().mean_over_queries(mean_over_queries);
    if let Some(replicates) = replicates {
        operator = operator.replicates(replicates);
    }
    if let Some(confidence) = confidence {
        operator = operator.confidence(confidence);
    }
    if let Some(seed) = seed {
        operator = operator.seed(seed);
    }
    if let Some(bytes) = memory {
        operator = operator.memory(bytes);
    }
    let (snapshot, options) = (snapshot.get()?, ScanOptions::of(options)?);
    let queries = self::queries(queries, snapshot.schema().spec())?;
    let sources = interruptible(py, options.progress(py), |token, meter| {
        let scan = options.set(snapshot.scan(&queries)?).cancel(token);
        operator.run(scan.progress(|at| meter.set(at.rows_done, at.rows_total))).map_err(Error::from)
    })?;
    plain(py, &sources)
}

/// The examples that serve tasks best, as in LESS and In2Core: `count` of them, or a `fraction`. `tasks` are ranges of
/// queries as pairs; the score of an example is the greatest of its means over a task. Without them all queries are one
/// task. Returns dicts with id, score and task.
#[pyfunction]
#[pyo3(signature = (snapshot, queries, *, count = None, fraction = None, tasks = None, **options))]
pub fn select<'py>(
    py: Python<'py>,
    snapshot: &PySnapshot,
    queries: &Bound<'py, PyAny>,
    count: Option<usize>,
    fraction: Option<f64>,
    tasks: Option<Vec<(usize, usize)>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let mut operator = match (count, fraction) {
        (Some(count), None) => Selection::count(count),
        (None, Some(fraction)) => Selection::fraction(fraction),
        _ => return Err(invalid_input("a count or a fraction, and not both")),
    };
    let (snapshot, options) = (snapshot.get()?, ScanOptions::of(options)?);
    let queries = self::queries(queries, snapshot.schema().spec())?;
    for (start, end) in tasks.unwrap_or_else(|| vec![(0, queries.len())]) {
        operator = operator.task(start..end);
    }
    let selected = interruptible(py, options.progress(py), |token, meter| {
        let scan = options.set(snapshot.scan(&queries)?).cancel(token);
        operator.run(scan.progress(|at| meter.set(at.rows_done, at.rows_total))).map_err(Error::from)
    })?;
    let dict = |example: &gradix::operators::Selected| {
        let dict = PyDict::new(py);
        dict.set_item("id", id(py, &example.id))?;
        dict.set_item("score", example.score)?;
        dict.set_item("task", example.task)?;
        Ok(dict)
    };
    selected.iter().map(dict).collect()
}

/// A small set of at most `count` examples that keeps the influence of all on the queries, chosen greedily. By saturated
/// coverage, in which a query counts up to a `share` of its positive influence, or by facility location. Returns a dict
/// with the examples in the order in which they were chosen.
#[pyfunction]
#[pyo3(signature = (snapshot, queries, count, *, share = None, facility_location = false, candidates = None, **options))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub fn coreset<'py>(
    py: Python<'py>,
    snapshot: &PySnapshot,
    queries: &Bound<'py, PyAny>,
    count: usize,
    share: Option<f64>,
    facility_location: bool,
    candidates: Option<usize>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let mut operator = Coreset::new(count);
    match (share, facility_location) {
        (None, false) => {}
        (Some(share), false) => operator = operator.objective(Objective::Coverage { share }),
        (None, true) => operator = operator.objective(Objective::FacilityLocation),
        (Some(_), true) => return Err(invalid_input("a share is of coverage, and not of facility location")),
    }
    if let Some(candidates) = candidates {
        operator = operator.candidates(candidates);
    }
    let (snapshot, options) = (snapshot.get()?, ScanOptions::of(options)?);
    let queries = self::queries(queries, snapshot.schema().spec())?;
    let chosen = interruptible(py, options.progress(py), |token, meter| {
        let scan = || {
            let scan = options.set(snapshot.scan(&queries)?).cancel(token);
            Ok(scan.progress(|at| meter.set(at.rows_done, at.rows_total)))
        };
        operator.choose(scan).map_err(Error::from)
    })?;
    let example = |example: &gradix::operators::ChosenExample| {
        let dict = PyDict::new(py);
        dict.set_item("id", id(py, &example.id))?;
        dict.set_item("gain", example.gain)?;
        Ok(dict)
    };
    let examples = chosen.examples.iter().map(example).collect::<PyResult<Vec<_>>>()?;
    let dict = PyDict::new(py);
    dict.set_item("examples", examples)?;
    dict.set_item("value", chosen.value)?;
    dict.set_item("kept", chosen.kept)?;
    dict.set_item("passes", chosen.passes)?;
    Ok(dict)
}

fn duplicates_of<'a>(
    least_cosine: f64,
    batch: Option<usize>,
    sources: Option<Vec<String>>,
    spans: SpanFilter,
    options: &'a ScanOptions,
) -> Duplicates<'a> {
    let mut operator = Duplicates::new(least_cosine).configure(|scan| options.set_how(scan)).spans(spans);
    if let Some(rows) = batch {
        operator = operator.batch(rows);
    }
    if let Some(sources) = sources {
        operator = operator.sources(sources);
    }
    operator
}

/// Pairs of a first id, a second id and a cosine. Made by `duplicates`.
#[pyclass(frozen, module = "gradix", name = "Pairs")]
pub struct PyPairs(Stream<(Vec<u8>, Vec<u8>, f64)>);

#[pymethods]
impl PyPairs {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>, f64)>> {
        let pair = self.0.next(py)?;
        Ok(pair.map(|(first, second, cosine)| (id(py, &first), id(py, &second), cosine)))
    }
}

/// Pairs of examples with nearly the same gradient, as an iterator of (first id, second id, cosine). Options are those of
/// a scan that do not filter or rank.
#[pyfunction]
#[pyo3(signature = (snapshot, least_cosine, *, batch = None, sources = None, spans = None, **options))]
pub fn duplicates(
    snapshot: &PySnapshot,
    least_cosine: f64,
    batch: Option<usize>,
    sources: Option<Vec<String>>,
    spans: Option<Bound<'_, PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<PyPairs> {
    let (snapshot, options) = (snapshot.get()?, ScanOptions::of(options)?);
    options.only_how()?;
    let spans = spans.as_ref().map(crate::scan::spans).transpose()?.unwrap_or_default();
    let stream = Stream::start(move |token, pass| {
        let operator = duplicates_of(least_cosine, batch, sources, spans, &options).cancel(token);
        let pairs =
            operator.run(&snapshot, |pair| pass((pair.first.clone(), pair.second.clone(), pair.cosine)));
        pairs.map(drop).map_err(Error::from)
    })?;
    Ok(PyPairs(stream))
}

/// The clusters of examples that pairs of nearly the same gradient connect: lists of ids.
#[pyfunction]
#[pyo3(signature = (snapshot, least_cosine, *, batch = None, sources = None, spans = None, progress = None, **options))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub fn duplicate_clusters<'py>(
    py: Python<'py>,
    snapshot: &PySnapshot,
    least_cosine: f64,
    batch: Option<usize>,
    sources: Option<Vec<String>>,
    spans: Option<Bound<'py, PyAny>>,
    progress: Option<&Bound<'py, PyAny>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Vec<Vec<Bound<'py, PyAny>>>> {
    let (snapshot, options) = (snapshot.get()?, ScanOptions::of(options)?);
    options.only_how()?;
    let spans = spans.as_ref().map(crate::scan::spans).transpose()?.unwrap_or_default();
    let clusters = interruptible(py, progress, |token, meter| {
        let operator = duplicates_of(least_cosine, batch, sources, spans, &options).cancel(token);
        operator
            .progress(|at| meter.set(at.rows_done, at.rows_total))
            .clusters(&snapshot)
            .map_err(Error::from)
    })?;
    let ids = |cluster: &Vec<Vec<u8>>| cluster.iter().map(|found| id(py, found)).collect();
    Ok(clusters.iter().map(ids).collect())
}

/// The rows with the highest self-influence, which `Writer.fit_self_influence` has computed with this curvature: dicts
/// with id, span, source and value.
#[pyfunction]
#[pyo3(signature = (snapshot, count, curvature = None))]
pub fn highest_self_influence<'py>(
    py: Python<'py>,
    snapshot: &PySnapshot,
    count: usize,
    curvature: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let (snapshot, curvature) = (snapshot.get()?, self::curvature(curvature)?.unwrap_or_default());
    let highest = interruptible(py, None, |token, _| {
        gradix::operators::highest_self_influence(&snapshot, &curvature, count, token).map_err(Error::from)
    })?;
    let dict = |row: &gradix::operators::RowSelfInfluence| {
        let dict = PyDict::new(py);
        dict.set_item("id", id(py, &row.id))?;
        dict.set_item("span", span_out(row.span))?;
        dict.set_item("source", row.source.as_deref())?;
        dict.set_item("value", row.value)?;
        Ok(dict)
    };
    highest.iter().map(dict).collect()
}

/// The mean of the stored sketches of examples, as a query.
#[pyfunction]
pub fn mean_of(py: Python<'_>, snapshot: &PySnapshot, ids: Vec<Id>) -> PyResult<PySketch> {
    let snapshot = snapshot.get()?;
    let mean = interruptible(py, None, |token, _| {
        gradix::operators::mean_of(&snapshot, ids, token).map_err(Error::from)
    })?;
    Ok(PySketch(mean))
}

/// The sum of the stored sketches of examples, as a query.
#[pyfunction]
pub fn sum_of(py: Python<'_>, snapshot: &PySnapshot, ids: Vec<Id>) -> PyResult<PySketch> {
    let snapshot = snapshot.get()?;
    let sum = interruptible(py, None, |token, _| {
        gradix::operators::sum_of(&snapshot, ids, token).map_err(Error::from)
    })?;
    Ok(PySketch(sum))
}

/// The sum of sketches of tokens, weighted: one query for the informative ones.
#[pyfunction]
pub fn informative(sketches: Vec<Bound<'_, PySketch>>, weights: Vec<f64>) -> PyResult<PySketch> {
    let sketches: Vec<Sketch> = sketches.iter().map(|sketch| sketch.get().0.clone()).collect();
    Ok(PySketch(gradix::operators::informative(&sketches, &weights).or_raise()?))
}
