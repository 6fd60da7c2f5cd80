//! The kernels for x86-64.
//!
//! A kernel value is proof that its instructions exist: only `detect` makes one.

mod avx2;
mod avx512;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;

use super::tiling::{load, put, tiles};
