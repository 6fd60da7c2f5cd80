//! What the engine returns as an error, raised as the exception of its kind (`gradix/errors.py`).

use std::error::Error as _;
use std::io;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Results of the engine in a function that Python calls.
pub trait OrRaise<T> {
    /// The value, or the exception of the error's kind.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Into<gradix::Error>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| raise(&error.into()))
    }
}

/// An exception of a kind that has no error of the engine behind it.
pub fn exception(kind: gradix::ErrorKind, message: &str) -> PyErr {
    of_kind(kind, message, None)
}

/// `InvalidStateError`: what was closed, or is at work, cannot be used.
pub fn invalid_state(message: &str) -> PyErr {
    exception(gradix::ErrorKind::InvalidState, message)
}

/// `InvalidInputError`: an argument is not one of those that are possible.
pub fn invalid_input(message: &str) -> PyErr {
    exception(gradix::ErrorKind::InvalidInput, message)
}

fn raise(error: &gradix::Error) -> PyErr {
    let mut message = error.to_string();
    let mut errno = None;
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // An error that shows its cause itself, or stands for it.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        errno = errno.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        next = cause.source();
    }
    of_kind(error.kind(), &message, errno)
}

fn of_kind(kind: gradix::ErrorKind, message: &str, errno: Option<i32>) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Python::attach(|py| {
        let make = MAKE.import(py, "gradix.errors", "_of_kind");
        let kind = serde_json::to_value(kind).unwrap_or_default();
        let made = make.and_then(|make| make.call1((kind.as_str().unwrap_or_default(), message, errno)));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}
