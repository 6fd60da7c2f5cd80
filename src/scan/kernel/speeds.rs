//! The kernels' speeds that the planner assumes before scans have been measured.

/// Seconds per dim of a row, on one thread, from cache: for one query, and for each further one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    pub first: f64,
    pub further: f64,
}

/// A kernel's approximate speeds. Other machines differ by a small factor, and rarely in the order of the
/// paths; so these are initial values, not results.
///
/// `cargo bench --bench kernels` prints the machine's measured speeds beside them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speeds {
    pub f32: Speed,
    pub f16: Speed,
    pub i8: Speed,
    pub bytes: Speed,
    pub planes: Speed,
    /// Seconds per number of a row to narrow it.
    pub narrow: f64,
    /// Seconds per interval of a row and a query, which no kernel computes.
    pub pair: f64,
}

/// In picoseconds, for one query and for each further one.
const fn speed(first: f64, further: f64) -> Speed {
    Speed { first: first * 1e-12, further: further * 1e-12 }
}

/// The time of an interval.
const PAIR: f64 = 2e-9;

/// Measured on one core of a Zen 4 server with 4,096 dims, except AMX and NEON.
impl Speeds {
    pub const SCALAR: Self = Self {
        f32: speed(2500.0, 2500.0),
        f16: speed(3900.0, 3900.0),
        i8: speed(830.0, 830.0),
        bytes: speed(960.0, 960.0),
        planes: speed(240.0, 240.0),
        narrow: 8e-9,
        pair: PAIR,
    };

    #[cfg(target_arch = "x86_64")]
    pub const AVX2: Self = Self {
        f32: speed(50.0, 38.0),
        f16: speed(36.0, 31.0),
        i8: speed(30.0, 13.0),
        // The oracle's.
        bytes: Self::SCALAR.bytes,
        planes: speed(12.0, 12.0),
        narrow: 1.3e-10,
        pair: PAIR,
    };

    #[cfg(target_arch = "x86_64")]
    pub const AVX512: Self = Self {
        f32: speed(45.0, 19.0),
        f16: speed(63.0, 17.0),
        i8: speed(22.0, 12.0),
        // The oracle's.
        bytes: Self::SCALAR.bytes,
        // AVX2's.
        planes: Self::AVX2.planes,
        narrow: 1.3e-10,
        pair: PAIR,
    };

    #[cfg(target_arch = "x86_64")]
    pub const AVX512VNNI: Self = Self {
        f32: Self::AVX512.f32,
        f16: Self::AVX512.f16,
        i8: speed(22.0, 9.0),
        bytes: speed(108.0, 2.8),
        planes: speed(5.0, 4.0),
        narrow: Self::AVX512.narrow,
        pair: PAIR,
    };

    /// Not measured. Intel's optimisation manual gives 16 cycles for `TDPBSSD`, which multiplies 16 rows
    /// with 16 queries in 64 dims: at 2.5 GHz, 6.4 ps for the first sixteen queries and 0.4 ps for each
    /// further one; twice that, because tiles are loaded too. 16-bit queries are two of bytes, from the
    /// eighth on; fewer, and all else, are AVX-512's.
    #[cfg(target_arch = "x86_64")]
    pub const AMX: Self =
        Self { i8: speed(Self::AVX512VNNI.i8.first, 1.6), bytes: speed(13.0, 0.8), ..Self::AVX512VNNI };

    /// Not measured. Arm's optimisation guide of the Neoverse N1 gives, in a cycle, two registers of
    /// fused multiply-adds, dot products of bytes, counts of bits or loads, and one of products of 16
    /// bits; at 3 GHz, by the instructions of each loop.
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    pub const NEON: Self = Self {
        f32: speed(62.0, 42.0),
        f16: speed(83.0, 50.0),
        i8: speed(100.0, 83.0),
        bytes: speed(170.0, 10.0),
        planes: speed(16.0, 16.0),
        narrow: 4e-10,
        pair: PAIR,
    };
}
