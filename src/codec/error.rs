use super::Encoding;

/// Why a row's numbers in a block could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A number is NaN or infinite.
    #[error("the number at {position} is {value}")]
    NotFinite {
        /// The first such position in the block.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The decoded numbers would have a norm above 2^62, and scores could overflow.
    #[error("the norm is {norm:e}, above 2^62")]
    NormTooLarge {
        /// The L2 norm of the decoded numbers; infinite if it is beyond `f32`.
        norm: f32,
    },
}

/// What is wrong with stored codes that a writer of this format would never have written.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeFault {
    /// The row has not the length that its encoding gives it.
    #[error("{given} bytes of codes, where the encoding has {expected}")]
    Length {
        /// How many bytes came.
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
    /// A code stands for NaN or infinity.
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
