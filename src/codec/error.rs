use super::Encoding;

/// Why one row of one block could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value is NaN or infinite.
    #[error("the number at {position} is {value}")]
    NotFinite {
        /// The first such position in the block.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The norm of the decoded values is above 2^62, so that scores could overflow.
    #[error("the norm is {norm:e}, above 2^62")]
    NormTooLarge {
        /// The L2 norm of the decoded values; infinite if it overflows `f32`.
        norm: f32,
    },
}

/// A fault of stored codes that no writer of this format produces.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeFault {
    /// The row's length is not its encoding's stride.
    #[error("{given} bytes of codes, where the encoding has {expected}")]
    Length {
        /// The number of bytes given.
        given: usize,
        /// The row stride.
        expected: usize,
    },
    /// The scale is not 0 or normal, finite and positive, or for `f16` not a power of two.
    #[error("{scale:e} (bits {:#010x}) is no scale of {encoding}", .scale.to_bits())]
    Scale {
        /// The encoding.
        encoding: Encoding,
        /// The scale as stored.
        scale: f32,
    },
    /// A code is NaN or infinite.
    #[error("the code at {position} is not finite")]
    NotFinite {
        /// The first such position in the block.
        position: usize,
    },
    /// A code is -128, which `i8` never uses.
    #[error("the code at {position} is -128")]
    BelowRange {
        /// The first such position in the block.
        position: usize,
    },
    /// A code is not all zero bits though the scale is 0.
    #[error("the code at {position} is not zero, but the scale is")]
    CodeWithoutScale {
        /// The first such position in the block.
        position: usize,
    },
    /// A byte after the last code is not zero.
    #[error("padding byte {offset} of the row is not zero")]
    Padding {
        /// The first such byte, counted from the row's first.
        offset: usize,
    },
}
