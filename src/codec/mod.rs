//! The codes of rows: the encodings, norms, query quantisation and tiers of `format-spec/encodings.md`, bit
//! for bit.
//!
//! Depends on nothing else in the crate.

/// Gives an enum the list `ALL` of its variants. A missing variant is a compile error.
macro_rules! listed {
    ($visible:vis $type:ident { $($variant:ident),+ $(,)? } $(and $other:pat)?) => {
        impl $type {
            /// All that there are.
            $visible const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
        const _: fn($type) = |value| match value {
            $($type::$variant)|+ $(| $other)? => {}
        };
    };
}
pub(crate) use listed;

mod check;
mod code;
mod encoding;
mod error;
pub mod lanes;
pub(crate) mod mix;
mod query;
mod rotation;
pub(crate) mod seed;
#[cfg(test)]
mod tests;
mod tier;

pub use encoding::Encoding;
pub use error::{CodeFault, EncodeError};
pub use tier::Tier;

pub(crate) use check::check_codes;
#[cfg(test)]
pub(crate) use code::Encoded;
pub(crate) use code::norm;
pub(crate) use encoding::CodeEncoding;
pub(crate) use query::quantise_query;
pub(crate) use rotation::Rotation;
pub(crate) use tier::{Factors, TierEncoder, TierKind};

/// The maximum norm of a row or a query in a block, 2^62, so that no product of the two overflows.
pub const MAX_NORM: f32 = 4_611_686_018_427_387_904.0;

/// The least nonzero scale: 2^-126, the smallest normal `f32`.
const LEAST_SCALE: f32 = f32::MIN_POSITIVE;
