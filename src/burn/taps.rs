//! Per-example gradients of a batch, from one backward.
//!
//! For one example, the weight gradient of a linear layer `y = x W + b` is `Σ_t x_t ⊗ g_t`, where g is the
//! gradient of the loss with respect to y; the bias gradient is `Σ_t g_t`. One backward of the *summed* loss
//! gives both factors: x is recorded in the forward, and g is the gradient of a zero tensor that is added to
//! y. This requires that no layer mixes the examples of a batch, as batch normalisation does.

use std::collections::HashMap;

use super::BurnError;
use super::parameters::Path;
use crate::sketch::{Fold, Sketch, SketchError, Sketcher};
use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param, ParamId};
use ::burn::nn::Linear;
use ::burn::tensor::Gradients;
use rayon::prelude::*;

/// The maximum number of gradient elements computed at once (64 MiB of f32), unless a single example's
/// parameter has more.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// Records the inputs and output gradients of linear layers in a forward, for [`sketch_examples`].
///
/// ```text
/// let hidden = taps.linear(&self.up, x);   // instead of self.up.forward(x)
/// ```
///
/// **Every** use of a sketched layer must go through the taps: of a weight that is also used elsewhere, for
/// example a tied one, only the tapped part of the gradient is recorded.
///
/// Fastest on `model.clone().no_grad()`: then the backward computes no weight gradients of its own. The
/// model must have been used or loaded before: burn initialises a new model's parameters on first use, and
/// until then a clone shares its frozen state with the original.
#[derive(Debug)]
pub struct Taps {
    on: bool,
    seen: Vec<Tap>,
}

#[derive(Debug)]
struct Tap {
    weight: ParamId,
    bias: Option<ParamId>,
    /// `[batch, time, in]`, off the autodiff graph.
    input: Tensor<3>,
    /// The zero added to the output; its gradient is `[batch, time, out]`.
    zero: Tensor<3>,
}

impl Taps {
    /// Taps that record.
    #[must_use]
    pub fn on() -> Self {
        Self { on: true, seen: Vec::new() }
    }

    /// Taps that record nothing, for training and inference: `linear` is then the plain forward.
    #[must_use]
    pub fn off() -> Self {
        Self { on: false, seen: Vec::new() }
    }

    /// Computes the layer's output for `x`: `[batch, ..., in]` to `[batch, ..., out]`.
    ///
    /// The first axis is the examples'; a tensor of one axis does not compile. A layer may be used several
    /// times in a forward: its gradient is the sum over the uses. On a device without autodiff, nothing is
    /// recorded.
    ///
    /// # Panics
    /// Like [`Linear::forward`], if the last axis is not the layer's input.
    pub fn linear<const D: usize>(&mut self, linear: &Linear, x: Tensor<D>) -> Tensor<D> {
        const { assert!(D >= 2, "the first axis must be the examples of a batch") };
        if !self.on {
            return linear.forward(x);
        }
        let y = linear.forward(x.clone());
        let device = y.device();
        if !device.is_autodiff() {
            return y;
        }
        let (inputs, outputs) = (x.dims(), y.dims());
        let (batch, time) = (inputs[0], inputs[1..D - 1].iter().product::<usize>());
        let zero = Tensor::<3>::zeros([batch, time, outputs[D - 1]], &device).require_grad();
        let input = x.without_autodiff().reshape([batch, time, inputs[D - 1]]);
        let y = y + zero.clone().reshape(outputs);
        let bias = linear.bias.as_ref().map(|bias| bias.id);
        self.seen.push(Tap { weight: linear.weight.id, bias, input, zero });
        y
    }
}

/// Computes the sketches of all examples of a batch, in the order of the batch.
///
/// `taps` are the taps of the forward from which `gradients` was computed, and `gradients` must be of the
/// **sum** of the examples' losses. Each parameter whose path `select` accepts must be the weight or bias of
/// a tapped layer; it may be frozen. Up to the order of float additions, the result is that of
/// [`sketch_gradients`](super::sketch_gradients) on each example alone.
///
/// # Errors
/// - [`BurnError::NothingTapped`] if the taps recorded no layer;
/// - [`BurnError::NothingSelected`] if `select` accepts no parameter;
/// - [`BurnError::NotTapped`] for a selected parameter of any other layer;
/// - [`BurnError::ForeignLayer`] if a tapped layer is not part of `model`;
/// - [`BurnError::MissingGradient`] if the loss does not depend on a selected layer;
/// - [`BurnError::BatchSize`] if layers saw different batches;
/// - [`BurnError::Read`] if the device fails, [`BurnError::Example`] if the sketcher returns an error.
pub fn sketch_examples<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
) -> Result<Vec<Sketch>, BurnError> {
    let batch = taps.seen.first().map_or(0, |tap| tap.input.dims()[0]);
    let mut folds: Vec<Fold> = (0..batch).map(|_| sketcher.start()).collect();
    let named = |example: usize, source: SketchError| BurnError::Example { example, source };
    for_each_example_gradient(model, taps, gradients, select, |path, first, rows| {
        let [_, elements] = rows.dims();
        let values = rows
            .try_into_vec_as::<f32>()
            .map_err(|source| BurnError::Read { tensor: path.to_owned(), source })?;
        folds[first..].par_iter_mut().zip(values.par_chunks_exact(elements)).enumerate().try_for_each(
            |(row, (fold, gradient))| fold.add(path, gradient).map_err(|source| named(first + row, source)),
        )
    })?;
    let finished = folds.into_iter().enumerate();
    finished.map(|(row, fold)| fold.finish().map_err(|source| named(row, source))).collect()
}

/// Calls `visit` with the gradients of every example, parameter by parameter, on the device. This is
/// [`sketch_examples`] without the sketch.
///
/// The arguments of `visit` are the parameter's path, the ordinal in the batch of the first example, and a
/// tensor `[examples, elements]`, each row of which is one example's gradient in row-major order. If the
/// gradients of the whole batch are large, there are several calls per parameter. Parameters are in the
/// order of declaration.
///
/// # Errors
/// As [`sketch_examples`], and the errors of `visit`. Stops at the first error.
pub fn for_each_example_gradient<M, E>(
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    mut visit: impl FnMut(&str, usize, Tensor<2>) -> Result<(), E>,
) -> Result<(), E>
where
    M: Module,
    E: From<BurnError>,
{
    let Some(first) = taps.seen.first() else {
        return Err(BurnError::NothingTapped.into());
    };
    let batch = first.input.dims()[0];
    let mut places = Places { path: Path::default(), select, found: Vec::new() };
    model.visit(&mut places);

    let mut factors = Factors::taken(taps, gradients);
    let mut known = 0;
    let mut taken = 0;
    for place in &places.found {
        let uses = factors.uses(place.id);
        known += usize::from(!uses.is_empty());
        if !place.selected {
            continue;
        }
        if uses.is_empty() {
            return Err(BurnError::NotTapped { parameter: place.path.clone() }.into());
        }
        for used in &uses {
            let given = factors.taps[*used].input.dims()[0];
            if given != batch {
                let parameter = place.path.clone();
                return Err(BurnError::BatchSize { parameter, given, expected: batch }.into());
            }
        }
        taken += 1;
        let elements = factors.elements(place.id, uses[0]);
        let rows = (CHUNK_ELEMENTS / elements.max(1)).clamp(1, batch.max(1));
        for start in (0..batch).step_by(rows) {
            let count = rows.min(batch - start);
            let run = factors.product(place, &uses, start, count)?;
            visit(&place.path, start, run)?;
        }
    }
    if known < factors.parameters.len() {
        let layers = factors.parameters.len() - known;
        return Err(BurnError::ForeignLayer { layers }.into());
    }
    if taken == 0 {
        let parameters = places.found.len();
        return Err(BurnError::NothingSelected { parameters, frozen: 0 }.into());
    }
    factors.taps.clear();
    Ok(())
}

/// A parameter of the module.
struct Place {
    path: String,
    id: ParamId,
    selected: bool,
}

struct Places<S> {
    path: Path,
    select: S,
    found: Vec<Place>,
}

impl<S: Fn(&str) -> bool> ModuleVisitor for Places<S> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let path = self.path.name();
        let selected = (self.select)(&path);
        self.found.push(Place { path, id: parameter.id, selected });
    }
}

/// Both factors of every tapped layer: its input, and the gradient of its output.
struct Factors {
    taps: Vec<Tap>,
    /// For each tap, `[batch, time, out]`; `None` if the loss does not depend on it.
    outputs: Vec<Option<Tensor<3>>>,
    /// Weights and biases with the taps that used them.
    parameters: HashMap<ParamId, Vec<usize>>,
}

impl Factors {
    fn taken(taps: Taps, gradients: &mut Gradients) -> Self {
        let outputs = taps.seen.iter().map(|tap| tap.zero.grad_remove(gradients)).collect();
        let mut parameters: HashMap<ParamId, Vec<usize>> = HashMap::new();
        for (ordinal, tap) in taps.seen.iter().enumerate() {
            for id in std::iter::once(tap.weight).chain(tap.bias) {
                parameters.entry(id).or_default().push(ordinal);
            }
        }
        Self { taps: taps.seen, outputs, parameters }
    }

    fn uses(&self, id: ParamId) -> Vec<usize> {
        self.parameters.get(&id).cloned().unwrap_or_default()
    }

    /// The number of elements of the parameter.
    fn elements(&self, id: ParamId, used: usize) -> usize {
        let tap = &self.taps[used];
        let [_, _, outputs] = tap.zero.dims();
        let [_, _, inputs] = tap.input.dims();
        if id == tap.weight { inputs * outputs } else { outputs }
    }

    /// The gradients of `count` examples, from `start`: `[count, elements]`.
    fn product(
        &self,
        place: &Place,
        uses: &[usize],
        start: usize,
        count: usize,
    ) -> Result<Tensor<2>, BurnError> {
        let missing = || BurnError::MissingGradient { parameter: place.path.clone() };
        let mut sum: Option<Tensor<2>> = None;
        for &used in uses {
            let tap = &self.taps[used];
            // A use that the loss does not depend on adds nothing; if there is no other use, it is an error.
            let Some(output) = &self.outputs[used] else { continue };
            let output = output.clone().narrow(0, start, count);
            let elements = self.elements(place.id, used);
            let product = if place.id == tap.weight {
                let input = tap.input.clone().narrow(0, start, count);
                input.swap_dims(1, 2).matmul(output).reshape([count, elements])
            } else {
                output.sum_dim(1).reshape([count, elements])
            };
            sum = Some(match sum {
                Some(sum) => sum + product,
                None => product,
            });
        }
        sum.ok_or_else(missing)
    }
}
