//! Sketches of an example's positions, from one backward.

use std::ops::Range;

use super::BurnError;
use super::examples::sketch_rows;
use super::factors::Factors;
use super::taps::Taps;
use crate::sketch::{Sketch, Sketcher};
use ::burn::module::Module;
use ::burn::tensor::Gradients;

/// Computes the sketches of spans of positions: for each example of the batch, one for each of its spans.
///
/// The gradient of an example's loss is a sum over positions: a linear layer's is `Σ_s a_s ⊗ g_s`, with the
/// layer's input a and the gradient g of its output at position s. The sketch of a span is that of the terms
/// of its positions, over all selected parameters. So, up to the order of float additions, the sketches of
/// spans that cover an example add up to its sketch by [`sketch_examples`](super::sketch_examples); one
/// backward of the sum of the losses serves all.
///
/// **A position is not a token's loss.** The row of position s says how the example's *whole* loss moves the
/// parameters through what the layers computed at s. The gradient of the loss of token s alone has terms at
/// s - 1 and at every position before it, and needs a backward of its own
/// ([`target_loss`](super::target_loss)).
///
/// `spans[b]` are the spans of example b, in the order of the result: ranges of positions, which may overlap
/// and may leave positions out. [`windows`] makes equal ones. Leave out padding: its positions add nothing.
/// `taps`, `gradients` and `select` are as in [`sketch_examples`](super::sketch_examples), and every selected
/// layer must have seen the same positions: `[batch, time, ...]`. Spans are filled up to the longest, so the
/// work is that of the number of spans times the longest.
///
/// ```
/// use burn::{Tensor, nn::LinearConfig, tensor::Device};
/// use gradix::burn::{Taps, sketch_positions, windows};
/// use gradix::sketch::{SketchSpec, Sketcher};
///
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(4, 2).init(&device);
/// let mut taps = Taps::on();
/// // Two examples of five positions, of which the second has three and padding.
/// let loss = taps.linear(&model, Tensor::<3>::ones([2, 5, 4], &device)).square().sum();
/// let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16))?;
/// let spans = windows(&[5, 3], 2);
/// let sketches = sketch_positions(&sketcher, &model, taps, &mut loss.backward(), |_| true, &spans)?;
/// assert_eq!((sketches[0].len(), sketches[1].len()), (3, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`sketch_examples`](super::sketch_examples), where the ordinal in [`BurnError::Example`] counts spans;
/// - [`BurnError::Shape`] if `spans` is not one list for each example;
/// - [`BurnError::Span`] for an empty span, or one that ends past the last position;
/// - [`BurnError::Positions`] if layers saw different numbers of positions.
pub fn sketch_positions<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    spans: &[Vec<Range<usize>>],
) -> Result<Vec<Vec<Sketch>>, BurnError> {
    let factors = Factors::of(model, taps, gradients, select)?.by_spans(spans)?;
    let mut sketches = if factors.rows() == 0 {
        Vec::new().into_iter()
    } else {
        sketch_rows(sketcher, &factors)?.into_iter()
    };
    Ok(spans.iter().map(|spans| sketches.by_ref().take(spans.len()).collect()).collect())
}

/// The spans of `width` positions of examples with these numbers of positions; an example's last one may be
/// shorter. A width of 0 counts as 1.
///
/// ```
/// assert_eq!(gradix::burn::windows(&[5, 2], 2), [vec![0..2, 2..4, 4..5], vec![0..2]]);
/// ```
#[must_use]
pub fn windows(positions: &[usize], width: usize) -> Vec<Vec<Range<usize>>> {
    let width = width.max(1);
    let of = |&positions: &usize| {
        (0..positions).step_by(width).map(|start| start..positions.min(start + width)).collect()
    };
    positions.iter().map(of).collect()
}
