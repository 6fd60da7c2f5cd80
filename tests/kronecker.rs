//! What the two-sided projections promise as an estimator.

mod fixtures;

use fixtures::random::Random;
use gradix::sketch::{Sketch, SketchError, SketchSpec, Sketcher};

/// A row-major matrix `[n_in, n_out]`.
#[derive(Clone)]
struct Matrix {
    shape: [usize; 2],
    elements: Vec<f64>,
}

impl Matrix {
    fn new(shape: [usize; 2], element: impl FnMut([usize; 2]) -> f64) -> Self {
        let places = (0..shape[0]).flat_map(|i| (0..shape[1]).map(move |o| [i, o]));
        Self { shape, elements: places.map(element).collect() }
    }

    fn at(&self, i: usize, o: usize) -> f64 {
        self.elements[i * self.shape[1] + o]
    }

    fn floats(&self) -> Vec<f32> {
        self.elements.iter().map(|x| *x as f32).collect()
    }

    /// `self^T other`.
    fn turned_times(&self, other: &Self) -> Self {
        let sum = |[a, b]: [usize; 2]| (0..self.shape[0]).map(|i| self.at(i, a) * other.at(i, b)).sum();
        Self::new([self.shape[1], other.shape[1]], sum)
    }

    fn turned(&self) -> Self {
        Self::new([self.shape[1], self.shape[0]], |[a, b]| self.at(b, a))
    }

    fn dot(&self, other: &Self) -> f64 {
        self.elements.iter().zip(&other.elements).map(|(a, b)| a * b).sum()
    }

    /// `(||self||^2 + tr(self self) - 2 sum of the squares on the diagonal)`.
    fn beside_the_diagonal(&self) -> f64 {
        let diagonal: f64 = (0..self.shape[0]).map(|i| self.at(i, i).powi(2)).sum();
        self.dot(self) + self.dot(&self.turned()) - 2.0 * diagonal
    }
}

/// The variance of `format-spec/kronecker.md`, term by term.
fn ideal_variance(g: &Matrix, h: &Matrix, sides: [u32; 2]) -> f64 {
    let [n_in, n_out] = g.shape;
    let [p, q] = sides.map(f64::from);
    let is_projected = [n_in > sides[0] as usize, n_out > sides[1] as usize];
    let mut variance = 0.0;
    if is_projected[0] {
        variance += h.turned().turned_times(&g.turned()).beside_the_diagonal() / p;
    }
    if is_projected[1] {
        variance += g.turned_times(h).beside_the_diagonal() / q;
    }
    if is_projected == [true, true] {
        let mut both = 0.0;
        for i in 0..n_in {
            for k in (0..n_in).filter(|k| *k != i) {
                for j in 0..n_out {
                    for l in (0..n_out).filter(|l| *l != j) {
                        let own = g.at(i, j) * h.at(k, l);
                        both += own
                            * (own
                                + g.at(k, j) * h.at(i, l)
                                + g.at(i, l) * h.at(k, j)
                                + g.at(k, l) * h.at(i, j));
                    }
                }
            }
        }
        variance += both / (p * q);
    }
    variance
}

fn sketch(sketcher: &Sketcher, parameters: &[(&str, &Matrix)]) -> Sketch {
    let mut fold = sketcher.start();
    for (name, matrix) in parameters {
        fold.add_matrix(name, matrix.shape, &matrix.floats()).unwrap();
    }
    fold.finish().unwrap()
}

fn dot(a: &Sketch, b: &Sketch) -> f64 {
    a.values().iter().zip(b.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Mean within 4.5 standard errors of the truth, and variance within a tenth of the ideal one, over 20,000
/// seeds.
fn check_estimator(what: &str, g: &Matrix, h: &Matrix, sides: [u32; 2]) {
    const SEEDS: u64 = 20_000;
    let truth = g.dot(h);
    let ideal = ideal_variance(g, h, sides);
    let error = |seed: u64| {
        let spec = SketchSpec::kronecker(seed, [("layer", sides[0], sides[1])]);
        let sketcher = Sketcher::new(spec).unwrap();
        dot(&sketch(&sketcher, &[("layer.weight", g)]), &sketch(&sketcher, &[("layer.weight", h)])) - truth
    };
    let errors: Vec<f64> = (0..SEEDS).map(error).collect();
    let mean = errors.iter().sum::<f64>() / SEEDS as f64;
    let variance = errors.iter().map(|error| error * error).sum::<f64>() / SEEDS as f64;
    let bias = mean / (ideal / SEEDS as f64).sqrt();
    let ratio = variance / ideal;
    println!("{what}, {sides:?}: bias {bias:.2} standard errors, variance {ratio:.3} of the ideal");
    assert!(bias.abs() < 4.5, "{what}: bias of {bias} standard errors");
    assert!((0.9..1.1).contains(&ratio), "{what}: variance {ratio} of the ideal");
}

/// A sum of `tokens` outer products, with outlier inputs that all share and outlier outputs of each.
fn linear(random: &mut Random, shape: [usize; 2], tokens: usize) -> Matrix {
    let mut sum = Matrix::new(shape, |_| 0.0);
    for _ in 0..tokens {
        let inputs: Vec<f64> = (0..shape[0])
            .map(|i| f64::from(random.normal()) * if i % 11 == 5 { 20.0 } else { 1.0 })
            .collect();
        let outputs: Vec<f64> = (0..shape[1])
            .map(|_| f64::from(random.normal()) * if random.below(16) == 0 { 10.0 } else { 1.0 })
            .collect();
        let product = Matrix::new(shape, |[i, o]| inputs[i] * outputs[o]);
        sum.elements.iter_mut().zip(product.elements).for_each(|(sum, x)| *sum += x);
    }
    sum
}

/// Catches signs that are not independent of each other between rows, columns and sides, where gradients
/// have structure: outlier rows and columns, few ranks, one row, one column, all alike.
#[test]
fn structured_gradients_have_the_variance_of_the_page() {
    let mut random = Random(11);
    let shape = [40, 36];
    let (a, b) = (linear(&mut random, shape, 6), linear(&mut random, shape, 6));
    check_estimator("six tokens", &a, &b, [8, 4]);
    check_estimator("six tokens, with itself", &a, &a, [8, 4]);
    let (one, other) = (linear(&mut random, shape, 1), linear(&mut random, shape, 1));
    check_estimator("one token", &one, &other, [8, 8]);
    check_estimator("one token, with itself", &one, &one, [16, 16]);
    let alike = Matrix::new(shape, |_| 1.0);
    check_estimator("all alike", &alike, &alike, [8, 16]);
    let row = Matrix::new(shape, |[i, _]| if i == 3 { f64::from(random.normal()) } else { 0.0 });
    let column = Matrix::new(shape, |[_, o]| if o == 32 { 1.0 } else { 0.0 });
    check_estimator("one row", &row, &row, [8, 8]);
    check_estimator("one column", &column, &column, [8, 8]);
    check_estimator("six tokens and one row", &a, &row, [8, 8]);
}

/// Catches a side that loses something, or keeps a variance, although it is as long as the parameter's.
#[test]
fn whole_sides_have_no_variance() {
    let mut random = Random(12);
    let shape = [40, 36];
    let (a, b) = (linear(&mut random, shape, 4), linear(&mut random, shape, 4));
    check_estimator("whole outputs", &a, &b, [8, 36]);
    check_estimator("whole inputs, longer", &a, &b, [50, 8]);
    let whole = |[i, o]: [usize; 2]| ((i * 7 + o * 3) % 41) as f64 - 20.0;
    let (a, b) = (Matrix::new(shape, whole), Matrix::new(shape, |[i, o]| whole([o, i])));
    for seed in 0..20 {
        let sketcher = Sketcher::new(SketchSpec::kronecker(seed, [("layer", 40, 50)])).unwrap();
        let found = dot(&sketch(&sketcher, &[("layer.w", &a)]), &sketch(&sketcher, &[("layer.w", &b)]));
        assert_eq!(found, a.dot(&b));
    }
}

/// Catches two parameters of a block that always meet, which makes dot products of their sums wrong on
/// average: plain identities would, of parameters that are whole on both sides.
#[test]
fn parameters_of_a_block_do_not_meet_on_average() {
    const SEEDS: u64 = 4000;
    let mut random = Random(13);
    for (sides, shapes) in
        [([8, 8], [[8, 8], [8, 8]]), ([8, 4], [[30, 4], [8, 20]]), ([4, 4], [[20, 30], [4, 4]])]
    {
        let (first, second) = (linear(&mut random, shapes[0], 2), linear(&mut random, shapes[1], 2));
        let products: Vec<f64> = (0..SEEDS)
            .map(|seed| {
                let spec = SketchSpec::kronecker(seed, [("layer", sides[0], sides[1])]);
                let sketcher = Sketcher::new(spec).unwrap();
                dot(&sketch(&sketcher, &[("layer.q", &first)]), &sketch(&sketcher, &[("layer.k", &second)]))
            })
            .collect();
        let mean = products.iter().sum::<f64>() / SEEDS as f64;
        let square = products.iter().map(|x| x * x).sum::<f64>() / SEEDS as f64;
        let bias = mean / (square / SEEDS as f64).sqrt();
        assert!(bias.abs() < 4.5, "{sides:?}: bias of {bias} standard errors");
    }
}

/// Catches a Kronecker sketch that is nested as if its values were buckets.
#[test]
fn kronecker_sketch_cannot_be_nested() {
    let spec = SketchSpec::kronecker(7, [("layer", 16, 16)]);
    let sketch = Sketcher::new(spec).unwrap().start().finish().unwrap();
    for factor in [1, 2] {
        assert!(matches!(sketch.nested(factor), Err(SketchError::NotNested { .. })));
    }
}

/// Catches sides that the format does not have, or that are not those of the dims.
#[test]
fn sides_beyond_the_format_are_refused() {
    for [p_in, p_out] in [[0, 4], [4, 0], [(1 << 14) + 1, 1], [1, (1 << 14) + 1], [u32::MAX, u32::MAX]] {
        let error = Sketcher::new(SketchSpec::kronecker(7, [("layer", p_in, p_out)])).unwrap_err();
        assert!(matches!(error, SketchError::InvalidSpec { .. }), "{p_in} x {p_out}: {error}");
    }
    let largest = SketchSpec::kronecker(7, [("layer", 1 << 14, 1 << 14)]);
    assert!(largest.check().is_ok());
    assert_eq!(largest.to_string(), "kronecker v1 seed 7; layer x 16384 x 16384");
}

/// Catches a prefix that is not part of what is hashed and routed, or that is put together the wrong way
/// around; and an empty one that changes the hash, which one block for all would not notice.
#[test]
fn prefix_stands_before_every_name() {
    let matrix = Matrix::new([9, 9], |[i, o]| (i * o) as f64 - 3.0);
    let kronecker = SketchSpec::kronecker(7, [("step-1", 2, 2), ("step-2.layers", 4, 4)]);
    let folding = SketchSpec::rapid_grad_blocks(7, [("step-1", 16), ("step-2.layers", 32)]);
    for spec in [kronecker, folding] {
        let sketcher = Sketcher::new(spec).unwrap();
        let expected = sketch(&sketcher, &[("step-2.layers.w", &matrix)]);
        assert_eq!(sketch(&sketcher.under("step-2.layers"), &[("w", &matrix)]), expected);
        assert_eq!(sketch(&sketcher.under("step-2").under("layers"), &[("w", &matrix)]), expected);
        let error = sketcher.under("step-3").start().add_matrix("w", [1, 1], &[1.0]).unwrap_err();
        assert!(
            matches!(&error, SketchError::NoBlock { parameter, .. } if parameter == "step-3.w"),
            "{error}"
        );
        let both = sketch(&sketcher.under("step-1"), &[("w", &matrix)]).plus(&expected).unwrap();
        let together = sketch(&sketcher, &[("step-1.w", &matrix), ("step-2.layers.w", &matrix)]);
        assert_eq!(both, together);
    }
    for spec in [SketchSpec::rapid_grad(7, 16), SketchSpec::kronecker(7, [("w", 2, 2)])] {
        let sketcher = Sketcher::new(spec).unwrap();
        let expected = sketch(&sketcher, &[("w", &matrix)]);
        assert_eq!(sketch(&sketcher.under(""), &[("w", &matrix)]), expected);
    }
}

/// Catches sketches of two specs that are added, and a sum that became infinite.
#[test]
fn sketches_that_cannot_be_added_are_refused() {
    let spec = SketchSpec::dense("test", "v1", [("a", 2)]);
    let sketch = |spec: &SketchSpec, value| Sketch::dense(spec.clone(), vec![value; 2]).unwrap();
    let one = sketch(&spec, 1.0);
    assert_eq!(one.plus(&one).unwrap(), sketch(&spec, 2.0));
    let other = SketchSpec::dense("test", "v2", [("a", 2)]);
    let error = one.plus(&sketch(&other, 1.0)).unwrap_err();
    assert!(
        matches!(&error, SketchError::OtherSpec { given, expected } if **given == other && **expected == spec),
        "{error}"
    );
    let error = sketch(&spec, f32::MAX).plus(&sketch(&spec, f32::MAX)).unwrap_err();
    assert!(matches!(error, SketchError::Overflow { bucket: 0, .. }), "{error}");
}
