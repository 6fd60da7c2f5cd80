//! Encodes and decodes one row of one block.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::lanes::{self, SquareSum};
use super::{EncodeError, Encoding, LEAST_SCALE, MAX_NORM};

/// Numbers converted at once: a multiple of the lanes, and small enough for the stack.
const RUN: usize = 256;

/// What is stored beside a row's codes in a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoded {
    /// The scale; 1 for `f32`, which has none.
    pub scale: f32,
    /// The L2 norm of the decoded values, not of the values given.
    pub norm: f32,
}

/// The L2 norm: squares and sums in `f64` in sixteen lanes, the root in `f64`, rounded to `f32`.
pub(crate) fn norm(values: &[f32]) -> f32 {
    root(lanes::sum_of_squares(values))
}

#[expect(clippy::cast_possible_truncation, reason = "the norm is rounded to f32 once, here")]
fn root(sum_of_squares: f64) -> f32 {
    sum_of_squares.sqrt() as f32
}

impl Encoding {
    /// Writes the codes of one row in one block, followed by zero padding.
    ///
    /// # Errors
    /// A value is NaN or infinite, or the norm of the decoded values is above 2^62. The contents of `codes`
    /// are then unspecified.
    ///
    /// # Panics
    /// If `codes` is not `self.stride(values.len())` bytes long.
    // Public for the benches alone.
    #[doc(hidden)]
    pub fn encode(self, values: &[f32], codes: &mut [u8]) -> Result<Encoded, EncodeError> {
        assert_eq!(codes.len(), self.stride(values.len()), "codes must be one row stride long");
        let largest = largest(values)?;
        let (codes, padding) = codes.split_at_mut(values.len() * self.code_bytes());
        padding.fill(0);
        let (scale, squares) = match self {
            Self::F32 => (1.0, encode_f32(values, codes)),
            Self::F16 | Self::I8 if largest == 0.0 => {
                codes.fill(0);
                (0.0, 0.0)
            }
            Self::F16 => encode_f16(values, scale_f16(largest), codes),
            Self::I8 => encode_i8(values, (largest / 127.0).max(LEAST_SCALE), codes),
        };
        let norm = root(squares);
        if norm > MAX_NORM {
            return Err(EncodeError::NormTooLarge { norm });
        }
        Ok(Encoded { scale, norm })
    }

    /// Decodes one row of one block: `f32(code * scale)`. For `f32` the scale is ignored.
    ///
    /// # Panics
    /// If `codes` is not `self.stride(out.len())` bytes long.
    // Public for the benches alone.
    #[doc(hidden)]
    pub fn decode(self, codes: &[u8], scale: f32, out: &mut [f32]) {
        assert_eq!(codes.len(), self.stride(out.len()), "codes must be one row stride long");
        match self {
            Self::F32 => {
                for (out, code) in out.iter_mut().zip(codes.as_chunks().0) {
                    *out = f32::from_le_bytes(*code);
                }
            }
            Self::F16 => {
                let mut halves = [f16::ZERO; RUN];
                for (out, codes) in out.chunks_mut(RUN).zip(codes.chunks(RUN * 2)) {
                    let halves = &mut halves[..out.len()];
                    for (half, code) in halves.iter_mut().zip(codes.as_chunks().0) {
                        *half = f16::from_le_bytes(*code);
                    }
                    halves.convert_to_f32_slice(out);
                    out.iter_mut().for_each(|value| *value *= scale);
                }
            }
            Self::I8 => {
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = f32::from(code.cast_signed()) * scale;
                }
            }
        }
    }
}

/// The largest magnitude, found by comparing bits, which also detects values that are not finite.
pub(super) fn largest(values: &[f32]) -> Result<f32, EncodeError> {
    const MAGNITUDE: u32 = 0x7FFF_FFFF;
    // Signed, because baseline x86-64 compares only signed integers; magnitudes fit in both.
    let mut most = [0i32; lanes::LANES];
    let (tiles, rest) = values.as_chunks::<{ lanes::LANES }>();
    for tile in tiles {
        for (most, value) in most.iter_mut().zip(tile) {
            *most = (*most).max((value.to_bits() & MAGNITUDE).cast_signed());
        }
    }
    for (most, value) in most.iter_mut().zip(rest) {
        *most = (*most).max((value.to_bits() & MAGNITUDE).cast_signed());
    }
    let most = most.into_iter().fold(0, i32::max);
    let largest = f32::from_bits(most.cast_unsigned());
    if largest.is_finite() {
        return Ok(largest);
    }
    let bad = values.iter().copied().enumerate().find(|(_, value)| !value.is_finite());
    let (position, value) = bad.unwrap_or((0, largest));
    Err(EncodeError::NotFinite { position, value })
}

fn encode_f32(values: &[f32], codes: &mut [u8]) -> f64 {
    for (code, value) in codes.as_chunks_mut().0.iter_mut().zip(values) {
        *code = value.to_le_bytes();
    }
    lanes::sum_of_squares(values)
}

/// The scale of `f16` for a largest magnitude above 0: the power of two that scales it to [2^15, 65520), or
/// 2^-126 for magnitudes that are too small for that.
fn scale_f16(largest: f32) -> f32 {
    // The biased exponent is floor(log2) + 127; 0 for a subnormal, for which the least scale is used.
    let exponent = largest.to_bits() >> 23;
    let scale = f32::from_bits(exponent.saturating_sub(15).max(1) << 23);
    if largest / scale >= 65_520.0 { scale * 2.0 } else { scale }
}

fn encode_f16(values: &[f32], scale: f32, codes: &mut [u8]) -> (f32, f64) {
    // The inverse of a power of two is exact, and so is the product unless it is below 2^-126,
    // where binary16 rounds it to zero in any case: one rounding, as specified.
    let inverse = 1.0 / scale;
    let mut scaled = [0.0f32; RUN];
    let mut halves = [f16::ZERO; RUN];
    let mut squares = SquareSum::new();
    for (values, codes) in values.chunks(RUN).zip(codes.chunks_mut(RUN * 2)) {
        let (scaled, halves) = (&mut scaled[..values.len()], &mut halves[..values.len()]);
        for (scaled, value) in scaled.iter_mut().zip(values) {
            *scaled = value * inverse;
        }
        halves.convert_from_f32_slice(scaled);
        for (code, half) in codes.as_chunks_mut().0.iter_mut().zip(halves.iter()) {
            *code = half.to_le_bytes();
        }
        halves.convert_to_f32_slice(scaled);
        scaled.iter_mut().for_each(|value| *value *= scale);
        squares.add(scaled);
    }
    (scale, squares.finish())
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of the code")]
pub(super) fn encode_i8(values: &[f32], scale: f32, codes: &mut [u8]) -> (f32, f64) {
    let mut decoded = [0.0f32; RUN];
    let mut squares = SquareSum::new();
    for (values, codes) in values.chunks(RUN).zip(codes.chunks_mut(RUN)) {
        let decoded = &mut decoded[..values.len()];
        for ((decoded, code), value) in decoded.iter_mut().zip(codes).zip(values) {
            let rounded = round(value / scale).clamp(-127, 127) as i8;
            *code = rounded.cast_unsigned();
            *decoded = f32::from(rounded) * scale;
        }
        squares.add(decoded);
    }
    (scale, squares.finish())
}

/// The nearest integer, ties to even, of a number whose magnitude is below 2^22.
///
/// Adding 1.5 * 2^23 leaves no bits for a fraction, so the addition rounds. This form vectorises on every
/// target.
pub(super) fn round(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits().cast_signed().wrapping_sub(SHIFT.to_bits().cast_signed())
}
