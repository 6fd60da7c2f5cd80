//! Progress and cancellation of a scan, by the caller and by its own threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::error::ScanError;
use crate::lock::lock;

/// Cancels the scans that it was given to with [`Scan::cancel`](super::Scan::cancel), from any thread. A
/// clone cancels the same scans.
///
/// ```
/// let token = gradix::scan::CancelToken::new();
/// token.clone().cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A new token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the scans return [`ScanError::Cancelled`] within some milliseconds. Cannot be undone.
    pub fn cancel(&self) {
        // Relaxed: the flag synchronises no other data.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`CancelToken::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), ScanError> {
        if self.is_cancelled() { Err(ScanError::Cancelled) } else { Ok(()) }
    }
}

/// The progress of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// Rows done, including those that filters excluded.
    pub rows_done: u64,
    /// Rows of the snapshot's segments, including dead ones.
    pub rows_total: u64,
}

pub(super) type Callback<'a> = Box<dyn FnMut(Progress) + Send + 'a>;

/// State that the threads of one scan share to report progress and to stop.
pub(super) struct Control<'a> {
    cancel: CancelToken,
    /// The callback, and the number of rows reported to it.
    progress: Option<Mutex<(Callback<'a>, u64)>>,
    pub rows_total: u64,
    stop: AtomicBool,
    /// Of the failures so far, the first in the order of pieces.
    failure: Mutex<Option<(usize, ScanError)>>,
}

impl<'a> Control<'a> {
    pub fn new(cancel: CancelToken, progress: Option<Callback<'a>>, rows_total: u64) -> Self {
        let progress = progress.map(|callback| Mutex::new((callback, 0)));
        Self { cancel, progress, rows_total, stop: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// Returns an error if the scan must stop. Called before each call of a kernel.
    pub fn check(&self) -> Result<(), ScanError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ScanError::Cancelled);
        }
        self.cancel.check()
    }

    /// Reports a finished piece of `rows` rows.
    pub fn advance(&self, rows: u64) {
        if let Some(progress) = &self.progress {
            let (callback, rows_done) = &mut *lock(progress);
            *rows_done += rows;
            callback(Progress { rows_done: *rows_done, rows_total: self.rows_total });
        }
    }

    /// Records the failure of a piece, and stops the other workers.
    pub fn fail(&self, ordinal: usize, error: ScanError) {
        let mut failure = lock(&self.failure);
        // Workers that stop because another one failed return `Cancelled`, which must not hide the cause.
        let replaces = match &*failure {
            None | Some((_, ScanError::Cancelled)) => true,
            Some((first, _)) => ordinal < *first && !matches!(error, ScanError::Cancelled),
        };
        if replaces {
            *failure = Some((ordinal, error));
        }
        self.stop();
    }

    /// Stops the workers without a failure.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The recorded failure, if there is one.
    pub fn outcome(&self) -> Result<(), ScanError> {
        lock(&self.failure).take().map_or(Ok(()), |(_, error)| Err(error))
    }
}
