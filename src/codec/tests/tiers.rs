//! The tiers: bits against the page and the golden file, and the intervals that scans rely on.

use super::*;
use crate::random::Random;

/// A row in a tier: codes with their padding, and factors.
fn tier_of(tier: Tier, encoding: Encoding, values: &[f32], block: u32) -> (Vec<u8>, Factors) {
    let (codes, Encoded { scale, .. }) = encode(encoding, values);
    let dims = values.len();
    let mut made = vec![0xAA; tier.stride(dims)];
    let mut scratch = vec![f32::NAN; 3];
    let encoder = TierEncoder::new(tier, block, dims);
    let factors = encoder.encode(encoding, &codes, scale, &mut made, &mut scratch);
    assert!(tier.may_have(factors), "{factors}");
    (made, factors)
}

/// The page's rotation, an element at a time.
fn rotated(seed: u64, block: u32, numbers: &[f32]) -> Vec<f32> {
    use sha2::{Digest as _, Sha512};
    fn mix(mut x: u32) -> u32 {
        x ^= x >> 16;
        x = x.wrapping_mul(0x7FEB_352D);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846C_A68B);
        x ^ x >> 16
    }
    fn hadamard(z: &mut [f32]) {
        let mut h = 1;
        while h < z.len() {
            for i in (0..z.len()).filter(|i| i & h == 0) {
                (z[i], z[i + h]) = (z[i] + z[i + h], z[i] - z[i + h]);
            }
            h *= 2;
        }
        let factor = (1.0 / (z.len() as f64).sqrt()) as f32;
        z.iter_mut().for_each(|z| *z *= factor);
    }
    let bytes = [&b"gradix.rotation.1"[..], &seed.to_le_bytes(), &block.to_le_bytes()].concat();
    let digest = Sha512::digest(bytes);
    let k: Vec<u32> = digest.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let mut z = numbers.to_vec();
    let (dims, n) = (z.len(), 1 << z.len().ilog2());
    for r in 0..3 {
        for (i, z) in z.iter_mut().enumerate() {
            let word = mix(mix((i as u32 / 32).wrapping_add(k[2 * r])) ^ k[2 * r + 1]);
            *z *= if word >> (i % 32) & 1 == 1 { -1.0 } else { 1.0 };
        }
        if n < dims {
            let (m, g) = (dims.div_ceil(2), f32::from_bits(0x3F35_04F3));
            for i in 0..dims / 2 {
                (z[i], z[i + m]) = ((z[i] + z[i + m]) * g, (z[i] - z[i + m]) * g);
            }
        }
        hadamard(&mut z[..n]);
        if n < dims {
            hadamard(&mut z[dims - n..]);
        }
    }
    z
}

/// Catches a rotation whose fast passes differ from the page at some width, or cross a border wrongly.
#[test]
fn rotation_equals_the_page() {
    let mut random = Random(1);
    for dims in (1..=70).chain([127, 128, 129, 255, 511, 512, 513, 1000, 4096, 5000, 8192, 20_000, 65_536]) {
        for (seed, block) in [(7, 0), (u64::MAX - 3, 65_534)] {
            let mut numbers = random.normals(dims);
            // Zeros of both signs, and numbers that make subnormals.
            numbers[dims / 2] = -0.0;
            numbers[dims / 3] *= 1e-38;
            let expected = rotated(seed, block, &numbers);
            Rotation::new(seed, block, dims).apply(&mut numbers);
            assert_eq!(bits(&numbers), bits(&expected), "{dims} dims");
        }
    }
}

/// Catches bits that differ from those an independent program made by the same page.
#[test]
fn tiers_equal_the_known_answers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiers-v1.json");
    let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let list = |name: &str| answers[name].as_array().unwrap();
    assert!(list("rotations").len() >= 24);
    for &wanted in Encoding::ALL {
        let rows = list("rows").iter().filter(|row| encoding(&row["encoding"]) == wanted).count();
        assert!(rows >= 26, "{rows} answers for {wanted}");
    }
    let place = |of: &serde_json::Value| -> (u64, u32) {
        (of["seed"].as_str().unwrap().parse().unwrap(), of["block"].as_u64().unwrap() as u32)
    };
    for answer in list("rotations") {
        let (seed, block) = place(answer);
        let mut numbers = words(&answer["input"]);
        Rotation::new(seed, block, numbers.len()).apply(&mut numbers);
        assert_eq!(bits(&numbers), bits(&words(&answer["rotated"])), "{} dims", numbers.len());
    }
    for row in list("rows") {
        let (encoding, (seed, block)) = (encoding(&row["encoding"]), place(row));
        for tier in Tier::all(seed).filter(|tier| tier.covers(encoding)) {
            let what = format!("{} of {} as {encoding}", tier.name(), row["name"]);
            let expected = &row[tier.name()];
            let (codes, factors) = tier_of(tier, encoding, &words(&row["input"]), block);
            let hex: String = codes.iter().map(|byte| format!("{byte:02x}")).collect();
            let (codes, padding) = hex.split_at(expected["codes"].as_str().unwrap().len());
            assert_eq!(codes, expected["codes"].as_str().unwrap(), "{what}");
            assert!(padding.bytes().all(|digit| digit == b'0'), "{what}");
            assert_eq!(factors.first.to_bits(), word(&expected["first"]).to_bits(), "{what}");
            assert_eq!(factors.second.to_bits(), word(&expected["second"]).to_bits(), "{what}");
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

proptest! {
    /// Catches a residual that is too small: a scan that trusts it would lose rows.
    #[test]
    fn i8_tier_bounds_every_score(
        pairs in prop::collection::vec((number(), number()), 1..300),
        against in any::<bool>(),
    ) {
        let (values, mut query): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        prop_assume!(norm(&values) < MAX_NORM / 2.0);
        for &encoding in Encoding::ALL.iter().filter(|&&encoding| Tier::I8.covers(encoding)) {
            let (codes, Encoded { scale, .. }) = encode(encoding, &values);
            let y = decode(encoding, &codes, scale, values.len());
            let (bytes, Factors { first, second }) = tier_of(Tier::I8, encoding, &values, 0);
            let coarse: Vec<f64> =
                bytes.iter().map(|&byte| f64::from(byte as i8) * f64::from(first)).take(y.len()).collect();
            if against {
                // The worst there is: along what the tier leaves out.
                query = y.iter().zip(&coarse).map(|(&y, c)| (f64::from(y) - c) as f32).collect();
            }
            let apart: f64 =
                y.iter().zip(&coarse).zip(&query).map(|((&y, c), &q)| (f64::from(y) - c) * f64::from(q)).sum();
            let bound = f64::from(second) * length(&query);
            // The sums of this test are rounded as well.
            let slack = length(&y) * length(&query) * 1e-13 + f64::MIN_POSITIVE;
            prop_assert!(apart.abs() <= bound + slack, "{} beyond {bound}", apart.abs());
        }
    }
}

/// Rows, or queries, of every shape that a random rotation should make look alike.
fn shapes(dims: usize, random: &mut Random) -> Vec<(&'static str, Vec<f32>)> {
    let place = random.below(dims);
    let of = |f: &dyn Fn(usize) -> f32| (0..dims).map(f).collect::<Vec<f32>>();
    let mut outliers = random.normals(dims);
    outliers[place] = 40.0;
    outliers[dims / 2] = -30.0;
    let mut sparse = vec![0.0; dims];
    for _ in 0..3 {
        sparse[random.below(dims)] = random.normal();
    }
    let halves = random.normals(dims);
    vec![
        ("normal", random.normals(dims)),
        ("heavy tails", random.normals(dims).into_iter().map(|x| x * x * x).collect()),
        ("outliers", outliers),
        ("sparse", sparse),
        ("one hot", of(&|i| f32::from(i == place))),
        ("constant", of(&|_| 0.25)),
        ("alternating", of(&|i| if i % 2 == 0 { 3.0 } else { -3.0 })),
        ("blocks", of(&|i| if i / 16 % 2 == 0 { 1.0 } else { -1.0 })),
        ("first half", of(&|i| if i < dims / 2 { halves[i] } else { 0.0 })),
        ("second half", of(&|i| if i < dims / 2 { 0.0 } else { halves[i] })),
        ("ramp", of(&|i| i as f32 - 3.0)),
    ]
}

/// Catches a rotation that is no rotation, or that leaves a shape where it was: numbers keep their
/// norm, and each half of the dims gets its share of every row.
#[test]
fn rotation_keeps_norms_and_spreads_rows() {
    let mut random = Random(3);
    for dims in [127, 255, 256, 1000, 1023, 1025, 1536, 4096] {
        let mut share = vec![0f64; shapes(dims, &mut random).len()];
        const SEEDS: u64 = 40;
        for seed in 0..SEEDS {
            let rotation = Rotation::new(seed, 0, dims);
            for ((name, row), share) in shapes(dims, &mut random).into_iter().zip(&mut share) {
                let mut turned = row.clone();
                rotation.apply(&mut turned);
                let (before, after) = (length(&row), length(&turned));
                assert!((before - after).abs() <= before / 65_536.0, "{name}, {dims} dims");
                let half = length(&turned[..dims / 2]) / after;
                *share += half * half / SEEDS as f64;
            }
        }
        for share in share {
            assert!((share - 0.5).abs() < 0.06, "{dims} dims: {share} of the square in the first half");
        }
    }
}

/// Catches a sign tier whose interval holds less often than its law says, for rows and queries of any
/// shape: a scan with a small delta would lose rows.
#[test]
fn sign_tier_keeps_its_probability() {
    let mut random = Random(5);
    // How many of the samples are beyond 2, 3, 4, 5 times what one in the law is.
    let limits = [2.0, 3.0, 4.0, 5.0];
    for (dims, seeds) in [(64, 300), (127, 300), (128, 300), (200, 200), (1000, 60), (1023, 60), (4096, 20)] {
        let (mut samples, mut beyond) = (0u32, [0u32; 4]);
        let mut worst = (0.0f64, String::new());
        for seed in 0..seeds {
            let rotation = Rotation::new(seed, 9, dims);
            let mut queries = shapes(dims, &mut random);
            let rows = shapes(dims, &mut random);
            // Queries near a row, which matter most.
            for (name, row) in &rows[..6] {
                queries.push((name, row.iter().map(|x| x + random.normal() * 0.5).collect()));
            }
            let turned: Vec<Vec<f32>> = queries
                .iter()
                .map(|(_, query)| {
                    let mut query = query.clone();
                    rotation.apply(&mut query);
                    query
                })
                .collect();
            for (i, (name, row)) in rows.iter().enumerate() {
                let encoding = Encoding::ALL[(i + seed as usize) % Encoding::ALL.len()];
                let (codes, Encoded { scale, norm }) = encode(encoding, row);
                let y = decode(encoding, &codes, scale, dims);
                let (signs, Factors { first: gain, second: spread }) =
                    tier_of(Tier::Sign { seed }, encoding, row, 9);
                for ((query_name, query), turned) in queries.iter().zip(&turned) {
                    let signed = turned.iter().zip(0..).map(|(&p, i)| {
                        if signs[i / 8] >> (i % 8) & 1 == 1 { f64::from(p) } else { -f64::from(p) }
                    });
                    let estimate = f64::from(gain) * signed.sum::<f64>();
                    let (gain, spread) = (f64::from(norm), f64::from(spread));
                    let always = (gain + spread) / 32_768.0 * length(query);
                    let apart = ((dot(&y, query) - estimate).abs() - always).max(0.0);
                    let unit = spread * length(query) / ((dims - 1) as f64).sqrt();
                    samples += 1;
                    for (beyond, limit) in beyond.iter_mut().zip(limits) {
                        *beyond += u32::from(apart > limit * unit);
                    }
                    if apart / unit > worst.0 {
                        worst = (apart / unit, format!("row {name}, query {query_name}, {encoding}"));
                    }
                }
            }
        }
        println!("{dims} dims: {samples} samples, beyond {limits:?}: {beyond:?}, worst {worst:?}");
        for (beyond, limit) in beyond.into_iter().zip(limits) {
            let law = 2.0 * (-limit * limit / 2.0f64).exp() * f64::from(samples);
            assert!(f64::from(beyond) <= law, "{dims} dims: {beyond} of {samples} beyond {limit}: {worst:?}");
        }
    }
}

/// Catches a row without numbers, or of a single one, that divides by zero.
#[test]
fn degenerate_rows_have_factors() {
    for &encoding in Encoding::ALL {
        for tier in Tier::all(1).filter(|tier| tier.covers(encoding)) {
            for dims in [1, 7, 64, 100] {
                let (codes, factors) = tier_of(tier, encoding, &vec![-0.0; dims], 0);
                assert!(codes.iter().all(|&byte| byte == 0));
                assert_eq!(factors.to_bits(), (0, 0));
            }
            // The smallest numbers: an i8 row of them has a scale and nothing else.
            tier_of(tier, encoding, &[f32::from_bits(1), -f32::from_bits(3)], 0);
            tier_of(tier, encoding, &[MAX_NORM, 1.0], 0);
        }
        let (signs, factors) = tier_of(Tier::Sign { seed: 1 }, encoding, &[2.0], 0);
        assert_eq!(factors.first, 2.0);
        assert!(factors.second < 1e-4 && signs[1..].iter().all(|&byte| byte == 0));
    }
}
