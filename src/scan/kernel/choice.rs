//! The kernels by name.

use std::fmt;
use std::str::FromStr;

/// Defines [`KernelChoice`] and its names from one list, so that [`KernelChoice::ALL`], which the tests use,
/// has every kernel.
macro_rules! choices {
    ($($(#[$doc:meta])+ $choice:ident = $name:literal,)+) => {
        /// The kernel of a scan. All kernels give the same bits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum KernelChoice {
            /// The kernel named by the environment variable `GRADIX_KERNEL` (in lower case); if that is
            /// not set or empty, the fastest that the machine supports.
            #[default]
            Auto,
            $($(#[$doc])+ $choice,)+
        }

        impl KernelChoice {
            /// All kernels, slowest first. A machine supports the first and some of the others.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$choice),+];

            /// The name: `auto`, or a kernel's name in lower case.
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
    /// Portable and slow: the oracle of the other kernels' tests.
    Scalar = "scalar",
    /// x86-64 with AVX2, FMA and F16C.
    Avx2 = "avx2",
    /// x86-64 with AVX-512 F, BW and VL.
    Avx512 = "avx512",
    /// x86-64 with AVX-512 F, BW, VL, VNNI and VPOPCNTDQ.
    Avx512Vnni = "avx512vnni",
    /// x86-64 with AMX int8, permitted by the operating system, and AVX-512.
    Amx = "amx",
    /// Little-endian aarch64 with NEON, and its byte dot products if the machine has them.
    Neon = "neon",
}

/// Why a kernel could not be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has this name.
    #[error("no kernel is called {name:?}; the kernels are {}", names())]
    Unknown {
        /// The requested name, from the caller or `GRADIX_KERNEL`.
        name: String,
    },
    /// This machine does not support the kernel.
    #[error("this machine cannot run the {kernel} kernel")]
    Unsupported {
        /// The requested kernel.
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
