//! What operators share: cancellation, and the scores of a scan whose sink may fail.

use std::ops::ControlFlow;

use super::error::OperatorError;
use crate::scan::{CancelToken, Scan, ScanError, ScoredRows};

/// Returns an error if the token is cancelled.
pub(super) fn check(cancel: &CancelToken) -> Result<(), OperatorError> {
    if cancel.is_cancelled() { Err(OperatorError::Cancelled) } else { Ok(()) }
}

/// Passes every score to `sink`, as [`Scan::scores`] does; the first error of `sink` ends the scan.
pub(super) fn every_score(
    scan: Scan<'_>,
    mut sink: impl FnMut(&ScoredRows<'_>) -> Result<(), OperatorError> + Send,
) -> Result<(), OperatorError> {
    let mut failure = None;
    let scanned = scan.scores(|rows| match sink(rows) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    });
    match (failure, scanned) {
        (Some(error), _) => Err(error),
        (None, Err(ScanError::Cancelled)) => Err(OperatorError::Cancelled),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Ok(()),
    }
}
