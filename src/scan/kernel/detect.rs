//! Chooses the kernel of a scan: once, by the machine or by request.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use super::aarch64::Neon;
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Amx, Avx2, Avx512, Avx512Vnni};
use super::{Kernel, KernelChoice, KernelError};

/// The environment variable that selects the kernel for [`KernelChoice::Auto`].
const VARIABLE: &str = "GRADIX_KERNEL";

impl KernelChoice {
    /// The implementation.
    pub(crate) fn kernel(self) -> Result<&'static dyn Kernel, KernelError> {
        // Read only for `Auto`, which alone uses it.
        let named = if self == Self::Auto { std::env::var_os(VARIABLE) } else { None };
        self.or_named(named.as_ref().map(|name| name.to_string_lossy()).as_deref())
    }

    /// `named` is the value of the environment variable; an empty value is ignored.
    pub(super) fn or_named(self, named: Option<&str>) -> Result<&'static dyn Kernel, KernelError> {
        let choice = match (self, named) {
            (Self::Auto, Some(name)) if !name.is_empty() => name.parse()?,
            (choice, _) => choice,
        };
        choice.supported().ok_or(KernelError::Unsupported { kernel: choice })
    }

    /// The kernels that this machine supports, slowest first.
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
