use proptest::prelude::*;

use super::*;
use crate::codec::lanes;
use crate::sketch::Sketcher;

/// The page's text, with nothing precomputed, in `u64` and with explicit moduli.
fn by_the_page(seed: u64, parameter: &str, gradient: &[f32], dims: usize) -> Vec<f32> {
    use sha2::{Digest as _, Sha512};
    const M: u64 = 1 << 32;
    let mut text = b"gradix.rapid_grad.1".to_vec();
    text.extend(seed.to_le_bytes());
    text.extend(parameter.as_bytes());
    let digest = Sha512::digest(&text);
    let k: Vec<u64> =
        digest.chunks(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
    let mix = |mut x: u64| {
        x ^= x >> 16;
        x = x * 0x7FEB_352D % M;
        x ^= x >> 15;
        x = x * 0x846C_A68B % M;
        x ^ x >> 16
    };
    let b = (dims / 16).ilog2();
    let tiles = gradient.len().div_ceil(16);
    let mut n = 0u32;
    while 1 << n < tiles {
        n += 1;
    }
    let s = n.div_ceil(2).max(1);
    let mut buckets = vec![0.0f32; dims];
    for (i, &value) in gradient.iter().enumerate() {
        let (t, j) = ((i / 16) as u64, i % 16);
        let mut x = t;
        for r in 0..4 {
            x = (x * (k[2 * r] | 1) + k[2 * r + 1]) % (1 << n);
            x ^= x >> s;
        }
        let phase = ((x << (32 - n)) + k[8]) % M;
        let base = (phase >> (32 - b)) as usize;
        let h = mix(mix((t + k[9]) % M) ^ k[10]);
        let lane = j ^ (h >> 28) as usize;
        let sign = if h >> j & 1 == 1 { -1.0 } else { 1.0 };
        buckets[lane * (dims / 16) + base] += sign * value;
    }
    buckets
}

fn sketch(spec: SketchSpec, kernel: FoldKernel, tensors: &[(&str, &[f32])]) -> Vec<u32> {
    let sketcher = Sketcher::new(spec).unwrap().on_kernel(kernel).unwrap();
    let sketch = sketcher.sketch(tensors.iter().copied()).unwrap();
    sketch.values().iter().map(|value| value.to_bits()).collect()
}

proptest! {
    /// Catches a kernel whose place, sign, lane or order of sums is not the page's.
    #[test]
    fn every_kernel_equals_the_page(
        seed: u64,
        name in "[a-z]{1,8}(\\.[a-z0-9é]{1,8}){0,12}",
        gradient in prop::collection::vec(-1e3f32..1e3, 1..3000),
        log in 4u32..14,
    ) {
        let expected = by_the_page(seed, &name, &gradient, 1 << log);
        let expected: Vec<u32> = expected.iter().map(|value| value.to_bits()).collect();
        for kernel in FoldKernel::available() {
            let actual = sketch(SketchSpec::rapid_grad(seed, 1 << log), kernel, &[(&name, &gradient)]);
            prop_assert_eq!(&actual, &expected, "{}", kernel);
        }
    }

    /// Catches a kernel that normalises in another order, or rounds subnormal numbers away.
    #[test]
    fn every_kernel_normalises_alike(
        mantissas in prop::collection::vec(-1.0f32..1.0, 1..2000),
        exponent in -140i32..120,
        log in 4u32..10,
    ) {
        let gradient: Vec<f32> = mantissas.iter().map(|x| x * 2f32.powi(exponent / 2) * 2f32.powi(exponent / 2)).collect();
        let norm = lanes::sum_of_squares(&gradient).sqrt();
        let inverse = (1.0 / norm) as f32;
        let scaled: Vec<f32> = gradient.iter().map(|x| x * inverse).collect();
        let mut expected = vec![0; 1 << log];
        if norm >= 2f64.powi(-126) {
            expected = by_the_page(7, "w", &scaled, 1 << log).iter().map(|x| x.to_bits()).collect();
        }
        for kernel in FoldKernel::available() {
            let spec = SketchSpec::rapid_grad(7, 1 << log).normalised(Normalisation::PerTensor);
            prop_assert_eq!(&sketch(spec, kernel, &[("w", &gradient)]), &expected, "{}", kernel);
        }
    }
}

/// Catches a norm whose lanes are summed in another order, or lose the elements of the last tile.
#[test]
fn every_kernel_has_the_same_sum_of_squares() {
    let gradient: Vec<f32> = (0..5000).map(|i| ((i * 7919 % 10_007) as f32 - 5e3) / 3.0).collect();
    for length in [0, 1, 15, 16, 17, 1023, 1024, 1040, 4999] {
        let expected = lanes::sum_of_squares(&gradient[..length]).to_bits();
        for kernel in FoldKernel::available() {
            let actual = kernel.sum_of_squares(&gradient[..length]).to_bits();
            assert_eq!(actual, expected, "{kernel}, {length} elements");
        }
    }
}

/// Catches a wrong shift or mask where tiles need many bits, and batches that are not whole.
#[test]
fn every_kernel_equals_the_page_on_long_tensors() {
    for elements in [1 << 18, (1 << 18) + 1, (1 << 20) - 15] {
        let gradient: Vec<f32> = (0..elements).map(|i| (i % 8191) as f32 - 4095.0).collect();
        for dims in [16u32, 1 << 12, 1 << 18] {
            let expected = by_the_page(u64::MAX, "long", &gradient, dims as usize);
            let expected: Vec<u32> = expected.iter().map(|value| value.to_bits()).collect();
            for kernel in FoldKernel::available() {
                let spec = SketchSpec::rapid_grad(u64::MAX, dims);
                assert_eq!(sketch(spec, kernel, &[("long", &gradient)]), expected, "{kernel} {dims}");
            }
        }
    }
}

/// Catches shifts by 32 or more at the ends of the ranges that cannot be folded in a test: 2^31
/// tiles, and 2^24 bases.
#[test]
fn places_are_a_bijection_and_bases_stay_in_range() {
    for n in [0u32, 1, 2, 3, 10, 17] {
        let keys = Keys::new(3, "p");
        let bases = 1usize << n;
        let tiling = Tiling::new(&keys, bases * TILE, bases);
        let mut seen = vec![false; bases];
        for t in 0..1 << n {
            // As many bases as places: the base is the place, turned by the key.
            let base = tiling.base(t);
            assert!(!std::mem::replace(&mut seen[base], true), "2^{n}: {base} twice");
        }
    }
    let longest = Tiling::new(&Keys::new(3, "p"), 1 << 35, 1 << 24);
    assert_eq!((longest.mask, longest.shift, longest.to_phase, longest.to_base), (u32::MAX >> 1, 16, 1, 8));
    assert!((0..1 << 31).step_by(9_999_991).all(|t| longest.base(t) < 1 << 24));
}

/// Catches NaN or infinity that passes a kernel, in whole tiles, the last one, or negative.
#[test]
fn every_kernel_finds_what_is_not_finite() {
    for kernel in FoldKernel::available() {
        for normalisation in [Normalisation::None, Normalisation::PerTensor] {
            let spec = SketchSpec::rapid_grad(7, 64).normalised(normalisation);
            let sketcher = Sketcher::new(spec).unwrap().on_kernel(kernel).unwrap();
            for position in [0, 7, 8, 15, 16, 300, 511, 512, 515] {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut gradient = vec![f32::MAX / 1e6; 516];
                    gradient[position] = bad;
                    let error = sketcher.sketch([("a.b", &gradient[..])]).unwrap_err();
                    let SketchError::NotFinite { parameter, element, value } = error else {
                        panic!("{kernel}: {error}")
                    };
                    assert_eq!((&*parameter, element, value.to_bits()), ("a.b", position, bad.to_bits()));
                }
            }
        }
    }
}

/// Catches tiles that share a base more often than by chance. A column of a matrix, or a row with
/// few outliers, is a set of tiles with one distance, so each distance must be good by itself.
#[test]
fn two_tiles_share_a_base_no_more_often_than_by_chance() {
    const SEEDS: u64 = 100_000;
    const BASES: usize = 16;
    for n in [5u32, 8, 13, 20, 31] {
        let half = n / 2;
        let mut distances = vec![1, 2, 3, 4, 8, 16, 17, 1 << half, (1 << half) - 1, (1 << half) + 1];
        distances.extend([1u32 << (n - 1), (1 << (n - 1)) - 1, 1 << (n - 2), 3 << (n - 2)]);
        let mut shared = vec![0u32; distances.len()];
        for seed in 0..SEEDS {
            let tiling = Tiling::new(&Keys::new(seed, "pairs"), TILE << n, BASES);
            // Any tile will do for the first; golden-ratio steps reach all of the tensor.
            let first = (seed as u32).wrapping_mul(0x9E37_79B9) >> (32 - n);
            let base = tiling.base(first);
            for (shared, distance) in shared.iter_mut().zip(&distances) {
                *shared += u32::from(tiling.base((first + distance) & !(u32::MAX << n)) == base);
            }
        }
        for (shared, distance) in shared.into_iter().zip(distances) {
            let ratio = f64::from(shared) * BASES as f64 / SEEDS as f64;
            println!("2^{n} tiles, distance {distance}: {ratio:.3} of chance");
            // Five standard errors of 1.2%.
            assert!(ratio < 1.06, "2^{n} tiles, distance {distance}: {ratio} of chance");
        }
    }
}

fn words(of: &serde_json::Value) -> Vec<u32> {
    let word = |word: &serde_json::Value| u32::from_str_radix(word.as_str().unwrap(), 16).unwrap();
    of.as_array().unwrap().iter().map(word).collect()
}

/// Catches a fold that differs from the one an independent program made by the same page.
#[test]
fn fold_equals_the_known_answers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fold-v1.json");
    let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = answers["cases"].as_array().unwrap();
    assert!(cases.len() >= 7);
    for case in cases {
        let seed = case["seed"].as_str().unwrap().parse().unwrap();
        let elements: usize = case["elements"].as_str().unwrap().parse().unwrap();
        let name = case["parameter"].as_str().unwrap();
        let dims = case["dims"].as_u64().unwrap() as u32;
        let keys = Keys::new(seed, name);
        assert_eq!(keys.words()[..], words(&case["keys"]));
        let tiling = Tiling::new(&keys, elements, dims as usize / TILE);
        for tile in case["tiles"].as_array().unwrap() {
            let t = tile["t"].as_u64().unwrap() as u32;
            let expected = [format!("{:08x}", tiling.phase(t)), format!("{:08x}", tiling.hash(t))];
            assert_eq!([&expected[0], &expected[1]], [&tile["phase"], &tile["h"]]);
            assert_eq!(tiling.base(t) as u64, tile["base"].as_u64().unwrap());
        }
        if case["ramp"].is_null() {
            continue;
        }
        let ramp: Vec<f32> = (1..=elements).map(|i| i as f32).collect();
        for kernel in FoldKernel::available() {
            let spec = SketchSpec::rapid_grad(seed, dims);
            assert_eq!(sketch(spec.clone(), kernel, &[(name, &ramp)]), words(&case["ramp"]), "{kernel}");
            let spec = spec.normalised(Normalisation::PerTensor);
            let expected = words(&case["ramp_per_tensor"]);
            assert_eq!(sketch(spec, kernel, &[(name, &ramp)]), expected, "{kernel}");
        }
    }
}
