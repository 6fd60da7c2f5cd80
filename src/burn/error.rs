use crate::sketch::SketchError;
use ::burn::tensor::TensorReadError;

/// Why gradients of a burn model could not be had, or not become sketches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BurnError {
    /// The predicate took no parameter that has a gradient.
    #[error("no parameter is selected: the module has {parameters}, of which {frozen} frozen")]
    NothingSelected {
        /// How many parameters of floating-point numbers the module has.
        parameters: usize,
        /// How many of them do not require a gradient.
        frozen: usize,
    },
    /// A selected parameter requires a gradient, and there is none.
    ///
    /// The loss does not depend on it, or its gradient has been taken out before.
    #[error("there is no gradient of parameter {parameter:?}")]
    MissingGradient {
        /// The parameter's path.
        parameter: String,
    },
    /// A selected parameter is not the weight or the bias of a layer that went through the taps.
    #[error("parameter {parameter:?} is selected, but no tapped linear layer has it")]
    NotTapped {
        /// The parameter's path.
        parameter: String,
    },
    /// A layer went through the taps that is not part of the module.
    #[error("{layers} tapped layers are not part of this module")]
    ForeignLayer {
        /// How many.
        layers: usize,
    },
    /// The forward ran on a device without autodiff, or the taps were off.
    #[error("the taps have seen no layer on a device with autodiff")]
    NothingTapped,
    /// Tapped layers disagree on how many examples there are.
    #[error("parameter {parameter:?} saw a batch of {given} examples, the others one of {expected}")]
    BatchSize {
        /// The path of the parameter whose layer differs.
        parameter: String,
        /// Its layer's first axis.
        given: usize,
        /// The first layer's first axis.
        expected: usize,
    },
    /// Logits, tokens and mask do not fit each other.
    #[error("{what} has the shape {given:?}, expected {expected:?}")]
    Shape {
        /// Which argument.
        what: &'static str,
        /// Its shape.
        given: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// No token of an example counts, so it has no loss. The first token of a row never counts:
    /// nothing stands before it.
    #[error("example {example} of the batch has no token to predict: all are masked")]
    FullyMasked {
        /// Its row.
        example: usize,
    },
    /// A chosen token does not exist, or is the first one, which nothing predicts.
    #[error("token {token} of example {example} cannot be a target: those are 1 to {last}")]
    Target {
        /// The row.
        example: usize,
        /// The chosen position.
        token: usize,
        /// The last position of the row.
        last: usize,
    },
    /// The device could not hand over the numbers of a tensor.
    #[error("cannot read {tensor:?} from the device")]
    Read {
        /// The parameter's path, or the argument's name.
        tensor: String,
        /// What burn says.
        source: TensorReadError,
    },
    /// The sketcher refused a gradient.
    #[error(transparent)]
    Sketch(#[from] SketchError),
    /// The sketcher refused the gradient of one example of a batch.
    #[error("example {example} of the batch: {source}")]
    Example {
        /// Its row.
        example: usize,
        /// Why.
        source: SketchError,
    },
}
