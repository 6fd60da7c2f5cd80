//! The kernels for little-endian aarch64.
//!
//! A kernel value is proof that its instructions exist: only `detect` makes one.

mod bits;
mod bytes;
mod narrow;
mod neon;

pub(super) use neon::Neon;

use super::tiling::{filled_up, load, put, tiles};
