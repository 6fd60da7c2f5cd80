//! Numbers as they lie in files, to f32.
//!
//! The block formats are those of ggml (`ggml-common.h` and `ggml-quants.c` of llama.cpp): groups of 32 numbers with
//! a scale d, and in the `_1` formats a minimum m, both f16. Four-bit codes of a block: the low halves of its 16
//! bytes are the first 16 numbers, the high halves the other 16.

use half::{bf16, f16};

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// x = d (q - 8), q of 4 bits.
    Q4_0,
    /// x = d q + m, q of 4 bits.
    Q4_1,
    /// x = d (q - 16), q of 5 bits.
    Q5_0,
    /// x = d q + m, q of 5 bits.
    Q5_1,
    /// x = d q, q a signed byte.
    Q8_0,
}

impl Kind {
    /// The type of ggml's number.
    #[must_use]
    pub fn from_ggml(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// The type of safetensors' name.
    #[must_use]
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers and bytes of a block.
    #[must_use]
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
        }
    }

    /// The numbers of whole blocks; bytes behind the last whole block are ignored.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let (numbers, size) = self.block();
        let mut out = Vec::with_capacity(bytes.len() / size * numbers);
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half(block, 0)),
                Self::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q8_0 => {
                    let scale = half(block, 0);
                    out.extend(block[2..].iter().map(|code| scale * f32::from(code.cast_signed())));
                }
                Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => nibbles(self, block, &mut out),
            }
        }
        out
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn nibbles(kind: Kind, block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 0);
    let five = matches!(kind, Kind::Q5_0 | Kind::Q5_1);
    let (minimum, at) = match kind {
        Kind::Q4_0 => (-8.0 * scale, 2),
        Kind::Q5_0 => (-16.0 * scale, 2),
        _ => (half(block, 2), 4),
    };
    let (high, at) = if five {
        (u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]), at + 4)
    } else {
        (0, at)
    };
    let codes = &block[at..at + 16];
    let mut push = |number: usize, low: u8| {
        let fifth = (high >> number & 1) as u8 * 16;
        out.push(scale * f32::from(low + fifth) + minimum);
    };
    for (number, byte) in codes.iter().enumerate() {
        push(number, byte & 15);
    }
    for (number, byte) in codes.iter().enumerate() {
        push(number + 16, byte >> 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with scale 0.5, minimum 2 where there is one, and codes of which each differs from its neighbours.
    fn block(kind: Kind) -> Vec<u8> {
        let mut bytes = f16::from_f32(0.5).to_le_bytes().to_vec();
        if matches!(kind, Kind::Q4_1 | Kind::Q5_1) {
            bytes.extend(f16::from_f32(2.0).to_le_bytes());
        }
        if matches!(kind, Kind::Q5_0 | Kind::Q5_1) {
            bytes.extend(0x8000_0002u32.to_le_bytes());
        }
        bytes.extend((0u8..16).map(|at| at | (15 - at) << 4));
        bytes
    }

    // Would catch halves of bytes in the wrong order, a wrong offset, or a fifth bit at the wrong number.
    #[test]
    fn four_and_five_bit_codes_by_hand() {
        let low = |at: usize| at as f32;
        let high = |at: usize| (15 - at) as f32;
        for (kind, offset, five) in [
            (Kind::Q4_0, -4.0, false),
            (Kind::Q4_1, 2.0, false),
            (Kind::Q5_0, -8.0, true),
            (Kind::Q5_1, 2.0, true),
        ] {
            let numbers = kind.decode(&block(kind));
            assert_eq!(block(kind).len(), kind.block().1);
            for at in 0..16 {
                let extra = |number: usize| if five && [1, 31].contains(&number) { 8.0 } else { 0.0 };
                assert_eq!(numbers[at], 0.5 * low(at) + offset + extra(at), "{kind:?} {at}");
                assert_eq!(numbers[at + 16], 0.5 * high(at) + offset + extra(at + 16), "{kind:?} {at}");
            }
        }
    }

    // Would catch unsigned bytes, or floats of the wrong width.
    #[test]
    fn bytes_and_floats_by_hand() {
        let mut bytes = f16::from_f32(0.25).to_le_bytes().to_vec();
        bytes.extend([0x80, 0x7f, 1]);
        bytes.resize(34, 0xff);
        let numbers = Kind::Q8_0.decode(&bytes);
        assert_eq!(numbers[..4], [-32.0, 31.75, 0.25, -0.25]);
        assert_eq!(Kind::F32.decode(&1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(Kind::F16.decode(&f16::from_f32(-2.5).to_le_bytes()), [-2.5]);
        assert_eq!(Kind::Bf16.decode(&bf16::from_f32(3.0).to_le_bytes()), [3.0]);
    }
}
