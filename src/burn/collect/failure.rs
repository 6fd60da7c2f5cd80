//! Examples without rows, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The maximum length of a failure's detail, in bytes; a longer one ends with `…`.
const MAX_DETAIL: usize = 240;

/// Why an example has no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Nothing to predict: no spans, or none of their tokens counts.
    Empty,
    /// More tokens than [`Collector::max_tokens`](super::Collector::max_tokens).
    TooLong,
    /// The loss is NaN or infinite.
    NotFinite,
    /// The sketcher refused the gradient, for example because it is not finite.
    Sketch,
    /// The sink refused the rows: an id that exists, a value that cannot be encoded, too much metadata.
    Refused,
    /// The device had no memory for the example alone.
    OutOfMemory,
    /// The replica panicked on the example alone.
    Panic,
    /// The replica, or the device, returned another error for the example alone.
    Error,
}

impl Reason {
    /// The reason's name in a commit's payload.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::NotFinite => "not_finite",
            Self::Sketch => "sketch",
            Self::Refused => "refused",
            Self::OutOfMemory => "out_of_memory",
            Self::Panic => "panic",
            Self::Error => "error",
        }
    }

    /// Whether the device may be at fault rather than the example.
    pub(super) fn may_be_the_device(self) -> bool {
        matches!(self, Self::OutOfMemory | Self::Panic | Self::Error)
    }
}

/// What is wrong with a piece of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: Reason,
    pub detail: String,
}

impl Fault {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL {
            let end = (0..=MAX_DETAIL).rev().find(|&end| detail.is_char_boundary(end)).unwrap_or(0);
            detail.truncate(end);
            detail.push('…');
        }
        Self { reason, detail }
    }
}

/// An example that has no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Its place in the input, from 0.
    pub position: u64,
    /// Its id.
    pub id: Vec<u8>,
    /// Why.
    pub reason: Reason,
    /// The same in words, with the span if it is not the whole; at most 243 bytes.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = String::from_utf8_lossy(&self.id);
        write!(f, "example {id:?} at position {}: {}: {}", self.position, self.reason.name(), self.detail)
    }
}
