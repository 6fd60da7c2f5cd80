//! The kernels for little-endian aarch64.
//!
//! A kernel value is proof that its instructions exist: only `detect` makes one.

mod bits;
mod bytes;
mod neon;

pub(super) use neon::Neon;

use super::tiling::{load, put, tiles};
