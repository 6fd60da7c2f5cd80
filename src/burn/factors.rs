//! Per-example gradients of a batch, from one backward.
//!
//! For one example, the gradient of the matrix of a linear layer `y = x W + b` is `Σ_t x_t ⊗ g_t`, where g is
//! the gradient of the loss with respect to y; the bias gradient is `Σ_t g_t`. One backward of the *summed*
//! loss gives both factors: x is recorded in the forward, and g is the gradient of a zero tensor that is
//! added to y. This requires that no layer mixes the examples of a batch, as batch normalisation does.
//!
//! Every other kind of layer is a choice of the factors: `g_t ⊗ x_t` for `y = x W^T`, a one-hot x for an
//! embedding, and `Σ_t n_t * g_t` for a scale of the normalised n. With a low-rank adapter, where
//! `W = base + s A B`, a gradient `Σ_t l_t ⊗ r_t` of W means `Σ_t l_t ⊗ s B r_t` for A and
//! `Σ_t s A^T l_t ⊗ r_t` for B.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::BurnError;
use super::parameters::{Place, places};
use super::spans::Spans;
use super::taps::{Layer, Tap, Taps};
use ::burn::Tensor;
use ::burn::module::{Module, ParamId};
use ::burn::tensor::{DType, Device, Gradients, IndexingUpdateOp, Int};

/// The maximum number of gradient elements computed at once (64 MiB of f32), unless a single example's
/// parameter has more.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// Calls `visit` with the gradients of every example, parameter by parameter, on the device. This is
/// [`sketch_examples`](super::sketch_examples) without the sketch.
///
/// The arguments of `visit` are the parameter's path, the ordinal in the batch of the first example, and a
/// tensor `[examples, elements]`, each row of which is one example's gradient in row-major order. If the
/// gradients of the whole batch are large, there are several calls per parameter: one call has at most 2^24
/// elements, or one example. Parameters are in the order of declaration.
///
/// # Errors
/// As [`sketch_examples`](super::sketch_examples), and the errors of `visit`. Stops at the first error.
pub fn for_each_example_gradient<M, E>(
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    visit: impl FnMut(&str, usize, Tensor<2>) -> Result<(), E>,
) -> Result<(), E>
where
    M: Module,
    E: From<BurnError>,
{
    Factors::of(model, taps, gradients, select)?.for_each_gradient(visit)
}

/// The factors of the gradients of all selected parameters, for a batch of rows: the examples, or spans of
/// their positions.
pub(super) struct Factors {
    rows: usize,
    /// Of each tap, with the gradient `[batch, time, out]` of its output; `None` if the loss does not depend
    /// on it.
    taps: Vec<(Tap, Option<Tensor<3>>)>,
    selected: Vec<Parameter>,
    spans: Option<Spans>,
}

/// A selected parameter of the module.
pub(super) struct Parameter {
    pub(super) path: String,
    pub(super) shape: Vec<usize>,
    /// Ordinals of taps, of which at least one has a gradient.
    uses: Vec<(usize, Role)>,
}

impl Parameter {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a parameter is to a tap.
#[derive(Clone, Copy)]
enum Role {
    Whole,
    Bias,
    AdapterA,
    AdapterB,
}

/// The factors of one use of a parameter, for a run of rows.
#[expect(clippy::large_enum_variant, reason = "one at a time, and most are matrices")]
pub(super) enum Use {
    /// `Σ_t left_t ⊗ right_t`.
    Matrix(Left, Tensor<3>),
    /// `Σ_t g_t`.
    Vector(Tensor<3>),
}

/// The left factor of a matrix: `[rows, time, n]`.
pub(super) enum Left {
    Dense(Tensor<3>),
    /// One-hot: where the one is, `[rows, time]`.
    OneHot(Tensor<2, Int>),
}

impl Left {
    /// The same in f32.
    pub(super) fn wide(self) -> Self {
        match self {
            Self::Dense(left) => Self::Dense(left.cast(DType::F32)),
            Self::OneHot(ones) => Self::OneHot(ones),
        }
    }

    /// `left matrix`: `[rows, time, columns]`, for a matrix `[n, columns]`.
    pub(super) fn times(self, matrix: Tensor<2>) -> Tensor<3> {
        match self {
            Self::Dense(left) => times(left, matrix),
            Self::OneHot(ones) => {
                let [rows, time] = ones.dims();
                let [_, columns] = matrix.dims();
                matrix.select(0, ones.reshape([rows * time])).reshape([rows, time, columns])
            }
        }
    }
}

/// `left matrix` for every row at once, as one product.
pub(super) fn times(left: Tensor<3>, matrix: Tensor<2>) -> Tensor<3> {
    let [rows, time, inner] = left.dims();
    let [_, columns] = matrix.dims();
    left.reshape([rows * time, inner]).matmul(matrix).reshape([rows, time, columns])
}

impl Factors {
    pub(super) fn of<M: Module>(
        model: &M,
        taps: Taps,
        gradients: &mut Gradients,
        select: impl Fn(&str) -> bool,
    ) -> Result<Self, BurnError> {
        let Some(first) = taps.seen.first() else { return Err(BurnError::NothingTapped) };
        let [rows, _, _] = first.zero.dims();
        let places = places(model, select);
        let (layers, known) = Layers::of(&taps, &places);
        if known < taps.seen.len() {
            return Err(BurnError::ForeignLayer { layers: taps.seen.len() - known });
        }
        let take = |tap: Tap| {
            let gradient = tap.zero.grad_remove(gradients);
            (tap, gradient)
        };
        let taps: Vec<_> = taps.seen.into_iter().map(take).collect();
        let parameters = places.len();
        let mut firsts: HashMap<ParamId, String> = HashMap::new();
        let mut selected = Vec::new();
        for Place { path, id, selected: shape } in places {
            let Some(shape) = shape else { continue };
            let parameter = path.clone();
            if let Some(first) = firsts.insert(id, path.clone()) {
                return Err(BurnError::SharedParameter { parameter, first });
            }
            let Some(uses) = layers.uses.get(&id) else {
                return Err(BurnError::NotTapped { parameter });
            };
            for &(tap, _) in uses {
                let given = taps[tap].0.zero.dims()[0];
                if given != rows {
                    return Err(BurnError::BatchSize { parameter, given, expected: rows });
                }
            }
            // A use that the loss does not depend on adds nothing; if there is no other use, it is an error.
            if uses.iter().all(|(tap, _)| taps[*tap].1.is_none()) {
                return Err(BurnError::MissingGradient { parameter });
            }
            selected.push(Parameter { path, shape, uses: uses.clone() });
        }
        if selected.is_empty() {
            return Err(BurnError::NothingSelected { parameters, frozen: 0 });
        }
        Ok(Self { rows, taps, selected, spans: None })
    }

    /// The same factors with spans of the examples' positions for rows.
    pub(super) fn by_spans(mut self, spans: &[Vec<Range<usize>>]) -> Result<Self, BurnError> {
        let mut found: Option<([usize; 2], Device)> = None;
        for parameter in &self.selected {
            for &(tap, _) in &parameter.uses {
                let zero = &self.taps[tap].0.zero;
                let [batch, time, _] = zero.dims();
                let (expected, _) =
                    found.get_or_insert_with(|| ([batch, time], zero.clone().inner().device()));
                if [batch, time] != *expected {
                    let (parameter, given, expected) = (parameter.path.clone(), time, expected[1]);
                    return Err(BurnError::Positions { parameter, given, expected });
                }
            }
        }
        if let Some((positions, device)) = found {
            let spans = Spans::of(spans, positions, &device)?;
            self.rows = spans.rows();
            self.spans = Some(spans);
        }
        Ok(self)
    }

    /// The number of rows of the batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The selected parameters, in the order of declaration.
    pub(super) fn selected(&self) -> &[Parameter] {
        &self.selected
    }

    /// Calls `visit` with the gradients of some rows, as [`for_each_example_gradient`] does.
    pub(super) fn for_each_gradient<E: From<BurnError>>(
        &self,
        mut visit: impl FnMut(&str, usize, Tensor<2>) -> Result<(), E>,
    ) -> Result<(), E> {
        for parameter in &self.selected {
            self.for_each_gradient_of(parameter, |first, rows| visit(&parameter.path, first, rows))?;
        }
        Ok(())
    }

    /// The same for one parameter: `visit` gets the first row's ordinal, and the gradients.
    pub(super) fn for_each_gradient_of<E: From<BurnError>>(
        &self,
        parameter: &Parameter,
        mut visit: impl FnMut(usize, Tensor<2>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at_once = (CHUNK_ELEMENTS / parameter.elements().max(1)).clamp(1, self.rows.max(1));
        for start in (0..self.rows).step_by(at_once) {
            let count = at_once.min(self.rows - start);
            visit(start, self.gradient(parameter, start, count)?)?;
        }
        Ok(())
    }

    /// The gradients of `count` rows from `start`: `[count, elements]`.
    fn gradient(&self, parameter: &Parameter, start: usize, count: usize) -> Result<Tensor<2>, BurnError> {
        let elements = parameter.elements();
        let products = self.uses(parameter, start, count).map(|factors| match factors {
            Use::Matrix(Left::Dense(left), right) => {
                left.swap_dims(1, 2).matmul(right).reshape([count, elements])
            }
            Use::Matrix(Left::OneHot(ones), right) => {
                scattered(ones, right, parameter.shape[0]).reshape([count, elements])
            }
            Use::Vector(gradient) => gradient.sum_dim(1).reshape([count, elements]),
        });
        let missing = || BurnError::MissingGradient { parameter: parameter.path.clone() };
        products.reduce(|sum, product| sum + product).ok_or_else(missing)
    }

    /// The factors of every use of a parameter that the loss depends on, for `count` rows from `start`.
    pub(super) fn uses(
        &self,
        parameter: &Parameter,
        start: usize,
        count: usize,
    ) -> impl Iterator<Item = Use> {
        parameter.uses.iter().filter_map(move |&(tap, role)| {
            let (tap, gradient) = &self.taps[tap];
            let gradient = gradient.as_ref()?;
            let gradient = match &self.spans {
                Some(spans) => spans.gather_masked(gradient, start, count),
                None => gradient.clone().narrow(0, start, count),
            };
            let seen = |x: &Tensor<3>| self.run(x, start, count);
            Some(match role {
                Role::Bias => Use::Vector(gradient),
                Role::Whole => match &tap.layer {
                    Layer::Scale(normalised) => Use::Vector(gradient * seen(normalised)),
                    _ => {
                        let (left, right) = self.matrix(tap, gradient, start, count)?;
                        Use::Matrix(left, right)
                    }
                },
                Role::AdapterA => {
                    let (adapter, (left, right)) =
                        (tap.adapter.as_ref()?, self.matrix(tap, gradient, start, count)?);
                    let right = times(right, adapter.b.1.clone().transpose());
                    Use::Matrix(left, right.mul_scalar(adapter.scale))
                }
                Role::AdapterB => {
                    let (adapter, (left, right)) =
                        (tap.adapter.as_ref()?, self.matrix(tap, gradient, start, count)?);
                    let left = left.times(adapter.a.1.clone()).mul_scalar(adapter.scale);
                    Use::Matrix(Left::Dense(left), right)
                }
            })
        })
    }

    /// Both factors of a layer's matrix; `None` if it has none.
    fn matrix(
        &self,
        tap: &Tap,
        gradient: Tensor<3>,
        start: usize,
        count: usize,
    ) -> Option<(Left, Tensor<3>)> {
        match &tap.layer {
            Layer::Matrix(input) => Some((Left::Dense(self.run(input, start, count)), gradient)),
            Layer::Transposed(input) => Some((Left::Dense(gradient), self.run(input, start, count))),
            Layer::Rows(tokens) => {
                let ones = match &self.spans {
                    Some(spans) => spans.gather_tokens(tokens, start, count),
                    None => tokens.clone().narrow(0, start, count),
                };
                Some((Left::OneHot(ones), gradient))
            }
            Layer::Scale(_) => None,
        }
    }

    /// Some rows of a tensor `[batch, time, n]`.
    fn run(&self, x: &Tensor<3>, start: usize, count: usize) -> Tensor<3> {
        match &self.spans {
            Some(spans) => spans.gather(x, start, count),
            None => x.clone().narrow(0, start, count),
        }
    }
}

/// `Σ_t e_t ⊗ right_t` with the one-hot e_t of n numbers: `[rows, n, width]`.
fn scattered(ones: Tensor<2, Int>, right: Tensor<3>, n: usize) -> Tensor<3> {
    let [rows, time, width] = right.dims();
    let device = right.device();
    // A row of the batch has its own n rows in one long matrix.
    let first = Tensor::<1, Int>::arange(0..rows as i64, &device).mul_scalar(n as i64).reshape([rows, 1]);
    let places = (ones + first).reshape([rows * time]);
    let values = right.reshape([rows * time, width]);
    let zeros = Tensor::<2>::zeros([rows * n, width], (&device, values.dtype()));
    zeros.select_assign(0, places, values, IndexingUpdateOp::Add).reshape([rows, n, width])
}

/// Which taps used a parameter.
struct Layers {
    uses: HashMap<ParamId, Vec<(usize, Role)>>,
}

impl Layers {
    /// All uses, and the number of taps of which the module has the parameter.
    fn of(taps: &Taps, places: &[Place]) -> (Self, usize) {
        let mut uses: HashMap<ParamId, Vec<(usize, Role)>> = HashMap::new();
        for (ordinal, tap) in taps.seen.iter().enumerate() {
            let mut add = |id: ParamId, role| uses.entry(id).or_default().push((ordinal, role));
            add(tap.parameter, Role::Whole);
            if let Some(bias) = tap.bias {
                add(bias, Role::Bias);
            }
            if let Some(adapter) = &tap.adapter {
                add(adapter.a.0, Role::AdapterA);
                add(adapter.b.0, Role::AdapterB);
            }
        }
        let ids: HashSet<ParamId> = places.iter().map(|place| place.id).collect();
        let known = taps.seen.iter().filter(|tap| ids.contains(&tap.parameter)).count();
        (Self { uses }, known)
    }
}
