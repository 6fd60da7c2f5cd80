//! What PyTorch's collector is held to: sketches that burn makes, with the weights and examples from which it makes them.
//!
//! `python/tests/test_torch_agreement.py` reads the file that this test writes with `GRADIX_WRITE_AGREEMENT=1`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::Tensor;
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{
    Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig,
};
use burn::tensor::{Device, Gradients, Int, TensorData};
use gradix::burn::{Parameters, Taps, sketch_examples, sketch_positions, target_loss};
use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use serde::{Deserialize, Serialize};

const FILE: &str = "tests/fixtures/torch_agreement.json";
const VOCABULARY: usize = 11;
const WIDTH: usize = 8;
/// Each with the position of the first token whose loss counts.
const EXAMPLES: [(&[i32], usize); 3] = [(&[1, 4, 9, 2, 7], 1), (&[3, 3, 8], 2), (&[5, 10, 0, 6], 1)];
/// Of positions, in each example.
const SPANS: [std::ops::Range<usize>; 2] = [0..1, 1..3];

/// A tied head, both norms, a layer that is used twice, and one without a bias.
#[derive(Module, Debug)]
struct Model {
    tokens: Embedding,
    first: RmsNorm,
    shared: Linear,
    second: LayerNorm,
    down: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        let model = Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            first: RmsNormConfig::new(WIDTH).with_epsilon(1e-5).init(device),
            shared: LinearConfig::new(WIDTH, WIDTH).init(device),
            second: LayerNormConfig::new(WIDTH).with_epsilon(1e-5).init(device),
            down: LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device),
        };
        model.map(&mut Numbered { device: device.clone(), next: 0 })
    }

    fn forward(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let x = taps.embedding(&self.tokens, tokens);
        let y = taps.rms_norm(&self.first, x.clone());
        // Causal mixing over time, so that the time axis matters.
        let y = taps.linear(&self.shared, y).cumsum(1).tanh();
        let y = taps.layer_norm(&self.second, y);
        let y = taps.linear(&self.shared, y).tanh();
        let y = taps.linear(&self.down, y);
        taps.transposed(&self.tokens.weight, x + y)
    }

    fn backward(&self, device: &Device) -> (Taps, Gradients) {
        let longest = EXAMPLES.iter().map(|(tokens, _)| tokens.len()).max().unwrap();
        let mut ids = Vec::new();
        for (tokens, _) in EXAMPLES {
            ids.extend(tokens);
            ids.resize(ids.len().next_multiple_of(longest), 0);
        }
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [EXAMPLES.len(), longest]), device);
        let targets = EXAMPLES.map(|(tokens, from)| (from..tokens.len()).collect::<Vec<_>>());
        let mut taps = Taps::on();
        let logits = self.forward(tokens.clone(), &mut taps);
        let loss = target_loss(logits, tokens, &targets).unwrap().sum();
        (taps, loss.backward())
    }
}

/// Gives each parameter numbers between -0.5 and 0.5, which f32 has exactly.
struct Numbered {
    device: Device,
    next: u32,
}

impl ModuleMapper for Numbered {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims = parameter.base().dims();
        let elements: usize = dims.iter().product();
        let values: Vec<f32> = (0..elements)
            .map(|_| {
                self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (self.next >> 20) as f32 / 4096.0 - 0.5
            })
            .collect();
        let values = Tensor::from_data(TensorData::new(values, dims), &self.device).require_grad();
        parameter.map(|_| values)
    }
}

#[derive(Serialize, Deserialize)]
struct Agreement {
    weights: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Tokens, and the position of the first whose loss counts.
    examples: Vec<(Vec<i32>, usize)>,
    spans: Vec<(usize, usize)>,
    sketches: Vec<Made>,
}

#[derive(Serialize, Deserialize)]
struct Made {
    /// `losses`, a row for each example; or `positions`, a row for each span of each example.
    rows: String,
    spec: SketchSpec,
    parameters: Parameters,
    values: Vec<Vec<f32>>,
}

fn values(sketches: Vec<Sketch>) -> Vec<Vec<f32>> {
    sketches.into_iter().map(Sketch::into_values).collect()
}

fn made() -> Agreement {
    let device = Device::flex().autodiff();
    let model = Model::new(&device);
    let kronecker = [("tokens", 4, 8), ("shared", 3, 5), ("down", 4, 4)];
    let is_matrix = |path: &str| path.ends_with("weight");
    let mut sketches = Vec::new();
    for spec in [
        SketchSpec::rapid_grad(7, 64),
        SketchSpec::rapid_grad_blocks(
            u64::MAX,
            ["tokens", "first", "shared", "second", "down"].map(|name| (name, 16)),
        ),
        SketchSpec::kronecker(7, kronecker),
    ] {
        let sketcher = Sketcher::new(spec.clone()).unwrap();
        let is_kronecker = sketcher.projections("down.weight", WIDTH, WIDTH).is_ok();
        let select = |path: &str| !is_kronecker || is_matrix(path);
        let parameters = Parameters::of(&model, select);
        let (taps, mut gradients) = model.backward(&device);
        let whole = values(sketch_examples(&sketcher, &model, taps, &mut gradients, select).unwrap());
        let (taps, mut gradients) = model.backward(&device);
        let spans: Vec<_> = EXAMPLES.iter().map(|_| SPANS.to_vec()).collect();
        let parts = sketch_positions(&sketcher, &model, taps, &mut gradients, select, &spans).unwrap();
        let parts = values(parts.into_iter().flatten().collect());
        let of = |rows: &str, values| {
            let (spec, parameters) = (spec.clone(), parameters.clone());
            Made { rows: rows.to_owned(), spec, parameters, values }
        };
        sketches.extend([of("losses", whole), of("positions", parts)]);
    }
    let weights = weights(&model);
    let examples = EXAMPLES.map(|(tokens, from)| (tokens.to_vec(), from)).to_vec();
    let spans = SPANS.map(|span| (span.start, span.end)).to_vec();
    Agreement { weights, examples, spans, sketches }
}

fn weights(model: &Model) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let Model { tokens, first, shared, second, down } = model;
    let matrix = |it: &Param<Tensor<2>>| (it.dims().to_vec(), it.val().try_into_vec_as::<f32>().unwrap());
    let vector = |it: &Param<Tensor<1>>| (it.dims().to_vec(), it.val().try_into_vec_as::<f32>().unwrap());
    let bias = |it: &Option<Param<Tensor<1>>>| vector(it.as_ref().unwrap());
    BTreeMap::from([
        ("tokens.weight".into(), matrix(&tokens.weight)),
        ("first.gamma".into(), vector(&first.gamma)),
        ("shared.weight".into(), matrix(&shared.weight)),
        ("shared.bias".into(), bias(&shared.bias)),
        ("second.gamma".into(), vector(&second.gamma)),
        ("second.beta".into(), bias(&second.beta)),
        ("down.weight".into(), matrix(&down.weight)),
    ])
}

/// Catches a file that is not what burn makes now: PyTorch would be held to something else. Machines differ in the last
/// bits of sums.
#[test]
fn sketches_for_pytorch_are_those_of_burn() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let made = made();
    if std::env::var_os("GRADIX_WRITE_AGREEMENT").is_some() {
        let mut json = serde_json::to_vec(&made).unwrap();
        json.push(b'\n');
        std::fs::write(&path, json).unwrap();
    }
    let kept: Agreement = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((kept.weights, kept.examples, kept.spans), (made.weights, made.examples, made.spans));
    assert_eq!(kept.sketches.len(), made.sketches.len());
    for (kept, made) in kept.sketches.into_iter().zip(made.sketches) {
        assert_eq!((&kept.rows, &kept.spec, &kept.parameters), (&made.rows, &made.spec, &made.parameters));
        assert_eq!(kept.values.len(), made.values.len());
        for (kept, made) in kept.values.iter().zip(&made.values) {
            assert_eq!(kept.len(), made.len());
            let norm = made.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(norm > 0.0);
            let difference = kept.iter().zip(made).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
            assert!(difference <= 1e-5 * norm, "{difference} of {norm}");
        }
    }
}
