//! The kernels for little-endian aarch64.
//!
//! A value of a kernel's type proves that its instructions exist: only `detect` creates one.

mod bits;
mod bytes;
mod lanes;
mod narrow;
mod neon;

pub(super) use neon::Neon;

use super::tiling::{filled_up, load, put, tiles};
