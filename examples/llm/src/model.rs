//! A decoder of the Llama architecture, with LoRA adapters on the projections of its attention.
//!
//! All weights are frozen but those of the adapters, whose linear layers are called through [`Taps`].

use burn::Tensor;
use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, Device, Int, TensorData};
use gradix::burn::Taps;

use crate::config::Config;
use crate::error::{LoadError, Result};
use crate::weights::Weights;

/// The language model: token ids in, logits of the next token out.
#[derive(Module, Debug)]
pub struct Llama {
    /// `[vocabulary, width]`.
    embedding: Param<Tensor<2>>,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// None where the embedding is the head.
    head: Option<Linear>,
    rope_base: f64,
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
    query: Adapted,
    key: Adapted,
    value: Adapted,
    output: Adapted,
    heads: usize,
    key_heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A frozen linear layer and its adapter: y = W x + (alpha / rank) B A x (Hu et al., arXiv:2106.09685).
#[derive(Module, Debug)]
struct Adapted {
    base: Linear,
    down: Linear,
    up: Linear,
    scale: f64,
}

/// The adapters' size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lora {
    /// Width between A and B.
    pub rank: usize,
    /// The adapter's output is multiplied by alpha / rank.
    pub alpha: f64,
}

/// Whether gradients of a parameter are sketched: the adapters'.
#[must_use]
pub fn is_adapter(path: &str) -> bool {
    path.ends_with(".down.weight") && path.contains(".attention.")
        || path.ends_with(".up.weight") && path.contains(".attention.")
}

/// Where the weights of a model are and what they are called.
struct Loading<'a> {
    weights: &'a Weights,
    gguf: bool,
    device: &'a Device,
    taken: Vec<String>,
}

impl Loading<'_> {
    fn floats<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Vec<f32>> {
        let values = self.weights.tensor(name, &shape)?;
        self.taken.push(name.to_owned());
        Ok(values)
    }

    fn frozen<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
        Param::from_tensor(tensor).set_require_grad(false)
    }

    fn name(&self, layer: usize, gguf: &str, json: &str) -> String {
        if self.gguf {
            format!("blk.{layer}.{gguf}.weight")
        } else {
            format!("model.layers.{layer}.{json}.weight")
        }
    }

    fn norm(&mut self, name: &str, config: &Config) -> Result<RmsNorm> {
        let values = self.floats(name, [config.width])?;
        let mut norm = RmsNormConfig::new(config.width).with_epsilon(config.epsilon).init(self.device);
        norm.gamma = self.frozen(values, [config.width]);
        Ok(norm)
    }

    /// Files have `[outputs, inputs]`, burn `[inputs, outputs]`.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let values = self.floats(name, [outputs, inputs])?;
        Ok(self.layer(&values, inputs, outputs))
    }

    fn layer(&self, values: &[f32], inputs: usize, outputs: usize) -> Linear {
        let mut turned = vec![0.0; values.len()];
        for (output, row) in values.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                turned[input * outputs + output] = *value;
            }
        }
        Linear { weight: self.frozen(turned, [inputs, outputs]), bias: None }
    }

    /// A projection whose rotary pairs are brought into the order (i, i + half), in which `config.json`'s
    /// models have them. GGUF's have (2 i, 2 i + 1).
    fn rotated(&mut self, name: &str, inputs: usize, heads: usize, head: usize) -> Result<Linear> {
        let values = self.floats(name, [heads * head, inputs])?;
        if !self.gguf {
            return Ok(self.layer(&values, inputs, heads * head));
        }
        let mut ordered = Vec::with_capacity(values.len());
        for rows in values.chunks_exact(head * inputs) {
            for row in (0..head).step_by(2).chain((1..head).step_by(2)) {
                ordered.extend_from_slice(&rows[row * inputs..(row + 1) * inputs]);
            }
        }
        Ok(self.layer(&ordered, inputs, heads * head))
    }
}

impl Lora {
    fn around(self, base: Linear, device: &Device) -> Adapted {
        let [inputs, outputs] = base.weight.dims();
        let adapter = |inputs, outputs, initializer| {
            LinearConfig::new(inputs, outputs).with_bias(false).with_initializer(initializer).init(device)
        };
        let bound = 1.0 / (inputs as f64).sqrt();
        Adapted {
            base,
            down: adapter(inputs, self.rank, Initializer::Uniform { min: -bound, max: bound }),
            up: adapter(self.rank, outputs, Initializer::Zeros),
            scale: self.alpha / self.rank as f64,
        }
    }
}

impl Adapted {
    fn forward(&self, x: Tensor<3>, taps: &mut Taps) -> Tensor<3> {
        let y = self.base.forward(x.clone());
        let narrow = taps.linear(&self.down, x);
        y + taps.linear(&self.up, narrow).mul_scalar(self.scale)
    }
}

impl Llama {
    /// Loads the frozen weights, and makes adapters from the device's seed.
    ///
    /// # Errors
    /// Names the file and the tensor that is missing, of another shape or type, or not used.
    pub fn load(weights: &Weights, config: &Config, lora: Lora, device: &Device) -> Result<Self> {
        let gguf = matches!(weights, Weights::Gguf(_));
        let mut load = Loading { weights, gguf, device, taken: Vec::new() };
        let pick = |ggml: &'static str, json: &'static str| if gguf { ggml } else { json };
        let width = config.width;
        let shape = [config.vocabulary, width];
        let embedding = load.floats(pick("token_embd.weight", "model.embed_tokens.weight"), shape)?;
        let embedding = load.frozen(embedding, shape);
        let layers = (0..config.layers)
            .map(|layer| Block::load(&mut load, layer, config, lora))
            .collect::<Result<_>>()?;
        let norm = load.norm(pick("output_norm.weight", "model.norm.weight"), config)?;
        let head = pick("output.weight", "lm_head.weight");
        let head = if config.tied { None } else { Some(load.linear(head, width, config.vocabulary)?) };
        // Buffers of older exporters hold what is computed here; a copy of a tied head changes nothing.
        let known =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || config.tied && name == "lm_head.weight";
        let unused = weights
            .names()
            .into_iter()
            .find(|name| !load.taken.iter().any(|taken| taken == name) && !known(name));
        if let Some(tensor) = unused {
            return Err(LoadError::UnusedTensor {
                path: weights.path().to_owned(),
                tensor: tensor.to_owned(),
            });
        }
        Ok(Self { embedding, layers, norm, head, rope_base: config.rope_base })
    }

    /// The last hidden state of every position: `[batch, time]` to `[batch, time, width]`.
    ///
    /// Sequences are padded at the end; no position sees a later one.
    pub fn hidden(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let [batch, time] = tokens.dims();
        let device = tokens.device();
        let plain = device.clone().inner();
        let later = Tensor::<2>::ones([time, time], &plain).triu(1).bool().unsqueeze::<4>();
        let turns = self.turns(time, &device);
        let [_, width] = self.embedding.dims();
        let mut x = self.embedding.val().select(0, tokens.flatten(0, 1)).reshape([batch, time, width]);
        for layer in &self.layers {
            x = layer.forward(x, &later, &turns, taps);
        }
        self.norm.forward(x)
    }

    /// Logits of the next token for hidden states.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.head {
            Some(head) => head.forward(hidden),
            None => hidden.matmul(self.embedding.val().transpose().unsqueeze()),
        }
    }

    /// Cosines and sines of each position's angles: `[1, 1, time, half]`.
    fn turns(&self, time: usize, device: &Device) -> [Tensor<4>; 2] {
        let half = self.layers.first().map_or(0, |layer| layer.attention.head() / 2);
        let angles = (0..time).flat_map(|at| {
            (0..half)
                .map(move |pair| (at, pair))
                .map(|(at, pair)| at as f64 * self.rope_base.powf(-(pair as f64) / half as f64))
        });
        let angles: Vec<f64> = angles.collect();
        let tensor = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, time, half]), device)
        };
        [tensor(f64::cos), tensor(f64::sin)]
    }
}

impl Block {
    fn load(load: &mut Loading<'_>, layer: usize, config: &Config, lora: Lora) -> Result<Self> {
        let Config { width, hidden, heads, key_heads, head, .. } = *config;
        let device = load.device;
        let name = load.name(layer, "attn_norm", "input_layernorm");
        let attention_norm = load.norm(&name, config)?;
        let name = load.name(layer, "attn_q", "self_attn.q_proj");
        let query = lora.around(load.rotated(&name, width, heads, head)?, device);
        let name = load.name(layer, "attn_k", "self_attn.k_proj");
        let key = lora.around(load.rotated(&name, width, key_heads, head)?, device);
        let name = load.name(layer, "attn_v", "self_attn.v_proj");
        let value = lora.around(load.linear(&name, width, key_heads * head)?, device);
        let name = load.name(layer, "attn_output", "self_attn.o_proj");
        let output = lora.around(load.linear(&name, heads * head, width)?, device);
        let name = load.name(layer, "ffn_norm", "post_attention_layernorm");
        let mlp_norm = load.norm(&name, config)?;
        let name = load.name(layer, "ffn_gate", "mlp.gate_proj");
        let gate = load.linear(&name, width, hidden)?;
        let name = load.name(layer, "ffn_up", "mlp.up_proj");
        let up = load.linear(&name, width, hidden)?;
        let name = load.name(layer, "ffn_down", "mlp.down_proj");
        let down = load.linear(&name, hidden, width)?;
        Ok(Self {
            attention_norm,
            attention: Attention { query, key, value, output, heads, key_heads },
            mlp_norm,
            mlp: Mlp { gate, up, down },
        })
    }

    fn forward(
        &self,
        x: Tensor<3>,
        later: &Tensor<4, Bool>,
        turns: &[Tensor<4>; 2],
        taps: &mut Taps,
    ) -> Tensor<3> {
        let attended = self.attention.forward(self.attention_norm.forward(x.clone()), later, turns, taps);
        let x = x + attended;
        let y = self.mlp_norm.forward(x.clone());
        let y = silu(self.mlp.gate.forward(y.clone())) * self.mlp.up.forward(y);
        x + self.mlp.down.forward(y)
    }
}

impl Attention {
    fn head(&self) -> usize {
        let [_, outputs] = self.query.base.weight.dims();
        outputs / self.heads
    }

    fn forward(
        &self,
        x: Tensor<3>,
        later: &Tensor<4, Bool>,
        turns: &[Tensor<4>; 2],
        taps: &mut Taps,
    ) -> Tensor<3> {
        let [batch, time, _] = x.dims();
        let (heads, head, groups) = (self.heads, self.head(), self.heads / self.key_heads);
        let split = |y: Tensor<3>, heads: usize| y.reshape([batch, time, heads, head]).swap_dims(1, 2);
        // Each key head serves `groups` query heads that stand side by side.
        let shared = |y: Tensor<4>| {
            let y = y.unsqueeze_dim::<5>(2).expand([batch, self.key_heads, groups, time, head]);
            y.reshape([batch, heads, time, head])
        };
        let query = turned(split(self.query.forward(x.clone(), taps), heads), turns);
        let key = shared(turned(split(self.key.forward(x.clone(), taps), self.key_heads), turns));
        let value = shared(split(self.value.forward(x, taps), self.key_heads));
        let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar(1.0 / (head as f64).sqrt());
        let later = later.clone().expand([batch, heads, time, time]);
        let weights = softmax(scores.mask_fill(later, -1e9), 3);
        let mixed = weights.matmul(value).swap_dims(1, 2).reshape([batch, time, heads * head]);
        self.output.forward(mixed, taps)
    }
}

/// Rotary position embedding: the pair (i, i + half) of a head is turned by its position's angle.
fn turned(x: Tensor<4>, [cosine, sine]: &[Tensor<4>; 2]) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (left, right) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = left.clone() * cosine.clone() - right.clone() * sine.clone();
    let second = right * cosine.clone() + left * sine.clone();
    Tensor::cat(vec![first, second], 3)
}
