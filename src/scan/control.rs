//! How a scan is watched and stopped from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Rows behind it, those that filters left out included.
    pub rows_done: u64,
    /// Rows of the snapshot's segments, deleted ones included.
    pub rows_total: u64,
}
