use crate::sketch::{OptimizerStep, SketchError, SketchSpec};
use ::burn::store::RecordError;
use ::burn::tensor::TensorReadError;

/// Why the gradients of a burn model could not be read or sketched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BurnError {
    /// The predicate selected no parameter that has a gradient.
    #[error("no parameter is selected: the module has {parameters}, of which {frozen} frozen")]
    NothingSelected {
        /// The number of floating-point parameters of the module.
        parameters: usize,
        /// The number of them that do not require a gradient.
        frozen: usize,
    },
    /// A selected parameter requires a gradient, but there is none: the loss does not depend on it, or its
    /// gradient has been removed before.
    #[error("there is no gradient of parameter {parameter:?}")]
    MissingGradient {
        /// The parameter's path.
        parameter: String,
    },
    /// A selected parameter is not one of a tapped layer. The factor route needs every use of it to go through
    /// [`Taps`](super::Taps); otherwise leave it out, or take the route of one example at a time,
    /// [`sketch_gradients`](super::sketch_gradients).
    #[error(
        "parameter {parameter:?} is selected, but no tapped layer has it: call its layer through the taps, do \
         not select it, or use sketch_gradients"
    )]
    NotTapped {
        /// The parameter's path.
        parameter: String,
    },
    /// The module has one parameter in two places, and both are selected: its gradient would count twice.
    #[error("parameters {first:?} and {parameter:?} are one: select only the first")]
    SharedParameter {
        /// The path of its second place.
        parameter: String,
        /// The path of its first place.
        first: String,
    },
    /// A tapped layer is not part of the module.
    #[error("{layers} tapped layers are not part of this module")]
    ForeignLayer {
        /// The number of such layers.
        layers: usize,
    },
    /// The forward ran on a device without autodiff, or the taps were off.
    #[error("the taps have seen no layer on a device with autodiff")]
    NothingTapped,
    /// Tapped layers have different numbers of examples.
    #[error("parameter {parameter:?} saw a batch of {given} examples, the others one of {expected}")]
    BatchSize {
        /// The path of the parameter whose layer differs.
        parameter: String,
        /// Its layer's first axis.
        given: usize,
        /// The first layer's first axis.
        expected: usize,
    },
    /// A `Kronecker` sketch has two sides, and the parameter has not.
    #[error(
        "parameter {parameter:?} of shape {shape:?} is no matrix, and a Kronecker sketch is of matrices: do \
         not select it, or use a RapidGrad spec"
    )]
    NotAMatrix {
        /// The parameter's path.
        parameter: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The spec says that gradients are replaced by an optimizer's step, and these are plain ones.
    #[error(
        "gradients as they are cannot be sketched under a spec of an optimizer's steps ({spec}): use its \
         `for_queries`, or sketch_steps"
    )]
    PlainGradients {
        /// The spec.
        spec: Box<SketchSpec>,
    },
    /// The spec records another optimizer's state than the one whose steps are to be sketched.
    #[error(
        "the spec records {}, and the steps are of {state}: a spec is of one state, see AdamState::step",
        step(spec)
    )]
    OtherState {
        /// What the spec records, if it records one; of several states, what the first is.
        spec: Option<Box<OptimizerStep>>,
        /// What the state is.
        state: Box<OptimizerStep>,
    },
    /// The optimizer's state has no moments of a selected parameter.
    #[error("the optimizer has no state of parameter {parameter:?}: it was not trained; do not select it")]
    NoState {
        /// The parameter's path.
        parameter: String,
    },
    /// The optimizer's moments of a parameter have another shape than the parameter.
    #[error(
        "parameter {parameter:?} has the shape {expected:?}, and the optimizer's moments of it {state:?}"
    )]
    StateShape {
        /// The parameter's path.
        parameter: String,
        /// The moments' shape.
        state: Vec<usize>,
        /// The parameter's.
        expected: Vec<usize>,
    },
    /// An optimizer's state of a parameter cannot be used.
    #[error("the optimizer's state of {parameter:?} cannot be used: {reason}")]
    InvalidState {
        /// The parameter's path; if there is none, what the record calls it.
        parameter: String,
        /// Why.
        reason: String,
    },
    /// An optimizer's record could not be read.
    #[error("the optimizer's record cannot be read")]
    Record {
        /// burn's error.
        source: RecordError,
    },
    /// Tapped layers have different numbers of positions, so that a position means nothing to all of them.
    #[error(
        "parameter {parameter:?} saw {given} positions of each example, the others {expected}: do not select \
         it, or use sketch_examples"
    )]
    Positions {
        /// The path of the parameter whose layer differs.
        parameter: String,
        /// The product of its layer's axes between the first and the last.
        given: usize,
        /// That of the first layer.
        expected: usize,
    },
    /// A span of positions is empty or ends past the last one.
    #[error("{start}..{end} is no span of example {example}, which has {positions} positions")]
    Span {
        /// The row of the batch.
        example: usize,
        /// The span's first position.
        start: usize,
        /// The position after its last.
        end: usize,
        /// The number of positions of a row.
        positions: usize,
    },
    /// A parameter of rows and queries differs, so that their sketches cannot be compared.
    #[error("parameter {parameter:?} has {} in the queries, but {} in the rows", shape(queries), shape(rows))]
    OtherParameters {
        /// The parameter's path.
        parameter: String,
        /// Its shape when the rows were sketched; `None` if it was not there.
        rows: Option<Vec<usize>>,
        /// Its shape in the queries; `None` if it is not there.
        queries: Option<Vec<usize>>,
    },
    /// The parameters of rows and queries are the same, in another order, which changes sums by rounding.
    #[error("parameter {parameter:?} is not at the same place among the parameters of rows and queries")]
    OtherOrder {
        /// The path of the first parameter of the rows that is at another place.
        parameter: String,
    },
    /// The shapes of logits, tokens and mask do not match.
    #[error("{what} has the shape {given:?}, expected {expected:?}")]
    Shape {
        /// The name of the argument.
        what: &'static str,
        /// Its shape.
        given: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// No token of an example counts, so it has no loss. The first token of a row never counts, since
    /// nothing precedes it.
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
    /// The values of a tensor could not be read from the device.
    #[error("cannot read {tensor:?} from the device")]
    Read {
        /// The parameter's path, or the argument's name.
        tensor: String,
        /// burn's error.
        source: TensorReadError,
    },
    /// Too much for one launch on a device, whose indices have 32 bits.
    #[error("{what} has {elements} elements; a device's kernel takes fewer than 2^32")]
    DeviceLimit {
        /// The parameter's path, or what else it is.
        what: String,
        /// Its number of elements.
        elements: usize,
    },
    /// A gradient is on another device than those before it.
    #[error("the gradient of {parameter:?} is on another device than those of the parameters before it")]
    OtherDevice {
        /// The parameter's path.
        parameter: String,
    },
    /// The device failed while it summed, or while the sums were read.
    #[error("the device failed: {reason}")]
    Device {
        /// What its driver says, or the panic of its runtime.
        reason: String,
    },
    /// A device failed the check of its first use, so nothing that it computes can be trusted.
    #[error("device {device} failed the check of its first use: {failed}")]
    DeviceCheck {
        /// The device.
        device: String,
        /// What is missing, or what it computed wrong.
        failed: String,
    },
    /// The sketcher refused a gradient.
    #[error(transparent)]
    Sketch(#[from] SketchError),
    /// The sketcher refused the gradient of one example of a batch.
    #[error("example {example} of the batch: {source}")]
    Example {
        /// Its row.
        example: usize,
        /// The sketcher's error.
        source: SketchError,
    },
}

/// For messages: the shape, or that there is none.
fn shape(shape: &Option<Vec<usize>>) -> String {
    shape.as_ref().map_or_else(|| "no such place".into(), |shape| format!("shape {shape:?}"))
}

/// For messages: the step, or that there is none.
fn step(step: &Option<Box<OptimizerStep>>) -> String {
    step.as_ref().map_or_else(|| "no optimizer".into(), ToString::to_string)
}
