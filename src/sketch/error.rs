use super::{FoldKernel, SketchSpec};

/// Why a gradient could not become a sketch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// The spec is invalid, or of a later version.
    #[error("the sketch spec is not valid: {reason}")]
    InvalidSpec {
        /// Why it is invalid.
        reason: String,
    },
    /// A `Dense` spec has no sketcher: the caller computes its sketches.
    #[error("a dense spec has no sketcher of its own ({spec})")]
    NoSketcher {
        /// The spec.
        spec: SketchSpec,
    },
    /// No block name of the spec equals the parameter's path or a prefix of it.
    #[error("no block takes parameter {parameter:?} ({spec})")]
    NoBlock {
        /// The parameter's path.
        parameter: String,
        /// The spec.
        spec: SketchSpec,
    },
    /// A gradient element is NaN or infinite.
    #[error("the gradient of {parameter:?} is {value} at element {element}")]
    NotFinite {
        /// The parameter's path.
        parameter: String,
        /// Row-major index of the first such element.
        element: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A sum of finite elements overflowed `f32`.
    #[error("the sketch overflows f32 in block {block:?}, bucket {bucket}")]
    Overflow {
        /// The block's name.
        block: String,
        /// The bucket in the block.
        bucket: usize,
    },
    /// A tensor has more than 2^35 elements.
    #[error("the gradient of {parameter:?} has {elements} elements; at most 2^35 can be folded")]
    TooLong {
        /// The parameter's path.
        parameter: String,
        /// Its number of elements.
        elements: usize,
    },
    /// The number of values is not the spec's number of dims.
    #[error("a sketch of {given} numbers, where the spec has {expected} dims ({spec})")]
    Width {
        /// The number of values given.
        given: usize,
        /// The spec's number of dims.
        expected: usize,
        /// The spec.
        spec: SketchSpec,
    },
    /// A value is NaN or infinite.
    #[error("the sketch is {value} at {position} of block {block:?}")]
    NotFiniteValue {
        /// The block's name.
        block: String,
        /// The position in the block.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The spec cannot be nested by this factor.
    #[error("this spec cannot be nested by a factor of {factor} ({spec})")]
    NotNested {
        /// The spec.
        spec: SketchSpec,
        /// The requested factor.
        factor: u32,
    },
    /// This machine does not support the kernel's instructions.
    #[error("this machine cannot run the {kernel} fold")]
    NoKernel {
        /// The requested kernel.
        kernel: FoldKernel,
    },
}
