//! Small values: ids, spans, and what is reported as plain data.

use gradix::Span;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use serde::Serialize;

/// An id, from text or bytes.
#[derive(Clone)]
pub struct Id(pub Vec<u8>);

impl<'a, 'py> FromPyObject<'a, 'py> for Id {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Self(text.to_str()?.as_bytes().to_vec()));
        }
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self(bytes.as_bytes().to_vec()));
        }
        let found = value.get_type().fully_qualified_name()?;
        Err(PyTypeError::new_err(format!("an id is str or bytes, and not {found}")))
    }
}

impl AsRef<[u8]> for Id {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An id as Python sees it: text if it is UTF-8, bytes otherwise.
pub fn id<'py>(py: Python<'py>, id: &[u8]) -> Bound<'py, PyAny> {
    match std::str::from_utf8(id) {
        Ok(text) => PyString::new(py, text).into_any(),
        Err(_) => PyBytes::new(py, id).into_any(),
    }
}

/// Bytes, from bytes or text.
pub type Bytes = Id;

/// A span, from `None` for the whole example or a pair of tokens.
pub fn span(given: Option<(u32, u32)>) -> Span {
    given.map_or(Span::WHOLE, |(start, end)| Span::tokens(start, end))
}

/// A span as Python sees it.
pub fn span_out(span: Span) -> Option<(u32, u32)> {
    (!span.is_whole()).then_some((span.start, span.end))
}

/// What the engine reports, as dicts, lists, numbers and text: that of the program's JSON.
pub fn plain<'py>(py: Python<'py>, report: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let json = serde_json::to_string(report)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}
