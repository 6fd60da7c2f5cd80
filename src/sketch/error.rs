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
    /// A parameter was given without a shape, but the spec's sketcher takes matrices only: pass it to
    /// [`Fold::add_matrix`](super::Fold::add_matrix), or leave it out if it is none.
    #[error("{parameter:?} was given without a shape, and a Kronecker sketch is of matrices ({spec})")]
    NotAMatrix {
        /// The parameter's path.
        parameter: String,
        /// The spec.
        spec: SketchSpec,
    },
    /// The number of elements is not that of the shape.
    #[error("{parameter:?} has {elements} elements, but shape {shape:?}")]
    Elements {
        /// The parameter's path.
        parameter: String,
        /// The shape: inputs and outputs.
        shape: [usize; 2],
        /// The number of elements given.
        elements: usize,
    },
    /// The sketcher has seen the parameter in another shape, so the two sketches would have nothing in common.
    #[error("{parameter:?} has shape {given:?}, but had {before:?} before")]
    OtherShape {
        /// The parameter's path.
        parameter: String,
        /// Its shape now.
        given: [usize; 2],
        /// Its shape when this sketcher first saw it.
        before: [usize; 2],
    },
    /// A `Kronecker` sketcher was given more than 65,536 parameters, whose shapes it would have to remember.
    #[error("{parameter:?} is one parameter too many: a Kronecker sketcher takes 65,536")]
    TooManyParameters {
        /// The path of the first parameter that is too many.
        parameter: String,
    },
    /// Only a `Kronecker` spec has projections.
    #[error("this spec has no projections ({spec})")]
    NoProjections {
        /// The spec.
        spec: SketchSpec,
    },
    /// Two sketches of different specs cannot be added.
    #[error("a sketch of {given} cannot be added to one of {expected}")]
    OtherSpec {
        /// The spec of the sketch that was to be added.
        given: Box<SketchSpec>,
        /// The spec of the other.
        expected: Box<SketchSpec>,
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

impl SketchError {
    /// The error for a gradient in which some element is not finite.
    pub(super) fn not_finite(parameter: &str, gradient: &[f32]) -> Self {
        let bad = gradient.iter().copied().enumerate().find(|(_, x)| !x.is_finite());
        let (element, value) = bad.unwrap_or((0, f32::NAN));
        Self::NotFinite { parameter: parameter.to_owned(), element, value }
    }
}
