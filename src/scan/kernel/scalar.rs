//! The oracle: transcribes `format-spec/encodings.md`, one product at a time. The lanes are those of
//! [`crate::codec::lanes`].

use std::ops::Range;

use half::f16;

use super::narrow::{Narrow, Scale};
use super::packed::{ByteQueries, FloatLine, FloatQueries, IntegerQueries, PlaneQueries};
use super::speeds::Speeds;
use super::{Kernel, KernelChoice, Rows};
use crate::codec::lanes::{LANES, dot_lines, halve_f32};

#[derive(Debug)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    fn choice(&self) -> KernelChoice {
        KernelChoice::Scalar
    }

    fn speeds(&self) -> Speeds {
        Speeds::SCALAR
    }

    fn products(&self) -> usize {
        1 << 21
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(4 * batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| dot(singles(row), batch.lines(query)));
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(2 * batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| dot(halves(row), batch.lines(query)));
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| {
            let codes = batch.lines(query).iter().flat_map(|line| line.0);
            row.iter().zip(codes).map(|(&code, p)| i64::from(code.cast_signed()) * i64::from(p)).sum()
        });
    }

    fn has_bytes(&self) -> bool {
        false
    }

    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
        bytes(rows, batch, queries, out);
    }

    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        planes(rows, batch, queries, out);
    }

    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow) {
        narrow_f32(rows, out);
    }

    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow) {
        narrow_f16(rows, out);
    }
}

fn each<T>(rows: &Rows<'_>, queries: Range<usize>, out: &mut [T], product: impl Fn(&[u8], usize) -> T) {
    for (j, query) in queries.enumerate() {
        for i in 0..rows.len() {
            out[j * rows.len() + i] = product(rows.row(i), query);
        }
    }
}

fn dot(row: impl Iterator<Item = f32>, query: &[FloatLine]) -> f32 {
    dot_lines(row, query.iter().map(|line| line.0))
}

fn singles(row: &[u8]) -> impl Iterator<Item = f32> {
    row.chunks_exact(4).map(|code| f32::from_le_bytes([code[0], code[1], code[2], code[3]]))
}

fn halves(row: &[u8]) -> impl Iterator<Item = f32> {
    row.chunks_exact(2).map(|code| f16::from_le_bytes([code[0], code[1]]).to_f32())
}

fn narrow_f32(rows: &Rows<'_>, out: &mut Narrow) {
    out.fill(rows, 4, |row| largest(singles(row)), |row, scale, codes| narrow(singles(row), scale, codes));
}

fn narrow_f16(rows: &Rows<'_>, out: &mut Narrow) {
    out.fill(rows, 2, |row| largest(halves(row)), |row, scale, codes| narrow(halves(row), scale, codes));
}

/// The largest bits, without the sign.
fn largest(row: impl Iterator<Item = f32>) -> u32 {
    row.map(|x| x.abs().to_bits()).max().unwrap_or(0)
}

/// Writes the codes, and returns the sum of squares of their errors.
fn narrow(row: impl Iterator<Item = f32>, scale: Scale, codes: &mut [u8]) -> f32 {
    let mut lanes = [0f32; LANES];
    codes.fill(0);
    for (i, (x, code)) in row.zip(codes).enumerate() {
        let c = (x * scale.inverse).round_ties_even().clamp(-127.0, 127.0);
        *code = (c as i8).cast_unsigned();
        let r = (-c).mul_add(scale.scale, x);
        lanes[i % LANES] = r.mul_add(r, lanes[i % LANES]);
    }
    halve_f32(lanes)
}

pub(super) fn bytes(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    rows.check(batch.dims(), batch.len(), &queries, out.len());
    each(rows, queries, out, |row, query| {
        let codes = (0..batch.dims()).map(|dim| i32::from(batch.code(query, dim)));
        row.iter().zip(codes).map(|(&code, q)| i32::from(code.cast_signed()) * q).sum()
    });
}

fn planes(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
    rows.check(batch.dims().div_ceil(8), batch.len(), &queries, out.len());
    each(rows, queries, out, |row, query| {
        let mut sum = 0;
        for (bits, planes) in row.chunks(64).zip(batch.lines(query).chunks_exact(PlaneQueries::PLANES)) {
            for (bit, plane) in planes.iter().enumerate() {
                let set: u32 =
                    bits.iter().zip(plane.0).map(|(bits, plane)| (bits & plane).count_ones()).sum();
                let weight = if bit + 1 == PlaneQueries::PLANES { -(1 << bit) } else { 1 << bit };
                sum += weight * set.cast_signed();
            }
        }
        sum
    });
}
