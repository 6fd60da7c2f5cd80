//! Sketches every example of a batch from one backward.

use super::BurnError;
use super::factors::Factors;
use super::folds::Folds;
use super::kronecker;
use super::taps::Taps;
use crate::sketch::{Sketch, Sketcher, SketcherKind};
use ::burn::module::Module;
use ::burn::tensor::Gradients;

/// Computes the sketches of all examples of a batch, in the order of the batch.
///
/// `taps` are the taps of the forward from which `gradients` was computed, and `gradients` must be of the
/// **sum** of the examples' losses. Each parameter whose path `select` accepts must be one of a tapped layer;
/// it may be frozen. Up to the order of float additions, the result is that of
/// [`sketch_gradients`](super::sketch_gradients) on each example alone.
///
/// # Errors
/// - [`BurnError::NothingTapped`] if the taps recorded no layer;
/// - [`BurnError::NothingSelected`] if `select` accepts no parameter;
/// - [`BurnError::NotTapped`] for a selected parameter of any other layer;
/// - [`BurnError::SharedParameter`] if two selected ones are one;
/// - [`BurnError::ForeignLayer`] if a tapped layer is not part of `model`;
/// - [`BurnError::MissingGradient`] if the loss does not depend on a selected layer;
/// - [`BurnError::BatchSize`] if layers saw different batches;
/// - [`BurnError::NotAMatrix`] for a selected vector under a `Kronecker` spec;
/// - [`BurnError::PlainGradients`] if the spec has an optimizer;
/// - [`BurnError::Read`] if the device fails, [`BurnError::Example`] if the sketcher returns an error.
pub fn sketch_examples<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
) -> Result<Vec<Sketch>, BurnError> {
    sketch_rows(sketcher, &Factors::of(model, taps, gradients, select)?)
}

/// The sketches of all rows, in their order.
pub(super) fn sketch_rows(sketcher: &Sketcher, factors: &Factors) -> Result<Vec<Sketch>, BurnError> {
    if sketcher.spec().optimizer().is_some() {
        return Err(BurnError::PlainGradients { spec: Box::new(sketcher.spec().clone()) });
    }
    if let SketcherKind::Kronecker { .. } = sketcher.spec().sketcher() {
        return kronecker::sketch_rows(sketcher, factors);
    }
    let mut folds = Folds::start(sketcher, factors.rows());
    factors.for_each_gradient(|path, first, rows| folds.add(path, first, rows))?;
    folds.finish()
}
