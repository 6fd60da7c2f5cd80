//! Gaussian numbers from counters: the same on every machine and with any number of threads.

/// Numbers that are made at once.
const STEP: usize = 32;

/// Fills `out` with standard Gaussian numbers, a function of seed, stream and position only.
pub fn gaussian(seed: u64, stream: u64, out: &mut [f32]) {
    let key = mix64(mix64(seed) ^ stream);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        // SAFETY: the features were just detected.
        return unsafe { with_avx512(key, out) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just detected.
        return unsafe { with_avx2(key, out) };
    }
    fill(key, out);
}

/// A number in [0, 1), a function of seed and stream.
pub fn uniform(seed: u64, stream: u64) -> f64 {
    (mix64(mix64(seed) ^ stream) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn with_avx512(key: u64, out: &mut [f32]) {
    fill(key, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(key: u64, out: &mut [f32]) {
    fill(key, out);
}

/// Box and Muller's pairs, in loops that compilers turn into vector code. No fused operations, so
/// that every instruction set gives the same bits.
#[inline(always)]
fn fill(key: u64, out: &mut [f32]) {
    let (low, high) = (key as u32, (key >> 32) as u32);
    let (mut sines, mut cosines) = ([0f32; STEP / 2], [0f32; STEP / 2]);
    for (step, part) in out.chunks_mut(STEP).enumerate() {
        let start = (step * STEP / 2) as u32;
        for (i, pair) in sines.iter_mut().zip(&mut cosines).enumerate() {
            let counter = (start + i as u32).wrapping_mul(2);
            // u in (0, 1), turn in (-1, 1).
            let u = ((mix32(mix32(counter ^ low) ^ high) >> 9) as f32 + 0.5) * 2f32.powi(-23);
            let turn = (mix32(mix32((counter | 1) ^ low) ^ high) as i32 >> 8) as f32 * 2f32.powi(-23);
            let radius = (-2.0 * logarithm(u)).sqrt();
            let (sine, cosine) = sine_and_cosine(turn);
            (*pair.0, *pair.1) = (radius * sine, radius * cosine);
        }
        let length = part.len();
        let (first, second) = part.split_at_mut(length.min(STEP / 2));
        first.copy_from_slice(&sines[..first.len()]);
        second.copy_from_slice(&cosines[..second.len()]);
    }
}

#[inline(always)]
fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

fn mix64(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// ln(x) for positive normal x: exponent, and the series of artanh of the mantissa.
#[inline(always)]
fn logarithm(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    // The mantissa comes to lie in [sqrt(1/2), sqrt(2)).
    let exponent = (bits - 0x3F35_04F3) >> 23;
    let mantissa = f32::from_bits((bits - (exponent << 23)) as u32);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series = 2.0 + z * (2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * (2.0 / 9.0))));
    exponent as f32 * std::f32::consts::LN_2 + s * series
}

/// sin and cos of pi times `turn`, which lies in [-1, 1].
#[inline(always)]
fn sine_and_cosine(turn: f32) -> (f32, f32) {
    // The series near 0, for the half turn around it; the other half is its mirror image.
    let mirrored = turn.abs() > 0.5;
    let near = if mirrored { turn.signum() - turn } else { turn };
    let angle = near * std::f32::consts::PI;
    let z = angle * angle;
    let sine =
        angle * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0)))));
    let cosine = 1.0
        + z * (-0.5
            + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0 + z * (-1.0 / 3_628_800.0)))));
    (sine, if mirrored { -cosine } else { cosine })
}
