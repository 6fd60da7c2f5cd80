use super::LEAST_SCALE;
use super::code::round;

/// The greatest magnitude of a quantised query's integers: 127 * 256, so that each is
/// `256 * hi + lo` with both in -128..=127.
const MOST: f32 = 32_512.0;

/// A query's values in one block as 16-bit integers, for exact integer sums over `i8` codes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuantisedQuery {
    /// `dims` integers from -32512 to 32512.
    pub codes: Vec<i16>,
    /// The query scale: a value of the query is about `code * scale`. 0 if all values are 0.
    pub scale: f32,
}

/// Quantises a query's values in one block, which must be finite, as a sketch's are.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of the code")]
pub(crate) fn quantise_query(values: &[f32]) -> QuantisedQuery {
    let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    if largest == 0.0 {
        return QuantisedQuery { codes: vec![0; values.len()], scale: 0.0 };
    }
    let scale = (largest / MOST).max(LEAST_SCALE);
    let quantise = |value: &f32| round(value / scale).clamp(-32_512, 32_512) as i16;
    QuantisedQuery { codes: values.iter().map(quantise).collect(), scale }
}
