//! Records what a linear layer sees and what is sent back to it, in a forward and a backward.

use ::burn::Tensor;
use ::burn::module::ParamId;
use ::burn::nn::Linear;

/// Records the inputs and output gradients of linear layers in a forward, for [`sketch_examples`](super::sketch_examples).
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
    pub(super) seen: Vec<Tap>,
}

#[derive(Debug)]
pub(super) struct Tap {
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
    /// `[batch, time, in]`, off the autodiff graph.
    pub(super) input: Tensor<3>,
    /// The zero added to the output; its gradient is `[batch, time, out]`.
    pub(super) zero: Tensor<3>,
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
