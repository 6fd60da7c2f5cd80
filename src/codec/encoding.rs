use serde::{Deserialize, Serialize};

/// How a block's numbers become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// Four bytes a number, bit for bit.
    F32,
    /// binary16 with one power-of-two scale for each row and block: eleven bits of precision.
    F16,
    /// Signed bytes with one scale for each row and block: seven bits of precision.
    I8,
}

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

    /// Bytes of one row of `dims` codes, padded to a multiple of 64.
    #[must_use]
    pub const fn stride(self, dims: usize) -> usize {
        (dims * self.code_bytes()).next_multiple_of(64)
    }

    /// Whether each row has a scale.
    #[must_use]
    pub const fn has_scale(self) -> bool {
        !matches!(self, Self::F32)
    }

    /// Its number in a segment's region table.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::F32 => 1,
            Self::F16 => 2,
            Self::I8 => 3,
        }
    }

    /// The version of each encoding in a segment's region table.
    pub(crate) const VERSION: u16 = 1;

    /// Its name: `f32`, `f16`, `i8`.
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
