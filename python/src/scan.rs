//! What a scan is asked for, from keyword arguments.

use gradix::scan::{Guarantee, KernelChoice, Reading, ScanPath};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Curvature, Grouping, Metric, Scan, Span, SpanFilter};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::sync::Arc;

use crate::arrays::Array;
use crate::errors::{OrRaise as _, invalid_input};
use crate::rows::is_sketches;
use crate::sketch::PySketch;
use crate::values::Id;

/// A curvature that was fitted, and how a scan uses it.
///
/// `name` is that of the fit; `kappa` the damping; `rank` the number of eigenvalues of a block that are used; and
/// `allow_missing` the fraction of rows that the fit may lack.
#[pyclass(frozen, module = "gradix", name = "Curvature")]
pub struct PyCurvature(pub Curvature);

#[pymethods]
impl PyCurvature {
    /// What is not given is as the engine has it.
    #[new]
    #[pyo3(signature = (name = None, *, kappa = None, rank = None, allow_missing = None))]
    fn new(name: Option<String>, kappa: Option<f64>, rank: Option<u32>, allow_missing: Option<f64>) -> Self {
        let mut curvature = Curvature::default();
        if let Some(name) = name {
            curvature = curvature.name(name);
        }
        if let Some(kappa) = kappa {
            curvature = curvature.kappa(kappa);
        }
        if let Some(rank) = rank {
            curvature = curvature.rank(rank);
        }
        if let Some(fraction) = allow_missing {
            curvature = curvature.allow_missing(fraction);
        }
        Self(curvature)
    }

    fn __repr__(&self) -> String {
        format!("<{:?}>", self.0)
    }
}

/// A curvature: `True` for the default one, a name, or a `Curvature`; `None` and `False` are none.
pub fn curvature(given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Curvature>> {
    let Some(given) = given.filter(|given| !given.is_none()) else { return Ok(None) };
    if let Ok(curvature) = given.cast::<PyCurvature>() {
        return Ok(Some(curvature.get().0.clone()));
    }
    if let Ok(name) = given.cast::<PyString>() {
        return Ok(Some(Curvature::default().name(name.to_str()?)));
    }
    Ok(given.extract::<bool>()?.then(Curvature::default))
}

/// One value of a list that has names.
fn named<T: Copy>(what: &str, given: &Bound<'_, PyAny>, known: &[(&str, T)]) -> PyResult<T> {
    let name: String = given.extract()?;
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        invalid_input(&format!("{what} is one of {}, and not {name:?}", names.join(", ")))
    })
}

/// A name, or several.
fn names(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match given.cast::<PyString>() {
        Ok(name) => Ok(vec![name.to_str()?.to_owned()]),
        Err(_) => given.try_iter()?.map(|name| name?.extract()).collect(),
    }
}

fn ids(given: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    if let Ok(id) = given.extract::<Id>() {
        return Ok(vec![id.0]);
    }
    given.try_iter()?.map(|id| Ok(id?.extract::<Id>()?.0)).collect()
}

/// A filter by spans: a name, or the pair of tokens that spans overlap.
pub fn spans(given: &Bound<'_, PyAny>) -> PyResult<SpanFilter> {
    if let Ok((start, end)) = given.extract::<(u32, u32)>() {
        return Ok(SpanFilter::Overlapping(Span::tokens(start, end)));
    }
    let known = [("all", SpanFilter::All), ("whole", SpanFilter::Whole), ("tokens", SpanFilter::Tokens)];
    named("spans", given, &known)
}

const METRICS: &[(&str, Metric)] = &[
    ("inner_product", Metric::InnerProduct),
    ("cosine", Metric::Cosine),
    ("unit_rows", Metric::UnitRows),
    ("relative", Metric::Relative),
];
const GROUPINGS: &[(&str, Grouping)] =
    &[("rows", Grouping::Rows), ("max", Grouping::Max), ("sum", Grouping::Sum)];
const PATHS: &[(&str, ScanPath)] = &[
    ("auto", ScanPath::Auto),
    ("full", ScanPath::Full),
    ("bytes", ScanPath::Bytes),
    ("i8_tier", ScanPath::I8Tier),
    ("sign_tier", ScanPath::SignTier),
];
const READINGS: &[(&str, Reading)] = &[
    ("auto", Reading::Auto),
    ("mapped", Reading::Mapped),
    ("buffered", Reading::Buffered),
    ("direct", Reading::Direct),
];

/// The keyword arguments of everything that scans.
#[derive(Default)]
pub struct ScanOptions {
    top_k: usize,
    bottom_k: usize,
    metadata: bool,
    blocks: Option<Vec<String>>,
    weights: Vec<(String, f64)>,
    metric: Metric,
    curvature: Option<Curvature>,
    grouping: Option<Grouping>,
    guarantee: Guarantee,
    path: ScanPath,
    ids: Option<Vec<Vec<u8>>>,
    exclude_ids: Vec<Vec<u8>>,
    sources: Option<Vec<String>>,
    spans: SpanFilter,
    threads: usize,
    kernel: Option<KernelChoice>,
    reading: Reading,
    keep_cache: Option<bool>,
    progress: Option<Py<PyAny>>,
}

impl ScanOptions {
    /// Of the keyword arguments; `None` is as if it were not given.
    pub fn of(given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut options = Self::default();
        for (name, value) in given.into_iter().flatten() {
            if value.is_none() {
                continue;
            }
            match name.extract::<String>()?.as_str() {
                "top_k" => options.top_k = value.extract()?,
                "bottom_k" => options.bottom_k = value.extract()?,
                "metadata" => options.metadata = value.extract()?,
                "blocks" => options.blocks = Some(names(&value)?),
                "weights" => {
                    let weights = value.cast::<PyDict>()?.iter();
                    let weights = weights.map(|(name, weight)| Ok((name.extract()?, weight.extract()?)));
                    options.weights = weights.collect::<PyResult<_>>()?;
                }
                "metric" => options.metric = named("metric", &value, METRICS)?,
                "curvature" => options.curvature = curvature(Some(&value))?,
                "grouping" => options.grouping = Some(named("grouping", &value, GROUPINGS)?),
                "guarantee" => {
                    options.guarantee = match value.extract() {
                        Ok(delta) => Guarantee::Probable { delta },
                        Err(_) => named("guarantee", &value, &[("exact", Guarantee::Exact)])?,
                    };
                }
                "path" => options.path = named("path", &value, PATHS)?,
                "ids" => options.ids = Some(ids(&value)?),
                "exclude_ids" => options.exclude_ids = ids(&value)?,
                "sources" => options.sources = Some(names(&value)?),
                "spans" => options.spans = spans(&value)?,
                "threads" => options.threads = value.extract()?,
                "kernel" => {
                    let kernel = value.extract::<String>()?.parse::<KernelChoice>();
                    options.kernel = Some(kernel.or_raise()?);
                }
                "reading" => options.reading = named("reading", &value, READINGS)?,
                "keep_cache" => options.keep_cache = Some(value.extract()?),
                "progress" => options.progress = Some(value.unbind()),
                other => return Err(PyTypeError::new_err(format!("a scan has no option {other:?}"))),
            }
        }
        Ok(options)
    }

    /// Sets them on a scan.
    pub fn set<'a>(&self, mut scan: Scan<'a>) -> Scan<'a> {
        scan = self.set_how(scan);
        scan = scan.top_k(self.top_k).bottom_k(self.bottom_k).metadata(self.metadata);
        scan = scan.metric(self.metric).guarantee(self.guarantee).spans(self.spans);
        if let Some(curvature) = &self.curvature {
            scan = scan.curvature(curvature.clone());
        }
        if let Some(grouping) = self.grouping {
            scan = scan.grouping(grouping);
        }
        if let Some(ids) = &self.ids {
            scan = scan.ids(ids.iter().cloned());
        }
        if let Some(sources) = &self.sources {
            scan = scan.sources(sources.iter().cloned());
        }
        scan.exclude_ids(self.exclude_ids.iter().cloned())
    }

    /// Sets what does not say which rows are ranked, and how.
    pub fn set_how<'a>(&self, mut scan: Scan<'a>) -> Scan<'a> {
        if let Some(blocks) = &self.blocks {
            scan = scan.blocks(blocks.iter().cloned());
        }
        if let Some(kernel) = self.kernel {
            scan = scan.kernel(kernel);
        }
        if let Some(keep) = self.keep_cache {
            scan = scan.keep_cache(keep);
        }
        scan.weights(self.weights.iter().cloned()).path(self.path).threads(self.threads).reading(self.reading)
    }

    /// Checks that no option says which rows are ranked, and how.
    pub fn only_how(&self) -> PyResult<()> {
        let filters = self.ids.is_some() || self.sources.is_some() || !self.exclude_ids.is_empty();
        let ranks =
            self.top_k > 0 || self.bottom_k > 0 || self.grouping.is_some() || self.curvature.is_some();
        let others =
            self.metadata || self.metric != Metric::default() || self.guarantee != Guarantee::default();
        if filters || ranks || others || self.progress.is_some() {
            let message =
                "blocks, weights, kernel, keep_cache, path, threads and reading are all that can be set here";
            return Err(PyTypeError::new_err(message));
        }
        Ok(())
    }

    /// The callback, or what else was given for it.
    pub fn progress<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        self.progress.as_ref().map(|progress| progress.bind(py))
    }
}

/// Queries: a sketch, a list of them, or an array of shape [dims] or [queries, dims] of the index's spec.
pub fn queries(given: &Bound<'_, PyAny>, spec: &SketchSpec) -> PyResult<Vec<Sketch>> {
    if let Ok(sketch) = given.cast::<PySketch>() {
        return Ok(vec![sketch.get().0.clone()]);
    }
    if is_sketches(given) {
        return given.try_iter()?.map(|sketch| Ok(sketch?.cast::<PySketch>()?.get().0.clone())).collect();
    }
    let spec = Arc::new(spec.clone());
    let array = Array::of(given)?;
    let rows = array.rows(spec.dims())?.into_iter();
    rows.map(|row| Sketch::dense(Arc::clone(&spec), row.to_vec()).or_raise()).collect()
}
