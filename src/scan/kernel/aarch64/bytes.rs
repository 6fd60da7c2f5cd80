//! Rows and queries in signed bytes: sixteen queries, a line of the batch, at once. A register holds a quad
//! of dims of four of them, so that its sums are of adjacent queries.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::super::Rows;
use super::super::packed::{ByteLine, ByteQueries};
use super::load;

/// With byte dot products: one instruction multiplies a quad of dims of four queries.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_rows(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    sixteens(
        rows,
        queries,
        out,
        |rows: [&[u8]; 4], group| dot_tile(rows, batch, group),
        |row, group| dot_tile(row, batch, group),
    );
}

/// Without them: products of 16 bits, added to sums of 32 in pairs. These take all registers for one
/// row.
#[target_feature(enable = "neon")]
pub(super) fn wide_rows(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    let tile = |[row]: [&[u8]; 1], group| [wide_tile(row, batch, group)];
    sixteens(rows, queries, out, tile, tile);
}

/// The products of a few rows with a group of sixteen queries.
type Products<const R: usize> = [[i32; 16]; R];

/// Iterates over the rows `R` at a time, and for each over the groups; the remaining rows are processed one
/// by one.
#[inline]
fn sixteens<const R: usize>(
    rows: &Rows<'_>,
    queries: Range<usize>,
    out: &mut [i32],
    tall: impl Fn([&[u8]; R], usize) -> Products<R>,
    short: impl Fn([&[u8]; 1], usize) -> Products<1>,
) {
    let groups = queries.start / 16..queries.end.div_ceil(16);
    let mut i = 0;
    while i < rows.len() {
        if i + R <= rows.len() {
            for group in groups.clone() {
                put(
                    out,
                    rows.len(),
                    i,
                    &queries,
                    group,
                    tall(std::array::from_fn(|k| rows.row(i + k)), group),
                );
            }
            i += R;
        } else {
            for group in groups.clone() {
                put(out, rows.len(), i, &queries, group, short([rows.row(i)], group));
            }
            i += 1;
        }
    }
}

/// Writes the products of the group's requested queries to `out`.
fn put<const R: usize>(
    out: &mut [i32],
    rows: usize,
    first_row: usize,
    queries: &Range<usize>,
    group: usize,
    tile: Products<R>,
) {
    for query in queries.start.max(group * 16)..queries.end.min(group * 16 + 16) {
        for (k, products) in tile.iter().enumerate() {
            out[(query - queries.start) * rows + first_row + k] = products[query % 16];
        }
    }
}

/// Rows of `dims` bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_tile<const R: usize>(rows: [&[u8]; R], batch: &ByteQueries, group: usize) -> Products<R> {
    let (full, last) = steps(rows, batch);
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    for step in 0..batch.dims().div_ceil(16) {
        let x = if step < full {
            // SAFETY: `16 * full` is within the length of each row; the load may be unaligned.
            load!(vdupq_n_s8(0), rows, |row| unsafe { vld1q_s8(row.as_ptr().add(step * 16).cast()) })
        } else {
            last
        };
        let line = |quad| &batch.lines()[(step * 4 + quad) * batch.groups() + group];
        dot_quad::<0, R>(&mut sums, x, line(0));
        dot_quad::<1, R>(&mut sums, x, line(1));
        dot_quad::<2, R>(&mut sums, x, line(2));
        dot_quad::<3, R>(&mut sums, x, line(3));
    }
    sums.map(|sums| store(sums))
}

/// A quarter of a step of 16 dims.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_quad<const QUAD: i32, const R: usize>(
    sums: &mut [[int32x4_t; 4]; R],
    x: [int8x16_t; R],
    line: &ByteLine,
) {
    let q = load_line(line);
    for k in 0..R {
        for (sum, q) in sums[k].iter_mut().zip(q) {
            *sum = dot::<QUAD>(*sum, q, x[k]);
        }
    }
}

/// Adds to each sum the dot product of its four bytes of `q` and those of `x` from `4 * QUAD` on.
/// Assembly because the intrinsic, `vdotq_laneq_s32`, is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const QUAD: i32>(mut sums: int32x4_t, q: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: only computes on the registers it names, and the feature is there.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {q:v}.16b, {x:v}.4b[{quad}]",
            sums = inout(vreg) sums,
            q = in(vreg) q,
            x = in(vreg) x,
            quad = const QUAD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// A row of `dims` bytes.
#[inline]
#[target_feature(enable = "neon")]
fn wide_tile(row: &[u8], batch: &ByteQueries, group: usize) -> [i32; 16] {
    let (full, [last]) = steps([row], batch);
    let mut sums = [[vdupq_n_s32(0); 2]; 4];
    for step in 0..batch.dims().div_ceil(16) {
        let x = if step < full {
            // SAFETY: `16 * full` is within the length of the row; the load may be unaligned.
            unsafe { vld1q_s8(row.as_ptr().add(step * 16).cast()) }
        } else {
            last
        };
        let line = |quad| &batch.lines()[(step * 4 + quad) * batch.groups() + group];
        wide_quad::<0>(&mut sums, x, line(0));
        wide_quad::<1>(&mut sums, x, line(1));
        wide_quad::<2>(&mut sums, x, line(2));
        wide_quad::<3>(&mut sums, x, line(3));
    }
    store(sums.map(|[low, high]| vpaddq_s32(low, high)))
}

/// Two sums for each query, of two dims each.
#[inline]
#[target_feature(enable = "neon")]
fn wide_quad<const QUAD: i32>(sums: &mut [[int32x4_t; 2]; 4], x: int8x16_t, line: &ByteLine) {
    let x = vreinterpretq_s8_s32(vdupq_laneq_s32::<QUAD>(vreinterpretq_s32_s8(x)));
    for ([low, high], q) in sums.iter_mut().zip(load_line(line)) {
        *low = vpadalq_s16(*low, vmull_s8(vget_low_s8(q), vget_low_s8(x)));
        *high = vpadalq_s16(*high, vmull_high_s8(q, x));
    }
}

/// How many whole steps of 16 dims the rows have, and their codes after those, with zeros.
///
/// A tile takes both in one loop: written out a second time, a step would not be inlined, and its sums
/// would leave the registers.
#[inline]
#[target_feature(enable = "neon")]
fn steps<const R: usize>(rows: [&[u8]; R], batch: &ByteQueries) -> (usize, [int8x16_t; R]) {
    let dims = batch.dims();
    assert!(rows.iter().all(|row| row.len() == dims), "rows of other dims than the queries");
    let last = load!(vdupq_n_s8(0), rows, |row| {
        let mut codes = [0u8; 16];
        codes[..dims % 16].copy_from_slice(&row[dims / 16 * 16..]);
        // SAFETY: `codes` is 16 bytes long; the load may be unaligned.
        unsafe { vld1q_s8(codes.as_ptr().cast()) }
    });
    (dims / 16, last)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_line(line: &ByteLine) -> [int8x16_t; 4] {
    let codes = line.0.as_flattened().as_ptr();
    // SAFETY: a line is 64 bytes.
    unsafe { [vld1q_s8(codes), vld1q_s8(codes.add(16)), vld1q_s8(codes.add(32)), vld1q_s8(codes.add(48))] }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(sums: [int32x4_t; 4]) -> [i32; 16] {
    let mut products = [0; 16];
    for (four, sums) in products.chunks_exact_mut(4).zip(sums) {
        // SAFETY: `four` is 4 numbers long; the store may be unaligned.
        unsafe { vst1q_s32(four.as_mut_ptr(), sums) };
    }
    products
}
