//! A small decoder-only transformer: pre-norm blocks of causal attention and a two-layer MLP.
//!
//! Its only code for gradients: the blocks' linear layers are called through [`Taps`], from which gradix
//! computes every example's gradient with one backward.

use burn::Tensor;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig};
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Bool, Device, Int};
use gradix::burn::Taps;

/// The longest sequence, in tokens.
pub const CONTEXT: usize = 40;

/// The model's dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
}

/// The language model: token ids in, logits of the next token out.
#[derive(Module, Debug)]
pub struct Transformer {
    tokens: Embedding,
    positions: Param<Tensor<2>>,
    layers: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    up: Linear,
    down: Linear,
}

/// Whether gradients of a parameter are sketched: those of the weights of the blocks' linear layers.
pub fn is_kept(path: &str) -> bool {
    path.starts_with("layers.") && !path.contains("norm")
}

impl Shape {
    /// A model with random weights; the device's seed decides which.
    pub fn init(&self, device: &Device) -> Transformer {
        let width = self.width;
        let small = Initializer::Normal { mean: 0.0, std: 0.1 };
        Transformer {
            tokens: EmbeddingConfig::new(self.vocabulary, width).with_initializer(small.clone()).init(device),
            positions: small.init([CONTEXT, width], device),
            layers: (0..self.layers).map(|_| Block::init(self, device)).collect(),
            norm: RmsNormConfig::new(width).init(device),
            head: linear(width, self.vocabulary, device),
        }
    }
}

fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs).with_bias(false).init(device)
}

impl Block {
    fn init(shape: &Shape, device: &Device) -> Self {
        let width = shape.width;
        let square = || linear(width, width, device);
        Self {
            attention_norm: RmsNormConfig::new(width).init(device),
            attention: Attention {
                query: square(),
                key: square(),
                value: square(),
                output: square(),
                heads: shape.heads,
            },
            mlp_norm: RmsNormConfig::new(width).init(device),
            mlp: Mlp { up: linear(width, 4 * width, device), down: linear(4 * width, width, device) },
        }
    }

    fn forward(&self, x: Tensor<3>, masked: Tensor<4, Bool>, taps: &mut Taps) -> Tensor<3> {
        let attended = self.attention.forward(self.attention_norm.forward(x.clone()), masked, taps);
        let x = x + attended;
        let hidden = relu(taps.linear(&self.mlp.up, self.mlp_norm.forward(x.clone())));
        x + taps.linear(&self.mlp.down, hidden)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>, masked: Tensor<4, Bool>, taps: &mut Taps) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let size = width / self.heads;
        let split = |y: Tensor<3>| y.reshape([batch, time, self.heads, size]).swap_dims(1, 2);
        let query = split(taps.linear(&self.query, x.clone()));
        let key = split(taps.linear(&self.key, x.clone()));
        let value = split(taps.linear(&self.value, x));
        let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar(1.0 / (size as f64).sqrt());
        let weights = softmax(scores.mask_fill(masked.expand([batch, self.heads, time, time]), -1e9), 3);
        let mixed = weights.matmul(value).swap_dims(1, 2).reshape([batch, time, width]);
        taps.linear(&self.output, mixed)
    }
}

impl Transformer {
    /// The last hidden state of every position: `[batch, time]` to `[batch, time, width]`.
    ///
    /// Sequences are padded at the end; no position sees a later one. At most [`CONTEXT`] tokens.
    pub fn hidden(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let [_, time] = tokens.dims();
        let device = tokens.device();
        let positions = self.positions.val().narrow(0, 0, time).unsqueeze_dim::<3>(0);
        let later = Tensor::<2>::ones([time, time], &device.clone().inner()).triu(1).bool();
        let later = later.unsqueeze::<4>();
        let mut x = self.tokens.forward(tokens) + positions;
        for layer in &self.layers {
            x = layer.forward(x, later.clone(), taps);
        }
        self.norm.forward(x)
    }

    /// Logits of the next token for hidden states of any shape `[..., width]`.
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        self.head.forward(hidden)
    }
}
