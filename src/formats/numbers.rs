//! Numbers of a file as `f32`, and back: whole runs at a time, so that the compiler makes vector code of each loop.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::Number;

/// Halves that are converted at a time.
const RUN: usize = 1024;

impl Number {
    /// The bytes that one takes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The name: `f16`, `bf16`, `f32`, `f64`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// The narrower of those that hold all values of both.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (same, other) if same == other => same,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }
}

/// How numbers lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) number: Number,
    pub(super) big_endian: bool,
}

impl Stored {
    pub(super) fn little(number: Number) -> Self {
        Self { number, big_endian: false }
    }

    /// Decodes as many numbers as fit into `out`; `bytes` must be as long.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match (self.number, self.big_endian) {
            (Number::F32, false) => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            (Number::F32, true) => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_be_bytes(*bytes);
                }
            }
            (Number::F64, false) => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f64::from_le_bytes(*bytes) as f32;
                }
            }
            (Number::F64, true) => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f64::from_be_bytes(*bytes) as f32;
                }
            }
            (Number::F16, big_endian) => {
                let mut halves = [f16::ZERO; RUN];
                for (out, bytes) in out.chunks_mut(RUN).zip(bytes.chunks(2 * RUN)) {
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                        *half = f16::from_bits(sixteen(*bytes, big_endian));
                    }
                    if let Some(halves) = halves.get(..out.len()) {
                        halves.convert_to_f32_slice(out);
                    }
                }
            }
            (Number::Bf16, big_endian) => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_bits(u32::from(sixteen(*bytes, big_endian)) << 16);
                }
            }
        }
    }
}

fn sixteen(bytes: [u8; 2], big_endian: bool) -> u16 {
    if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
}

/// Appends numbers to `out`, little-endian and rounded to nearest. If one is not finite in its new type, its position
/// is the error.
pub(super) fn encode(number: Number, values: &[f32], out: &mut Vec<u8>) -> Result<(), usize> {
    let start = out.len();
    out.resize(start + values.len() * number.bytes(), 0);
    let bytes = out.get_mut(start..).unwrap_or_default();
    match number {
        Number::F32 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        Number::F64 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = f64::from(*value).to_le_bytes();
            }
        }
        Number::F16 => {
            let mut halves = [f16::ZERO; RUN];
            for (bytes, values) in bytes.chunks_mut(2 * RUN).zip(values.chunks(RUN)) {
                let Some(halves) = halves.get_mut(..values.len()) else { continue };
                halves.convert_from_f32_slice(values);
                for (bytes, half) in bytes.as_chunks_mut().0.iter_mut().zip(halves.iter()) {
                    *bytes = half.to_le_bytes();
                }
            }
        }
        Number::Bf16 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(*value).to_le_bytes();
            }
        }
    }
    fits(number, values)
}

/// Whether all values are finite in a type; if not, the position of the first that is not is the error.
pub(super) fn fits(number: Number, values: &[f32]) -> Result<(), usize> {
    let end = match number {
        Number::F16 => F16_END,
        Number::Bf16 => BF16_END,
        Number::F32 | Number::F64 => f32::INFINITY.to_bits(),
    };
    first_from(values, end).map_or(Ok(()), Err)
}

/// The magnitudes from which a number rounds to infinity: 65520 and 2^128 - 2^119, as bits.
const F16_END: u32 = 65520.0f32.to_bits();
const BF16_END: u32 = 0x7f7f_8000;

/// The position of the first value that is NaN or infinite.
pub(super) fn first_not_finite(values: &[f32]) -> Option<usize> {
    first_from(values, f32::INFINITY.to_bits())
}

/// The position of the first value whose magnitude has these bits or higher ones.
fn first_from(values: &[f32], end: u32) -> Option<usize> {
    let magnitude = |value: &f32| value.to_bits() & 0x7fff_ffff;
    for (at, run) in values.chunks(RUN).enumerate() {
        let largest = run.iter().fold(0, |largest, value| magnitude(value).max(largest));
        if largest >= end {
            return run.iter().position(|value| magnitude(value) >= end).map(|position| at * RUN + position);
        }
    }
    None
}

/// Little-endian lengths of headers and offsets.
pub(super) fn u64_of(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// Lengths of Arrow's messages.
pub(super) fn i32_of(bytes: [u8; 4]) -> i32 {
    i32::from_le_bytes(bytes)
}

/// Lengths of Arrow's compressed buffers.
pub(super) fn i64_of(bytes: [u8; 8]) -> i64 {
    i64::from_le_bytes(bytes)
}

/// The bytes of a length in a header.
pub(super) fn u64_bytes(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// The bytes of a token's number or a character.
pub(super) fn u32_bytes(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Catches a number that is decoded or encoded otherwise than IEEE 754 says, at each place of a run, and bytes in the
    /// wrong order.
    #[test]
    fn numbers_are_those_of_the_standard() {
        let halves: Vec<u16> = (0..=u16::MAX).filter(|&bits| f16::from_bits(bits).is_finite()).collect();
        let expected: Vec<f32> = halves.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
        let mut out = vec![0.0; halves.len()];
        for big_endian in [false, true] {
            let to_bytes = if big_endian { u16::to_be_bytes } else { u16::to_le_bytes };
            let bytes: Vec<u8> = halves.iter().flat_map(|&half| to_bytes(half)).collect();
            Stored { number: Number::F16, big_endian }.decode(&bytes, &mut out);
            assert_eq!(bits(&out), bits(&expected));
        }
        let mut encoded = Vec::new();
        encode(Number::F16, &expected, &mut encoded).unwrap();
        assert_eq!(encoded, halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>());
        for number in [Number::Bf16, Number::F32, Number::F64] {
            let values = [0.0, -0.0, 1.0, -1.5, f32::MIN_POSITIVE, 2f32.powi(100), 1.25e-40];
            let values = if number == Number::Bf16 { &values[..6] } else { &values };
            let mut encoded = Vec::new();
            encode(number, values, &mut encoded).unwrap();
            let mut out = vec![0.0; values.len()];
            Stored::little(number).decode(&encoded, &mut out);
            assert_eq!(bits(&out), bits(values));
            let reversed: Vec<u8> =
                encoded.chunks(number.bytes()).flat_map(|bytes| bytes.iter().rev().copied()).collect();
            Stored { number, big_endian: true }.decode(&reversed, &mut out);
            assert_eq!(bits(&out), bits(values));
        }
    }

    /// Catches a value that becomes infinite in silence, and one that is refused though it fits.
    #[test]
    fn encode_refuses_what_rounds_to_infinity() {
        let below = |end: f32| f32::from_bits(end.to_bits() - 1);
        for (number, end) in [(Number::F16, 65520.0), (Number::Bf16, f32::from_bits(BF16_END))] {
            assert_eq!(encode(number, &[1.0, below(end), -below(end)], &mut Vec::new()), Ok(()));
            assert_eq!(encode(number, &[1.0, 2.0, -end], &mut Vec::new()), Err(2));
            assert!(f16::from_f32(below(end)).is_finite() || number == Number::Bf16);
            assert!(
                bf16::from_f32(below(end)).is_finite()
                    && (number == Number::F16 || bf16::from_f32(end).is_infinite())
            );
        }
        assert_eq!(encode(Number::F32, &[1.0, f32::NAN], &mut Vec::new()), Err(1));
    }

    /// Catches a search that looks at whole runs only, or names a wrong place.
    #[test]
    fn first_not_finite_names_the_place() {
        for length in [1, RUN - 1, RUN, RUN + 1, 3 * RUN + 7] {
            let mut values = vec![f32::MAX; length];
            assert_eq!(first_not_finite(&values), None);
            for bad in [f32::NAN, -f32::INFINITY] {
                values[length - 1] = bad;
                assert_eq!(first_not_finite(&values), Some(length - 1));
            }
        }
    }
}
