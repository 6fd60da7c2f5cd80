//! Which kernel a scan runs on: decided once, by what the machine has or by what was asked for.

use std::fmt;
use std::str::FromStr;

use super::Kernel;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use super::aarch64::Neon;
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512};

/// The environment variable that names the kernel where the caller does not.
const VARIABLE: &str = "GRADIX_KERNEL";

/// The kernel that a scan computes with. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KernelChoice {
    /// The one that the environment variable `GRADIX_KERNEL` names (`scalar`, `avx2`, `avx512`,
    /// `neon`), or else the fastest that the machine has.
    #[default]
    Auto,
    /// The oracle: slow, and everywhere.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW and VL.
    Avx512,
    /// Little-endian aarch64 with NEON, and its dot products of bytes where the machine has them.
    Neon,
}

/// Why a kernel could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has this name.
    #[error("no kernel is called {name:?}; scalar, avx2, avx512 and neon are known")]
    Unknown {
        /// What was asked for, by name or in `GRADIX_KERNEL`.
        name: String,
    },
    /// This machine cannot run it.
    #[error("this machine cannot run the {kernel} kernel")]
    Unsupported {
        /// The kernel that was asked for.
        kernel: KernelChoice,
    },
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        })
    }
}

impl FromStr for KernelChoice {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        match name {
            "auto" => Ok(Self::Auto),
            "scalar" => Ok(Self::Scalar),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            "neon" => Ok(Self::Neon),
            _ => Err(KernelError::Unknown { name: name.to_owned() }),
        }
    }
}

impl KernelChoice {
    /// The kernel itself.
    pub(crate) fn kernel(self) -> Result<&'static dyn Kernel, KernelError> {
        let named = if self == Self::Auto { std::env::var_os(VARIABLE) } else { None };
        self.or_named(named.as_ref().map(|name| name.to_string_lossy()).as_deref())
    }

    /// `named` is what the environment says; an empty name says nothing.
    pub(super) fn or_named(self, named: Option<&str>) -> Result<&'static dyn Kernel, KernelError> {
        let choice = match (self, named) {
            (Self::Auto, Some(name)) if !name.is_empty() => name.parse()?,
            (choice, _) => choice,
        };
        choice.supported().ok_or(KernelError::Unsupported { kernel: choice })
    }

    /// The kernels that this machine can run, slowest first.
    pub(crate) fn available() -> impl Iterator<Item = &'static dyn Kernel> {
        [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon].into_iter().filter_map(Self::supported)
    }

    fn supported(self) -> Option<&'static dyn Kernel> {
        match self {
            Self::Auto => Self::available().last(),
            Self::Scalar => Some(&Scalar),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon => Neon::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
            Self::Neon => None,
        }
    }
}
