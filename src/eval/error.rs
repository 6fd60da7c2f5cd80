//! What can be wrong with what is judged.

/// Why numbers cannot be judged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A number is NaN, or infinite where it is summed.
    #[error("the number at {at} is {value}")]
    NotFinite {
        /// Its place in its list.
        at: usize,
        /// The number.
        value: f64,
    },
    /// Two lists belong together, but one is longer.
    #[error("{expected} numbers are expected, {found} were given")]
    Length {
        /// The length that the other list, or what was said before, demands.
        expected: usize,
        /// The length of this list.
        found: usize,
    },
    /// There is nothing to judge.
    #[error("no {what} to judge")]
    Empty {
        /// What is missing.
        what: &'static str,
    },
    /// A subset names a row that does not exist.
    #[error("subset {subset} has row {row}, but there are {rows} rows")]
    UnknownRow {
        /// The subset.
        subset: usize,
        /// The row that it names.
        row: usize,
        /// The number of rows.
        rows: usize,
    },
    /// More relevant rows are ranked than exist.
    #[error("{found} relevant rows are ranked, but only {total} exist")]
    TooManyRelevant {
        /// The relevant rows of the ranking.
        found: usize,
        /// The number that was said to exist.
        total: usize,
    },
    /// The level of an interval is not between 0 and 1, both excluded.
    #[error("{level} is not the level of an interval: it must lie between 0 and 1")]
    InvalidLevel {
        /// The level.
        level: f64,
    },
}

/// The first number that is not finite, as an error.
pub(super) fn finite(values: &[f64]) -> Result<(), EvalError> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((at, &value)) => Err(EvalError::NotFinite { at, value }),
        None => Ok(()),
    }
}

/// The first NaN, as an error; infinities have a place in an order.
pub(super) fn ordered(values: &[f64]) -> Result<(), EvalError> {
    match values.iter().position(|value| value.is_nan()) {
        Some(at) => Err(EvalError::NotFinite { at, value: f64::NAN }),
        None => Ok(()),
    }
}

pub(super) fn same_length(expected: usize, found: usize) -> Result<(), EvalError> {
    if expected == found { Ok(()) } else { Err(EvalError::Length { expected, found }) }
}
