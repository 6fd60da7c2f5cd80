//! How a scan is watched and stopped: from outside, and by its own threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::error::ScanError;
use crate::lock::lock;

/// Stops the scans that it was given to, from any thread. Clones stop the same scans.
///
/// ```
/// let token = gradix::scan::CancelToken::new();
/// token.clone().cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the scans end with `ScanError::Cancelled`, within some milliseconds. Cannot be undone.
    pub fn cancel(&self) {
        // Relaxed: nothing else is told through the flag.
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

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// Rows behind it, those that filters dropped included.
    pub rows_done: u64,
    /// Rows of the snapshot's segments, deleted ones included.
    pub rows_total: u64,
}

pub(super) type Callback<'a> = Box<dyn FnMut(Progress) + Send + 'a>;

/// What the threads of one scan share to tell the caller of progress, and each other to stop.
pub(super) struct Control<'a> {
    cancel: CancelToken,
    /// The callback, and how many rows it has been told of.
    progress: Option<Mutex<(Callback<'a>, u64)>>,
    pub rows_total: u64,
    stop: AtomicBool,
    /// The first failure in the order of pieces among those that were met.
    failure: Mutex<Option<(usize, ScanError)>>,
}

impl<'a> Control<'a> {
    pub fn new(cancel: CancelToken, progress: Option<Callback<'a>>, rows_total: u64) -> Self {
        let progress = progress.map(|callback| Mutex::new((callback, 0)));
        Self { cancel, progress, rows_total, stop: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// Whether to go on; asked before each call of a kernel.
    pub fn check(&self) -> Result<(), ScanError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ScanError::Cancelled);
        }
        self.cancel.check()
    }

    /// A piece with this many rows is done.
    pub fn advance(&self, rows: u64) {
        if let Some(progress) = &self.progress {
            let (callback, rows_done) = &mut *lock(progress);
            *rows_done += rows;
            callback(Progress { rows_done: *rows_done, rows_total: self.rows_total });
        }
    }

    /// The piece with this ordinal failed: the others need not go on.
    pub fn fail(&self, ordinal: usize, error: ScanError) {
        let mut failure = lock(&self.failure);
        // Workers that stop because another one failed say `Cancelled`; that must not hide the cause.
        let replaces = match &*failure {
            None | Some((_, ScanError::Cancelled)) => true,
            Some((first, _)) => ordinal < *first && !matches!(error, ScanError::Cancelled),
        };
        if replaces {
            *failure = Some((ordinal, error));
        }
        self.stop();
    }

    /// The others need not go on, although nothing failed.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What went wrong, if anything did.
    pub fn outcome(&self) -> Result<(), ScanError> {
        lock(&self.failure).take().map_or(Ok(()), |(_, error)| Err(error))
    }
}
