use serde::{Deserialize, Serialize};

use super::TierKind;

/// How a block's values are stored as bytes, called codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// `f32`: four bytes per value, lossless.
    F32,
    /// `f16`: IEEE binary16 with a power-of-two scale per row and block: eleven bits of precision.
    F16,
    /// `i8`: signed bytes with a scale per row and block: seven bits of precision.
    I8,
}

listed!(pub Encoding { F32, F16, I8 });

impl Encoding {
    /// Bytes of one code.
    #[must_use]
    pub const fn code_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes of one row of `dims` codes, including padding to a multiple of 64.
    #[must_use]
    pub const fn stride(self, dims: usize) -> usize {
        (dims * self.code_bytes()).next_multiple_of(64)
    }

    /// Whether each row has a scale in each block.
    #[must_use]
    pub const fn has_scale(self) -> bool {
        match self {
            Self::F32 => false,
            Self::F16 | Self::I8 => true,
        }
    }

    /// Whether a writer can have given a row this scale: +0, or a normal positive number within the limit
    /// that the norm implies; for `f16` a power of two. Always `false` for `f32`, which has no scale.
    pub(crate) fn may_scale_by(self, scale: f32) -> bool {
        let is_within = |limit: f32| scale.is_normal() && scale > 0.0 && scale <= limit;
        let is_power_of_two = scale.to_bits() & 0x007F_FFFF == 0;
        match self {
            Self::F32 => false,
            Self::F16 => scale.to_bits() == 0 || (is_within(2f32.powi(47)) && is_power_of_two),
            Self::I8 => scale.to_bits() == 0 || is_within(2f32.powi(56)),
        }
    }

    /// The name: `f32`, `f16`, `i8`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How the codes of a region are encoded: as rows, or in a form that only a tier has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeEncoding {
    Row(Encoding),
    /// One bit per value.
    Signs,
}

impl CodeEncoding {
    /// The number in a segment's region table.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Row(Encoding::F32) => 1,
            Self::Row(Encoding::F16) => 2,
            Self::Row(Encoding::I8) => 3,
            Self::Signs => 4,
        }
    }

    /// The version in a segment's region table.
    pub(crate) const fn version(self) -> u16 {
        match self {
            Self::Row(Encoding::F32 | Encoding::F16 | Encoding::I8) | Self::Signs => 1,
        }
    }

    /// The encoding with this number in a segment's region table.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        let of_rows = Encoding::ALL.iter().map(|&encoding| Self::Row(encoding));
        let of_tiers = TierKind::ALL.iter().map(|tier| tier.encoding());
        of_rows.chain(of_tiers).find(|encoding| encoding.number() == number)
    }
}
