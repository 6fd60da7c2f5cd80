use half::f16;
use proptest::prelude::*;

use super::*;

mod tiers;

/// Codes, and what stands beside them; the codes start dirty so that padding must be written.
fn encode(encoding: Encoding, values: &[f32]) -> (Vec<u8>, Encoded) {
    let mut codes = vec![0xAA; encoding.stride(values.len())];
    let encoded = encoding.encode(values, &mut codes).unwrap();
    (codes, encoded)
}

fn decode(encoding: Encoding, codes: &[u8], scale: f32, dims: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; dims];
    encoding.decode(codes, scale, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The page's words for one block, number by number and in `f64` where it says exact.
fn oracle(encoding: Encoding, values: &[f32]) -> (Vec<u8>, f32) {
    let m = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let mut codes = Vec::new();
    let scale = match encoding {
        Encoding::F32 => {
            values.iter().for_each(|x| codes.extend(x.to_bits().to_le_bytes()));
            1.0
        }
        Encoding::F16 | Encoding::I8 if m == 0.0 => {
            codes.resize(values.len() * encoding.code_bytes(), 0);
            0.0
        }
        Encoding::F16 => {
            let mut s = 2f64.powi((f64::from(m).log2().floor() as i32 - 15).max(-126));
            if f64::from(m) / s >= 65520.0 {
                s *= 2.0;
            }
            let code = |x: &f32| f16::from_f64(f64::from(*x) / s).to_le_bytes();
            values.iter().for_each(|x| codes.extend(code(x)));
            s as f32
        }
        Encoding::I8 => {
            let s = (m / 127.0).max(2f32.powi(-126));
            let code = |x: &f32| (x / s).round_ties_even().clamp(-127.0, 127.0) as i8;
            values.iter().for_each(|x| codes.push(code(x) as u8));
            s
        }
    };
    codes.resize(encoding.stride(values.len()), 0);
    (codes, scale)
}

fn number() -> impl Strategy<Value = f32> {
    // Every exponent that a row may have, subnormals, and both zeros.
    let exponents = (0u32..(127 + 61) << 23, any::<bool>());
    prop_oneof![
        8 => exponents.prop_map(|(bits, sign)| f32::from_bits(bits | u32::from(sign) << 31)),
        8 => -1.0f32..1.0,
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
    ]
}

proptest! {
    /// Catches a fast path (runs, magic rounding, inverse scale) that differs from the page.
    #[test]
    fn codes_equal_the_oracle(values in prop::collection::vec(number(), 0..600)) {
        // The root of 600 keeps some of these norms above the limit; that is another test.
        prop_assume!(norm(&values) < MAX_NORM / 2.0);
        for encoding in Encoding::ALL.iter().copied() {
            let (codes, encoded) = encode(encoding, &values);
            let (expected, scale) = oracle(encoding, &values);
            prop_assert_eq!(&codes, &expected);
            prop_assert_eq!(encoded.scale.to_bits(), scale.to_bits());
            prop_assert_eq!(check_codes(encoding, &codes, values.len(), scale), Ok(()));
            let decoded = decode(encoding, &codes, scale, values.len());
            prop_assert_eq!(encoded.norm.to_bits(), norm(&decoded).to_bits());
            prop_assert!(decoded.iter().all(|value| value.is_finite()));
        }
    }

    /// Catches a decoded number further off than half a step of the code.
    #[test]
    fn decoded_numbers_are_near(values in prop::collection::vec(-1.0f32..1.0, 1..100)) {
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for &encoding in Encoding::ALL {
            let step = match encoding {
                Encoding::F32 => 0.0,
                Encoding::F16 => largest / 1024.0,
                Encoding::I8 => largest / 127.0,
            };
            let (codes, encoded) = encode(encoding, &values);
            for (x, y) in values.iter().zip(decode(encoding, &codes, encoded.scale, values.len())) {
                prop_assert!((x - y).abs() <= step * 0.500_01, "{encoding}: {x} became {y}");
            }
        }
    }

    /// Catches a query code that is out of range or not the nearest.
    #[test]
    fn query_codes_equal_the_oracle(values in prop::collection::vec(number(), 1..300)) {
        let n = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let query = quantise_query(&values);
        let t = if n == 0.0 { 0.0 } else { (n / 32512.0).max(2f32.powi(-126)) };
        prop_assert_eq!(query.scale.to_bits(), t.to_bits());
        for (x, &p) in values.iter().zip(&query.codes) {
            let expected = if n == 0.0 { 0.0 } else { (x / t).round_ties_even() };
            prop_assert_eq!(p, expected.clamp(-32512.0, 32512.0) as i16);
        }
    }

    /// Catches a dot product whose lanes or halves are taken in another order.
    #[test]
    fn dot_equals_sixteen_separate_sums(
        pairs in prop::collection::vec((-1.0f32..1.0, -1.0f32..1.0), 0..100),
    ) {
        let (x, q): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let mut lanes = [0.0f32; 16];
        for (i, (x, q)) in x.iter().zip(&q).enumerate() {
            lanes[i % 16] = x.mul_add(*q, lanes[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            for l in 0..half {
                lanes[l] += lanes[l + half];
            }
        }
        prop_assert_eq!(lanes::dot(&x, &q).to_bits(), lanes[0].to_bits());
    }
}

/// Catches an encoding that loses bits of numbers that are binary16 already.
#[test]
fn f16_is_lossless_for_all_binary16_numbers() {
    let all: Vec<f32> = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).map(f32::from).collect();
    for run in [&all[..], &all[..3], &all[1..2], &all[1000..1100], &all[30000..31744]] {
        let (codes, encoded) = encode(Encoding::F16, run);
        assert_eq!(bits(&decode(Encoding::F16, &codes, encoded.scale, run.len())), bits(run));
    }
}

/// Catches rounding to infinity at the top of binary16, and a scale that is doubled too early.
#[test]
fn f16_scale_doubles_from_65520() {
    let below = f32::from_bits(65520.0f32.to_bits() - 1);
    let (codes, encoded) = encode(Encoding::F16, &[below]);
    assert_eq!((encoded.scale, &codes[..2]), (1.0, &f16::MAX.to_le_bytes()[..]));
    let (codes, encoded) = encode(Encoding::F16, &[65520.0]);
    // 32760 lies between 32752 and 32768, neighbours in binary16: the tie goes to the even one.
    assert_eq!((encoded.scale, &codes[..2]), (2.0, &f16::from_f32(32768.0).to_le_bytes()[..]));
}

/// Catches a tie that is rounded away from zero, or a mantissa rounded twice.
#[test]
fn f16_ties_go_to_even() {
    let top = 32768.0f32;
    for (x, code) in [(2049.0, 2048.0), (2051.0, 2052.0), (2049.01, 2050.0), (-2049.0, -2048.0)] {
        let (codes, encoded) = encode(Encoding::F16, &[top, x]);
        assert_eq!(encoded.scale, 1.0);
        assert_eq!(codes[2..4], f16::from_f32(code).to_le_bytes(), "{x}");
    }
}

/// Catches gradients of 1e-8 that vanish, and a scale below the smallest normal number.
#[test]
fn tiny_numbers_survive() {
    for encoding in [Encoding::F16, Encoding::I8] {
        for x in [1e-8f32, 1e-30, f32::MIN_POSITIVE, 2f32.powi(-130)] {
            let (codes, encoded) = encode(encoding, &[x, -x]);
            assert!(encoded.scale >= f32::MIN_POSITIVE);
            assert_eq!(check_codes(encoding, &codes, 2, encoded.scale), Ok(()));
        }
        let (codes, encoded) = encode(encoding, &[1e-8, -3e-9]);
        let decoded = decode(encoding, &codes, encoded.scale, 2);
        assert!((decoded[1] / -3e-9 - 1.0).abs() < 0.02);
    }
    // The least subnormal is 2^-23 of the least scale: half an ulp of f16 more than nothing.
    let (codes, encoded) = encode(Encoding::F16, &[f32::from_bits(1)]);
    assert_eq!(decode(Encoding::F16, &codes, encoded.scale, 1), [f32::from_bits(1)]);
}

/// Catches -128, and ties of `i8` that go away from zero.
#[test]
fn i8_rounds_ties_to_even_and_stays_above_minus_128() {
    let (codes, encoded) = encode(Encoding::I8, &[-127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.0]);
    assert_eq!(encoded.scale, 1.0);
    assert_eq!(codes[..8].iter().map(|&c| c as i8).collect::<Vec<_>>(), [-127, 0, 2, 2, 0, -2, 126, 127]);
    for bits in (1..0x5E00_0000u32).step_by(1_000_003) {
        let (codes, _) = encode(Encoding::I8, &[-f32::from_bits(bits), f32::from_bits(bits / 2)]);
        assert_ne!(codes[0], 0x80);
    }
}

/// Catches zero rows that get a scale, a code or a norm.
#[test]
fn zero_row_has_scale_zero_and_zero_bytes() {
    for &encoding in Encoding::ALL.iter().filter(|encoding| encoding.has_scale()) {
        let (codes, encoded) = encode(encoding, &[0.0, -0.0, 0.0]);
        assert_eq!((encoded.scale.to_bits(), encoded.norm.to_bits()), (0, 0));
        assert!(codes.iter().all(|&byte| byte == 0));
        assert_eq!(bits(&decode(encoding, &codes, 0.0, 3)), [0, 0, 0]);
    }
    let (codes, _) = encode(Encoding::F32, &[-0.0]);
    assert_eq!(codes[..4], [0, 0, 0, 0x80]);
}

/// Catches NaN or infinity that gets a code, wherever in a tile it stands.
#[test]
fn encode_refuses_numbers_that_are_not_finite() {
    for encoding in Encoding::ALL.iter().copied() {
        for position in [0, 15, 16, 36] {
            for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                let mut values = vec![1.0; 37];
                values[position] = bad;
                let error = encoding.encode(&values, &mut vec![0; encoding.stride(37)]).unwrap_err();
                let EncodeError::NotFinite { position: at, value } = error else { panic!("{error}") };
                assert_eq!((at, value.to_bits()), (position, bad.to_bits()));
            }
        }
    }
}

/// Catches rows whose scores could overflow, also where only decoding makes them infinite.
#[test]
fn encode_refuses_a_norm_above_the_limit() {
    for encoding in Encoding::ALL.iter().copied() {
        let refused = |values: &[f32]| encoding.encode(values, &mut vec![0; encoding.stride(values.len())]);
        assert_eq!(refused(&[MAX_NORM]).map(|row| row.norm), Ok(MAX_NORM));
        for values in [&[f32::MAX][..], &[MAX_NORM * 1.01], &[MAX_NORM; 2]] {
            assert!(matches!(refused(values), Err(EncodeError::NormTooLarge { .. })), "{encoding}");
        }
    }
    // The norm is that of the decoded row: binary16 rounds the next f32 down to 2^62.
    let above = [MAX_NORM.next_up()];
    let encode = |encoding: Encoding| encoding.encode(&above, &mut [0; 64]).map(|row| row.norm);
    assert_eq!(encode(Encoding::F16), Ok(MAX_NORM));
    assert!(encode(Encoding::F32).is_err());
}

/// Catches faults that verification would let pass.
#[test]
fn check_finds_each_fault() {
    let (f16_codes, _) = encode(Encoding::F16, &[1.0, 2.0, 3.0]);
    let (i8_codes, _) = encode(Encoding::I8, &[1.0, 2.0, 3.0]);
    for scale in [-0.0, -1.0, f32::NAN, f32::INFINITY, f32::from_bits(1), 2f32.powi(-127)] {
        for (encoding, codes) in [(Encoding::F16, &f16_codes), (Encoding::I8, &i8_codes)] {
            let fault = check_codes(encoding, codes, 3, scale).unwrap_err();
            assert!(matches!(fault, CodeFault::Scale { .. }), "{scale} {fault}");
        }
    }
    assert!(matches!(check_codes(Encoding::F16, &f16_codes, 3, 3.0), Err(CodeFault::Scale { .. })));
    assert_eq!(check_codes(Encoding::I8, &i8_codes, 3, 3.0), Ok(()));
    let without = CodeFault::CodeWithoutScale { position: 0 };
    assert_eq!(check_codes(Encoding::I8, &i8_codes, 3, 0.0), Err(without));
    let length = CodeFault::Length { given: 63, expected: 64 };
    assert_eq!(check_codes(Encoding::I8, &i8_codes[..63], 3, 1.0), Err(length));

    let with = |codes: &[u8], at: usize, byte: u8| {
        let mut codes = codes.to_vec();
        codes[at] = byte;
        codes
    };
    assert_eq!(
        check_codes(Encoding::I8, &with(&i8_codes, 2, 0x80), 3, 1.0),
        Err(CodeFault::BelowRange { position: 2 })
    );
    for at in [3, 63] {
        assert_eq!(
            check_codes(Encoding::I8, &with(&i8_codes, at, 1), 3, 1.0),
            Err(CodeFault::Padding { offset: at })
        );
    }
    assert_eq!(
        check_codes(Encoding::F16, &with(&f16_codes, 3, 0x7C), 3, 1.0),
        Err(CodeFault::NotFinite { position: 1 })
    );
    let infinite = 300usize;
    let mut row = vec![0u8; Encoding::F32.stride(400)];
    row[infinite * 4..][..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    assert_eq!(check_codes(Encoding::F32, &row, 400, 9.0), Err(CodeFault::NotFinite { position: infinite }));
}

fn words(of: &serde_json::Value) -> Vec<f32> {
    of.as_array().unwrap().iter().map(word).collect()
}

fn word(of: &serde_json::Value) -> f32 {
    f32::from_bits(u32::from_str_radix(of.as_str().unwrap(), 16).unwrap())
}

fn encoding(of: &serde_json::Value) -> Encoding {
    serde_json::from_value(of.clone()).unwrap()
}

/// Catches bits that differ from those an independent program made by the same page.
#[test]
fn encodings_equal_the_known_answers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/encodings-v1.json");
    let answers: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let list = |name: &str| answers[name].as_array().unwrap().clone();
    let of = |name: &str, wanted: Encoding| {
        list(name).iter().filter(|answer| encoding(&answer["encoding"]) == wanted).count()
    };
    for &encoding in Encoding::ALL {
        assert!(of("rows", encoding) >= 21 && of("scores", encoding) >= 16, "too few answers for {encoding}");
    }
    assert!(list("queries").len() >= 21);
    for row in list("rows") {
        let (encoding, input) = (encoding(&row["encoding"]), words(&row["input"]));
        let what = format!("{} as {encoding}", row["name"]);
        let (codes, encoded) = encode(encoding, &input);
        let hex: String = codes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = row["codes"].as_str().unwrap();
        assert_eq!(hex.split_at(expected.len()).0, expected, "{what}");
        assert!(hex[expected.len()..].bytes().all(|digit| digit == b'0'), "{what}");
        if encoding.has_scale() {
            assert_eq!(encoded.scale.to_bits(), word(&row["scale"]).to_bits(), "{what}");
        }
        assert_eq!(encoded.norm.to_bits(), word(&row["norm"]).to_bits(), "{what}");
        let decoded = decode(encoding, &codes, encoded.scale, input.len());
        assert_eq!(bits(&decoded), bits(&words(&row["decoded"])), "{what}");
        assert_eq!(check_codes(encoding, &codes, input.len(), encoded.scale), Ok(()), "{what}");
    }
    for answer in list("queries") {
        let query = quantise_query(&words(&answer["input"]));
        assert_eq!(query.scale.to_bits(), word(&answer["scale"]).to_bits(), "{}", answer["name"]);
        assert_eq!(serde_json::json!(query.codes), answer["p"], "{}", answer["name"]);
    }
    for score in list("scores") {
        let (encoding, row) = (encoding(&score["encoding"]), words(&score["row"]));
        let query = words(&score["query"]);
        let (codes, Encoded { scale, .. }) = encode(encoding, &row);
        let block = match encoding {
            Encoding::I8 => {
                let query = quantise_query(&query);
                let pairs = codes.iter().zip(&query.codes);
                let sum: i64 = pairs.map(|(&x, &p)| i64::from(x as i8) * i64::from(p)).sum();
                sum as f64 * (f64::from(scale) * f64::from(query.scale))
            }
            // For f32 both scales are 1; for f16 the sum is over the codes as numbers.
            Encoding::F32 | Encoding::F16 => {
                f64::from(lanes::dot(&decode(encoding, &codes, 1.0, row.len()), &query)) * f64::from(scale)
            }
        };
        let bits = format!("{:016x}", (0.0 + block).to_bits());
        assert_eq!(bits, score["score"].as_str().unwrap(), "{} as {encoding}", score["name"]);
    }
    for answer in list("fma") {
        let [a, b, c, expected] = words(&answer).try_into().unwrap();
        assert_eq!(a.mul_add(b, c).to_bits(), expected.to_bits());
    }
}

/// Catches two encodings or tiers that files name by the same number, a number that is read as another's,
/// and one that changed: files that are already written have these.
#[test]
fn numbers_name_one_encoding_or_tier_each() {
    let encodings: Vec<_> = (0..=u16::MAX).filter_map(CodeEncoding::from_number).collect();
    let row = CodeEncoding::Row;
    let expected = [row(Encoding::F32), row(Encoding::F16), row(Encoding::I8), CodeEncoding::Signs];
    assert_eq!(encodings, expected);
    assert_eq!(expected.map(CodeEncoding::number), [1, 2, 3, 4]);
    assert_eq!(expected.map(CodeEncoding::version), [1; 4]);
    let tiers: Vec<_> = (0..=u16::MAX).filter_map(TierKind::from_number).collect();
    assert_eq!(tiers, [TierKind::Sign, TierKind::I8]);
    assert_eq!([TierKind::Sign, TierKind::I8].map(TierKind::number), [1, 2]);
    assert!(Encoding::ALL.iter().all(|&encoding| encodings.contains(&row(encoding))));
    assert!(TierKind::ALL.iter().all(|tier| encodings.contains(&tier.encoding())));
}

/// Catches a rotation that does more than rotate.
#[test]
fn rotation_keeps_the_norm_of_one_number() {
    let mut numbers = [3.0, 0.0, 0.0, 0.0];
    Rotation::new(7, 0, 4).apply(&mut numbers);
    assert!((norm(&numbers) - 3.0).abs() < 1e-5);
}
