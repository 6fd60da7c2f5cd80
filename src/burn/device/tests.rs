//! The fold on a wgpu device against the page that specifies it, written again here one element at a time.

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
