use proptest::prelude::*;

use super::*;
use crate::sketch::{Sketch, Sketcher};

/// The signs of the page's text for one side, with nothing precomputed, in `u64` and with explicit moduli.
fn signs_by_the_page(seed: u64, parameter: &str, side: usize, p: usize, n: usize) -> Vec<Vec<f32>> {
    use sha2::{Digest as _, Sha512};
    const M: u64 = 1 << 32;
    let mut text = b"gradix.kronecker.1".to_vec();
    text.extend(seed.to_le_bytes());
    text.extend(parameter.as_bytes());
    let digest = Sha512::digest(&text);
    let k: Vec<u64> =
        digest.chunks(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
    let k = &k[4 * side..];
    let mix = |mut x: u64| {
        x ^= x >> 16;
        x = x * 0x7FEB_352D % M;
        x ^= x >> 15;
        x = x * 0x846C_A68B % M;
        x ^ x >> 16
    };
    let entry = |r: u64, c: u64| {
        let first = mix(mix((r + k[0]) % M) ^ k[1]);
        let second = mix(mix((r + k[2]) % M) ^ k[3]);
        let word = mix(mix((c / 32 + first) % M) ^ second);
        let sign = if word >> (c % 32) & 1 == 1 { -1.0 } else { 1.0 };
        if n > p || r == c { sign } else { 0.0 }
    };
    (0..p as u64).map(|r| (0..n as u64).map(|c| entry(r, c)).collect()).collect()
}

/// The values of one parameter alone, term by term in the page's order.
fn by_the_page(
    seed: u64,
    name: &str,
    [p_in, p_out]: [usize; 2],
    shape: [usize; 2],
    gradient: &[f32],
) -> Vec<f32> {
    let [n_in, n_out] = shape;
    let inputs = signs_by_the_page(seed, name, 0, p_in, n_in);
    let outputs = signs_by_the_page(seed, name, 1, p_out, n_out);
    let length = |p: usize, n: usize| if n > p { p as f64 } else { 1.0 };
    let scale = (1.0 / (length(p_in, n_in) * length(p_out, n_out)).sqrt()) as f32;
    let mut values = Vec::new();
    for input in &inputs {
        let column = |o: usize| (0..n_in).fold(0.0f32, |sum, i| sum + input[i] * gradient[i * n_out + o]);
        let columns: Vec<f32> = (0..n_out).map(column).collect();
        for output in &outputs {
            let sum = columns.iter().zip(output).fold(0.0f32, |sum, (x, sign)| sum + x * sign);
            values.push(0.0 + sum * scale);
        }
    }
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn sketch(sketcher: &Sketcher, parameters: &[(&str, [usize; 2], &[f32])]) -> Result<Sketch, SketchError> {
    let mut fold = sketcher.start();
    for (name, shape, gradient) in parameters {
        fold.add_matrix(name, *shape, gradient)?;
    }
    fold.finish()
}

/// Numbers of many magnitudes, so that another order of sums shows.
fn gradient(elements: usize) -> Vec<f32> {
    (0..elements).map(|i| ((i * 7919 % 10_007) as f32 - 5e3) * 2f32.powi((i * 31 % 24) as i32 - 12)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..Default::default() })]

    /// Catches a kernel whose signs or order of sums is not the page's, at any remainder of rows and columns.
    #[test]
    fn every_kernel_equals_the_page(
        seed: u64,
        name in "[a-z]{1,8}(\\.[a-z0-9é]{1,8}){0,12}",
        p_in in 1usize..40,
        p_out in 1usize..70,
        n_in in 1usize..100,
        n_out in 1usize..90,
    ) {
        let gradient = gradient(n_in * n_out);
        let expected = by_the_page(seed, &name, [p_in, p_out], [n_in, n_out], &gradient);
        let spec = SketchSpec::kronecker(seed, [(&*name, p_in as u32, p_out as u32)]);
        for kernel in FoldKernel::available() {
            let sketcher = Sketcher::new(spec.clone()).unwrap().on_kernel(kernel).unwrap();
            let actual = sketch(&sketcher, &[(&name, [n_in, n_out], &gradient)]).unwrap();
            prop_assert_eq!(bits(actual.values()), bits(&expected), "{}", kernel);
        }
    }
}

/// Catches a seam where the columns are cut, and terms of a word that is not whole.
#[test]
fn every_kernel_equals_the_page_on_wide_matrices() {
    let cases = [([8, 16], [70, 513]), ([16, 64], [33, 1100]), ([64, 4], [64, 1024]), ([9, 600], [40, 550])];
    for (sides, shape) in cases {
        let gradient = gradient(shape[0] * shape[1]);
        let expected = by_the_page(9, "wide.weight", sides, shape, &gradient);
        let spec = SketchSpec::kronecker(9, [("wide", sides[0] as u32, sides[1] as u32)]);
        for kernel in FoldKernel::available() {
            let sketcher = Sketcher::new(spec.clone()).unwrap().on_kernel(kernel).unwrap();
            let actual = sketch(&sketcher, &[("wide.weight", shape, &gradient)]).unwrap();
            assert_eq!(bits(actual.values()), bits(&expected), "{kernel}, {sides:?} of {shape:?}");
        }
    }
}

/// Catches projections for a device that are not those of the host: another scale, side or sign.
#[test]
fn matrices_are_the_signs_of_the_page_with_their_scale() {
    let spec = SketchSpec::kronecker(3, [("a", 4, 100)]);
    let sketcher = Sketcher::new(spec).unwrap();
    let projections = sketcher.projections("a.weight", 77, 33).unwrap();
    assert_eq!(projections.block, 0);
    for (side, at, p, n) in [(&projections.inputs, 0, 4, 77), (&projections.outputs, 1, 100, 33)] {
        assert_eq!((side.rows(), side.columns()), (p, n));
        let scale = if n > p { 0.5 } else { 1.0 };
        let expected = signs_by_the_page(3, "a.weight", at, p, n).concat();
        assert_eq!(side.matrix(), expected.iter().map(|sign| sign * scale).collect::<Vec<f32>>());
    }
}

/// Catches a parameter whose values depend on the others of its block or its spec, or are lost among them.
#[test]
fn parameters_of_a_block_add_up() {
    let spec = SketchSpec::kronecker(5, [("x", 3, 3), ("a", 4, 8)]);
    let sketcher = Sketcher::new(spec).unwrap();
    let (first, second) = (gradient(40 * 30), gradient(9 * 20));
    let parameters: [(&str, [usize; 2], &[f32]); 2] = [("a.q", [40, 30], &first), ("a.k", [9, 20], &second)];
    let both = sketch(&sketcher, &parameters).unwrap();
    let mut expected = by_the_page(5, "a.q", [4, 8], [40, 30], &first);
    for (sum, value) in expected.iter_mut().zip(by_the_page(5, "a.k", [4, 8], [9, 20], &second)) {
        *sum += value;
    }
    assert_eq!(bits(both.block(1).unwrap()), bits(&expected));
    assert!(both.block(0).unwrap().iter().all(|value| *value == 0.0));
}

/// Catches an input that is sketched as something else, and an error that does not say which parameter it is.
#[test]
fn what_is_no_matrix_of_its_block_is_refused_by_name() {
    let sketcher = Sketcher::new(SketchSpec::kronecker(5, [("a", 2, 2)])).unwrap();
    let failed = |parameter: &str, shape, gradient: &[f32]| {
        sketcher.start().add_matrix(parameter, shape, gradient).unwrap_err()
    };
    let name = |error: &SketchError| match error {
        SketchError::NoBlock { parameter, .. }
        | SketchError::NotAMatrix { parameter, .. }
        | SketchError::Elements { parameter, .. }
        | SketchError::OtherShape { parameter, .. }
        | SketchError::TooLong { parameter, .. }
        | SketchError::NotFinite { parameter, element: 3, .. } => parameter.clone(),
        other => panic!("{other}"),
    };
    let error = failed("b.w", [1, 2], &[1.0; 2]);
    assert!(matches!(error, SketchError::NoBlock { .. }) && name(&error) == "b.w", "{error}");
    let error = failed("a.w", [3, 2], &[1.0; 5]);
    assert!(matches!(error, SketchError::Elements { shape: [3, 2], elements: 5, .. }), "{error}");
    assert_eq!(name(&error), "a.w");
    let error = failed("a.w", [usize::MAX, 2], &[1.0; 5]);
    assert!(matches!(error, SketchError::Elements { .. }), "{error}");
    let error = failed("a.bad", [2, 2], &[1.0, 2.0, 3.0, f32::NEG_INFINITY]);
    assert_eq!(name(&error), "a.bad");
    let error = sketcher.start().add("a.bias", &[1.0; 4]).unwrap_err();
    assert!(matches!(error, SketchError::NotAMatrix { .. }) && name(&error) == "a.bias", "{error}");
    sketcher.projections("a.w", 3, 2).unwrap();
    let error = failed("a.w", [2, 3], &[1.0; 6]);
    assert!(matches!(error, SketchError::OtherShape { given: [2, 3], before: [3, 2], .. }), "{error}");
    assert_eq!(name(&error), "a.w");
    let error = sketcher.projections("a.long", 1 << 18, (1 << 17) + 1).unwrap_err();
    assert!(matches!(error, SketchError::TooLong { .. }), "{error}");
    assert!(sketcher.projections("a.empty", usize::MAX, 0).is_err());
    let error = sketch(&sketcher, &[("a.huge", [40, 40], &[f32::MAX; 1600])]).unwrap_err();
    assert!(matches!(&error, SketchError::Overflow { block, .. } if block == "a"), "{error}");
    let folding = Sketcher::new(SketchSpec::rapid_grad(7, 16)).unwrap();
    assert!(matches!(folding.projections("a", 1, 1), Err(SketchError::NoProjections { .. })));
}

/// Catches a memory of shapes that grows without end, or forgets one in silence.
#[test]
fn parameters_beyond_the_limit_are_refused() {
    let sketcher = Sketcher::new(SketchSpec::kronecker(5, [("a", 1, 1)])).unwrap();
    for i in 0..MAX_PARAMETERS {
        sketcher.projections(&format!("a.{i}"), 1, 1).unwrap();
    }
    let error = sketcher.projections("a.more", 1, 1).unwrap_err();
    assert!(
        matches!(&error, SketchError::TooManyParameters { parameter } if parameter == "a.more"),
        "{error}"
    );
    sketcher.projections("a.7", 1, 1).unwrap();
}

fn words(of: &serde_json::Value) -> Vec<u32> {
    let word = |word: &serde_json::Value| u32::from_str_radix(word.as_str().unwrap(), 16).unwrap();
    of.as_array().unwrap().iter().map(word).collect()
}

/// Catches projections that differ from those an independent program made by the same page.
#[test]
fn projections_equal_the_known_answers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kronecker-v1.json");
    let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = answers["cases"].as_array().unwrap();
    assert!(cases.len() >= 6);
    let mut sketches = 0;
    for case in cases {
        let seed = case["seed"].as_str().unwrap().parse().unwrap();
        let name = case["parameter"].as_str().unwrap();
        let keys = Keys::new(seed, name);
        assert_eq!([keys.inputs(), keys.outputs()].concat(), words(&case["keys"]));
        for word in case["words"].as_array().unwrap() {
            let at = |name: &str| word[name].as_u64().unwrap() as usize;
            for (side, keys) in [("inputs", keys.inputs()), ("outputs", keys.outputs())] {
                let found = format!("{:08x}", keys::Row::new(&keys, at("row")).word(at("chunk")));
                assert_eq!(found, word[side], "{name}, {word}");
            }
        }
        if case["sides"].is_null() {
            continue;
        }
        let pair = |name: &str| [0, 1].map(|i| case[name][i].as_u64().unwrap() as usize);
        let ([p_in, p_out], shape) = (pair("sides"), pair("shape"));
        let ramp: Vec<f32> = (1..=shape[0] * shape[1]).map(|i| i as f32).collect();
        let mut inputs = vec![(ramp, words(&case["ramp"]))];
        if !case["gradient"].is_null() {
            let gradient = words(&case["gradient"]).into_iter().map(f32::from_bits).collect();
            inputs.push((gradient, words(&case["sketch"])));
        }
        for (gradient, expected) in inputs {
            let spec = SketchSpec::kronecker(seed, [(name, p_in as u32, p_out as u32)]);
            for kernel in FoldKernel::available() {
                let sketcher = Sketcher::new(spec.clone()).unwrap().on_kernel(kernel).unwrap();
                let found = sketch(&sketcher, &[(name, shape, &gradient)]).unwrap();
                assert_eq!(bits(found.values()), expected, "{kernel}, {name}");
            }
            sketches += 1;
        }
    }
    assert!(sketches >= 8);
}
