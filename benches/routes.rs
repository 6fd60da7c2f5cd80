//! How many examples a second each route from a model to sketches makes, forward and backward included: the loop of
//! one example, factors that are folded, factors that are projected (Kronecker with sides of 16 and of 64), and
//! Adam's steps that are folded.
//!
//! The model is a stack of pre-norm blocks of causal attention and a two-layer MLP; the parameters are the matrices
//! of its blocks, the same for every route. Prints a table for each device that is there: flex and, with the feature,
//! wgpu or CUDA. The routes take turns in one process; each figure is the best of some runs.
//!
//! ```text
//! cargo bench --features wgpu --bench routes                  # width 128, 16 examples of 64 tokens
//! cargo bench --features wgpu --bench routes -- 256 8 128
//! ```

mod devices;

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::Tensor;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Bool, Device, Distribution};
use gradix::burn::{AdamState, BurnError, Parameters, Taps, sketch_examples, sketch_gradients, sketch_steps};
use gradix::sketch::{Sketch, SketchSpec, Sketcher};

use devices::devices;

type Failure = Box<dyn std::error::Error>;

const LAYERS: usize = 2;
const DIMS: u32 = 1 << 12;
const RUNS: usize = 3;

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    first: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    second: RmsNorm,
    up: Linear,
    down: Linear,
}

impl Stack {
    fn new(width: usize, device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_bias(false).init(device);
        let layer = |_| Layer {
            first: RmsNormConfig::new(width).init(device),
            query: linear(width, width),
            key: linear(width, width),
            value: linear(width, width),
            output: linear(width, width),
            second: RmsNormConfig::new(width).init(device),
            up: linear(width, 4 * width),
            down: linear(4 * width, width),
        };
        Self { layers: (0..LAYERS).map(layer).collect() }
    }

    /// The sum of the examples' losses; x is `[batch, time, width]`.
    fn loss(&self, x: Tensor<3>, taps: &mut Taps) -> Tensor<1> {
        let [batch, time, width] = x.dims();
        let later = Tensor::<2, Bool>::tril_mask([time, time], 0, &x.device()).unsqueeze::<3>();
        let later = later.expand([batch, time, time]);
        let loss = self.layers.iter().fold(x, |x, layer| {
            let y = layer.first.forward(x.clone());
            let query = taps.linear(&layer.query, y.clone());
            let key = taps.linear(&layer.key, y.clone());
            let value = taps.linear(&layer.value, y);
            let scores = query.matmul(key.swap_dims(1, 2)) / (width as f64).sqrt();
            let weights = softmax(scores.mask_fill(later.clone(), -1e9), 2);
            let x = x + taps.linear(&layer.output, weights.matmul(value));
            let y = relu(taps.linear(&layer.up, layer.second.forward(x.clone())));
            x + taps.linear(&layer.down, y)
        });
        loss.tanh().sum()
    }
}

/// What is measured, on one device.
struct Bench {
    model: Stack,
    /// The same, of which the backward computes no gradients of parameters.
    frozen: Stack,
    x: Tensor<3>,
    state: AdamState,
}

fn is_matrix(path: &str) -> bool {
    path.ends_with(".weight")
}

impl Bench {
    fn new([width, batch, time]: [usize; 3], device: &Device) -> Result<Self, BurnError> {
        device.seed(5);
        let model = Stack::new(width, device);
        let x = Tensor::random([batch, time, width], Distribution::Normal(0.0, 1.0), device);
        // Makes every parameter, which a clone would otherwise share.
        drop(model.loss(x.clone(), &mut Taps::off()));
        let frozen = model.clone().no_grad();
        let mut state = AdamState::new(0.9, 0.999, 1e-8);
        for (path, shape) in Parameters::of(&model, is_matrix).iter() {
            if let &[inputs, outputs] = shape {
                let moment = || Tensor::<2>::ones([inputs, outputs], device) * 1e-4;
                state.insert(path, 100, moment(), moment())?;
            }
        }
        let state = state.on(&x.clone().inner().device())?;
        Ok(Self { model, frozen, x, state })
    }

    fn loop_of_one(&self, sketcher: &Sketcher) -> Result<Vec<Sketch>, BurnError> {
        let [batch, ..] = self.x.dims();
        let one = |row| {
            let x = self.x.clone().narrow(0, row, 1);
            let mut gradients = self.model.loss(x, &mut Taps::off()).backward();
            sketch_gradients(sketcher, &self.model, &mut gradients, is_matrix)
        };
        (0..batch).map(one).collect()
    }

    fn batch(&self, sketcher: &Sketcher) -> Result<Vec<Sketch>, BurnError> {
        let mut taps = Taps::on();
        let mut gradients = self.frozen.loss(self.x.clone(), &mut taps).backward();
        sketch_examples(sketcher, &self.frozen, taps, &mut gradients, is_matrix)
    }

    fn steps(&self, sketcher: &Sketcher) -> Result<Vec<Sketch>, BurnError> {
        let mut taps = Taps::on();
        let mut gradients = self.frozen.loss(self.x.clone(), &mut taps).backward();
        sketch_steps(sketcher, &self.frozen, taps, &mut gradients, is_matrix, &self.state)
    }

    /// The forward and backward that all routes of a batch have in common.
    fn backward(&self) -> Result<Vec<Sketch>, BurnError> {
        let mut taps = Taps::on();
        let gradients = self.frozen.loss(self.x.clone(), &mut taps).backward();
        black_box((&taps, &gradients));
        Ok(Vec::new())
    }
}

fn main() -> Result<(), Failure> {
    // Cargo passes options of its own; only numbers are meant for this program.
    let given: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let shape = match given[..] {
        [] => [128, 16, 64],
        [width, batch, time] => [width, batch, time],
        _ => return Err("give a width, a number of examples and their number of tokens".into()),
    };
    let [width, batch, time] = shape;
    println!("{LAYERS} blocks of width {width}, {batch} examples of {time} tokens, the best of {RUNS} runs");
    println!("{:>8} {:<24} {:>8} {:>12} {:>12}", "device", "route", "dims", "examples/s", "of the loop");
    for (name, device) in devices() {
        measure(name, &device.autodiff(), shape)?;
    }
    Ok(())
}

fn measure(name: &str, device: &Device, shape: [usize; 3]) -> Result<(), Failure> {
    let bench = Bench::new(shape, device)?;
    let fold = Sketcher::new(SketchSpec::rapid_grad(7, DIMS))?;
    let kronecker = |side| {
        let blocks = Parameters::of(&bench.model, is_matrix);
        let blocks = blocks.iter().map(|(path, _)| (path.to_owned(), side, side));
        Sketcher::new(SketchSpec::kronecker(7, blocks))
    };
    let (small, large) = (kronecker(16)?, kronecker(64)?);
    let steps = Sketcher::new(fold.spec().clone().with_optimizer(bench.state.step()))?;
    type Route<'a> = (&'static str, usize, Box<dyn Fn() -> Result<Vec<Sketch>, BurnError> + 'a>);
    let routes: [Route<'_>; 6] = [
        ("loop of one, fold", fold.spec().dims(), Box::new(|| bench.loop_of_one(&fold))),
        ("factors, fold", fold.spec().dims(), Box::new(|| bench.batch(&fold))),
        ("factors, Adam, fold", steps.spec().dims(), Box::new(|| bench.steps(&steps))),
        ("factors, Kronecker 16", small.spec().dims(), Box::new(|| bench.batch(&small))),
        ("factors, Kronecker 64", large.spec().dims(), Box::new(|| bench.batch(&large))),
        ("forward and backward", 0, Box::new(|| bench.backward())),
    ];
    let mut best = [Duration::MAX; 6];
    // One run more, which compiles kernels and uploads projections.
    for run in 0..=RUNS {
        for ((_, _, route), best) in routes.iter().zip(&mut best) {
            let start = Instant::now();
            black_box(route()?);
            device.sync()?;
            if run > 0 {
                *best = start.elapsed().min(*best);
            }
        }
    }
    for ((route, dims, _), time) in routes.iter().zip(best) {
        let rate = shape[1] as f64 / time.as_secs_f64();
        let of_loop = best[0].as_secs_f64() / time.as_secs_f64();
        println!("{name:>8} {route:<24} {dims:>8} {rate:>12.1} {of_loop:>12.2}");
    }
    Ok(())
}
