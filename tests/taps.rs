//! What a batch's factors give, against a loop of one example: every kind of layer, both sketchers, spans of
//! positions, and what cannot be done.
#![expect(clippy::single_range_in_vec_init, reason = "a list of one span is meant")]

use std::collections::HashMap;

use burn::Tensor;
use burn::module::{Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::nn::{
    Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout, RmsNorm,
    RmsNormConfig,
};
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Gradients, Int, TensorData};
use gradix::burn::{
    AdamState, BurnError, Parameters, Taps, for_each_example_gradient, for_each_gradient, sketch_examples,
    sketch_gradients, sketch_positions, sketch_steps, windows,
};
use gradix::sketch::{OptimizerStep, Sketch, SketchError, SketchSpec, Sketcher};
use gradix::{Encoding, Index, Schema};

const VOCABULARY: usize = 11;
const WIDTH: usize = 8;
const BATCH: usize = 3;
const TIME: usize = 5;

/// Every kind of layer: tied embeddings, both norms, layers of both layouts with and without a bias, with a
/// low-rank adapter of burn's on most, one of its own, and one layer that is used twice.
#[derive(Module, Debug)]
struct Every {
    tokens: Embedding,
    first: RmsNorm,
    shared: Linear,
    second: LayerNorm,
    turned: Linear,
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
    last: LayerNorm,
}

impl Every {
    fn new(device: &Device) -> Self {
        device.seed(3);
        let random = |dims: [usize; 2]| {
            Param::from_tensor(Tensor::random(dims, Distribution::Normal(0.0, 0.5), device).require_grad())
        };
        let scale = |from: f64| {
            let values = Tensor::random([WIDTH], Distribution::Uniform(from, 1.5), device);
            Param::from_tensor(values.require_grad())
        };
        let mut model = Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            first: RmsNormConfig::new(WIDTH).init(device),
            shared: LinearConfig::new(WIDTH, WIDTH).init(device),
            second: LayerNormConfig::new(WIDTH).init(device),
            turned: LinearConfig::new(WIDTH, WIDTH)
                .with_layout(LinearLayout::Col)
                .with_bias(false)
                .init(device),
            down: random([WIDTH, 2]),
            up: random([2, WIDTH]),
            last: LayerNormConfig::new(WIDTH).with_bias(false).init(device),
        };
        model.first.gamma = scale(0.5);
        model.second.gamma = scale(-0.5);
        model.last.gamma = scale(0.0);
        // Makes every parameter, which a clone would otherwise share.
        drop(model.forward(ids(0..BATCH, device), &mut Taps::off()));
        model
    }

    fn forward(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let x = taps.embedding(&self.tokens, tokens);
        let y = taps.rms_norm(&self.first, x.clone());
        // Causal mixing over time, so that the time axis matters.
        let y = taps.linear(&self.shared, y).cumsum(1).tanh();
        let y = taps.layer_norm(&self.second, y);
        let y = taps.linear(&self.turned, y).tanh();
        let y = taps.linear(&self.shared, y);
        let own = taps.matrix(&self.down, x.clone());
        let own = taps.matrix(&self.up, own);
        let y = taps.layer_norm(&self.last, x + y + own);
        taps.transposed(&self.tokens.weight, y)
    }
}

/// With adapters whose second factor is not zero, so that the first has a gradient.
fn with_adapters(model: Every, device: &Device) -> Every {
    let group = ParamGroup::from_paths(vec!["tokens.weight", "shared.weight", "turned.weight"]);
    model.apply_lora(Lora::new(2, 4.0).set_param_group(group)).map(&mut Filled(device.clone()))
}

struct Filled(Device);

impl ModuleMapper for Filled {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims = parameter.base().dims();
        if dims[0] != 2 {
            return parameter;
        }
        let values = Tensor::random(dims, Distribution::Normal(0.0, 0.5), &self.0).require_grad();
        parameter.map(|_| values)
    }
}

fn flex() -> Device {
    Device::flex().autodiff()
}

fn ids(rows: std::ops::Range<usize>, device: &Device) -> Tensor<2, Int> {
    const TOKENS: [[i32; TIME]; BATCH] = [[1, 4, 1, 2, 0], [3, 3, 7, 10, 3], [8, 1, 6, 2, 4]];
    let flat: Vec<i32> = TOKENS[rows.clone()].iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), TIME]), device)
}

/// The sum of the examples' losses, in which all positions differ.
fn loss(logits: Tensor<3>) -> Tensor<1> {
    let [_, time, vocabulary] = logits.dims();
    let weights = Tensor::<1, Int>::arange(1..(time * vocabulary) as i64 + 1, &logits.device()).float();
    (logits.tanh() * weights.reshape([1, time, vocabulary]) / 20.0).sum()
}

fn tapped(model: &Every, device: &Device) -> (Taps, Gradients) {
    let mut taps = Taps::on();
    let gradients = loss(model.forward(ids(0..BATCH, device), &mut taps)).backward();
    (taps, gradients)
}

/// Each example's gradients of trained parameters, by path.
fn one_by_one(model: &Every, device: &Device, select: fn(&str) -> bool) -> Vec<Vec<(String, Vec<f32>)>> {
    let of = |row: usize| {
        let mut found = Vec::new();
        let mut gradients = loss(model.forward(ids(row..row + 1, device), &mut Taps::off())).backward();
        for_each_gradient(model, &mut gradients, select, |path, values| {
            found.push((path.to_owned(), values.to_vec()));
            Ok::<(), BurnError>(())
        })
        .expect("gradients");
        found
    };
    (0..BATCH).map(of).collect()
}

fn batched(model: &Every, device: &Device, select: fn(&str) -> bool) -> Vec<Vec<(String, Vec<f32>)>> {
    let (taps, mut gradients) = tapped(model, device);
    let mut found = vec![Vec::new(); BATCH];
    for_each_example_gradient(model, taps, &mut gradients, select, |path, first, rows| {
        let [_, elements] = rows.dims();
        let values = rows.try_into_vec_as::<f32>().expect("numbers");
        for (row, values) in values.chunks(elements).enumerate() {
            found[first + row].push((path.to_owned(), values.to_vec()));
        }
        Ok::<(), BurnError>(())
    })
    .expect("gradients");
    found
}

/// The largest difference, relative to the norm of `b`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let norm = b.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm > 0.0, "an empty gradient proves nothing");
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / norm
}

fn assert_equal_to_the_loop(model: &Every, device: &Device, select: fn(&str) -> bool, parameters: usize) {
    let (got, expected) = (batched(model, device, select), one_by_one(model, device, select));
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got.len(), parameters);
        for ((path, got), (name, expected)) in got.iter().zip(expected) {
            assert_eq!(path, name);
            let difference = difference(got, expected);
            assert!(difference < 1e-5, "{path} differs by {difference}");
        }
    }
}

/// Would catch a wrong factor of any kind of layer, a tied weight of which one use is lost, a token that
/// occurs twice being counted once, or a norm's bias in its scale.
#[test]
fn every_kind_of_layer_as_one_by_one() {
    let device = flex();
    assert_equal_to_the_loop(&Every::new(&device), &device, |_| true, 10);
}

/// Would catch a factor of an adapter without its scale or projected by the wrong side, under an embedding,
/// a head and a linear layer of each layout.
#[test]
fn adapters_as_one_by_one() {
    let device = flex();
    let model = with_adapters(Every::new(&device), &device);
    assert_equal_to_the_loop(&model, &device, |path| path.contains(".lora."), 6);
}

/// Would catch factors that are right on the host only: the scatter of an embedding above all.
#[cfg(feature = "wgpu")]
#[test]
fn every_kind_of_layer_on_wgpu() {
    use burn::tensor::{DeviceKind, DeviceType};
    if Device::enumerate(DeviceType::Wgpu).into_vec().is_empty() {
        println!("SKIPPED: no wgpu adapter on this machine, nothing was compared");
        return;
    }
    let device = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
    assert_equal_to_the_loop(&Every::new(&device), &device, |_| true, 10);
    assert_equal_by_kronecker(&device);
    assert_steps_by_hand(&device);
}

fn matrices(path: &str) -> bool {
    path.contains("weight") || path == "down" || path == "up"
}

fn kronecker() -> Sketcher {
    // Sides that are shorter than a parameter's, as long, and longer.
    let blocks = [("tokens", 4, 8), ("shared", 3, 5), ("turned", 16, 2), ("down", 4, 4), ("up", 4, 4)];
    Sketcher::new(SketchSpec::kronecker(5, blocks)).expect("a valid spec")
}

fn by_hand(sketcher: &Sketcher, model: &Every, gradients: &[(String, Vec<f32>)]) -> Sketch {
    let shapes = Parameters::of(model, |_| true);
    let mut fold = sketcher.start();
    for (path, values) in gradients {
        let (_, shape) = shapes.iter().find(|(name, _)| name == path).expect("a parameter");
        fold.add_matrix(path, [shape[0], shape[1]], values).expect("a matrix");
    }
    fold.finish().expect("a sketch")
}

fn assert_equal_by_kronecker(device: &Device) {
    let model = Every::new(device);
    let sketcher = kronecker();
    // Twice: the second time, the projections are on the device.
    for _ in 0..2 {
        let (taps, mut gradients) = tapped(&model, device);
        let got = sketch_examples(&sketcher, &model, taps, &mut gradients, matrices).expect("sketches");
        assert_eq!(got.len(), BATCH);
        for (got, gradients) in got.iter().zip(one_by_one(&model, device, matrices)) {
            let expected = by_hand(&sketcher, &model, &gradients);
            assert_eq!(got.spec(), expected.spec());
            let difference = difference(got.values(), expected.values());
            assert!(difference < 1e-5, "differs by {difference}");
        }
    }
    let mut gradients = loss(model.forward(ids(0..1, device), &mut Taps::off())).backward();
    let one = sketch_gradients(&sketcher, &model, &mut gradients, matrices).expect("a sketch");
    let expected = by_hand(&sketcher, &model, &one_by_one(&model, device, matrices)[0]);
    assert!(difference(one.values(), expected.values()) < 1e-5);
}

/// Would catch sides that are swapped or not transposed, blocks at the wrong place, a side that keeps the
/// parameter whole, or an embedding's column of the wrong token.
#[test]
fn kronecker_from_factors_as_from_matrices() {
    assert_equal_by_kronecker(&flex());
}

/// Would catch a bias or scale that is left out in silence, and an error that does not say which.
#[test]
fn kronecker_of_vector() {
    let device = flex();
    let model = Every::new(&device);
    let blocks = [("second", 4, 4), ("shared", 4, 4)];
    let sketcher = Sketcher::new(SketchSpec::kronecker(5, blocks)).expect("a valid spec");
    for (prefix, expected) in [("shared", "shared.bias"), ("second", "second.gamma")] {
        let (taps, mut gradients) = tapped(&model, &device);
        let got = sketch_examples(&sketcher, &model, taps, &mut gradients, |path| path.starts_with(prefix));
        assert!(
            matches!(&got, Err(BurnError::NotAMatrix { parameter, .. }) if parameter == expected),
            "{got:?}"
        );
        let mut gradients = loss(model.forward(ids(0..1, &device), &mut Taps::off())).backward();
        let got = sketch_gradients(&sketcher, &model, &mut gradients, |path| path.starts_with(prefix));
        assert!(
            matches!(&got, Err(BurnError::NotAMatrix { parameter, .. }) if parameter == expected),
            "{got:?}"
        );
    }
}

/// Would catch a NaN that reaches a sketch, or the wrong example being blamed.
#[test]
fn kronecker_of_nan() {
    let device = flex();
    device.seed(1);
    let model = LinearConfig::new(2, 2).with_bias(false).init(&device);
    let x = Tensor::<2>::from_floats([[1.0, 2.0], [f32::NAN, 0.5]], &device);
    let sketcher = Sketcher::new(SketchSpec::kronecker(5, [("weight", 1, 2)])).expect("a valid spec");
    let mut taps = Taps::on();
    let loss = taps.linear(&model, x).sum();
    let got = sketch_examples(&sketcher, &model, taps, &mut loss.backward(), |_| true);
    assert!(
        matches!(
            &got,
            Err(BurnError::Example { example: 1, source: SketchError::NotFiniteValue { block, .. } })
                if block == "weight"
        ),
        "{got:?}"
    );
}

fn assert_spans_add_up(sketcher: &Sketcher, width: usize, select: fn(&str) -> bool) {
    let device = flex();
    let model = Every::new(&device);
    let (taps, mut gradients) = tapped(&model, &device);
    let whole = sketch_examples(sketcher, &model, taps, &mut gradients, select).expect("sketches");
    let (taps, mut gradients) = tapped(&model, &device);
    let spans = windows(&[TIME; BATCH], width);
    let parts = sketch_positions(sketcher, &model, taps, &mut gradients, select, &spans).expect("sketches");
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_eq!(parts.len(), TIME.div_ceil(width));
        let mut sum = vec![0.0; whole.values().len()];
        for part in parts {
            sum.iter_mut().zip(part.values()).for_each(|(sum, value)| *sum += value);
        }
        let difference = difference(&sum, whole.values());
        assert!(difference < 1e-5, "width {width} differs by {difference}");
    }
}

/// Would catch a position that is lost or counted twice: at the end of a window, in a last one that is
/// shorter, in one of several uses, for every kind of layer and both sketchers.
#[test]
fn positions_add_up() {
    let fold = Sketcher::new(SketchSpec::rapid_grad(17, 256)).expect("a valid spec");
    for width in [1, 2, TIME, 9] {
        assert_spans_add_up(&fold, width, |_| true);
        assert_spans_add_up(&kronecker(), width, matrices);
    }
}

/// Would catch sums that agree although each position is another's: against `a_s ⊗ g_s` worked out by hand,
/// for spans that overlap, leave positions out, or are missing.
#[test]
fn positions_of_one_layer_by_hand() {
    let device = flex();
    device.seed(9);
    let model = LinearConfig::new(4, 2).init(&device);
    let x = Tensor::<3>::random([2, 4, 4], Distribution::Default, &device);
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(17, 64)).expect("a valid spec");
    let mut taps = Taps::on();
    let y = taps.linear(&model, x.clone());
    // The gradient of the output is twice the output.
    let mut gradients = y.clone().square().sum().backward();
    let spans = [vec![1..3, 2..3, 0..4], vec![]];
    let got = sketch_positions(&sketcher, &model, taps, &mut gradients, |_| true, &spans).expect("sketches");
    assert_eq!((got[0].len(), got[1].len()), (3, 0));
    let (x, y) = (x.into_data(), y.into_data());
    let (x, y) = (x.as_slice::<f32>().expect("numbers"), y.as_slice::<f32>().expect("numbers"));
    for (span, got) in spans[0].iter().zip(&got[0]) {
        let (mut weight, mut bias) = (vec![0.0; 8], vec![0.0; 2]);
        for at in span.clone() {
            for output in 0..2 {
                let g = 2.0 * y[at * 2 + output];
                bias[output] += g;
                for input in 0..4 {
                    weight[input * 2 + output] += x[at * 4 + input] * g;
                }
            }
        }
        let expected = sketcher.sketch([("weight", &weight[..]), ("bias", &bias[..])]).expect("a sketch");
        assert!(difference(got.values(), expected.values()) < 1e-5, "{span:?}");
    }
}

/// Would catch a span that reads another example's positions, or a layer without positions being cut.
#[test]
fn positions_that_are_not_there() {
    let device = flex();
    let model = Every::new(&device);
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(17, 256)).expect("a valid spec");
    let sketch = |spans: &[Vec<std::ops::Range<usize>>]| {
        let (taps, mut gradients) = tapped(&model, &device);
        sketch_positions(&sketcher, &model, taps, &mut gradients, |_| true, spans)
    };
    let late = sketch(&[vec![], vec![3..6], vec![]]);
    assert!(
        matches!(late, Err(BurnError::Span { example: 1, start: 3, end: 6, positions: TIME })),
        "{late:?}"
    );
    let empty = sketch(&[vec![2..2], vec![], vec![]]);
    assert!(matches!(empty, Err(BurnError::Span { example: 0, .. })), "{empty:?}");
    let few = sketch(&[vec![]]);
    assert!(matches!(few, Err(BurnError::Shape { what: "spans", .. })), "{few:?}");
    let none = sketch(&[vec![], vec![], vec![]]).expect("no sketches");
    assert!(none.iter().all(Vec::is_empty));

    let pooled = (model.shared.clone(), model.turned.clone());
    let mut taps = Taps::on();
    let x = Tensor::<3>::ones([2, 4, WIDTH], &device);
    let y = taps.linear(&pooled.0, x).sum_dim(1).reshape([2, WIDTH]);
    let loss = taps.linear(&pooled.1, y).sum();
    let spans = windows(&[4, 4], 1);
    let got = sketch_positions(&sketcher, &pooled, taps, &mut loss.backward(), |_| true, &spans);
    assert!(
        matches!(&got, Err(BurnError::Positions { parameter, given: 1, expected: 4 }) if parameter == "1.weight"),
        "{got:?}"
    );
}

/// Would catch one parameter in two places being counted twice.
#[test]
fn parameter_in_two_places() {
    let device = flex();
    let layer = LinearConfig::new(4, 4).with_bias(false).init(&device);
    let model = (layer.clone(), layer);
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(17, 16)).expect("a valid spec");
    let sketch = |select: fn(&str) -> bool| {
        let mut taps = Taps::on();
        let x = taps.linear(&model.0, Tensor::<2>::ones([2, 4], &device));
        let loss = taps.linear(&model.1, x).sum();
        sketch_examples(&sketcher, &model, taps, &mut loss.backward(), select)
    };
    let both = sketch(|_| true);
    assert!(
        matches!(&both, Err(BurnError::SharedParameter { parameter, first })
            if parameter == "1.weight" && first == "0.weight"),
        "{both:?}"
    );
    assert!(sketch(|path| path.starts_with('0')).is_ok());
}

/// Would catch plain gradients in an index of an optimizer's steps.
#[test]
fn plain_gradients_under_spec_of_steps() {
    let device = flex();
    let model = Every::new(&device);
    let spec = SketchSpec::rapid_grad(17, 256).with_optimizer(OptimizerStep::adam(0.9, 0.999, 1e-8, "state"));
    let (taps, mut gradients) = tapped(&model, &device);
    let sketcher = Sketcher::new(spec).expect("a valid spec");
    let got = sketch_examples(&sketcher, &model, taps, &mut gradients, |_| true);
    assert!(matches!(got, Err(BurnError::PlainGradients { .. })), "{got:?}");
    let mut gradients = loss(model.forward(ids(0..1, &device), &mut Taps::off())).backward();
    let got = sketch_gradients(&sketcher, &model, &mut gradients, |_| true);
    assert!(matches!(got, Err(BurnError::PlainGradients { .. })), "{got:?}");
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.99;
const EPSILON: f32 = 1e-3;

/// Moments of a parameter after some steps, which differ from parameter to parameter.
struct Moments {
    steps: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// Moments that are drawn at random, of every parameter, and the state that is made of them.
fn random_state(model: &Every, device: &Device) -> (HashMap<String, Moments>, AdamState) {
    let mut state = AdamState::new(BETA_1, BETA_2, EPSILON);
    let mut known = HashMap::new();
    for (steps, (path, shape)) in (3..).zip(Parameters::of(model, |_| true).iter()) {
        let elements: usize = shape.iter().product();
        let draw = |low, high| Tensor::<1>::random([elements], Distribution::Uniform(low, high), device);
        let (first, second) = (draw(-0.5, 0.5), draw(0.0, 0.3));
        let values = |tensor: &Tensor<1>| tensor.clone().try_into_vec_as::<f32>().expect("numbers");
        known.insert(path.to_owned(), Moments { steps, first: values(&first), second: values(&second) });
        match *shape {
            [rows, columns] => {
                let [first, second] = [first, second].map(|moment| moment.reshape([rows, columns]));
                state.insert(path, steps, first, second)
            }
            _ => state.insert(path, steps, first, second),
        }
        .expect("moments");
    }
    (known, state)
}

/// The formula of Adam, in f64.
fn step_by_hand(moments: &Moments, gradient: &[f32]) -> Vec<f32> {
    let (beta_1, beta_2) = (f64::from(BETA_1), f64::from(BETA_2));
    let time = moments.steps as i32 + 1;
    let of = |((&m, &v), &g): ((&f32, &f32), &f32)| {
        let (m, v, g) = (f64::from(m), f64::from(v), f64::from(g));
        let first = (beta_1 * m + (1.0 - beta_1) * g) / (1.0 - beta_1.powi(time));
        let second = (beta_2 * v + (1.0 - beta_2) * g * g) / (1.0 - beta_2.powi(time));
        (first / (second.sqrt() + f64::from(EPSILON))) as f32
    };
    moments.first.iter().zip(&moments.second).zip(gradient).map(of).collect()
}

fn fold_by_hand(sketcher: &Sketcher, gradients: &[(String, Vec<f32>)]) -> Sketch {
    let tensors = gradients.iter().map(|(path, values)| (path.as_str(), values.as_slice()));
    sketcher.sketch(tensors).expect("a sketch")
}

fn steps(
    sketcher: &Sketcher,
    model: &Every,
    device: &Device,
    select: fn(&str) -> bool,
    state: &AdamState,
) -> Result<Vec<Sketch>, BurnError> {
    let (taps, mut gradients) = tapped(model, device);
    sketch_steps(sketcher, model, taps, &mut gradients, select, state)
}

fn of_steps(spec: &SketchSpec, state: &AdamState) -> Sketcher {
    Sketcher::new(spec.clone().with_optimizer(state.step())).expect("a valid spec")
}

fn assert_steps_by_hand(device: &Device) {
    let model = Every::new(device);
    let (known, state) = random_state(&model, device);
    let on_device = state.clone().on(device).expect("moments");
    assert_eq!(on_device.step(), state.step());
    let fold = of_steps(&SketchSpec::rapid_grad(17, 256), &state);
    let projected = of_steps(kronecker().spec(), &state);
    let by_hand = |gradients: Vec<(String, Vec<f32>)>| -> Vec<(String, Vec<f32>)> {
        let step = |(path, values): (String, Vec<f32>)| (path.clone(), step_by_hand(&known[&path], &values));
        gradients.into_iter().map(step).collect()
    };
    for state in [&state, &on_device] {
        let got = steps(&fold, &model, device, |_| true, state).expect("sketches");
        assert_eq!(got.len(), BATCH);
        for (got, gradients) in got.iter().zip(one_by_one(&model, device, |_| true)) {
            let expected = fold_by_hand(&fold, &by_hand(gradients));
            assert_eq!(got.spec(), expected.spec());
            let difference = difference(got.values(), expected.values());
            assert!(difference < 1e-5, "differs by {difference}");
        }
        let got = steps(&projected, &model, device, matrices, state).expect("sketches");
        for (got, gradients) in got.iter().zip(one_by_one(&model, device, matrices)) {
            let expected = self::by_hand(&projected, &model, &by_hand(gradients));
            assert_eq!(got.spec(), expected.spec());
            let difference = difference(got.values(), expected.values());
            assert!(difference < 1e-5, "differs by {difference}");
        }
    }
}

/// Would catch a wrong weight, correction or root, moments of another parameter, and the step of a batch's sum in
/// place of each example's.
#[test]
fn steps_by_hand() {
    assert_steps_by_hand(&flex());
}

/// Every parameter that `select` accepts, by path.
fn values(model: &Every, select: fn(&str) -> bool) -> Vec<(String, Vec<f32>)> {
    struct Values(Vec<String>, fn(&str) -> bool, Vec<(String, Vec<f32>)>);
    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let path = self.0.join(".");
            if (self.1)(&path) {
                self.2.push((path, parameter.base().try_into_vec_as::<f32>().expect("numbers")));
            }
        }
    }
    let mut values = Values(Vec::new(), select, Vec::new());
    model.visit(&mut values);
    values.2
}

fn assert_steps_of_optimizer(mut optimizer: ModuleOptimizer, mut model: Every, select: fn(&str) -> bool) {
    let device = flex();
    for _ in 0..3 {
        let (_, gradients) = tapped(&model, &device);
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    let state = AdamState::from_record(optimizer.to_record(), BETA_1, BETA_2, EPSILON).expect("a state");
    let sketcher = of_steps(&SketchSpec::rapid_grad(17, 256), &state);
    let got = steps(&sketcher, &model, &device, select, &state).expect("sketches");
    let before = values(&model, select);
    assert!(before.len() > 5);
    for (row, got) in got.iter().enumerate() {
        let one = loss(model.forward(ids(row..row + 1, &device), &mut Taps::off())).backward();
        let one = GradientsParams::from_grads(one, &model);
        let after = values(&optimizer.clone().step(1.0, model.clone(), one), select);
        let changes = before.iter().zip(&after).map(|((path, before), (_, after))| {
            (path.clone(), before.iter().zip(after).map(|(before, after)| before - after).collect())
        });
        let expected = fold_by_hand(&sketcher, &changes.collect::<Vec<_>>());
        let difference = difference(got.values(), expected.values());
        // burn's corrections are of f32.
        assert!(difference < 1e-4, "differs by {difference}");
    }
}

/// Would catch a formula that is not the optimizer's, its time off by one, moments that are swapped or another
/// parameter's, and paths of a record that are not the module's, also those of adapters.
#[test]
fn steps_as_an_optimizer_takes_them() {
    let adam = AdamConfig::new().with_beta_1(BETA_1).with_beta_2(BETA_2).with_epsilon(EPSILON);
    assert_steps_of_optimizer(adam.init(), Every::new(&flex()), |_| true);
    let adam_w = AdamWConfig::new().with_beta_1(BETA_1).with_beta_2(BETA_2).with_epsilon(EPSILON);
    let model = with_adapters(Every::new(&flex()), &flex());
    assert_steps_of_optimizer(adam_w.with_weight_decay(0.0).init(), model, |path| path.contains(".lora."));
}

/// Would catch runs of examples that are put together in another order or lost, where a matrix of the whole batch
/// is too large.
#[test]
fn kronecker_steps_of_large_matrix() {
    const INPUTS: usize = 4096;
    const OUTPUTS: usize = 2050;
    let device = flex();
    device.seed(1);
    let model = LinearConfig::new(INPUTS, OUTPUTS).with_bias(false).init(&device);
    let x = Tensor::<2>::random([3, INPUTS], Distribution::Default, &device);
    let mut state = AdamState::new(BETA_1, BETA_2, EPSILON);
    let ones = Tensor::<2>::ones([INPUTS, OUTPUTS], &device);
    state.insert("weight", 1, ones.clone(), ones).expect("moments");
    let sketcher = of_steps(&SketchSpec::kronecker(5, [("weight", 2, 4)]), &state);
    let sketch = |x: Tensor<2>| {
        let mut taps = Taps::on();
        let loss = taps.linear(&model, x).square().sum();
        sketch_steps(&sketcher, &model, taps, &mut loss.backward(), |_| true, &state).expect("sketches")
    };
    let got = sketch(x.clone());
    assert_eq!(got.len(), 3);
    for (row, got) in got.iter().enumerate() {
        let alone = sketch(x.clone().narrow(0, row, 1));
        assert!(difference(got.values(), alone[0].values()) < 1e-4);
        let others = sketch(x.clone().narrow(0, (row + 1) % 3, 1));
        assert!(difference(got.values(), others[0].values()) > 1e-2, "the examples must differ");
    }
}

/// Would catch steps of a state that the spec does not record, and a parameter without moments or with those of
/// another shape that goes through as it is.
#[test]
fn steps_of_state_that_does_not_fit() {
    let device = flex();
    let model = Every::new(&device);
    let (_, state) = random_state(&model, &device);
    let plain = SketchSpec::rapid_grad(17, 256);
    let sketcher = of_steps(&plain, &state);
    let sketch = |sketcher: &Sketcher, state: &AdamState| steps(sketcher, &model, &device, |_| true, state);

    let got = sketch(&Sketcher::new(plain.clone()).expect("a valid spec"), &state);
    assert!(matches!(got, Err(BurnError::OtherState { spec: None, .. })), "{got:?}");
    // One step more of one parameter.
    let mut later = state.clone();
    let numbers = || Tensor::<1>::ones([WIDTH], &device);
    later.insert("first.gamma", 9, numbers(), numbers()).expect("moments");
    let got = sketch(&sketcher, &later);
    assert!(matches!(got, Err(BurnError::OtherState { spec: Some(_), .. })), "{got:?}");

    let mut reshaped = state.clone();
    let other = || Tensor::<2>::ones([1, WIDTH], &device);
    reshaped.insert("first.gamma", 3, other(), other()).expect("moments");
    let got = sketch(&of_steps(&plain, &reshaped), &reshaped);
    assert!(
        matches!(&got, Err(BurnError::StateShape { parameter, .. }) if parameter == "first.gamma"),
        "{got:?}"
    );
    let empty = AdamState::new(BETA_1, BETA_2, EPSILON);
    let got = sketch(&of_steps(&plain, &empty), &empty);
    assert!(matches!(&got, Err(BurnError::NoState { parameter }) if parameter == "tokens.weight"), "{got:?}");
}

/// Would catch two checkpoints whose rows one spec cannot record, or one spec that takes each of them alone.
#[test]
fn steps_of_joined_states() {
    let device = flex();
    let model = Every::new(&device);
    let mut states = [random_state(&model, &device).1, random_state(&model, &device).1];
    let alone = states.each_ref().map(AdamState::step);
    assert_ne!(alone[0], alone[1]);
    AdamState::join(&mut states).expect("one set of settings");
    let joined = states[0].step();
    assert_eq!(joined, states[1].step());
    assert!(!alone.contains(&joined));
    let sketcher = of_steps(&SketchSpec::rapid_grad(17, 256), &states[0]);
    for state in &states {
        assert!(steps(&sketcher, &model, &device, |_| true, state).is_ok());
    }
    let mut mixed = [states[0].clone(), AdamState::new(BETA_1, BETA_2, 1e-8)];
    assert!(matches!(AdamState::join(&mut mixed), Err(BurnError::OtherState { .. })));
}

/// Would catch moments that make steps of NaN, and another optimizer's state taken for Adam's.
#[test]
fn state_that_is_not_adams() {
    let device = flex();
    let mut state = AdamState::new(BETA_1, BETA_2, EPSILON);
    let numbers = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device);
    let good = || numbers([0.5, 0.0]);
    for (steps, first, second) in [
        (0, good(), good()),
        (1, numbers([0.0, f32::NAN]), good()),
        (1, good(), numbers([-1e-9, 0.0])),
        (1, good(), numbers([f32::INFINITY, 0.0])),
        (1, good(), Tensor::ones([3], &device)),
    ] {
        let got = state.insert("a.weight", steps, first, second);
        assert!(
            matches!(&got, Err(BurnError::InvalidState { parameter, .. }) if parameter == "a.weight"),
            "{got:?}"
        );
    }
    assert_eq!(state.paths().count(), 0);

    let momentum = burn::optim::momentum::MomentumConfig::new();
    let optimizers =
        [AdamConfig::new().with_amsgrad(true).init(), SgdConfig::new().with_momentum(Some(momentum)).init()];
    for (mut optimizer, expected) in optimizers.into_iter().zip(["AMSGrad", "not that of Adam"]) {
        let model = LinearConfig::new(2, 2).with_bias(false).init(&device);
        let gradients = model.forward(Tensor::<2>::ones([1, 2], &device)).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        optimizer.step(0.1, model, gradients);
        let got = AdamState::from_record(optimizer.to_record(), BETA_1, BETA_2, EPSILON).map(|_| ());
        assert!(
            matches!(&got, Err(BurnError::InvalidState { parameter, reason })
                if parameter == "weight" && reason.contains(expected)),
            "{got:?}"
        );
    }
}

/// Would catch an index of steps that does not take plain queries, or that ranks by anything but the inner product of
/// step and gradient.
#[test]
fn index_of_steps_by_plain_queries() -> Result<(), Box<dyn std::error::Error>> {
    let device = flex();
    let model = Every::new(&device);
    let (_, state) = random_state(&model, &device);
    let rows = of_steps(&SketchSpec::rapid_grad(17, 256), &state);
    let queries = Sketcher::new(rows.spec().for_queries())?;
    let steps = steps(&rows, &model, &device, |_| true, &state)?;
    let (taps, mut gradients) = tapped(&model, &device);
    let plain = sketch_examples(&queries, &model, taps, &mut gradients, |_| true)?;

    let folder = tempfile::tempdir()?;
    let index =
        Index::create(folder.path().join("steps.gradix"), &Schema::new(rows.spec().clone(), Encoding::F32)?)?;
    let mut writer = index.writer()?;
    for (id, step) in ["a", "b", "c"].into_iter().zip(&steps) {
        writer.append(id.as_bytes(), step)?;
    }
    assert!(writer.append(b"plain", &plain[0]).is_err(), "a plain row");
    writer.commit()?;
    let ranking = index.snapshot()?.scan(&plain[..1])?.top_k(3).run()?;
    assert_eq!(ranking.proponents(0).len(), 3);
    for hit in ranking.proponents(0) {
        let step = &steps[usize::from(hit.id[0] - b'a')];
        let products =
            step.values().iter().zip(plain[0].values()).map(|(a, b)| f64::from(*a) * f64::from(*b));
        let expected: f64 = products.sum();
        assert!((hit.score - expected).abs() <= 1e-5 * expected.abs(), "{hit:?}, not {expected}");
    }
    Ok(())
}

/// Would catch a renamed, missing, reshaped or moved parameter that passes, or an error that names another.
#[test]
fn parameters_of_rows_and_queries() {
    let device = Device::flex();
    let layer = |outputs| LinearConfig::new(4, outputs).init(&device);
    let rows = Parameters::of(&(layer(4), layer(2)), |_| true);
    let same = Parameters::of(&(layer(4), layer(2)).no_grad(), |_| true);
    assert!(rows.check(&same).is_ok());
    assert_eq!(rows.digest(), same.digest());
    let json = serde_json::to_string(&rows).expect("JSON");
    assert_eq!(serde_json::from_str::<Parameters>(&json).expect("parameters"), rows);

    let reshaped = Parameters::of(&(layer(4), layer(3)), |_| true);
    assert!(matches!(
        rows.check(&reshaped),
        Err(BurnError::OtherParameters { parameter, rows: Some(_), queries: Some(_) }) if parameter == "1.weight"
    ));
    let fewer = Parameters::of(&(layer(4), layer(2)), |path| path != "0.bias");
    assert!(matches!(
        rows.check(&fewer),
        Err(BurnError::OtherParameters { parameter, rows: Some(_), queries: None }) if parameter == "0.bias"
    ));
    assert!(matches!(
        fewer.check(&rows),
        Err(BurnError::OtherParameters { parameter, rows: None, queries: Some(_) }) if parameter == "0.bias"
    ));
    let moved: Parameters =
        serde_json::from_str(r#"[["0.bias",[4]],["0.weight",[4,4]],["1.weight",[4,2]],["1.bias",[2]]]"#)
            .expect("parameters");
    assert!(matches!(
        rows.check(&moved),
        Err(BurnError::OtherOrder { parameter }) if parameter == "0.weight"
    ));
    let digests = [&rows, &reshaped, &fewer, &moved].map(Parameters::digest);
    assert!((0..4).all(|a| (0..a).all(|b| digests[a] != digests[b])), "{digests:?}");
}
