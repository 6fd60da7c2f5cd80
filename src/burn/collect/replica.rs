//! A model on one device, as the caller provides it.

use std::ops::Range;

use ::burn::Tensor;
use ::burn::module::Module;
use ::burn::tensor::Gradients;

use super::Cause;
use super::example::Piece;
use crate::burn::{BurnError, Taps, sketch_examples, sketch_positions};
use crate::sketch::{Sketch, Sketcher};

/// A copy of the model on one device, used by one thread.
///
/// The model should be frozen (`no_grad`) and moved to its device (`fork`), which must be one with autodiff. An
/// index's rows are equal bit for bit only from replicas with equal parameters on devices of one kind.
pub trait Replica<E>: Send {
    /// The module whose parameters are sketched.
    type Model: Module;

    /// The module of the layers that [`Replica::losses`] taps. A collection records the names and shapes of the parameters
    /// that [`Replica::select`] accepts.
    fn model(&self) -> &Self::Model;

    /// Computes the loss of each piece of a batch: `[batch]`, of a forward whose layers go through `taps`.
    ///
    /// The pieces have different numbers of tokens ([`Piece::tokens`]): pad them. No layer may mix the examples of a
    /// batch, and padding may not change a loss.
    ///
    /// # Errors
    /// Any. One from [`sequence_loss`](crate::burn::sequence_loss) or [`target_loss`](crate::burn::target_loss) names
    /// the piece at fault; others, and panics, are tried again on halves of the batch until the piece is found.
    fn losses(&self, batch: &[Piece<'_, E>], taps: &mut Taps) -> Result<Tensor<1>, Cause>;

    /// Whether the parameter at this path is sketched. Default: all are.
    fn select(&self, path: &str) -> bool {
        let _ = path;
        true
    }

    /// Turns what the taps recorded into one sketch for each piece of the batch.
    /// Default: [`sketch_examples`].
    ///
    /// # Errors
    /// As [`sketch_examples`]. [`BurnError::Example`] names the piece at fault.
    fn sketch(
        &self,
        sketcher: &Sketcher,
        taps: Taps,
        gradients: &mut Gradients,
    ) -> Result<Vec<Sketch>, BurnError> {
        sketch_examples(sketcher, self.model(), taps, gradients, |path| self.select(path))
    }

    /// The same for [`RowKind::Positions`](super::RowKind::Positions): for each piece of the batch, a sketch of each of
    /// its spans. Default: [`sketch_positions`].
    ///
    /// # Errors
    /// As [`sketch_positions`]. The ordinal in [`BurnError::Example`] counts spans.
    fn sketch_positions(
        &self,
        sketcher: &Sketcher,
        taps: Taps,
        gradients: &mut Gradients,
        spans: &[Vec<Range<usize>>],
    ) -> Result<Vec<Vec<Sketch>>, BurnError> {
        sketch_positions(sketcher, self.model(), taps, gradients, |path| self.select(path), spans)
    }
}
