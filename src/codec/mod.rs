//! Numbers become codes: the encodings, norms, query quantisation and tiers of
//! `format-spec/encodings.md`, bit for bit.
//!
//! Depends on nothing else in the crate.

mod check;
mod code;
mod encoding;
mod error;
pub mod lanes;
pub(crate) mod mix;
mod query;
mod rotation;
#[cfg(test)]
mod tests;
mod tier;

pub use check::check_codes;
pub use code::{Encoded, norm};
pub use encoding::Encoding;
pub use error::{CodeFault, EncodeError};
pub use query::{QuantisedQuery, quantise_query};
pub use rotation::Rotation;
pub use tier::{Factors, Tier, i8_tier, sign_tier};

/// A row whose norm in a block is above 2^62 is refused, so that no product of a row and a query
/// overflows.
pub const MAX_NORM: f32 = 4_611_686_018_427_387_904.0;

/// The least scale that is not zero: 2^-126, the smallest normal `f32`.
const LEAST_SCALE: f32 = f32::MIN_POSITIVE;
