//! The oracle: `format-spec/encodings.md`, sentence by sentence, one product at a time.

use std::ops::Range;

use half::f16;

use super::packed::{ByteQueries, FloatLine, FloatQueries, IntegerQueries, PlaneQueries};
use super::{Kernel, Rows};

#[derive(Debug)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn products(&self) -> usize {
        1 << 21
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(4 * batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| {
            let numbers =
                row.chunks_exact(4).map(|code| f32::from_le_bytes([code[0], code[1], code[2], code[3]]));
            sixteen_lanes(numbers, batch.lines(query))
        });
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(2 * batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| {
            let numbers = row.chunks_exact(2).map(|code| f16::from_le_bytes([code[0], code[1]]).to_f32());
            sixteen_lanes(numbers, batch.lines(query))
        });
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        each(rows, queries, out, |row, query| {
            let codes = batch.lines(query).iter().flat_map(|line| line.0);
            row.iter().zip(codes).map(|(&code, p)| i64::from(code.cast_signed()) * i64::from(p)).sum()
        });
    }
}

fn each<T>(rows: &Rows<'_>, queries: Range<usize>, out: &mut [T], product: impl Fn(&[u8], usize) -> T) {
    for (j, query) in queries.enumerate() {
        for i in 0..rows.len() {
            out[j * rows.len() + i] = product(rows.row(i), query);
        }
    }
}

/// "The sixteen lanes". Elements that are missing at the end of the last sixteen count as +0.
fn sixteen_lanes(mut row: impl Iterator<Item = f32>, query: &[FloatLine]) -> f32 {
    let mut lanes = [0f32; 16];
    for line in query {
        for (lane, &q) in lanes.iter_mut().zip(&line.0) {
            *lane = row.next().unwrap_or(0.0).mul_add(q, *lane);
        }
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

pub(super) fn bytes(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    rows.check(batch.dims(), batch.len(), &queries, out.len());
    each(rows, queries, out, |row, query| {
        let codes = (0..batch.dims()).map(|dim| i32::from(batch.code(query, dim)));
        row.iter().zip(codes).map(|(&code, q)| i32::from(code.cast_signed()) * q).sum()
    });
}

pub(super) fn planes(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
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

/// SHIM
pub(super) fn narrow(rows: &Rows<'_>, encoding: crate::codec::Encoding, out: &mut super::Narrow) {
    let dims = rows.row_bytes / encoding.code_bytes();
    out.stride = dims.next_multiple_of(64);
    out.bytes.clear();
    out.bytes.resize(out.stride * rows.len(), 0);
    out.scales.clear();
    out.residuals.clear();
    for i in 0..rows.len() {
        let row = rows.row(i);
        let x: Vec<f32> = match encoding {
            crate::codec::Encoding::F32 => {
                row.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
            }
            _ => row.chunks_exact(2).map(|c| f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
        };
        let max = x.iter().fold(0f32, |m, x| m.max(x.abs()));
        if max < 2f32.powi(-100) {
            out.scales.push(0.0);
            out.residuals.push(if max == 0.0 { 0.0 } else { f32::INFINITY });
            continue;
        }
        let (inverse, scale) = (127.0 / max, max / 127.0);
        let mut sum = 0f64;
        for (j, &x) in x.iter().enumerate() {
            let c = (x * inverse).round_ties_even().clamp(-127.0, 127.0);
            out.bytes[i * out.stride + j] = (c as i8).cast_unsigned();
            sum += (f64::from(x) - f64::from(c) * f64::from(scale)).powi(2);
        }
        out.scales.push(scale);
        out.residuals.push(sum.sqrt() as f32 * 1.001);
    }
}
