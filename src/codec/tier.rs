//! Coarse tiers of a row: codes from which a scan computes an interval that contains the row's score, as
//! specified by `format-spec/encodings.md`.
//!
//! The sign tier is of the kind of RaBitQ (J. Gao and C. Long, "RaBitQ: Quantizing High-Dimensional Vectors
//! with a Theoretical Error Bound for Approximate Nearest Neighbor Search", SIGMOD 2024, arXiv:2405.12497):
//! signs after a random rotation, an unbiased estimate of an inner product, a query rounded at random to four
//! bits, and a bound that separates candidates from the rest. It differs as follows:
//!
//! - The rotation is structured ([`Rotation`]), in `f32` and in a fixed order, so that every machine computes
//!   the same bits. RaBitQ's is a random orthogonal matrix.
//! - Scores are inner products and cosines. There is no centroid to normalise by.
//! - The bits are computed from the stored codes, so that the interval is of the score that a scan computes.
//! - Gain and spread correspond to RaBitQ's vector length and its product with its own signs.
//! - The interval only prunes, with the caller's failure probability for the whole ranking
//!   (`scan/score/screen`); candidates are scored exactly.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use serde::{Deserialize, Serialize};

use super::code::{encode_i8, largest};
use super::lanes::{LANES, halve_f64};
use super::{CodeEncoding, Encoding, LEAST_SCALE, Rotation};

/// A coarse copy of the rows, with which a scan prunes most of them. Scores are never computed from a tier:
/// a scan computes the scores of the remaining candidates from the rows' own codes.
///
/// Choose tiers with [`Schema::with_tiers`](crate::Schema::with_tiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Description", into = "Description")]
#[non_exhaustive]
pub enum Tier {
    /// `sign`: one bit per dim, the sign after a random rotation, for every block.
    Sign {
        /// Seed of the rotation: any number that is independent of the data.
        seed: u64,
    },
    /// `i8`: signed bytes, for the blocks whose encoding is `f16` or `f32`.
    I8,
}

/// A tier in the schema's JSON.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
enum Description {
    #[serde(rename = "sign")]
    Sign {
        #[serde(with = "super::seed")]
        seed: u64,
    },
    // With braces; without them serde ignores unknown fields.
    #[serde(rename = "i8")]
    I8 {},
}

impl From<Description> for Tier {
    fn from(description: Description) -> Self {
        match description {
            Description::Sign { seed } => Self::Sign { seed },
            Description::I8 {} => Self::I8,
        }
    }
}

impl From<Tier> for Description {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Sign { seed } => Self::Sign { seed },
            Tier::I8 => Self::I8 {},
        }
    }
}

/// A tier without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierKind {
    Sign,
    I8,
}

listed!(pub(crate) TierKind { Sign, I8 });

impl TierKind {
    /// The number in a segment's region table, in file order. 0 is the row itself.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Sign => 1,
            Self::I8 => 2,
        }
    }

    /// The tier with this number in a segment's region table.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.number() == number)
    }

    /// The name of its factors' column.
    pub(crate) const fn factors_name(self) -> &'static str {
        match self {
            Self::Sign => "sign factors",
            Self::I8 => "i8 factors",
        }
    }

    /// The name: `sign`, `i8`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::I8 => "i8",
        }
    }

    /// The encoding of the tier's codes.
    pub(crate) const fn encoding(self) -> CodeEncoding {
        match self {
            Self::Sign => CodeEncoding::Signs,
            Self::I8 => CodeEncoding::Row(Encoding::I8),
        }
    }
}

impl Tier {
    /// One of each kind; those that need a seed have this one.
    #[cfg(test)]
    pub(crate) fn all(seed: u64) -> impl Iterator<Item = Self> {
        TierKind::ALL.iter().map(move |kind| match kind {
            TierKind::Sign => Self::Sign { seed },
            TierKind::I8 => Self::I8,
        })
    }

    /// The name: `sign`, `i8`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.kind().name()
    }

    /// Whether blocks of this encoding have the tier.
    #[must_use]
    pub const fn covers(self, encoding: Encoding) -> bool {
        match (self, encoding) {
            (Self::Sign { .. }, Encoding::F32 | Encoding::F16 | Encoding::I8)
            | (Self::I8, Encoding::F32 | Encoding::F16) => true,
            (Self::I8, Encoding::I8) => false,
        }
    }

    /// Bytes of one row's codes in a block of `dims`, including padding to a multiple of 64.
    #[must_use]
    pub const fn stride(self, dims: usize) -> usize {
        match self {
            Self::Sign { .. } => dims.div_ceil(8).next_multiple_of(64),
            Self::I8 => Encoding::I8.stride(dims),
        }
    }

    pub(crate) const fn kind(self) -> TierKind {
        match self {
            Self::Sign { .. } => TierKind::Sign,
            Self::I8 => TierKind::I8,
        }
    }

    /// Whether a row can have these factors: +0 or positive, and within the limit that the norm implies.
    pub(crate) fn may_have(self, factors: Factors) -> bool {
        let within = |factor: f32, limit: f32| factor.is_sign_positive() && factor <= limit;
        let first = match self {
            Self::Sign { .. } => within(factors.first, MOST_GAIN),
            Self::I8 => Encoding::I8.may_scale_by(factors.first),
        };
        first && within(factors.second, MOST_REMAINDER)
    }
}

/// A limit of the gain, which up to rounding is at most the norm.
const MOST_GAIN: f32 = 9_223_372_036_854_775_808.0; // 2^63
/// A limit of the remainder, which is at most the norm times the root of the dims.
const MOST_REMAINDER: f32 = 151_115_727_451_828_646_838_272.0; // 2^77

/// What is stored beside a row's codes in a tier.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Factors {
    /// `sign`: the gain. `i8`: the scale.
    pub first: f32,
    /// `sign`: the spread. `i8`: the residual. An upper bound of the norm of the coding error.
    pub second: f32,
}

impl Factors {
    /// As two words, for comparing bit for bit.
    pub(crate) fn to_bits(self) -> (u32, u32) {
        (self.first.to_bits(), self.second.to_bits())
    }
}

impl std::fmt::Display for Factors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:e} and {:e}", self.first, self.second)
    }
}

/// Encodes a tier of one block, row by row.
#[derive(Debug)]
pub(crate) enum TierEncoder {
    Sign(Rotation),
    I8 { dims: usize },
}

impl TierEncoder {
    /// For block `block`, which has `dims` values.
    pub fn new(tier: Tier, block: u32, dims: usize) -> Self {
        match tier {
            Tier::Sign { seed } => Self::Sign(Rotation::new(seed, block, dims)),
            Tier::I8 => Self::I8 { dims },
        }
    }

    /// Computes a row's codes in the tier from its stored codes, and writes them to `own`, followed by zero
    /// padding. `scratch` is a buffer to reuse.
    ///
    /// # Panics
    /// If `codes` or `own` are not one row stride long.
    pub fn encode(
        &self,
        encoding: Encoding,
        codes: &[u8],
        scale: f32,
        own: &mut [u8],
        scratch: &mut Vec<f32>,
    ) -> Factors {
        match self {
            Self::Sign(rotation) => sign_tier(rotation, encoding, codes, scale, own, scratch),
            Self::I8 { dims } => i8_tier(encoding, *dims, codes, scale, own, scratch),
        }
    }
}

/// Computes the sign tier of one row in one block from its stored codes, and writes it to `bits`, followed by
/// zero padding. `scratch` is a buffer to reuse.
///
/// # Panics
/// If `codes` or `bits` are not one row stride long for the rotation's dims.
fn sign_tier(
    rotation: &Rotation,
    encoding: Encoding,
    codes: &[u8],
    scale: f32,
    bits: &mut [u8],
    scratch: &mut Vec<f32>,
) -> Factors {
    let dims = rotation.dims();
    assert_eq!(codes.len(), encoding.stride(dims), "codes must be one row stride long");
    assert_eq!(bits.len(), Tier::Sign { seed: 0 }.stride(dims), "bits must be one row stride long");
    bits.fill(0);
    scratch.clear();
    scratch.resize(dims, 0.0);
    let Some(unit) = numbers(encoding, codes, scale, scratch) else { return Factors::default() };
    rotation.apply(scratch);
    write_signs(scratch, bits);
    factors(scratch, unit)
}

/// Writes the numbers to rotate to `out`, and returns their unit. `None` if all numbers are zero.
fn numbers(encoding: Encoding, codes: &[u8], scale: f32, out: &mut [f32]) -> Option<f64> {
    let unit = match encoding {
        Encoding::F32 => {
            encoding.decode(codes, 1.0, out);
            // Codes that are not finite, which a reader refuses, have no largest; their tier is meaningless.
            let unit = power_of_two(largest(out).unwrap_or(0.0));
            if unit == 0.0 {
                return None;
            }
            scale_by(out, unit.recip());
            unit
        }
        Encoding::F16 => {
            let mut halves = [f16::ZERO; 256];
            for (out, codes) in out.chunks_mut(256).zip(codes.chunks(512)) {
                let halves = &mut halves[..out.len()];
                for (half, code) in halves.iter_mut().zip(codes.as_chunks().0) {
                    *half = f16::from_le_bytes(*code);
                }
                halves.convert_to_f32_slice(out);
            }
            f64::from(scale)
        }
        Encoding::I8 => {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = f32::from(code.cast_signed());
            }
            f64::from(scale)
        }
    };
    let any = out.iter().fold(0, |any, number| any | number.to_bits() << 1);
    (any != 0).then_some(unit)
}

/// The largest power of two that is at most `x`; 0 for 0.
fn power_of_two(x: f32) -> f64 {
    f64::from_bits(f64::from(x).to_bits() & 0x7FF0_0000_0000_0000)
}

/// Multiplies by a power of two, rounding once (where the result is subnormal).
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 once, as fixed")]
fn scale_by(numbers: &mut [f32], factor: f64) {
    for number in numbers {
        *number = (f64::from(*number) * factor) as f32;
    }
}

/// Bit `i % 8` of byte `i / 8`: 1 if number `i` is positive.
fn write_signs(numbers: &[f32], bits: &mut [u8]) {
    // The multiplication gathers the top bits of eight bytes in one byte.
    const GATHER: u64 = 0x0002_0408_1020_4081;
    let (eights, rest) = numbers.as_chunks::<8>();
    let (bytes, last) = bits.split_at_mut(eights.len());
    for (eight, byte) in eights.iter().zip(bytes) {
        let signs = eight.map(|number| (!number.to_bits() >> 24 & 0x80) as u8);
        *byte = (u64::from_le_bytes(signs).wrapping_mul(GATHER) >> 56) as u8;
    }
    for (i, number) in rest.iter().enumerate() {
        last[0] |= u8::from(number.is_sign_positive()) << i;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the gain is rounded to f32 once, here")]
fn factors(rotated: &[f32], unit: f64) -> Factors {
    let sum = sum(rotated, |number| number);
    let squares = self::sum(rotated, |number| number * number);
    let gain = squares / sum;
    let distances = self::sum(rotated, |number| (number - gain) * (number - gain));
    let remainder = (distances.sqrt() + ROUNDING * squares.sqrt()) * unit;
    Factors { first: (gain * unit) as f32, second: up(remainder) }
}

/// An upper bound of the rotation's rounding error, relative to the norm.
const ROUNDING: f64 = 1.0 / 65_536.0;

/// The sum of `f` of each magnitude, in sixteen lanes.
#[inline(always)]
fn sum(numbers: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0f64; LANES];
    let (tiles, rest) = numbers.as_chunks::<LANES>();
    for tile in tiles {
        for (lane, number) in lanes.iter_mut().zip(tile) {
            *lane += f(f64::from(number.abs()));
        }
    }
    for (lane, number) in lanes.iter_mut().zip(rest) {
        *lane += f(f64::from(number.abs()));
    }
    halve_f64(lanes)
}

/// The least `f32` that is at least `value`, which is at least 0, plus its possible rounding error.
#[expect(clippy::cast_possible_truncation, reason = "raised to the next f32 if it was rounded down")]
fn up(value: f64) -> f32 {
    let value = value * (1.0 + 1.0 / 268_435_456.0); // 1 + 2^-28
    let nearest = value as f32;
    if f64::from(nearest) < value { nearest.next_up() } else { nearest }
}

/// Computes the `i8` tier of one row in one block of `dims` values from its stored codes, and writes it to
/// `bytes`, followed by zero padding. `scratch` is a buffer to reuse.
///
/// # Panics
/// If `codes` or `bytes` are not one row stride long.
fn i8_tier(
    encoding: Encoding,
    dims: usize,
    codes: &[u8],
    scale: f32,
    bytes: &mut [u8],
    scratch: &mut Vec<f32>,
) -> Factors {
    assert_eq!(bytes.len(), Encoding::I8.stride(dims), "bytes must be one row stride long");
    bytes.fill(0);
    scratch.clear();
    scratch.resize(dims, 0.0);
    encoding.decode(codes, scale, scratch);
    let largest = largest(scratch).unwrap_or(0.0);
    if largest == 0.0 {
        return Factors::default();
    }
    let scale = (largest / 127.0).max(LEAST_SCALE);
    let bytes = &mut bytes[..dims];
    encode_i8(scratch, scale, bytes);
    Factors { first: scale, second: up(distances(scratch, scale, bytes).sqrt()) }
}

/// The sum of the squares of `number - byte * scale`, in sixteen lanes.
fn distances(numbers: &[f32], scale: f32, bytes: &[u8]) -> f64 {
    let scale = f64::from(scale);
    let mut lanes = [0f64; LANES];
    let (tiles, rest) = numbers.as_chunks::<LANES>();
    let (byte_tiles, byte_rest) = bytes.as_chunks::<LANES>();
    let mut add = |numbers: &[f32], bytes: &[u8]| {
        for ((lane, &number), &byte) in lanes.iter_mut().zip(numbers).zip(bytes) {
            let distance = f64::from(number) - f64::from(byte.cast_signed()) * scale;
            *lane += distance * distance;
        }
    };
    tiles.iter().zip(byte_tiles).for_each(|(numbers, bytes)| add(numbers, bytes));
    add(rest, byte_rest);
    halve_f64(lanes)
}
