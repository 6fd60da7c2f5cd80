//! What the fold promises as an estimator, and how it behaves as seen by a caller.

mod fixtures;

use fixtures::random::Random;
use gradix::sketch::{FoldKernel, Normalisation, Sketch, SketchError, SketchSpec, Sketcher};
use proptest::prelude::*;

/// A gradient: named tensors.
type Tensors = Vec<(String, Vec<f32>)>;

fn sketch(spec: SketchSpec, tensors: &Tensors) -> Sketch {
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.as_slice()));
    Sketcher::new(spec).unwrap().sketch(tensors).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn flat(tensors: &Tensors) -> Vec<f32> {
    tensors.iter().flat_map(|(_, tensor)| tensor.iter().copied()).collect()
}

fn named(tensors: impl IntoIterator<Item = Vec<f32>>) -> Tensors {
    (0..).map(|i| format!("layers.{i}.weight")).zip(tensors).collect()
}

impl Random {
    /// A vector of which about one element in `every` is `by` times larger.
    fn outliers(&mut self, count: usize, every: f64, by: f32) -> Vec<f32> {
        let pick = |random: &mut Self| if random.uniform() * every < 1.0 { by } else { 1.0 };
        (0..count).map(|_| self.normal() * pick(self)).collect()
    }

    /// A linear layer's gradient over some tokens: a sum of outer products of output gradients with
    /// outlier rows and of activations with outlier columns, which all tokens share.
    fn linear(&mut self, rows: usize, columns: usize, tokens: usize, outliers: &[f32]) -> Vec<f32> {
        let mut gradient = vec![0.0; rows * columns];
        for _ in 0..tokens {
            let outputs = self.outliers(rows, 32.0, 20.0);
            let inputs: Vec<f32> = outliers.iter().map(|by| self.normal() * by).collect();
            for (row, output) in gradient.chunks_mut(columns).zip(outputs) {
                for (x, input) in row.iter_mut().zip(&inputs) {
                    *x += output * input;
                }
            }
        }
        gradient
    }
}

/// The variance of a dot product of two sketches if signs and buckets were wholly random.
///
/// The estimate is the sum over i, j of s_i s_j a_i b_j [bucket i = bucket j]. Its mean is the sum
/// over i = j, the true dot product. Of the other terms only (i, j) with itself and with (j, i) are
/// correlated, and each is there with probability 1/K: the variance is the sum over i != j of
/// (a_i^2 b_j^2 + a_i b_i a_j b_j) / K = (|a|^2 |b|^2 + <a,b>^2 - 2 sum a_i^2 b_i^2) / K.
fn ideal_variance(a: &[f32], b: &[f32], dims: u32) -> f64 {
    let both: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) * f64::from(*b)).powi(2)).sum();
    (dot(a, a) * dot(b, b) + dot(a, b).powi(2) - 2.0 * both) / f64::from(dims)
}

/// Mean within 4.5 standard errors of the truth, and variance at most 1.1 of the ideal one, over
/// `seeds` seeds.
fn check_estimator(what: &str, a: &Tensors, b: &Tensors, dims: u32, seeds: u64) {
    let (flat_a, flat_b) = (flat(a), flat(b));
    let truth = dot(&flat_a, &flat_b);
    let ideal = ideal_variance(&flat_a, &flat_b, dims);
    let error = |seed: u64| {
        let spec = SketchSpec::rapid_grad(seed, dims);
        dot(sketch(spec.clone(), a).values(), sketch(spec, b).values()) - truth
    };
    let errors: Vec<f64> = (0..seeds).map(error).collect();
    let mean = errors.iter().sum::<f64>() / seeds as f64;
    let variance = errors.iter().map(|error| error * error).sum::<f64>() / seeds as f64;
    let bias = mean / (ideal / seeds as f64).sqrt();
    let ratio = variance / ideal;
    println!("{what}, K = {dims}: bias {bias:.2} standard errors, variance {ratio:.3} of the ideal");
    assert!(bias.abs() < 4.5, "{what}: bias of {bias} standard errors");
    assert!(ratio < 1.1, "{what}: variance {ratio} of the ideal");
}

/// Catches signs that are not independent of each other, and buckets that fill unevenly.
#[test]
fn gaussian_gradients_have_the_ideal_variance() {
    let mut random = Random(1);
    let mut gradient = || named([random.normals(5000), random.normals(64 * 64), random.normals(17)]);
    let (a, b) = (gradient(), gradient());
    check_estimator("gaussian", &a, &b, 64, 8000);
    check_estimator("gaussian, with itself", &a, &a, 64, 8000);
    check_estimator("gaussian", &a, &b, 1024, 8000);
}

/// Catches places of which a few share a bucket more often than they should.
#[test]
fn sparse_gradients_have_the_ideal_variance() {
    let mut random = Random(2);
    let mut gradient = || {
        let mut tensor = random.normals(1 << 15);
        tensor.iter_mut().for_each(|x| {
            if random.uniform() > 0.01 {
                *x = 0.0;
            }
        });
        tensor
    };
    let (a, b) = (named([gradient()]), named([gradient()]));
    check_estimator("1% of elements", &a, &b, 128, 8000);
    check_estimator("1% of elements, with itself", &a, &a, 128, 8000);
}

/// Catches a shuffle that keeps rows or columns together: transformers have outliers in both, and
/// widths that are powers of two.
#[test]
fn transformer_gradients_have_the_ideal_variance() {
    let mut random = Random(3);
    let columns: Vec<f32> = (0..256).map(|i| if i % 61 == 5 { 30.0 } else { 1.0 }).collect();
    let mut gradient = || {
        named([
            random.linear(128, 256, 8, &columns),
            random.linear(32, 128, 8, &columns[..128]),
            random.linear(128, 16, 8, &columns[..16]),
        ])
    };
    let (a, b) = (gradient(), gradient());
    check_estimator("transformer", &a, &b, 256, 6000);
    check_estimator("transformer, with itself", &a, &a, 256, 6000);
}

/// Catches multipliers under which elements a power of two apart, as in a column, meet too often.
#[test]
fn single_rows_and_columns_have_the_ideal_variance() {
    let mut random = Random(4);
    for (rows, columns) in [(512, 64), (256, 128), (128, 256), (64, 512), (1024, 16)] {
        let mut column = vec![0.0; rows * columns];
        column.iter_mut().skip(5).step_by(columns).for_each(|x| *x = random.normal());
        let mut row = vec![0.0; rows * columns];
        row[3 * columns..4 * columns].iter_mut().for_each(|x| *x = random.normal());
        let (column, row) = (named([column]), named([row]));
        check_estimator(&format!("column of {rows} x {columns}"), &column, &column, 128, 4000);
        check_estimator(&format!("row of {rows} x {columns}"), &row, &row, 128, 4000);
        check_estimator(&format!("row and column of {rows} x {columns}"), &row, &column, 128, 4000);
    }
}

/// Catches two elements of a short tensor in one bucket.
#[test]
fn tensor_with_at_most_k_elements_keeps_its_dot_products() {
    let mut random = Random(5);
    for elements in [1, 15, 16, 17, 1000, 4095, 4096] {
        let mut whole = || -> Vec<f32> {
            (0..elements).map(|_| (random.uniform() * 101.0).floor() as f32 - 50.0).collect()
        };
        let (a, b) = (named([whole()]), named([whole()]));
        for seed in 0..50 {
            let spec = SketchSpec::rapid_grad(seed, 4096);
            let estimate = dot(sketch(spec.clone(), &a).values(), sketch(spec, &b).values());
            assert_eq!(estimate, dot(&flat(&a), &flat(&b)), "{elements} elements, seed {seed}");
        }
    }
}

/// Catches a tensor of one element that is lost, or lands in the padding's place.
#[test]
fn single_element_takes_one_bucket() {
    for normalisation in [Normalisation::None, Normalisation::PerTensor] {
        let spec = SketchSpec::rapid_grad(9, 64).normalised(normalisation);
        let sketch = sketch(spec, &named([vec![-4.0]]));
        let magnitudes: Vec<f32> = sketch.values().iter().map(|x| x.abs()).filter(|x| *x > 0.0).collect();
        let expected = if normalisation == Normalisation::None { 4.0 } else { 1.0 };
        assert_eq!(magnitudes, [expected]);
    }
}

/// Catches nothing becoming something.
#[test]
fn empty_and_zero_tensors_add_nothing() {
    for normalisation in [Normalisation::None, Normalisation::PerTensor] {
        let spec = SketchSpec::rapid_grad(9, 64).normalised(normalisation);
        for tensors in [vec![], named([vec![]]), named([vec![0.0; 100]])] {
            let sketch = sketch(spec.clone(), &tensors);
            assert!(sketch.values().iter().all(|x| *x == 0.0));
        }
    }
}

/// Catches a scale that is not the tensor's own, or is rounded twice: powers of two must cancel.
#[test]
fn normalised_tensors_forget_their_scale() {
    let mut random = Random(6);
    let (first, second) = (random.normals(1000), random.normals(333));
    let spec = SketchSpec::rapid_grad(7, 128).normalised(Normalisation::PerTensor);
    let scaled = |by: f32| named([first.iter().map(|x| x * by).collect(), second.clone()]);
    let expected = sketch(spec.clone(), &scaled(1.0));
    for by in [2f32.powi(-90), 2f32.powi(-1), 2f32.powi(90)] {
        assert_eq!(sketch(spec.clone(), &scaled(by)), expected, "{by}");
    }
    // Two tensors of norm 1 each.
    assert!((dot(expected.values(), expected.values()) - 2.0).abs() < 1.0);
}

proptest! {
    // Not persisted: without a lib.rs beside it proptest has no place for it and complains.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Catches a base that depends on K, so that sketches of different widths have nothing in common.
    #[test]
    fn nested_sketch_is_the_sketch_of_the_nested_spec(
        seed: u64,
        first in prop::collection::vec(-100i16..100, 0..3000),
        second in prop::collection::vec(-100i16..100, 0..300),
        log in 4u32..10,
        halvings in 0u32..5,
    ) {
        let whole = |tensor: Vec<i16>| tensor.into_iter().map(f32::from).collect::<Vec<f32>>();
        let tensors = named([whole(first), whole(second)]);
        let (narrow, factor) = (1 << log, 1 << halvings);
        let wide = sketch(SketchSpec::rapid_grad(seed, narrow * factor), &tensors);
        let expected = sketch(SketchSpec::rapid_grad(seed, narrow), &tensors);
        prop_assert_eq!(wide.nested(factor).unwrap(), expected);

        let blocks = |k| SketchSpec::rapid_grad_blocks(seed, [("layers.0", 2 * k), ("layers.1", k)]);
        let wide = sketch(blocks(narrow * factor), &tensors);
        prop_assert_eq!(wide.nested(factor).unwrap(), sketch(blocks(narrow), &tensors));
    }

    /// Catches anything that is shared between folds and not only read.
    #[test]
    fn sketches_are_the_same_on_every_thread_count_and_kernel(
        seed: u64,
        examples in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 0..400), 1..24),
    ) {
        let spec = SketchSpec::rapid_grad(seed, 256).normalised(Normalisation::PerTensor);
        let name = |i: usize| ["a", "b.weight", "c.bias"][i % 3];
        let oracle = Sketcher::new(spec.clone()).unwrap().on_kernel(FoldKernel::Scalar).unwrap();
        let make = |sketcher: &Sketcher, i: usize| {
            let mut fold = sketcher.start();
            fold.add(name(i), &examples[i]).unwrap();
            fold.add(name(i + 1), &examples[examples.len() - 1 - i]).unwrap();
            fold.finish().unwrap()
        };
        let expected: Vec<Sketch> = (0..examples.len()).map(|i| make(&oracle, i)).collect();
        for kernel in FoldKernel::available() {
            let sketcher = Sketcher::new(spec.clone()).unwrap().on_kernel(kernel).unwrap();
            for threads in [1, 2, 5] {
                let share = |thread: usize| {
                    let sketcher = &sketcher;
                    let own = (thread..examples.len()).step_by(threads);
                    own.map(move |i| (i, make(sketcher, i))).collect::<Vec<_>>()
                };
                let sketches = std::thread::scope(|scope| {
                    let share = &share;
                    let all: Vec<_> = (0..threads).map(|t| scope.spawn(move || share(t))).collect();
                    all.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
                });
                for (i, sketch) in sketches {
                    prop_assert_eq!(&sketch, &expected[i], "{} threads, {}", threads, kernel);
                }
            }
        }
    }
}

/// Catches a prefix that ends within a name, and the shorter of two that fit.
#[test]
fn parameter_goes_to_the_longest_prefix() {
    let blocks = [("layers.1", 16), ("layers.1.attn", 32), ("head.weight", 16), ("layers", 64)];
    let spec = SketchSpec::rapid_grad_blocks(7, blocks);
    let taken = |parameter: &str| {
        let sketch = sketch(spec.clone(), &vec![(parameter.to_owned(), vec![1.0; 5])]);
        let used = |block: &usize| sketch.block(*block).unwrap().iter().any(|x| *x != 0.0);
        (0..blocks.len()).filter(used).map(|block| blocks[block].0).collect::<Vec<_>>()
    };
    assert_eq!(taken("layers.1.mlp.weight"), ["layers.1"]);
    assert_eq!(taken("layers.1"), ["layers.1"]);
    assert_eq!(taken("layers.1.attn.q"), ["layers.1.attn"]);
    assert_eq!(taken("layers.1.attnx"), ["layers.1"]);
    assert_eq!(taken("layers.10.attn.q"), ["layers"]);
    assert_eq!(taken("head.weight"), ["head.weight"]);
    for parameter in ["head", "head.bias", "head.weights", "layer", "", "."] {
        let error = Sketcher::new(spec.clone()).unwrap().start().add(parameter, &[1.0]).unwrap_err();
        assert!(matches!(error, SketchError::NoBlock { parameter: p, .. } if p == parameter));
    }
}

/// Catches a parameter's numbers that depend on which other blocks there are.
#[test]
fn block_is_what_its_parameters_alone_make() {
    let tensors = named([vec![1.5; 100], vec![-2.5; 100]]);
    let blocks = SketchSpec::rapid_grad_blocks(7, [("layers.0", 64), ("layers.1", 32)]);
    let both = sketch(blocks, &tensors);
    let alone = sketch(SketchSpec::rapid_grad(7, 32), &tensors[1..].to_vec());
    assert_eq!(both.block(1).unwrap(), alone.values());
}

/// Catches a sketch of half a gradient after an error that the caller passed over.
#[test]
fn failed_fold_never_becomes_a_sketch() {
    let spec = SketchSpec::rapid_grad_blocks(7, [("a", 16)]);
    let sketcher = Sketcher::new(spec).unwrap();
    for (parameter, gradient) in [("b", &[1.0][..]), ("a", &[1.0, f32::INFINITY])] {
        let mut fold = sketcher.start();
        fold.add("a", &[1.0]).unwrap();
        let error = fold.add(parameter, gradient).unwrap_err();
        assert_eq!(fold.add("a", &[1.0]).unwrap_err(), error);
        assert_eq!(fold.finish().unwrap_err(), error);
    }
}

/// Catches sums that became infinite, or NaN by two infinities.
#[test]
fn overflow_is_refused() {
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16)).unwrap();
    let error = sketcher.sketch([("a", &[f32::MAX; 4096][..])]).unwrap_err();
    assert!(matches!(error, SketchError::Overflow { ref block, .. } if block == "all"), "{error}");

    let spec = SketchSpec::rapid_grad(7, 32);
    let sketch = Sketch::dense(spec, vec![f32::MAX; 32]).unwrap();
    let error = sketch.nested(2).unwrap_err();
    assert!(matches!(error, SketchError::Overflow { bucket: 0, .. }), "{error}");
}

/// Catches specs that are taken though they have no fold.
#[test]
fn specs_without_a_fold_are_refused() {
    let dense = SketchSpec::dense("logra", "1f", [("all", 64)]);
    assert!(matches!(Sketcher::new(dense.clone()).unwrap_err(), SketchError::NoSketcher { .. }));
    for dims in [0, 8, 48, 1 << 29] {
        let error = Sketcher::new(SketchSpec::rapid_grad(7, dims)).unwrap_err();
        assert!(matches!(error, SketchError::InvalidSpec { .. }), "{dims}: {error}");
    }
    let sketch = Sketch::dense(dense, vec![0.0; 64]).unwrap();
    assert!(matches!(sketch.nested(2).unwrap_err(), SketchError::NotNested { .. }));
    let folded = Sketcher::new(SketchSpec::rapid_grad(7, 64)).unwrap().start().finish().unwrap();
    for factor in [0, 3, 8, 1 << 31] {
        assert!(matches!(folded.nested(factor).unwrap_err(), SketchError::NotNested { .. }));
    }
    assert_eq!(folded.nested(1).unwrap(), folded);
}

/// Catches a sketcher that cannot be shared by threads.
#[test]
fn sketcher_is_shared_by_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16)).unwrap();
    shared(&sketcher);
    shared(&sketcher.start());
}
