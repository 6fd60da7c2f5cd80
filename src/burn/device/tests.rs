//! The fold on a wgpu device against the page that specifies it, written again here one element at a time.

use super::check::known_answers;
use super::*;
use crate::sketch::SketchSpec;
use ::burn::tensor::{Device, TensorData};
use sha2::{Digest as _, Sha512};
use std::collections::BTreeMap;

/// The device of the tests; `None` if they are told to do without.
fn device() -> Option<Device> {
    match std::env::var("GRADIX_TEST_WGPU").as_deref() {
        Ok("run") => Some(Device::wgpu(::burn::tensor::DeviceKind::DefaultDevice)),
        _ => {
            println!("GRADIX_TEST_WGPU is not `run`: nothing is tested on a device");
            None
        }
    }
}

/// The block's buckets after a tensor, in the order on a device, from `before`.
fn oracle(seed: u64, name: &str, dims: usize, gradient: &[f32], before: &mut [f32]) {
    let mut hash = Sha512::new();
    hash.update(b"gradix.rapid_grad.1");
    hash.update(seed.to_le_bytes());
    hash.update(name);
    let digest = hash.finalize();
    let k: Vec<u32> =
        digest.chunks(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    let mix = |mut x: u32| {
        x ^= x >> 16;
        x = x.wrapping_mul(0x7FEB_352D);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846C_A68B);
        x ^ (x >> 16)
    };
    let tiles = gradient.len().div_ceil(16);
    let n = tiles.next_power_of_two().trailing_zeros();
    let b = (dims / 16).trailing_zeros();
    let mask = ((1u64 << n) - 1) as u32;
    let s = n.div_ceil(2).max(1);
    // By base and place in the base: the tile.
    let mut bases: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
    for t in 0..tiles as u32 {
        let mut x = t;
        for r in 0..4 {
            x = x.wrapping_mul(k[2 * r] | 1).wrapping_add(k[2 * r + 1]) & mask;
            x ^= x >> s;
        }
        let phase = ((u64::from(x) << (32 - n)) as u32).wrapping_add(k[8]);
        let base = (u64::from(phase) >> (32 - b)) as u32;
        let turn = (u64::from(phase) >> (32 - n)) as u32;
        bases.entry(base).or_default().insert(turn, t);
    }
    let turns = 1u32 << n.saturating_sub(b);
    for (base, found) in bases {
        let first = found.keys().next().unwrap() / turns * turns;
        let mut sums: Vec<[f32; 16]> = Vec::new();
        for turn in first..first + turns {
            let mut lanes = [0.0; 16];
            if let Some(&t) = found.get(&turn) {
                let h = mix(mix(t.wrapping_add(k[9])) ^ k[10]);
                for j in 0..16 {
                    let x = gradient.get(t as usize * 16 + j).copied().unwrap_or(0.0);
                    lanes[j ^ (h >> 28) as usize] = if h >> j & 1 == 1 { -x } else { x };
                }
            }
            sums.push(lanes);
        }
        // Even a single one is added to +0.
        loop {
            let runs = sums.chunks(64).map(|run| {
                run.iter().fold([0.0; 16], |sum: [f32; 16], next| std::array::from_fn(|l| sum[l] + next[l]))
            });
            sums = runs.collect();
            if sums.len() == 1 {
                break;
            }
        }
        for (lane, sum) in sums[0].iter().enumerate() {
            before[lane * (dims / 16) + base as usize] += sum;
        }
    }
}

/// Numbers of many magnitudes, so that another order of sums has other bits.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next() * (16.0 * next()).exp2()).collect()
}

fn tensor(values: &[f32], rows: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, values.len() / rows]), device)
}

/// Adds the tensors to a batch of `rows`, and reads it.
fn folded(sketcher: &Sketcher, rows: usize, tensors: &[(&str, Tensor<2>)]) -> Result<Vec<Sketch>, BurnError> {
    let mut fold = DeviceFold::start(sketcher, rows, &tensors[0].1)?.expect("a device with kernels");
    for (name, tensor) in tensors {
        fold.add(name, 0, tensor)?;
    }
    fold.finish()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Catches an order of sums that is not the page's, a tile that is lost or read twice, a wrong sign or lane, a
/// last tile that reads into the next example's row, and two runs that differ.
#[test]
fn device_fold_equals_the_page_bit_for_bit() {
    let Some(device) = device() else { return };
    // More tiles than bases, fewer, one base, runs of runs, lengths that are no multiple of 16 or 4.
    for (dims, lengths) in [(16, [150_001, 7]), (64, [1, 4099]), (1024, [33, 1 << 16]), (1 << 16, [5000, 3])]
    {
        let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, dims)).unwrap();
        let names = ["layers.0.weight", "layers.0.bias"];
        let values = lengths.map(|length| numbers(2 * length, length as u64));
        let tensors: Vec<_> =
            names.iter().copied().zip(values.iter().map(|values| tensor(values, 2, &device))).collect();
        let got = folded(&sketcher, 2, &tensors).unwrap();
        let again = folded(&sketcher, 2, &tensors).unwrap();
        for row in 0..2 {
            let mut expected = vec![0.0; dims as usize];
            let mut fold = sketcher.start();
            let mut magnitudes = 0.0f64;
            for (name, values) in names.iter().zip(&values) {
                let gradient = &values[row * values.len() / 2..][..values.len() / 2];
                oracle(7, name, dims as usize, gradient, &mut expected);
                fold.add(name, gradient).unwrap();
                magnitudes += gradient.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            }
            assert_eq!(bits(got[row].values()), bits(&expected), "{dims} dims, {lengths:?}, row {row}");
            assert_eq!(bits(got[row].values()), bits(again[row].values()));
            // A sum differs by at most its number of additions times half a unit in the last place of the sum
            // of magnitudes; all magnitudes together are more than those of one bucket.
            let host = fold.finish().unwrap();
            let bound = magnitudes * f64::from(f32::EPSILON) * 32.0;
            for (host, device) in host.values().iter().zip(got[row].values()) {
                assert!(f64::from((host - device).abs()) <= bound, "{host} on the host, {device}");
            }
        }
    }
}

/// Odd halves of small size, whose sums are exact in every order: the host's bits are the device's.
fn whole(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 28) as f32 - 7.5).collect()
}

/// The sketches of a batch of `rows` on the host.
fn on_host(sketcher: &Sketcher, rows: usize, tensors: &[(&str, &[f32])]) -> Vec<Sketch> {
    let row = |row: usize| {
        let parts = tensors.iter().map(|(name, values)| {
            let length = values.len() / rows;
            (*name, &values[row * length..][..length])
        });
        sketcher.sketch(parts).unwrap()
    };
    (0..rows).map(row).collect()
}

fn assert_same(given: &[Sketch], expected: &[Sketch]) {
    assert_eq!(given.len(), expected.len());
    for (row, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert_eq!(given.values(), expected.values(), "row {row}");
        assert_eq!(given.spec(), expected.spec());
    }
}

/// Catches a parameter in the wrong block's sums, a prefix that the device's fold leaves out, and chunks that
/// overwrite each other's rows or start at the wrong one.
#[test]
fn device_fold_adds_to_the_rows_and_blocks_of_each_parameter() {
    let Some(device) = device() else { return };
    let spec = SketchSpec::rapid_grad_blocks(7, [("a.b", 64), ("a", 16), ("a.c.d", 256)]);
    let sketcher = Sketcher::new(spec).unwrap().under("a");
    let names = ["c.d.weight", "b.weight", "c.weight", "bias"];
    let lengths = [5000, 3000, 37, 4];
    let values = lengths.map(|length| whole(5 * length));
    let tensors: Vec<_> = names.iter().copied().zip(values.iter().map(Vec::as_slice)).collect();
    let like = tensor(&values[0], 5, &device);
    let mut fold = DeviceFold::start(&sketcher, 5, &like).unwrap().expect("a device with kernels");
    for (name, values) in &tensors {
        let whole = tensor(values, 5, &device);
        for (first, count) in [(0, 2), (2, 1), (3, 2)] {
            fold.add(name, first, &whole.clone().narrow(0, first, count)).unwrap();
        }
    }
    let given = fold.finish().unwrap();
    assert_same(&given, &on_host(&sketcher, 5, &tensors));
    assert!(given[0].values() != given[4].values());
}

/// Catches parts of a batch that is too large for a launch which are added to the wrong rows, and a parameter
/// too long for one that is folded all the same.
#[test]
fn device_fold_of_more_than_a_launch_is_cut_by_rows() {
    let Some(device) = device() else { return };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 64)).unwrap();
    let values = whole(5 * 1001);
    let tensor = tensor(&values, 5, &device);
    let mut fold = DeviceFold::start(&sketcher, 5, &tensor).unwrap().unwrap();
    fold.most = 2 * 1001 + 1000;
    fold.add("w", 0, &tensor).unwrap();
    assert_same(&fold.finish().unwrap(), &on_host(&sketcher, 5, &[("w", &values)]));
    let mut fold = DeviceFold::start(&sketcher, 5, &tensor).unwrap().unwrap();
    fold.most = 1000;
    let error = fold.add("w", 0, &tensor).unwrap_err();
    assert!(matches!(error, BurnError::DeviceLimit { what, elements: 1001 } if what == "w"));
}

/// Catches a fold that reads a tensor's memory as if it were contiguous, or from its start.
#[test]
fn device_fold_of_a_view_reads_its_elements() {
    let Some(device) = device() else { return };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 64)).unwrap();
    let values = whole(37 * 37);
    let square = tensor(&values, 37, &device);
    let transposed: Vec<f32> = (0..37 * 37).map(|i| values[i % 37 * 37 + i / 37]).collect();
    let columns: Vec<f32> = values.chunks(37).flat_map(|row| row[3..23].to_vec()).collect();
    let views = [
        (square.clone().swap_dims(0, 1), 37, &transposed[..]),
        (square.clone().narrow(1, 3, 20), 37, &columns[..]),
        (square.clone().narrow(0, 5, 9), 9, &values[5 * 37..14 * 37]),
        (square.slice([0..1, 0..37]).expand([4, 37]), 4, &[&values[..37]; 4].concat()[..]),
    ];
    for (view, rows, values) in views {
        let given = folded(&sketcher, rows, &[("w", view)]).unwrap();
        assert_same(&given, &on_host(&sketcher, rows, &[("w", values)]));
    }
}

/// Catches halves that are read as if they were f32, or rounded once more.
#[test]
fn device_fold_of_halves_equals_that_of_their_values() {
    let Some(device) = device() else { return };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 64)).unwrap();
    for (dtype, float) in [(DType::F16, FloatDType::F16), (DType::BF16, FloatDType::BF16)] {
        if !device.supports_dtype(dtype) {
            println!("{dtype:?} is not tested: the device does not compute in it");
            continue;
        }
        for length in [1000, 37] {
            let halves = tensor(&numbers(2 * length, 5), 2, &device).cast(float);
            let values = halves.clone().cast(FloatDType::F32);
            let given = folded(&sketcher, 2, &[("w", halves)]).unwrap();
            assert_same(&given, &folded(&sketcher, 2, &[("w", values)]).unwrap());
        }
    }
}

/// Catches a NaN or an infinity that nobody notices, and one that is told of another parameter, element or
/// example, in whole vectors and in single elements; of several, the first parameter's first example counts.
#[test]
fn device_fold_names_what_is_not_finite() {
    let Some(device) = device() else { return };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16)).unwrap().under("step");
    let clean = [("a", numbers(3 * 4100, 1)), ("b", numbers(3 * 37, 2))];
    // What is placed: parameter, element, value; which of these is told.
    type Placed<'a> = &'a [(usize, usize, f32)];
    let cases: [(Placed<'_>, usize, f32); 5] = [
        (&[(0, 4100 + 4099, f32::NAN)], 0, f32::NAN),
        (&[(1, 37 + 36, f32::NEG_INFINITY)], 0, f32::NEG_INFINITY),
        (&[(0, 2 * 4100 + 1234, f32::INFINITY), (1, 0, f32::NAN)], 0, f32::INFINITY),
        (&[(1, 37 + 20, f32::NAN), (1, 37 + 9, f32::INFINITY), (1, 2 * 37, f32::NAN)], 1, f32::INFINITY),
        (&[(0, 4100, -f32::NAN), (0, 4100 + 16, f32::NEG_INFINITY)], 0, f32::NAN),
    ];
    for (placed, told, expected) in cases {
        let mut tensors = clean.clone();
        for &(which, at, value) in placed {
            tensors[which].1[at] = value;
        }
        let (which, at, _) = placed[told];
        let length = clean[which].1.len() / 3;
        let on_device: Vec<_> =
            tensors.iter().map(|(name, values)| (*name, tensor(values, 3, &device))).collect();
        match folded(&sketcher, 3, &on_device).unwrap_err() {
            BurnError::Example { example, source: SketchError::NotFinite { parameter, element, value } } => {
                assert_eq!((example, element), (at / length, at % length), "{placed:?}");
                assert_eq!(parameter, format!("step.{}", clean[which].0));
                assert!(value == expected || (value.is_nan() && expected.is_nan()), "{value}, {placed:?}");
            }
            other => panic!("{other}"),
        }
    }
    // Finite elements, of which the sums are not.
    let large = tensor(&vec![f32::MAX; 4000], 1, &device);
    let error = folded(&sketcher, 1, &[("a", large)]).unwrap_err();
    assert!(
        matches!(error, BurnError::Example { example: 0, source: SketchError::Overflow { .. } }),
        "{error}"
    );
}

/// Catches a gradient of another device whose memory would be read as if it were of this one.
#[test]
fn device_fold_of_another_device_is_refused() {
    let Some(device) = device() else { return };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16)).unwrap();
    let here = tensor(&whole(20), 2, &device);
    let there = tensor(&whole(20), 2, &Device::flex());
    let error = folded(&sketcher, 2, &[("here", here), ("there", there.clone())]).unwrap_err();
    assert!(matches!(error, BurnError::OtherDevice { parameter } if parameter == "there"));
    assert!(DeviceFold::start(&sketcher, 2, &there).unwrap().is_none());
}

/// Catches a check that lets a wrong device pass: one that writes nothing, has a sign wrong, loses the last
/// tile, notices no NaN, or tells of the wrong one.
#[test]
fn device_check_finds_wrong_answers() {
    type Tensors<'a> = &'a [(&'a str, Vec<f32>)];
    type Change = fn(&mut [f32]);
    let host = |sketcher: &Sketcher, tensors: Tensors, change: Change| {
        let mut sketches = Vec::new();
        for row in 0..2 {
            let mut fold = sketcher.start();
            for (name, values) in tensors {
                let length = values.len() / 2;
                let mut values = values[row * length..][..length].to_vec();
                change(&mut values);
                fold.add(name, &values).map_err(|source| BurnError::Example { example: row, source })?;
            }
            sketches.push(fold.finish().unwrap());
        }
        Ok(sketches)
    };
    assert_eq!(known_answers(|sketcher, tensors| host(sketcher, tensors, |_| ())), Ok(()));
    let changes: [(Change, &str); 5] = [
        (|values| values.fill(0.0), "whole numbers, bucket"),
        (|values| values[3] *= -1.0, "whole numbers, bucket"),
        (|values| values[32..].fill(0.0), "whole numbers, bucket"),
        (|values| values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 1.0), "not found"),
        (
            |values| {
                if values[35].is_nan() {
                    values[34] = f32::NAN;
                }
            },
            "element 34",
        ),
    ];
    for (change, said) in changes {
        let failed = known_answers(|sketcher, tensors| host(sketcher, tensors, change)).unwrap_err();
        assert!(failed.contains(said), "{failed:?} does not say {said:?}");
    }
    assert!(known_answers(|_, _| Ok(Vec::new())).unwrap_err().contains("0 rows"));
}

/// Catches a runtime's panic that takes the process along.
#[test]
fn device_panic_is_an_error() {
    let lost = guarded(|| -> Result<(), BurnError> { panic!("the device {} is lost", 3) }).unwrap_err();
    assert!(matches!(lost, BurnError::Device { reason } if reason == "the device 3 is lost"));
}

/// Catches a check that refuses the device of the tests, and one that flex does not pass.
#[test]
fn device_check_passes_good_devices() {
    check_device(&Device::flex().autodiff()).unwrap();
    let Some(device) = device() else { return };
    check_device(&device.autodiff()).unwrap();
}
