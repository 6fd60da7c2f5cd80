//! The kernels for x86-64.
//!
//! A kernel value is proof that its instructions exist: only `detect` makes one.

mod amx;
mod avx2;
mod avx512;
mod avx512vnni;

pub(super) use amx::Amx;
pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
pub(super) use avx512vnni::Avx512Vnni;

use super::tiling::{load, put, tiles};

/// The last codes of a row, and zeros.
#[inline]
fn filled_up<const BYTES: usize>(end: &[u8]) -> [u8; BYTES] {
    let mut codes = [0; BYTES];
    codes[..end.len()].copy_from_slice(end);
    codes
}
