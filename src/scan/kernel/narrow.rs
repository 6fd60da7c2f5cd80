//! Narrows rows of floats to rows of signed bytes, for screening.
//!
//! For a row `x` of `dims` numbers (of `f16` rows the codes, without the row's scale), with
//! `max = max |x_i|`, all in f32: `scale = max / 127`, codes
//! `c_i = clamp(round(x_i * (127 / max)), -127, 127)`, ties to even. A row of zeros has scale, codes and
//! residual 0. A row whose `max` is below 2^-100 or NaN has scale and codes 0 and an infinite residual: it is
//! never pruned.
//!
//! # The residual
//! It is at least `||x - c * scale||`, so that by Cauchy-Schwarz
//! `|<x, q> - scale * <c, q>| <= residual * ||q||`:
//!
//! - `r_i = fma(-c_i, scale, x_i)` is `x_i - c_i * scale`, rounded once. `x_i` is a multiple of 2^-149, and
//!   so is `scale`, being normal: the difference is exact if it is subnormal, and otherwise has a relative
//!   error of at most u = 2^-24.
//! - The sum of squares is computed in sixteen lanes of `fma(r_i, r_i, lane)`. A number takes part in at most
//!   `k = dims / 16 + 5` additions, each of which has a relative error of at most u, or an error of 2^-150 if
//!   the sum is subnormal; an overflow gives an infinite residual. So the exact sum is at most
//!   `(sum + dims * 2^-150) / (1 - u)^k`, and its root at most
//!   `(sqrt(sum) + sqrt(dims) * 2^-75) / (1 - u)^(k / 2)`.
//! - `residual = sqrt(sum) * (1 + 2^-10) + sqrt(dims) * 2^-74`. Its own roundings, that of `r_i` and
//!   `(1 - u)^(k / 2)` add a relative error of `(k / 2 + 6) u`, below 2^-11 + 2^-20 for up to 2^17 dims; the
//!   formula allows 2^-10.

use super::{Rows, Select};

/// Narrowed rows. The buffers are reused from tile to tile.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    dims: usize,
    /// Bytes from row to row: `dims` padded with zeros to whole cache lines.
    stride: usize,
    /// The rows, from the first cache line of this buffer.
    bytes: Vec<u8>,
    scales: Vec<f32>,
    residuals: Vec<f32>,
}

/// The factor applied to a row, and the factor of its codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub inverse: f32,
    pub scale: f32,
}

impl Narrow {
    /// The codes, row by row.
    pub fn rows(&self) -> Rows<'_> {
        let bytes = &self.bytes[line_offset(&self.bytes)..];
        Rows { bytes, stride: self.stride, row_bytes: self.dims, select: Select::First(self.scales.len()) }
    }

    /// The scale of each row's codes.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// An upper bound of the norm of each row's narrowing error.
    pub fn residuals(&self) -> &[f32] {
        &self.residuals
    }

    /// Replaces the rows. `largest` returns the bits of a row's `max |x_i|`, compared as integers, so that
    /// NaN is larger than all numbers; `narrow` writes all codes and their zero padding, and returns the sum
    /// of `r_i^2`.
    pub(super) fn fill(
        &mut self,
        rows: &Rows<'_>,
        code_bytes: usize,
        largest: impl Fn(&[u8]) -> u32,
        narrow: impl Fn(&[u8], Scale, &mut [u8]) -> f32,
    ) {
        assert_eq!(rows.row_bytes % code_bytes, 0, "rows of another encoding");
        self.dims = rows.row_bytes / code_bytes;
        self.stride = self.dims.next_multiple_of(64);
        self.scales.clear();
        self.residuals.clear();
        let needed = rows.len() * self.stride + 63;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        let offset = line_offset(&self.bytes);
        for i in 0..rows.len() {
            let row = rows.row(i);
            let codes = &mut self.bytes[offset + i * self.stride..][..self.stride];
            let max = f32::from_bits(largest(row));
            if max >= SMALLEST && max.is_finite() {
                let scale = Scale { inverse: 127.0 / max, scale: max / 127.0 };
                let sum = narrow(row, scale, codes);
                self.scales.push(scale.scale);
                self.residuals.push(sum.sqrt() * (1.0 + ROUNDINGS) + (self.dims as f32).sqrt() * UNDERFLOWS);
            } else {
                codes.fill(0);
                self.scales.push(0.0);
                self.residuals.push(if max == 0.0 { 0.0 } else { f32::INFINITY });
            }
        }
    }
}

/// 2^-100: rows below it have an infinite residual.
const SMALLEST: f32 = 1.0 / (1u128 << 100) as f32;
/// 2^-10.
const ROUNDINGS: f32 = 1.0 / 1024.0;
/// 2^-74.
const UNDERFLOWS: f32 = 1.0 / (1u128 << 74) as f32;

/// The offset of the first cache line.
fn line_offset(bytes: &[u8]) -> usize {
    bytes.as_ptr().align_offset(64).min(63)
}
