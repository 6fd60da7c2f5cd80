//! Which kernel a scan runs on: decided once, by what the machine has or by what was asked for.

use std::fmt;
use std::str::FromStr;

use super::Kernel;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use super::aarch64::Neon;
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Amx, Avx2, Avx512, Avx512Vnni};

/// The environment variable that names the kernel where the caller does not.
const VARIABLE: &str = "GRADIX_KERNEL";

/// Makes [`KernelChoice`] with its names from one list, so that no kernel can be left out of
/// [`KernelChoice::ALL`], which is what the tests go through.
macro_rules! choices {
    ($($(#[$doc:meta])+ $choice:ident = $name:literal,)+) => {
        /// The kernel that a scan computes with. All give the same bits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum KernelChoice {
            /// The one that the environment variable `GRADIX_KERNEL` names (in lower case), or else the
            /// fastest that the machine has.
            #[default]
            Auto,
            $($(#[$doc])+ $choice,)+
        }

        impl KernelChoice {
            /// All that there are, slowest first; a machine can run the first and some of the others.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$choice),+];

            /// Its name: `auto`, or in lower case that of a kernel.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Auto => "auto",
                    $(Self::$choice => $name,)+
                }
            }
        }
    };
}

choices! {
    /// The oracle: slow, and everywhere.
    Scalar = "scalar",
    /// x86-64 with AVX2, FMA and F16C.
    Avx2 = "avx2",
    /// x86-64 with AVX-512 F, BW and VL.
    Avx512 = "avx512",
    /// x86-64 with AVX-512 F, BW, VL, VNNI and VPOPCNTDQ.
    Avx512Vnni = "avx512vnni",
    /// x86-64 with AMX int8 that the system grants, and AVX-512.
    Amx = "amx",
    /// Little-endian aarch64 with NEON, and its dot products of bytes where the machine has them.
    Neon = "neon",
}

/// Why a kernel could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has this name.
    #[error("no kernel is called {name:?}; known are {}", names())]
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
        f.write_str(self.name())
    }
}

impl FromStr for KernelChoice {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let mut all = std::iter::once(Self::Auto).chain(Self::ALL);
        all.find(|choice| choice.name() == name).ok_or_else(|| KernelError::Unknown { name: name.to_owned() })
    }
}

/// The names of all kernels, for a message.
fn names() -> String {
    KernelChoice::ALL.map(KernelChoice::name).join(", ")
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
        Self::ALL.into_iter().filter_map(Self::supported)
    }

    fn supported(self) -> Option<&'static dyn Kernel> {
        match self {
            Self::Auto => Self::available().last(),
            Self::Scalar => Some(&Scalar),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Avx512Vnni::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Amx::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Avx512Vnni | Self::Amx => None,
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon => Neon::detect().map(|kernel| kernel as &dyn Kernel),
            #[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
            Self::Neon => None,
        }
    }
}
