//! Work without Python's lock, which Ctrl-C ends and whose progress is shown.

use std::io;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use gradix::{CancelToken, Error, ScanError};
use pyo3::prelude::*;

use crate::errors::OrRaise as _;

/// How often signals are looked for and progress is shown.
pub const TICK: Duration = Duration::from_millis(50);

/// The process that loaded this module.
static LOADED_BY: OnceLock<u32> = OnceLock::new();

/// Remembers the process, when the module is loaded.
pub fn remember_process() {
    LOADED_BY.get_or_init(process::id);
}

/// Calls `work` where rayon has threads. Those of its global pool are not there any more in a process that was forked,
/// which would wait for them for ever.
pub fn with_threads<T: Send, E: Into<Error> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, Error> {
    if LOADED_BY.get() == Some(&process::id()) {
        return work().map_err(Into::into);
    }
    let pool = rayon::ThreadPoolBuilder::new().build();
    let pool = pool.map_err(|source| ScanError::Threads { threads: 0, source: io::Error::other(source) })?;
    pool.install(work).map_err(Into::into)
}

/// How far work has come, set by it and read by the thread that waits for it.
#[derive(Default)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// Sets both numbers.
    pub fn set(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }
}

/// What a caller gave as `progress`.
pub struct Progress {
    report: Option<Py<PyAny>>,
    is_bar: bool,
    shown: Option<(u64, u64)>,
}

impl Progress {
    /// `None` and `False` show nothing, `True` a bar of tqdm; everything else is called with done and total.
    pub fn new(py: Python<'_>, given: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let is_bar = match given.map(PyAnyMethods::extract::<bool>) {
            None | Some(Ok(false)) => return Ok(Self { report: None, is_bar: false, shown: None }),
            Some(Ok(true)) => true,
            Some(Err(_)) => false,
        };
        let report = match given.filter(|_| !is_bar) {
            Some(given) if given.is_callable() => given.clone().unbind(),
            Some(_) => {
                let message = "progress is True, False, or called with the numbers done and in total";
                return Err(pyo3::exceptions::PyTypeError::new_err(message));
            }
            None => py.import("gradix._progress")?.call_method0("Bar")?.unbind(),
        };
        Ok(Self { report: Some(report), is_bar, shown: None })
    }

    fn show(&mut self, py: Python<'_>, meter: &Meter) -> PyResult<()> {
        let now = (meter.done.load(Ordering::Relaxed), meter.total.load(Ordering::Relaxed));
        if let Some(report) = &self.report
            && now.1 > 0
            && self.shown != Some(now)
        {
            self.shown = Some(now);
            report.call1(py, now)?;
        }
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match &self.report {
            Some(bar) if self.is_bar => bar.call_method0(py, "close").map(drop),
            _ => Ok(()),
        }
    }
}

/// Runs `work` on a thread of its own, without Python's lock, and waits for it: shows progress, and cancels the work
/// when a signal's handler raises (Ctrl-C) or the progress callback does. That exception is what is raised then.
///
/// Signals reach Python's main thread only; work that another thread waits for goes on.
pub fn interruptible<T: Send, E: Into<Error> + Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&CancelToken, &Meter) -> Result<T, E> + Send,
) -> PyResult<T> {
    let mut progress = Progress::new(py, progress)?;
    let (token, meter) = (CancelToken::new(), Meter::default());
    let (result, raised) = py.detach(|| {
        thread::scope(|scope| {
            // Closed when the work ends, however it does.
            let (done, is_done) = channel::<()>();
            let (token, meter) = (&token, &meter);
            let worker = scope.spawn(move || {
                let result = with_threads(|| work(token, meter));
                drop(done);
                result
            });
            let mut raised = None;
            while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if raised.is_none() {
                    let looked = Python::attach(|py| {
                        py.check_signals()?;
                        progress.show(py, meter)
                    });
                    raised = looked.err();
                    if raised.is_some() {
                        token.cancel();
                    }
                }
            }
            (worker.join(), raised)
        })
    });
    let last = if raised.is_none() { progress.show(py, &meter) } else { Ok(()) };
    let closed = progress.close(py);
    if let Some(raised) = raised {
        return Err(raised);
    }
    let result = match result {
        Ok(result) => result.or_raise()?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    last.and(closed)?;
    Ok(result)
}
