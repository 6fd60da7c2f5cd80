//! Sketches the gradients of one example after `backward()`.

use super::BurnError;
use super::folds::Folds;
use super::kronecker::Sums;
use super::parameters::{Parameters, Path};
use crate::sketch::{Sketch, Sketcher, SketcherKind};
use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param};
use ::burn::tensor::Gradients;

/// Computes the sketch of the gradients of the parameters whose path `select` accepts.
///
/// Removes each selected gradient from `gradients` and folds it: on the device of the gradient if that is wgpu
/// or CUDA, else on the host. Under a `Kronecker` spec, it is projected on its device, whichever that is.
/// Frozen parameters have no gradient and are skipped, so that `|_| true` selects all trained parameters.
/// Gradients of other parameters stay in `gradients`.
///
/// # Errors
/// - [`BurnError::NothingSelected`] if no selected parameter has a gradient;
/// - [`BurnError::MissingGradient`] if a selected parameter that requires a gradient has none;
/// - [`BurnError::NotAMatrix`] for a selected vector under a `Kronecker` spec;
/// - [`BurnError::PlainGradients`] if the spec has an optimizer;
/// - [`BurnError::Read`] if the device fails;
/// - [`BurnError::Sketch`] if a gradient is not finite or no block of the spec matches a parameter.
pub fn sketch_gradients<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
) -> Result<Sketch, BurnError> {
    if sketcher.spec().optimizer().is_some() {
        return Err(BurnError::PlainGradients { spec: Box::new(sketcher.spec().clone()) });
    }
    let sketches = if let SketcherKind::Kronecker { .. } = sketcher.spec().sketcher() {
        let shapes = Parameters::of(model, &select);
        let mut sums = Sums::new(sketcher);
        for_each_tensor(model, gradients, select, |path, gradient| {
            let shape = shapes.iter().find(|(name, _)| *name == path).map_or(&[][..], |(_, shape)| shape);
            sums.add_matrices(path, shape, gradient)
        })
        .and_then(|()| sums.finish(1))
    } else {
        let mut folds = Folds::start(sketcher, 1);
        for_each_tensor(model, gradients, select, |path, gradient| folds.add(path, 0, gradient))
            .and_then(|()| folds.finish())
    };
    sketches
        .map_err(|error| match error {
            BurnError::Example { source, .. } => BurnError::Sketch(source),
            other => other,
        })?
        .pop()
        .ok_or(BurnError::NothingSelected { parameters: 0, frozen: 0 })
}

/// Calls `visit` with the path and gradient of each selected parameter, in the order of declaration.
///
/// This is [`sketch_gradients`] without the sketch: the same parameters, in the same order, with
/// the same elements (row-major, f32).
///
/// # Errors
/// As [`sketch_gradients`], and the errors of `visit`. Stops at the first error.
pub fn for_each_gradient<M, E>(
    model: &M,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    mut visit: impl FnMut(&str, &[f32]) -> Result<(), E>,
) -> Result<(), E>
where
    M: Module,
    E: From<BurnError>,
{
    for_each_tensor(model, gradients, select, |path, gradient| {
        let values = gradient
            .try_into_vec_as::<f32>()
            .map_err(|source| BurnError::Read { tensor: path.to_owned(), source })?;
        visit(path, &values)
    })
}

/// As [`for_each_gradient`], with each gradient on its device, as `[1, elements]`.
fn for_each_tensor<M, E>(
    model: &M,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    visit: impl FnMut(&str, Tensor<2>) -> Result<(), E>,
) -> Result<(), E>
where
    M: Module,
    E: From<BurnError>,
{
    let mut visitor = GradientVisitor {
        path: Path::default(),
        gradients,
        select,
        visit,
        parameters: 0,
        frozen: 0,
        taken: 0,
        outcome: Ok(()),
    };
    model.visit(&mut visitor);
    visitor.outcome?;
    if visitor.taken == 0 {
        let (parameters, frozen) = (visitor.parameters, visitor.frozen);
        return Err(BurnError::NothingSelected { parameters, frozen }.into());
    }
    Ok(())
}

struct GradientVisitor<'a, S, V, E> {
    path: Path,
    gradients: &'a mut Gradients,
    select: S,
    visit: V,
    parameters: usize,
    frozen: usize,
    taken: usize,
    outcome: Result<(), E>,
}

impl<S, V, E> GradientVisitor<'_, S, V, E>
where
    S: Fn(&str) -> bool,
    V: FnMut(&str, Tensor<2>) -> Result<(), E>,
    E: From<BurnError>,
{
    fn take<const D: usize>(&mut self, path: &str, value: &Tensor<D>) -> Result<(), E> {
        let Some(gradient) = value.grad_remove(self.gradients) else {
            return Err(BurnError::MissingGradient { parameter: path.to_owned() }.into());
        };
        let elements = gradient.shape().num_elements();
        self.taken += 1;
        (self.visit)(path, gradient.reshape([1, elements]))
    }
}

impl<S, V, E> ModuleVisitor for GradientVisitor<'_, S, V, E>
where
    S: Fn(&str) -> bool,
    V: FnMut(&str, Tensor<2>) -> Result<(), E>,
    E: From<BurnError>,
{
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.parameters += 1;
        // The stored value is the leaf; with an adapter (LoRA), `val()` is a product.
        let value = parameter.base();
        // `grad_remove` panics on a tensor without autodiff, so this comes first.
        if !(value.is_autodiff() && value.is_require_grad()) {
            self.frozen += 1;
            return;
        }
        let path = self.path.name();
        if self.outcome.is_ok() && (self.select)(&path) {
            self.outcome = self.take(&path, &value);
        }
    }
}
