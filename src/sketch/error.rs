use super::{FoldKernel, SketchSpec};

/// Why a gradient could not become a sketch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// The spec itself makes no sense, or is of a later version.
    #[error("the sketch spec is not valid: {reason}")]
    InvalidSpec {
        /// What is wrong with it.
        reason: String,
    },
    /// A `Dense` spec has no sketcher: its numbers are made by the caller.
    #[error("a dense spec has no sketcher of its own ({spec})")]
    NoSketcher {
        /// The spec.
        spec: SketchSpec,
    },
    /// No block of the spec is the parameter's name or a prefix of it.
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
    /// Finite elements added up to infinity.
    #[error("the sketch overflows f32 in block {block:?}, bucket {bucket}")]
    Overflow {
        /// The block's name.
        block: String,
        /// The bucket in the block.
        bucket: usize,
    },
    /// A tensor has more elements than the fold can place.
    #[error("the gradient of {parameter:?} has {elements} elements; at most 2^35 can be folded")]
    TooLong {
        /// The parameter's path.
        parameter: String,
        /// Its number of elements.
        elements: usize,
    },
    /// The caller's numbers are not as many as the spec's dims.
    #[error("a sketch of {given} numbers, where the spec has {expected} dims ({spec})")]
    Width {
        /// How many numbers came.
        given: usize,
        /// How many the spec has.
        expected: usize,
        /// The spec.
        spec: SketchSpec,
    },
    /// One of the caller's numbers is NaN or infinite.
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
        /// The factor asked for.
        factor: u32,
    },
    /// The machine has not the instructions of this kernel.
    #[error("this machine cannot run the {kernel} fold")]
    NoKernel {
        /// The kernel asked for.
        kernel: FoldKernel,
    },
}
