//! Per-example gradients of a batch, from one backward.
//!
//! For one example, the weight gradient of a linear layer `y = x W + b` is `Σ_t x_t ⊗ g_t`, where g is the
//! gradient of the loss with respect to y; the bias gradient is `Σ_t g_t`. One backward of the *summed* loss
//! gives both factors: x is recorded in the forward, and g is the gradient of a zero tensor that is added to
//! y. This requires that no layer mixes the examples of a batch, as batch normalisation does.

use std::collections::HashMap;

use super::BurnError;
use super::parameters::Path;
use super::taps::{Tap, Taps};
use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param, ParamId};
use ::burn::tensor::Gradients;

/// The maximum number of gradient elements computed at once (64 MiB of f32), unless a single example's
/// parameter has more.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// Calls `visit` with the gradients of every example, parameter by parameter, on the device. This is
/// [`sketch_examples`](super::sketch_examples) without the sketch.
///
/// The arguments of `visit` are the parameter's path, the ordinal in the batch of the first example, and a
/// tensor `[examples, elements]`, each row of which is one example's gradient in row-major order. If the
/// gradients of the whole batch are large, there are several calls per parameter. Parameters are in the
/// order of declaration.
///
/// # Errors
/// As [`sketch_examples`](super::sketch_examples), and the errors of `visit`. Stops at the first error.
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
