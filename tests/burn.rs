//! The burn adapter against what it promises: both routes give the same sketch, names and order are
//! stable, the loss is shifted and masked, and what cannot be done is a typed error.

use burn::Tensor;
use burn::module::{Lora, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::{Bool, Device, Distribution, Gradients, Int, TensorData};
use gradix::burn::{
    BurnError, Taps, for_each_example_gradient, for_each_gradient, parameter_paths, sequence_loss,
    sketch_examples, sketch_gradients, target_loss,
};
use gradix::sketch::{Sketch, SketchError, SketchSpec, Sketcher};

const VOCABULARY: usize = 11;
const WIDTH: usize = 8;

/// A language model of every kind of layer the adapter must tell apart: linear layers with and
/// without a bias, in both layouts, one that is used twice, one of a nested list, and others.
#[derive(Module, Debug)]
struct Small {
    tokens: Embedding,
    layers: Vec<Mixing>,
    norm: LayerNorm,
    head: Linear,
}

#[derive(Module, Debug)]
struct Mixing {
    shared: Linear,
    up: Linear,
    scale: Param<Tensor<1>>,
}

impl Small {
    fn new(device: &Device) -> Self {
        device.seed(3);
        let mixing = || Mixing {
            shared: LinearConfig::new(WIDTH, WIDTH).init(device),
            up: LinearConfig::new(WIDTH, WIDTH).with_layout(LinearLayout::Col).init(device),
            scale: Param::from_tensor(Tensor::ones([WIDTH], device)),
        };
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            layers: vec![mixing(), mixing()],
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, VOCABULARY).with_bias(false).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let mut x = self.tokens.forward(tokens);
        for layer in &self.layers {
            // Causal mixing over time, so that the time axis matters.
            let y = taps.linear(&layer.shared, x.clone()).cumsum(1).tanh();
            let y = taps.linear(&layer.up, y);
            let y = taps.linear(&layer.shared, y) * layer.scale.val().unsqueeze::<3>();
            x = x + y;
        }
        taps.linear(&self.head, self.norm.forward(x))
    }
}

fn flex() -> Device {
    Device::flex().autodiff()
}

fn ids(rows: &[[i32; 5]], device: &Device) -> Tensor<2, Int> {
    let flat: Vec<i32> = rows.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), 5]), device)
}

fn mask(rows: &[[bool; 5]], device: &Device) -> Tensor<2, Bool> {
    let flat: Vec<bool> = rows.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), 5]), device)
}

const TOKENS: [[i32; 5]; 3] = [[1, 4, 9, 2, 0], [3, 3, 7, 10, 5], [8, 1, 6, 2, 4]];
const RESPONSE: [[bool; 5]; 3] =
    [[false, false, true, true, false], [false, true, true, true, true], [false, false, false, false, true]];

fn spec() -> SketchSpec {
    SketchSpec::rapid_grad(17, 256)
}

fn linears(path: &str) -> bool {
    path.starts_with("head") || path.contains("shared") || path.contains("up")
}

fn one_by_one(model: &Small, device: &Device) -> Vec<Sketch> {
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    (0..TOKENS.len())
        .map(|row| {
            let tokens = ids(&TOKENS[row..=row], device);
            let logits = model.forward(tokens.clone(), &mut Taps::off());
            let loss = sequence_loss(logits, tokens, mask(&RESPONSE[row..=row], device)).expect("a loss");
            sketch_gradients(&sketcher, model, &mut loss.sum().backward(), linears).expect("a sketch")
        })
        .collect()
}

fn tapped(model: &Small, device: &Device) -> (Taps, Gradients) {
    let mut taps = Taps::on();
    let tokens = ids(&TOKENS, device);
    let logits = model.forward(tokens.clone(), &mut taps);
    let loss = sequence_loss(logits, tokens, mask(&RESPONSE, device)).expect("a loss");
    (taps, loss.sum().backward())
}

fn batched(model: &Small, device: &Device) -> Vec<Sketch> {
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let (taps, mut gradients) = tapped(model, device);
    sketch_examples(&sketcher, model, taps, &mut gradients, linears).expect("sketches")
}

/// The largest difference, relative to the norm of `b`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let norm = b.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm > 0.0, "an empty gradient proves nothing");
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / norm
}

fn assert_same(a: &[Sketch], b: &[Sketch]) {
    assert_eq!(a.len(), b.len());
    for (row, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.spec(), b.spec());
        let difference = difference(a.values(), b.values());
        assert!(difference < 1e-5, "example {row} differs by {difference}");
    }
}

// Would catch a wrong factor, a transposed weight, another name or order, a lost use of a shared
// layer, a mean instead of a sum, or one example's gradient leaking into another's.
#[test]
fn sketch_examples_equal_one_by_one() {
    let device = flex();
    let model = Small::new(&device);
    assert_same(&batched(&model, &device), &one_by_one(&model, &device));
}

// Would catch a factor route that depends on the model's own gradients being made.
#[test]
fn sketch_examples_of_frozen_model() {
    let device = flex();
    let model = Small::new(&device);
    // First, for burn's parameters are made on first use: freezing a clone of a model that was never
    // used freezes the original, too.
    let expected = one_by_one(&model, &device);
    let frozen = model.clone().no_grad();
    assert_same(&batched(&frozen, &device), &expected);
}

// Would catch a difference between the routes that the fold happens to hide: every element of every
// parameter, in place.
#[test]
fn example_gradients_equal_element_by_element() {
    let device = flex();
    let model = Small::new(&device);
    let (taps, mut gradients) = tapped(&model, &device);
    let mut batch: Vec<(String, Vec<f32>)> = Vec::new();
    for_each_example_gradient(&model, taps, &mut gradients, linears, |path, first, rows| {
        assert_eq!((first, rows.dims()[0]), (0, TOKENS.len()));
        batch.push((path.to_owned(), rows.try_into_vec_as::<f32>().expect("numbers")));
        Ok::<(), BurnError>(())
    })
    .expect("gradients");
    for row in 0..TOKENS.len() {
        let tokens = ids(&TOKENS[row..=row], &device);
        let logits = model.forward(tokens.clone(), &mut Taps::off());
        let loss = sequence_loss(logits, tokens, mask(&RESPONSE[row..=row], &device)).expect("a loss");
        let mut expected = batch.iter();
        for_each_gradient(&model, &mut loss.backward(), linears, |path, values| {
            let (name, rows) = expected.next().expect("as many parameters");
            assert_eq!(name, path);
            let got = &rows[row * values.len()..][..values.len()];
            assert!(difference(got, values) < 1e-5, "{path}");
            Ok::<(), BurnError>(())
        })
        .expect("gradients");
        assert!(expected.next().is_none());
    }
}

// Would catch taps that change what the model says.
#[test]
fn taps_leave_output_as_it_is() {
    let device = flex();
    let model = Small::new(&device);
    let with = model.forward(ids(&TOKENS, &device), &mut Taps::on()).into_data();
    let without = model.forward(ids(&TOKENS, &device), &mut Taps::off()).into_data();
    assert_eq!(with, without);
}

// Would catch a layer without a time axis ([batch, features]) or with two of them.
#[test]
fn sketch_examples_of_any_rank() {
    let device = flex();
    device.seed(5);
    let model = LinearConfig::new(4, 3).init(&device);
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let flat = Tensor::<2>::random([2, 4], Distribution::Default, &device);
    let deep = Tensor::<4>::random([2, 3, 2, 4], Distribution::Default, &device);

    let mut taps = Taps::on();
    let loss = taps.linear(&model, flat.clone()).square().sum();
    let got = sketch_examples(&sketcher, &model, taps, &mut loss.backward(), |_| true);
    let expected: Vec<Sketch> = (0..2)
        .map(|row| {
            let loss = model.forward(flat.clone().narrow(0, row, 1)).square().sum();
            sketch_gradients(&sketcher, &model, &mut loss.backward(), |_| true).expect("a sketch")
        })
        .collect();
    assert_same(&got.expect("sketches"), &expected);

    let mut taps = Taps::on();
    let loss = taps.linear(&model, deep.clone()).square().sum();
    let got = sketch_examples(&sketcher, &model, taps, &mut loss.backward(), |_| true);
    let expected: Vec<Sketch> = (0..2)
        .map(|row| {
            let loss = model.forward(deep.clone().narrow(0, row, 1)).square().sum();
            sketch_gradients(&sketcher, &model, &mut loss.backward(), |_| true).expect("a sketch")
        })
        .collect();
    assert_same(&got.expect("sketches"), &expected);
}

// Would catch names or an order that change from one model to the next (burn's ids are random), and
// with them sketches that silently cannot be compared.
#[test]
fn parameter_paths_stable() {
    let expected = [
        "tokens.weight",
        "layers.0.shared.weight",
        "layers.0.shared.bias",
        "layers.0.up.weight",
        "layers.0.up.bias",
        "layers.0.scale",
        "layers.1.shared.weight",
        "layers.1.shared.bias",
        "layers.1.up.weight",
        "layers.1.up.bias",
        "layers.1.scale",
        "norm.gamma",
        "norm.beta",
        "head.weight",
    ];
    assert_eq!(parameter_paths(&Small::new(&flex())), expected);
    assert_eq!(parameter_paths(&Small::new(&Device::flex()).no_grad()), expected);
}

// Would catch a predicate that is not asked, asked about something else than the path, or gradients
// of other parameters being thrown away.
#[test]
fn sketch_gradients_takes_selected_only() {
    let device = flex();
    let model = Small::new(&device);
    let tokens = ids(&TOKENS, &device);
    let logits = model.forward(tokens.clone(), &mut Taps::off());
    let mut gradients =
        sequence_loss(logits, tokens, mask(&RESPONSE, &device)).expect("a loss").sum().backward();
    let mut seen = Vec::new();
    let upper = |path: &str| path.starts_with("layers.1.");
    for_each_gradient(&model, &mut gradients, upper, |path, values| {
        seen.push((path.to_owned(), values.len()));
        Ok::<(), BurnError>(())
    })
    .expect("gradients");
    let names: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, &parameter_paths(&model)[6..11]);
    assert_eq!(seen[0].1, WIDTH * WIDTH);

    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let rest = sketch_gradients(&sketcher, &model, &mut gradients, |path| !upper(path));
    assert!(rest.is_ok(), "{rest:?}");
    // Taken out: a second time it is an error, not a sketch of less.
    let again = sketch_gradients(&sketcher, &model, &mut gradients, |path| path == "norm.gamma");
    assert!(
        matches!(&again, Err(BurnError::MissingGradient { parameter }) if parameter == "norm.gamma"),
        "{again:?}"
    );
}

// Would catch a sketch of zeros where nothing was selected or everything is frozen, and an error
// where only a part is.
#[test]
fn sketch_gradients_of_nothing() {
    let device = flex();
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let model = Small::new(&device);
    let backward = |model: &Small| {
        let tokens = ids(&TOKENS, &device);
        let x = Tensor::<1>::zeros([1], &device).require_grad();
        (model.forward(tokens, &mut Taps::off()).sum() + x).backward()
    };
    let none = sketch_gradients(&sketcher, &model, &mut backward(&model), |_| false);
    assert!(matches!(none, Err(BurnError::NothingSelected { parameters: 14, frozen: 0 })));
    let frozen = model.clone().no_grad();
    let none = sketch_gradients(&sketcher, &frozen, &mut backward(&frozen), |_| true);
    assert!(matches!(none, Err(BurnError::NothingSelected { parameters: 14, frozen: 14 })));
    let mut part = model;
    part.head = part.head.no_grad();
    let some = sketch_gradients(&sketcher, &part, &mut backward(&part), |_| true);
    assert!(some.is_ok(), "{some:?}");
}

// Would catch a model with low-rank adapters whose base is taken for trained, or whose factors are
// missed.
#[test]
fn sketch_gradients_of_lora_only() {
    let device = flex();
    let base = Small::new(&device);
    let frozen = parameter_paths(&base);
    let model = base.apply_lora(Lora::new(2, 4.0));
    let loss = model.forward(ids(&TOKENS, &device), &mut Taps::off()).square().sum();
    let mut seen = Vec::new();
    let layers = |path: &str| path.starts_with("layers.");
    for_each_gradient(&model, &mut loss.backward(), layers, |path, values| {
        seen.push((path.to_owned(), values.len()));
        Ok::<(), BurnError>(())
    })
    .expect("gradients");
    let factors: Vec<&(String, usize)> = seen.iter().filter(|(path, _)| !frozen.contains(path)).collect();
    assert_eq!(factors.len(), 2 * 4, "{seen:?}");
    assert!(factors.iter().all(|(_, elements)| *elements == 2 * WIDTH), "{seen:?}");
    assert!(seen.iter().all(|(_, elements)| *elements < WIDTH * WIDTH), "{seen:?}");
}

// Would catch a NaN that is folded in silence, or an error that does not say where it came from.
#[test]
fn sketch_of_nan_gradient() {
    let device = flex();
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let model = LinearConfig::new(2, 2).init(&device);
    let x = Tensor::<2>::from_floats([[1.0, 2.0], [f32::NAN, 0.5]], &device);
    let mut gradients = model.forward(x.clone()).sum().backward();
    let one = sketch_gradients(&sketcher, &model, &mut gradients, |_| true);
    assert!(
        matches!(&one, Err(BurnError::Sketch(SketchError::NotFinite { parameter, .. })) if parameter == "weight"),
        "{one:?}"
    );
    let mut taps = Taps::on();
    let loss = taps.linear(&model, x).sum();
    let batch = sketch_examples(&sketcher, &model, taps, &mut loss.backward(), |_| true);
    assert!(
        matches!(
            &batch,
            Err(BurnError::Example { example: 1, source: SketchError::NotFinite { parameter, .. } })
                if parameter == "weight"
        ),
        "{batch:?}"
    );
}

// Would catch a selected parameter that the factor route cannot make being left out in silence.
#[test]
fn sketch_examples_of_untapped_parameter() {
    let device = flex();
    let sketcher = Sketcher::new(spec()).expect("a valid spec");
    let model = Small::new(&device);
    let (taps, mut gradients) = tapped(&model, &device);
    let all = sketch_examples(&sketcher, &model, taps, &mut gradients, |_| true);
    assert!(
        matches!(&all, Err(BurnError::NotTapped { parameter }) if parameter == "tokens.weight"),
        "{all:?}"
    );
    let (taps, mut gradients) = tapped(&model, &device);
    let none = sketch_examples(&sketcher, &model, taps, &mut gradients, |_| false);
    assert!(matches!(none, Err(BurnError::NothingSelected { parameters: 14, .. })));
    let (taps, mut gradients) = tapped(&model, &device);
    let other = Small::new(&device);
    let foreign = sketch_examples(&sketcher, &other, taps, &mut gradients, linears);
    assert!(foreign.is_err());
    let off = sketch_examples(&sketcher, &model, Taps::off(), &mut gradients, linears);
    assert!(matches!(off, Err(BurnError::NothingTapped)));
}

// Would catch logits that are compared with their own position instead of the next one, or the
// prompt or the padding being counted. The expected losses are worked out by hand.
#[test]
fn sequence_loss_shifts_and_masks() {
    let device = flex();
    // Of two tokens, position t gives the second one the odds 1 : 2^(t + 1).
    let two = 2f32.ln();
    let row: Vec<f32> = (1..=5).flat_map(|t| [0.0, t as f32 * two]).collect();
    let logits = || Tensor::<3>::from_data(TensorData::new(row.clone(), [1, 5, 2]), &device);
    let tokens = || ids(&[[1, 0, 1, 1, 0]], &device);
    let loss = |marks: [bool; 5]| {
        let loss = sequence_loss(logits(), tokens(), mask(&[marks], &device)).expect("a loss");
        loss.into_scalar::<f32>()
    };
    // Token 2 is a 1, seen from position 1, where its probability is 4 / 5.
    let only = -(4.0f32 / 5.0).ln();
    assert!((loss([false, false, true, false, false]) - only).abs() < 1e-6);
    // Tokens 2 to 4: 4 / 5, then 8 / 9, then a 0 with 1 / 17.
    let mean = -((4.0f32 / 5.0).ln() + (8.0f32 / 9.0).ln() + (1.0f32 / 17.0).ln()) / 3.0;
    assert!((loss([false, false, true, true, true]) - mean).abs() < 1e-6);
    // The first token has nothing before it: marking it changes nothing.
    assert!((loss([true, false, true, true, true]) - mean).abs() < 1e-6);

    // The gradient by the logits is there at the positions before the marked tokens only.
    let leaf = logits().require_grad();
    let marks = mask(&[[false, false, true, false, false]], &device);
    let loss = sequence_loss(leaf.clone(), tokens(), marks).expect("a loss");
    let gradient = leaf.grad(&loss.sum().backward()).expect("a gradient");
    let gradient = gradient.try_into_vec_as::<f32>().expect("numbers");
    let touched: Vec<usize> = (0..5).filter(|t| gradient[2 * t] != 0.0).collect();
    assert_eq!(touched, [1]);
}

// Would catch the NaN of 0 / 0 that a fully masked example turns into.
#[test]
fn sequence_loss_fully_masked() {
    let device = flex();
    let logits = || Tensor::<3>::zeros([2, 5, VOCABULARY], &device);
    for empty in [[false; 5], [true, false, false, false, false]] {
        let marks = mask(&[RESPONSE[0], empty], &device);
        let loss = sequence_loss(logits(), ids(&TOKENS[..2], &device), marks);
        assert!(matches!(loss, Err(BurnError::FullyMasked { example: 1 })), "{loss:?}");
    }
    let marks = mask(&RESPONSE, &device);
    let loss = sequence_loss(logits(), ids(&TOKENS[..2], &device), marks);
    assert!(matches!(loss, Err(BurnError::Shape { what: "response", .. })), "{loss:?}");
}

// Would catch a token-wise query that asks about the wrong token.
#[test]
fn target_loss_of_chosen_tokens() {
    let device = flex();
    let model = Small::new(&device);
    let tokens = || ids(&TOKENS[..2], &device);
    let logits = || model.forward(tokens(), &mut Taps::off());
    let marks = [[false, false, true, false, true], [false, true, false, false, false]];
    let masked = sequence_loss(logits(), tokens(), mask(&marks, &device)).expect("a loss");
    let chosen = target_loss(logits(), tokens(), &[vec![2, 4], vec![1]]).expect("a loss");
    assert_eq!(masked.into_data(), chosen.into_data());
    let first = target_loss(logits(), tokens(), &[vec![2], vec![0]]);
    assert!(matches!(first, Err(BurnError::Target { example: 1, token: 0, last: 4 })));
    let beyond = target_loss(logits(), tokens(), &[vec![5], vec![1]]);
    assert!(matches!(beyond, Err(BurnError::Target { example: 0, token: 5, last: 4 })));
    let empty = target_loss(logits(), tokens(), &[vec![2], vec![]]);
    assert!(matches!(empty, Err(BurnError::FullyMasked { example: 1 })));
}

// Would catch a device whose kernels give other numbers, or numbers in another order.
#[cfg(feature = "wgpu")]
#[test]
fn sketches_on_wgpu_equal_flex() {
    use burn::tensor::{DeviceKind, DeviceType};
    if Device::enumerate(DeviceType::Wgpu).into_vec().is_empty() {
        println!("SKIPPED: no wgpu adapter on this machine, nothing was compared");
        return;
    }
    let flex = flex();
    let wgpu = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
    let model = Small::new(&flex);
    let moved = model.clone().fork(&wgpu);
    let expected = one_by_one(&model, &flex);
    assert_same(&one_by_one(&moved, &wgpu), &expected);
    assert_same(&batched(&moved, &wgpu), &expected);
}
