//! AVX-512 with VNNI and VPOPCNTDQ: four products of bytes, or two of 16 bits, and their sum in one
//! instruction, and the bits of a register counted in another.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::narrow::Narrow;
use super::super::packed::{
    BitLine, ByteLine, ByteQueries, FloatQueries, IntegerLine, IntegerQueries, PlaneQueries,
};
use super::super::speeds::Speeds;
use super::super::{Kernel, KernelChoice, Rows};
use super::avx512::{self, STEPS, check, flush, make_i8_tile};
use super::{FIRST_CACHE, load, one_query_or_tiles, put, tiles};

/// Proves that the instructions exist.
#[derive(Debug)]
pub(in super::super) struct Avx512Vnni(());

impl Avx512Vnni {
    pub fn detect() -> Option<&'static Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512vpopcntdq");
        all.then_some(&Self(()))
    }
}

impl Kernel for Avx512Vnni {
    fn choice(&self) -> KernelChoice {
        KernelChoice::Avx512Vnni
    }

    fn speeds(&self) -> Speeds {
        Speeds::AVX512VNNI
    }

    fn products(&self) -> usize {
        1 << 28
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(4 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { avx512::f32_rows(rows, batch, queries, out) }
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        rows.check(2 * batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { avx512::f16_rows(rows, batch, queries, out) }
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { i8_rows(rows, batch, queries, out) }
    }

    fn has_bytes(&self) -> bool {
        true
    }

    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims(), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { bytes_rows(rows, batch, queries, out) }
    }

    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        rows.check(batch.dims().div_ceil(8), batch.len(), &queries, out.len());
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { planes_rows(rows, batch, queries, out) }
    }

    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { avx512::narrow_f32(rows, out) }
    }

    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow) {
        // SAFETY: `self` exists only where `detect` has found the features.
        unsafe { avx512::narrow_f16(rows, out) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn i8_rows(rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
    one_query_or_tiles!(rows, queries, out, R = 4, Q = 4, i8_tile, |query| batch.lines(query));
}

/// With fewer queries than this, reading the rows from memory takes longer than counting their bits.
const FEW_QUERIES: usize = 12;

/// With few queries, memory is read fastest in one stream, with loads that do not wait for counts; several
/// rows at once if the planes of a query do not fit L1. With many queries, four rows share the loaded planes.
/// (`benches/kernels.rs`: one query of 8,192 to 32,768 dims reads 23 to 29 GB/s in this way, and 9 to 10 GB/s
/// line by line; 64 queries in four rows take two thirds of the time of one row.)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq")]
fn planes_rows(rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
    let fit = queries.clone().next().is_none_or(|query| size_of_val(batch.lines(query)) <= FIRST_CACHE);
    match queries.len() < FEW_QUERIES {
        true if fit => tiles!(rows, queries, out, R = 1, Q = 1, planes_tile, |query| batch.lines(query), 8),
        true => tiles!(rows, queries, out, R = 6, Q = 1, planes_tile, |query| batch.lines(query), 2),
        false => tiles!(rows, queries, out, R = 4, Q = 1, planes_tile, |query| batch.lines(query), 1),
    }
}

make_i8_tile!("avx512f,avx512bw,avx512vl,avx512vnni", |sum, x, q| _mm512_dpwssd_epi32(sum, x, q));

/// Sums of a row with sixteen queries.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct SumLine([i32; 16]);

/// The number of rows to multiply with one part of the dims before the next part: their sums stay in L1.
const BYTES_ROWS: usize = 48;
/// Bytes of packed queries in a part of the dims: they stay in L2.
const PART_BYTES: usize = 256 << 10;

/// Multiplies the queries' lines of a part of the dims with a few rows at once. The instruction multiplies
/// unsigned bytes with signed bytes: its operand is `row + 128`, and the sums begin at `-128 * sum of query`.
/// They may wrap in between; the result fits 32 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn bytes_rows(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    if queries.is_empty() || rows.len() == 0 {
        return;
    }
    let (first, end) = (queries.start / 16, queries.end.div_ceil(16));
    let groups = end - first;
    let begin = |group: usize| {
        let mut line = SumLine([0; 16]);
        let sums = batch.sums()[16 * group..].iter();
        line.0.iter_mut().zip(sums).for_each(|(start, sum)| *start = sum.wrapping_mul(-128));
        line
    };
    let starts: Vec<SumLine> = (first..end).map(begin).collect();
    let mut sums = vec![SumLine([0; 16]); groups * BYTES_ROWS.min(rows.len())];

    let quads = batch.dims().div_ceil(4);
    let step = (PART_BYTES / (64 * groups)).max(16);
    for top in (0..rows.len()).step_by(BYTES_ROWS) {
        let height = BYTES_ROWS.min(rows.len() - top);
        let sums = &mut sums[..height * groups];
        sums.chunks_exact_mut(groups).for_each(|sums| sums.copy_from_slice(&starts));
        for quad in (0..quads).step_by(step) {
            let tile = ByteTile { batch, quads: quad..quads.min(quad + step), first, groups };
            let mut i = 0;
            while i < height {
                let row = |k: usize| rows.row(top + i + k);
                i += match height - i {
                    6.. => tile.rows(std::array::from_fn::<_, 6, _>(row), &mut sums[i * groups..]),
                    3.. => tile.rows(std::array::from_fn::<_, 3, _>(row), &mut sums[i * groups..]),
                    _ => tile.rows([row(0)], &mut sums[i * groups..]),
                };
            }
        }
        for (j, query) in queries.clone().enumerate() {
            let out = &mut out[j * rows.len() + top..][..height];
            for (out, sums) in out.iter_mut().zip(sums.chunks_exact(groups)) {
                *out = sums[query / 16 - first].0[query % 16];
            }
        }
    }
}

/// Some quads of dims of some groups of queries.
struct ByteTile<'a> {
    batch: &'a ByteQueries,
    quads: Range<usize>,
    first: usize,
    groups: usize,
}

impl ByteTile<'_> {
    /// Adds the products of these dims to the `groups` sums of each row. Returns the number of rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn rows<const R: usize>(&self, rows: [&[u8]; R], sums: &mut [SumLine]) -> usize {
        let mut group = 0;
        while group < self.groups {
            group += match self.groups - group {
                4.. => self.groups::<R, 4>(rows, group, sums),
                3 => self.groups::<R, 3>(rows, group, sums),
                2 => self.groups::<R, 2>(rows, group, sums),
                _ => self.groups::<R, 1>(rows, group, sums),
            };
        }
        R
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn groups<const R: usize, const G: usize>(
        &self,
        rows: [&[u8]; R],
        group: usize,
        sums: &mut [SumLine],
    ) -> usize {
        let (dims, all) = (self.batch.dims(), self.batch.groups());
        let lines: &[ByteLine] = &self.batch.lines()[self.first + group..];
        let (full, end) = (self.quads.end.min(dims / 4), self.quads.end);
        assert!(rows.iter().all(|row| row.len() == dims), "rows of unequal length");
        assert!(end == 0 || (end - 1) * all + G <= lines.len(), "queries shorter than the row");
        let mut tile = [[_mm512_setzero_si512(); G]; R];
        for (tile, sums) in tile.iter_mut().zip(sums.chunks_exact(self.groups)) {
            for (sum, line) in tile.iter_mut().zip(&sums[group..]) {
                // SAFETY: a line is 64 aligned bytes.
                *sum = unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
            }
        }
        // Opaque; otherwise the compiler gathers the rows' quads to flip them all at once, and spills.
        let flip = std::hint::black_box(_mm512_set1_epi8(-128));
        for quad in self.quads.start..full {
            // SAFETY: `4 * (quad + 1) <= dims`, the length of each row; the load may be unaligned.
            let x = load!(_mm512_setzero_si512(), rows, |row| _mm512_set1_epi32(unsafe {
                row.as_ptr().add(4 * quad).cast::<i32>().read_unaligned()
            }));
            // SAFETY: the assertion checks the `G` lines of the last quad.
            unsafe { quad_products(&mut tile, x, flip, lines.as_ptr().add(quad * all)) };
        }
        if full < end {
            let x = load!(_mm512_setzero_si512(), rows, |row| {
                let mut codes = [0u8; 4];
                codes[..dims % 4].copy_from_slice(&row[4 * full..]);
                _mm512_set1_epi32(i32::from_le_bytes(codes))
            });
            // SAFETY: as above; the query is zero where the row has no codes.
            unsafe { quad_products(&mut tile, x, flip, lines.as_ptr().add(full * all)) };
        }
        for (tile, sums) in tile.iter().zip(sums.chunks_exact_mut(self.groups)) {
            for (&sum, line) in tile.iter().zip(&mut sums[group..]) {
                // SAFETY: a line is 64 aligned bytes.
                unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), sum) };
            }
        }
        G
    }
}

/// Four codes of each row times the same four of each query of `G` groups.
///
/// # Safety
/// `lines` points to `G` lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn quad_products<const R: usize, const G: usize>(
    sums: &mut [[__m512i; G]; R],
    x: [__m512i; R],
    flip: __m512i,
    lines: *const ByteLine,
) {
    let mut q = [_mm512_setzero_si512(); G];
    for (g, q) in q.iter_mut().enumerate() {
        // SAFETY: the line, 64 aligned bytes, is the caller's contract.
        *q = unsafe { _mm512_load_si512(lines.add(g).cast()) };
    }
    for k in 0..R {
        let x = _mm512_xor_si512(x[k], flip);
        for g in 0..G {
            sums[k][g] = _mm512_dpbusd_epi32(sums[k][g], x, q[g]);
        }
    }
}

/// Rows of `dims / 8` bytes, rounded up; each plane of a query has `dims` bits. `L` lines of each row are
/// loaded before the first of them is counted.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq")]
fn planes_tile<const R: usize, const Q: usize, const L: usize>(
    rows: [&[u8]; R],
    queries: [&[BitLine]; Q],
) -> [[i32; Q]; R] {
    const PLANES: usize = PlaneQueries::PLANES;
    let bytes = rows[0].len();
    let (full, rest) = (bytes / 64, bytes % 64);
    let mask = (1u64 << rest) - 1;
    check(&rows, bytes, queries.map(<[_]>::len), bytes.div_ceil(64) * PLANES);
    let mut products = [[0; Q]; R];
    for (l, query) in queries.iter().enumerate() {
        let mut counts = [[_mm512_setzero_si512(); PLANES]; R];
        // SAFETY: `64 * (line + 1) <= bytes`, the length of each row; the load may be unaligned.
        let line_of = |row: &[u8], line| unsafe { _mm512_loadu_si512(row.as_ptr().add(line * 64).cast()) };
        let mut line = 0;
        while line + L <= full {
            let mut lines = [[_mm512_setzero_si512(); R]; L];
            for (k, row) in rows.iter().enumerate() {
                for (i, x) in lines.iter_mut().enumerate() {
                    x[k] = line_of(row, line + i);
                }
            }
            for (i, x) in lines.into_iter().enumerate() {
                // SAFETY: `check` ensures the planes of these lines.
                unsafe { count(&mut counts, x, query.as_ptr().add((line + i) * PLANES)) };
            }
            line += L;
        }
        for line in line..full {
            let x = load!(_mm512_setzero_si512(), rows, |row| line_of(row, line));
            // SAFETY: `check` ensures the planes of this line.
            unsafe { count(&mut counts, x, query.as_ptr().add(line * PLANES)) };
        }
        if rest > 0 {
            // SAFETY: the mask selects the `rest` bytes that each row has left, and no others.
            let x = load!(_mm512_setzero_si512(), rows, |row| unsafe {
                _mm512_maskz_loadu_epi8(mask, row.as_ptr().add(full * 64).cast())
            });
            // SAFETY: `check` ensures the planes of this line.
            unsafe { count(&mut counts, x, query.as_ptr().add(full * PLANES)) };
        }
        for (products, counts) in products.iter_mut().zip(counts) {
            // Horner's rule from the top plane, whose weight is negative.
            let mut sum = _mm512_sub_epi64(_mm512_setzero_si512(), counts[PLANES - 1]);
            for &count in counts[..PLANES - 1].iter().rev() {
                sum = _mm512_add_epi64(_mm512_add_epi64(sum, sum), count);
            }
            products[l] = _mm512_reduce_add_epi64(sum) as i32;
        }
    }
    products
}

/// # Safety
/// `planes` points to one line for each plane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq")]
unsafe fn count<const R: usize, const P: usize>(
    counts: &mut [[__m512i; P]; R],
    x: [__m512i; R],
    planes: *const BitLine,
) {
    for bit in 0..P {
        // SAFETY: the line, 64 aligned bytes, is the caller's contract.
        let plane = unsafe { _mm512_load_si512(planes.add(bit).cast()) };
        for (counts, &x) in counts.iter_mut().zip(&x) {
            let set = _mm512_popcnt_epi64(_mm512_and_si512(x, plane));
            counts[bit] = _mm512_add_epi64(counts[bit], set);
        }
    }
}
