//! What rows for the tokens of an answer cost, beside one row for all of it.
//!
//! An answer of T tokens stands behind a prompt of P, in a decoder of 4 blocks. Prints seconds and the tokens that went
//! through the model, with padding, for
//! - "whole": one row, the gradient of the answer's loss;
//! - "copies": a row for each token's loss, from T copies of the whole sequence, in batches;
//! - "cut off": the same, where each copy ends with its target, as the collector does it;
//! - "positions": a row for each position of the answer's sequence from one backward, which is something else.
//!
//! Each is the best of some runs in turns.
//!
//! ```text
//! cargo bench --features burn --bench tokens               # flex
//! cargo bench --features wgpu --bench tokens -- wgpu
//! ```

use std::time::{Duration, Instant};

use burn::Tensor;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Bool, Device, Int, TensorData};
use gradix::Span;
use gradix::burn::collect::{Cause, Example, Piece, Replica, sketch_pieces, windows};
use gradix::burn::{Taps, sketch_positions, target_loss};
use gradix::sketch::{SketchSpec, Sketcher};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const RUNS: usize = 3;
const WIDTH: usize = 256;
const HEADS: usize = 4;
const BLOCKS: usize = 4;
const VOCABULARY: usize = 1024;
/// Of a batch, with padding.
const BATCH_TOKENS: usize = 2048;

#[derive(Module, Debug)]
struct Decoder {
    tokens: Embedding,
    blocks: Vec<Block>,
    head: Linear,
}

#[derive(Module, Debug)]
struct Block {
    norms: Vec<RmsNorm>,
    /// Query, key, value, output.
    attention: Vec<Linear>,
    up: Linear,
    down: Linear,
}

impl Decoder {
    fn new(device: &Device) -> Self {
        device.seed(1);
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let block = |_| Block {
            norms: (0..2).map(|_| RmsNormConfig::new(WIDTH).init(device)).collect(),
            attention: (0..4).map(|_| linear(WIDTH, WIDTH)).collect(),
            up: linear(WIDTH, 4 * WIDTH),
            down: linear(4 * WIDTH, WIDTH),
        };
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            blocks: (0..BLOCKS).map(block).collect(),
            head: linear(WIDTH, VOCABULARY),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let [_, time] = tokens.dims();
        let later = Tensor::<2>::ones([time, time], &tokens.device().inner()).triu(1).bool().unsqueeze();
        let mut x = self.tokens.forward(tokens);
        for block in &self.blocks {
            x = block.forward(x, &later, taps);
        }
        self.head.forward(x)
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>, later: &Tensor<4, Bool>, taps: &mut Taps) -> Tensor<3> {
        let [batch, time, _] = x.dims();
        let normed = self.norms[0].forward(x.clone());
        let mut heads = |linear| {
            let y: Tensor<3> = taps.linear(linear, normed.clone());
            y.reshape([batch, time, HEADS, WIDTH / HEADS]).swap_dims(1, 2)
        };
        let [query, key, value] = [0, 1, 2].map(|at| heads(&self.attention[at]));
        let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar(1.0 / ((WIDTH / HEADS) as f64).sqrt());
        let masked = scores.mask_fill(later.clone().expand([batch, HEADS, time, time]), -1e9);
        let mixed = softmax(masked, 3).matmul(value).swap_dims(1, 2).reshape([batch, time, WIDTH]);
        let x = x + taps.linear(&self.attention[3], mixed);
        let hidden = relu(taps.linear(&self.up, self.norms[1].forward(x.clone())));
        x + taps.linear(&self.down, hidden)
    }
}

struct Text {
    prompt: usize,
    tokens: Vec<i32>,
}

impl Example for Text {
    fn id(&self) -> &[u8] {
        b"text"
    }

    fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

struct OnDevice {
    model: Decoder,
    device: Device,
    /// Whether copies end with their last target.
    is_cut_off: bool,
}

impl OnDevice {
    fn length(&self, piece: &Piece<'_, Text>) -> usize {
        if self.is_cut_off { piece.tokens } else { piece.example.tokens.len() }
    }
}

impl Replica<Text> for OnDevice {
    type Model = Decoder;

    fn model(&self) -> &Decoder {
        &self.model
    }

    fn losses(&self, batch: &[Piece<'_, Text>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        let longest = batch.iter().map(|piece| self.length(piece)).max().unwrap_or(0);
        let mut ids = Vec::new();
        for piece in batch {
            ids.extend(&piece.example.tokens[..self.length(piece)]);
            ids.resize(ids.len().next_multiple_of(longest), 0);
        }
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), longest]), &self.device);
        let targets: Vec<_> =
            batch.iter().map(|it| it.targets(it.example.prompt..it.example.tokens.len())).collect();
        Ok(target_loss(self.model.forward(tokens.clone(), taps), tokens, &targets)?)
    }

    fn select(&self, path: &str) -> bool {
        path.starts_with("blocks.") && !path.contains("norms")
    }
}

/// Sketches pieces in batches, the longest first; returns the tokens that went through the model.
fn collect(
    sketcher: &Sketcher,
    replica: &OnDevice,
    mut pieces: Vec<Piece<'_, Text>>,
) -> Result<usize, Failure> {
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.tokens));
    let (mut rest, mut tokens) = (pieces.as_slice(), 0);
    while let Some(first) = rest.first() {
        let length = replica.length(first);
        let (batch, others) = rest.split_at(rest.len().min((BATCH_TOKENS / length).max(1)));
        sketch_pieces(sketcher, replica, batch)?;
        tokens += batch.len() * length;
        rest = others;
    }
    Ok(tokens)
}

fn positions(sketcher: &Sketcher, replica: &OnDevice, text: &Text) -> Result<usize, Failure> {
    let mut taps = Taps::on();
    let loss = replica.losses(&[Piece::new(text, Span::WHOLE)], &mut taps)?;
    let (first, last) = (text.prompt, text.tokens.len());
    let spans = [(first..last).map(|at| at..at + 1).collect()];
    let select = |path: &str| replica.select(path);
    sketch_positions(sketcher, &replica.model, taps, &mut loss.sum().backward(), select, &spans)?;
    Ok(last)
}

fn device() -> Result<Device, Failure> {
    match std::env::args().find(|argument| !argument.starts_with('-') && !argument.contains('/')).as_deref() {
        None | Some("flex") => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        Some("wgpu") => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        Some("cuda") => Ok(Device::cuda(0)),
        Some(other) => Err(format!("there is no device {other:?} with these features").into()),
    }
}

fn main() -> Result<(), Failure> {
    let device = device()?.autodiff();
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 4096))?;
    let model = Decoder::new(&device).no_grad();
    let replica = |is_cut_off| OnDevice { model: model.clone(), device: device.clone(), is_cut_off };
    let (whole, cut_off) = (replica(false), replica(true));
    println!(
        "{:>7} {:>7}  {:<10} {:>5} {:>8} {:>9} {:>9} {:>9}",
        "prompt", "answer", "", "rows", "tokens", "seconds", "of whole", "ms a row"
    );
    for (prompt, answer) in [(32, 16), (32, 64), (128, 64)] {
        let tokens = (0..prompt + answer).map(|at| (at * 37 % VOCABULARY) as i32).collect();
        let text = Text { prompt, tokens };
        let all = || vec![Piece::new(&text, Span::WHOLE)];
        let spans = windows(prompt as u32..(prompt + answer) as u32, 1);
        let each = || spans.iter().map(|span| Piece::new(&text, *span)).collect::<Vec<_>>();
        let mut best = [(0, Duration::MAX); 4];
        for _ in 0..RUNS {
            for (way, best) in best.iter_mut().enumerate() {
                let start = Instant::now();
                let tokens = match way {
                    0 => collect(&sketcher, &whole, all())?,
                    1 => collect(&sketcher, &whole, each())?,
                    2 => collect(&sketcher, &cut_off, each())?,
                    _ => positions(&sketcher, &whole, &text)?,
                };
                *best = (tokens, best.1.min(start.elapsed()));
            }
        }
        let rows = [1, answer, answer, answer];
        let seconds = best.map(|(_, time)| time.as_secs_f64());
        for (way, name) in ["whole", "copies", "cut off", "positions"].into_iter().enumerate() {
            println!(
                "{prompt:>7} {answer:>7}  {name:<10} {:>5} {:>8} {:>9.3} {:>9.1} {:>9.2}",
                rows[way],
                best[way].0,
                seconds[way],
                seconds[way] / seconds[0],
                seconds[way] * 1e3 / rows[way] as f64,
            );
        }
    }
    Ok(())
}
