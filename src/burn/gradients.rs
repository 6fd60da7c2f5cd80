//! The gradients of one example, as `backward()` left them.

use super::BurnError;
use super::parameters::Path;
use crate::sketch::{Sketch, Sketcher};
use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param};
use ::burn::tensor::Gradients;

/// The sketch of one gradient: that of the parameters whose path `select` accepts.
///
/// Each parameter's gradient is taken out of `gradients`, read to the host as f32 (row-major),
/// folded, and dropped. Frozen parameters have no gradient and are passed over, selected or not, so
/// that `|_| true` means "whatever is trained". Gradients of other parameters stay in `gradients`.
///
/// # Errors
/// - [`BurnError::NothingSelected`] if not one parameter is left;
/// - [`BurnError::MissingGradient`] if a selected parameter that requires a gradient has none;
/// - [`BurnError::Read`] if the device fails;
/// - [`BurnError::Sketch`] if a gradient is not finite or no block of the spec takes a parameter.
pub fn sketch_gradients<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
) -> Result<Sketch, BurnError> {
    let mut fold = sketcher.start();
    for_each_gradient(model, gradients, select, |path, values| {
        fold.add(path, values).map_err(BurnError::from)
    })?;
    Ok(fold.finish()?)
}

/// Hands each selected parameter's path and gradient to `visit`, in the order of declaration.
///
/// This is [`sketch_gradients`] without the sketch: the same parameters, in the same order, with
/// the same elements (row-major, f32).
///
/// # Errors
/// As [`sketch_gradients`], and whatever `visit` returns; the walk ends at the first.
pub fn for_each_gradient<M, E>(
    model: &M,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    visit: impl FnMut(&str, &[f32]) -> Result<(), E>,
) -> Result<(), E>
where
    M: Module,
    E: From<BurnError>,
{
    let mut walk = Walk {
        path: Path::default(),
        gradients,
        select,
        visit,
        parameters: 0,
        frozen: 0,
        taken: 0,
        outcome: Ok(()),
    };
    model.visit(&mut walk);
    walk.outcome?;
    if walk.taken == 0 {
        let (parameters, frozen) = (walk.parameters, walk.frozen);
        return Err(BurnError::NothingSelected { parameters, frozen }.into());
    }
    Ok(())
}

struct Walk<'a, S, V, E> {
    path: Path,
    gradients: &'a mut Gradients,
    select: S,
    visit: V,
    parameters: usize,
    frozen: usize,
    taken: usize,
    outcome: Result<(), E>,
}

impl<S, V, E> Walk<'_, S, V, E>
where
    S: Fn(&str) -> bool,
    V: FnMut(&str, &[f32]) -> Result<(), E>,
    E: From<BurnError>,
{
    fn take<const D: usize>(&mut self, path: &str, value: &Tensor<D>) -> Result<(), E> {
        let Some(gradient) = value.grad_remove(self.gradients) else {
            return Err(BurnError::MissingGradient { parameter: path.to_owned() }.into());
        };
        let values = gradient
            .try_into_vec_as::<f32>()
            .map_err(|source| BurnError::Read { tensor: path.to_owned(), source })?;
        self.taken += 1;
        (self.visit)(path, &values)
    }
}

impl<S, V, E> ModuleVisitor for Walk<'_, S, V, E>
where
    S: Fn(&str) -> bool,
    V: FnMut(&str, &[f32]) -> Result<(), E>,
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
        // The stored value is the leaf: with an adapter on it, `val()` would be a product.
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
