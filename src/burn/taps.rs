//! Records what a layer sees and what is sent back to it, in a forward and a backward.

use ::burn::Tensor;
use ::burn::module::{Param, ParamId};
use ::burn::nn::{Embedding, LayerNorm, Linear, RmsNorm};
use ::burn::tensor::module::linear;
use ::burn::tensor::{Device, Int};

/// Records the inputs and output gradients of layers in a forward, for
/// [`sketch_examples`](super::sketch_examples).
///
/// ```text
/// let hidden = taps.linear(&self.up, x);   // instead of self.up.forward(x)
/// ```
///
/// | instead of | call |
/// |---|---|
/// | [`Linear::forward`] | [`linear`](Taps::linear) |
/// | `x.matmul(w.val())` with a parameter `[in, out]` | [`matrix`](Taps::matrix) |
/// | `x.matmul(w.val().transpose())` with a parameter `[out, in]`, such as tied embeddings | [`transposed`](Taps::transposed) |
/// | [`Embedding::forward`] | [`embedding`](Taps::embedding) |
/// | [`RmsNorm::forward`] | [`rms_norm`](Taps::rms_norm) |
/// | [`LayerNorm::forward`] | [`layer_norm`](Taps::layer_norm) |
///
/// A parameter may have one of burn's LoRA adapters: its factors then have gradients of their own, under
/// the paths `….lora.a` and `….lora.b`.
///
/// **Every** use of a sketched parameter must go through the taps: of one that is also used elsewhere, only
/// the tapped part of the gradient is recorded, and nothing can notice it. Of a weight that is embedding and
/// head, record both: `taps.embedding(&self.tokens, tokens)` and `taps.transposed(&self.tokens.weight, x)`.
///
/// Fastest on `model.clone().no_grad()`: then the backward computes no weight gradients of its own. The
/// model must have been used or loaded before: burn initialises a new model's parameters on first use, and
/// until then a clone shares its frozen state with the original.
#[derive(Debug)]
pub struct Taps {
    on: bool,
    pub(super) seen: Vec<Tap>,
}

/// One use of a layer.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) layer: Layer,
    /// The matrix, or the scale of a norm.
    pub(super) parameter: ParamId,
    pub(super) bias: Option<ParamId>,
    pub(super) adapter: Option<Adapter>,
    /// The zero added to the output; its gradient is `[batch, time, out]`.
    pub(super) zero: Tensor<3>,
}

/// How a layer's output depends on its parameter, with what it saw, off the autodiff graph.
#[derive(Debug)]
pub(super) enum Layer {
    /// `y = x W`, with x: `[batch, time, in]`.
    Matrix(Tensor<3>),
    /// `y = x W^T`, with x: `[batch, time, in]`.
    Transposed(Tensor<3>),
    /// `y = W[token]`, with the tokens: `[batch, time]`.
    Rows(Tensor<2, Int>),
    /// `y = x * w`, with x: `[batch, time, width]`.
    Scale(Tensor<3>),
}

/// The low-rank factors of `W = base + scale * (a b)`, off the autodiff graph.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) a: (ParamId, Tensor<2>),
    pub(super) b: (ParamId, Tensor<2>),
    pub(super) scale: f64,
}

impl Taps {
    /// Taps that record.
    #[must_use]
    pub fn on() -> Self {
        Self { on: true, seen: Vec::new() }
    }

    /// Taps that record nothing, for training and inference: every method is then the plain forward.
    #[must_use]
    pub fn off() -> Self {
        Self { on: false, seen: Vec::new() }
    }

    /// Computes the layer's output for `x`: `[batch, ..., in]` to `[batch, ..., out]`.
    ///
    /// The first axis is the examples'; a tensor of one axis does not compile. A layer may be used several
    /// times in a forward: its gradient is the sum over the uses. On a device without autodiff, nothing is
    /// recorded. The same holds for the other methods.
    ///
    /// # Panics
    /// Like [`Linear::forward`], if the last axis is not the layer's input.
    pub fn linear<const D: usize>(&mut self, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
        let y = layer.forward(x.clone());
        let bias = layer.bias.as_ref().map(|bias| bias.id);
        self.record(&layer.weight, bias, y, || Layer::Matrix(flat(x)))
    }

    /// Computes `x W` with a parameter that is no [`Linear`]'s: `[batch, ..., in]` to `[batch, ..., out]`,
    /// where the parameter is `[in, out]`. For example `x A B` of one's own low-rank adapter is two calls.
    ///
    /// # Panics
    /// If the last axis is not `in`.
    pub fn matrix<const D: usize>(&mut self, weight: &Param<Tensor<2>>, x: Tensor<D>) -> Tensor<D> {
        let y = linear(x.clone(), weight.val(), None);
        self.record(weight, None, y, || Layer::Matrix(flat(x)))
    }

    /// Computes `x W^T`: `[batch, ..., in]` to `[batch, ..., out]`, where the parameter is `[out, in]`.
    ///
    /// This is the head of a model that shares its matrix with the embedding. The gradient has the
    /// parameter's shape, `[out, in]`.
    ///
    /// # Panics
    /// If the last axis is not `in`.
    pub fn transposed<const D: usize>(&mut self, weight: &Param<Tensor<2>>, x: Tensor<D>) -> Tensor<D> {
        let y = linear(x.clone(), weight.val().transpose(), None);
        self.record(weight, None, y, || Layer::Transposed(flat(x)))
    }

    /// Looks up the rows of tokens: `[batch, time]` to `[batch, time, width]`.
    ///
    /// # Panics
    /// Like [`Embedding::forward`], on most devices, if a token is past the last row.
    pub fn embedding(&mut self, embedding: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
        let y = embedding.forward(tokens.clone());
        self.record(&embedding.weight, None, y, || Layer::Rows(tokens.without_autodiff()))
    }

    /// Normalises the last axis: `[batch, ..., width]` to the same.
    ///
    /// # Panics
    /// Like [`RmsNorm::forward`], if the last axis is not the layer's width.
    pub fn rms_norm<const D: usize>(&mut self, norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
        let y = norm.forward(x.clone());
        self.record(&norm.gamma, None, y, || {
            let x = x.without_autodiff();
            let gamma = ones(&norm.gamma, &x.device());
            Layer::Scale(flat(RmsNorm { gamma, epsilon: norm.epsilon }.forward(x)))
        })
    }

    /// Normalises the last axis: `[batch, ..., width]` to the same.
    ///
    /// # Panics
    /// Like [`LayerNorm::forward`], if the last axis is not the layer's width.
    pub fn layer_norm<const D: usize>(&mut self, norm: &LayerNorm, x: Tensor<D>) -> Tensor<D> {
        let y = norm.forward(x.clone());
        let bias = norm.beta.as_ref().map(|bias| bias.id);
        self.record(&norm.gamma, bias, y, || {
            let x = x.without_autodiff();
            let mut plain = norm.clone();
            plain.gamma = ones(&norm.gamma, &x.device());
            plain.beta = None;
            Layer::Scale(flat(plain.forward(x)))
        })
    }

    /// Adds a zero to the output y, whose gradient is that of y, and keeps it with what `layer` says.
    fn record<const D: usize, const P: usize>(
        &mut self,
        parameter: &Param<Tensor<P>>,
        bias: Option<ParamId>,
        y: Tensor<D>,
        layer: impl FnOnce() -> Layer,
    ) -> Tensor<D> {
        const { assert!(D >= 2, "the first axis must be the examples of a batch") };
        let device = y.device();
        if !self.on || !device.is_autodiff() {
            return y;
        }
        let outputs = y.dims();
        let zero = Tensor::<3>::zeros(examples_first(outputs), (&device, y.dtype())).require_grad();
        let y = y + zero.clone().reshape(outputs);
        let adapter = parameter.adapter().map(|adapter| Adapter {
            a: (adapter.a.id, adapter.a.val().without_autodiff()),
            b: (adapter.b.id, adapter.b.val().without_autodiff()),
            scale: adapter.scale,
        });
        self.seen.push(Tap { layer: layer(), parameter: parameter.id, bias, adapter, zero });
        y
    }
}

/// `[batch, time, width]`, where the axes between the first and the last are one.
fn examples_first<const D: usize>(dims: [usize; D]) -> [usize; 3] {
    [dims[0], dims[1..D - 1].iter().product(), dims[D - 1]]
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<3> {
    let dims = examples_first(x.dims());
    x.without_autodiff().reshape(dims)
}

/// A scale that leaves what it scales as it is.
fn ones(scale: &Param<Tensor<1>>, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::ones(scale.shape(), (device, scale.base().dtype())))
}
