//! AMX int8: one instruction multiplies 16 rows of 64 bytes with 16 queries.
//!
//! In this file, "tile" is AMX's: a register of 16 rows of 64 bytes. A tile of rows is loaded in place, 64
//! bytes of each of 16 rows; a tile of queries is sixteen lines of [`ByteQueries`]. Two tiles of rows times
//! two of queries use the eight tile registers: four of them hold sums, so that a product does not wait for
//! the previous one, with one load per product. A 16-bit query is two signed bytes, `256 * high + low`, and
//! so two tiles. All sums are integers, so their order does not matter. The AVX-512 kernel does the rest:
//! floats, bits, and small numbers of 16-bit queries.
//!
//! # Permission
//! A CPUID bit is not enough. The operating system must save the tiles (XCR0), and Linux requires a request,
//! because tiles make signal frames larger: `arch_prctl(ARCH_REQ_XCOMP_PERM)`. The request fails if a
//! thread's signal stack is too small. The permission applies to the whole process, including running
//! threads. Finally, a small product is computed, and the kernel is used only if it equals the oracle's. All
//! this is done once, when a kernel is first chosen. Tiles are configured per thread, and only within a call.
//!
//! # Testing on other machines
//! Without AMX, the tests below print a message and pass. To run them anyway, link a handler of SIGILL into
//! the test program that emulates the six instructions of this file by Intel's manual, checks its
//! restrictions (reserved bytes, tiles of unequal shapes, tiles that are not configured), holds the tiles per
//! thread, and resumes after the instruction; and let [`Amx::detect`] skip `has_tiles` and `permitted`. This
//! covers encodings, addresses and sums, but neither the permission nor the speed, which need the hardware.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ops::Range;
use std::sync::OnceLock;

use super::super::narrow::Narrow;
use super::super::packed::{BitLine, ByteLine, ByteQueries, FloatQueries, IntegerQueries, PlaneQueries};
use super::super::speeds::Speeds;
use super::super::{Kernel, KernelChoice, Rows, Select, scalar};
use super::{Avx512, Avx512Vnni};

/// The number of rows, and of queries, of a tile.
const SIDE: usize = 16;
/// The dims of a step: the bytes of one row of a tile.
const STEP: usize = 64;
/// The maximum bytes of packed queries in use at once, so that they stay in L2.
const QUERY_BYTES: usize = 1 << 20;
/// The maximum number of dims at once: a copy of two tiles of rows that cannot be loaded in place also fits
/// in L2, and sums of products of bytes fit 32 bits.
const MOST_DIMS: usize = 8192;
const _: () = assert!(MOST_DIMS.is_multiple_of(STEP) && MOST_DIMS * 128 * 128 < 1 << 31);
/// The minimum number of queries: a tile costs the same for one query as for sixteen, and with fewer queries
/// than this, filling tiles and adding their sums does not pay.
const FEWEST: usize = 8;

/// Proves that the instructions exist, and that this process may use them.
#[derive(Debug)]
pub(in super::super) struct Amx {
    /// The kernel for the rest.
    vectors: &'static dyn Kernel,
}

impl Amx {
    pub fn detect() -> Option<&'static Self> {
        static AMX: OnceLock<Option<Amx>> = OnceLock::new();
        AMX.get_or_init(|| {
            let vectors: &dyn Kernel = match Avx512Vnni::detect() {
                Some(kernel) => kernel,
                None => Avx512::detect()?,
            };
            (has_tiles() && permitted()).then_some(Self { vectors }).filter(Self::on_trial)
        })
        .as_ref()
    }

    /// Whether small products, of whole and of partial tiles, equal the oracle's.
    fn on_trial(&self) -> bool {
        let code = |i: usize| ((i * 40_503) >> 7) as u8;
        let queries: Vec<Vec<i8>> =
            (0..19).map(|query| (0..70).map(|dim| code(query * 331 + dim).cast_signed()).collect()).collect();
        let queries = ByteQueries::new(70, &queries);
        let bytes: Vec<u8> = (0..35 * 71).map(|i| code(i + 77_777)).collect();
        let Some(rows) = Rows::new(&bytes, 71, 70, Select::First(35)) else { return false };
        let [mut expected, mut found] = [0, 1].map(|unlike| vec![unlike; 35 * 19]);
        scalar::bytes(&rows, &queries, 0..19, &mut expected);
        self.bytes(&rows, &queries, 0..19, &mut found);
        expected == found
    }
}

/// Whether the CPU has tiles of the required shape, and the operating system saves them.
fn has_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX: u32 = 1 << 24 | 1 << 25;
    const TILES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 0x1D || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & AMX != AMX {
        return false;
    }
    // SAFETY: OSXSAVE says that XGETBV exists and may be used.
    if unsafe { _xgetbv(0) } & TILES != TILES {
        return false;
    }
    // Palette 1: 8 tiles of 1024 bytes, each 16 rows of 64.
    let palette = __cpuid_count(0x1D, 1);
    (palette.eax >> 16, palette.ebx, palette.ecx & 0xFFFF) == (1024, 8 << 16 | 64, 16)
}

/// Requests the permission to use tiles from Linux.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let status: i64;
    // SAFETY: a system call that takes two numbers and touches no memory of ours; a kernel that does
    // not support it returns an error. It clobbers what is declared here, and no stack.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    status == 0
}

/// There is no known request on other systems.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

impl Kernel for Amx {
    fn choice(&self) -> KernelChoice {
        KernelChoice::Amx
    }

    fn speeds(&self) -> Speeds {
        Speeds::AMX
    }

    fn products(&self) -> usize {
        1 << 28
    }

    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        self.vectors.f32(rows, batch, queries, out);
    }

    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]) {
        self.vectors.f16(rows, batch, queries, out);
    }

    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
        if queries.len() < FEWEST {
            return self.vectors.i8(rows, batch, queries, out);
        }
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
        unsafe { byte_rows(rows, batch, queries, out) }
    }

    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]) {
        self.vectors.planes(rows, batch, queries, out);
    }

    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow) {
        self.vectors.narrow_f32(rows, out);
    }

    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow) {
        self.vectors.narrow_f16(rows, out);
    }
}

/// # Safety
/// The CPU has tiles, and the process may use them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn i8_rows(rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]) {
    let (count, groups) = (rows.len(), queries.start / SIDE..queries.end.div_ceil(SIDE));
    let columns = batch.len().div_ceil(SIDE) * 2;
    out.fill(0);
    let add = |first: usize, height: usize, column: usize, sums: &Sums| {
        for (l, query) in (column / 2 * SIDE..).take(SIDE).enumerate() {
            if queries.contains(&query) {
                let out = &mut out[(query - queries.start) * count + first..][..height];
                for ([high, low], out) in sums.0.iter().zip(out.chunks_mut(SIDE)) {
                    for ((high, low), out) in high.iter().zip(low).zip(out) {
                        *out += 256 * i64::from(high[l]) + i64::from(low[l]);
                    }
                }
            }
        }
    };
    // SAFETY: by contract.
    unsafe { each_block(rows, batch.planes(), columns, groups.start * 2..groups.end * 2, add) }
}

/// # Safety
/// As for [`i8_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn byte_rows(rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]) {
    let (count, groups) = (rows.len(), queries.start / SIDE..queries.end.div_ceil(SIDE));
    out.fill(0);
    let add = |first: usize, height: usize, group: usize, sums: &Sums| {
        for (j, query) in (group * SIDE..).take(2 * SIDE).enumerate() {
            if queries.contains(&query) {
                let out = &mut out[(query - queries.start) * count + first..][..height];
                for (tiles, out) in sums.0.iter().zip(out.chunks_mut(SIDE)) {
                    for (sums, out) in tiles[j / SIDE].iter().zip(out) {
                        *out += sums[j % SIDE];
                    }
                }
            }
        }
    };
    // SAFETY: by contract.
    unsafe { each_block(rows, batch.lines(), batch.groups(), groups, add) }
}

/// For each of two tiles of rows and each of two tiles of queries, the sum of each row and query.
#[repr(C, align(64))]
struct Sums([[[[i32; SIDE]; SIDE]; 2]; 2]);

/// Multiplies two tiles of rows with two tiles of queries at a time, for one part of the dims after the
/// other.
///
/// `lines` holds `columns` adjacent tiles of queries, of which those in `wanted` are used. The arguments of
/// `add` are the first row, the number of rows, the first tile of queries, and the sums to add. Sums beyond
/// the last row and the last wanted tile are undefined.
///
/// # Safety
/// The CPU has tiles, and the process may use them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn each_block(
    rows: &Rows<'_>,
    lines: &[ByteLine],
    columns: usize,
    wanted: Range<usize>,
    mut add: impl FnMut(usize, usize, usize, &Sums),
) {
    let (count, dims) = (rows.len(), rows.row_bytes);
    assert_eq!(lines.len(), dims.div_ceil(STEP) * SIDE * columns, "lines of the queries");
    assert!(wanted.end <= columns, "{wanted:?} of {columns} tiles of queries");
    if count == 0 || wanted.is_empty() {
        return;
    }
    let most = (QUERY_BYTES / (wanted.len() * SIDE) / STEP * STEP).clamp(STEP, MOST_DIMS);
    let whole = dims / STEP * STEP;
    let mut copy = Vec::new();
    let mut sums = Sums([[[[0; SIDE]; SIDE]; 2]; 2]);
    // SAFETY: by contract.
    let _tiles = unsafe { Tiles::configure() };
    let mut start = 0;
    while start < dims {
        // The dims of a partial step are a separate part.
        let end = if start < whole { whole.min(start + most) } else { dims };
        let steps = (end - start).div_ceil(STEP);
        for first in (0..count).step_by(2 * SIDE) {
            let height = (count - first).min(2 * SIDE);
            let in_place = height == 2 * SIDE && end <= whole && matches!(rows.select, Select::First(_));
            let (codes, stride) = if in_place {
                (rows.row(first)[start..].as_ptr(), rows.stride)
            } else {
                // An odd number of lines, so that rows do not map to the same sets of L1.
                let width = steps | 1;
                copy.resize(copy.len().max(2 * SIDE * width), BitLine([0; 64]));
                for (i, copy) in (first..first + height).zip(copy.chunks_exact_mut(width)) {
                    for (line, codes) in copy.iter_mut().zip(rows.row(i)[start..end].chunks(STEP)) {
                        line.0[..codes.len()].copy_from_slice(codes);
                    }
                }
                (copy.as_ptr().cast(), width * STEP)
            };
            for column in wanted.clone().step_by(2) {
                let queries = lines[start / 4 * columns + column..].as_ptr();
                let block = Block { codes, stride, queries, columns, steps };
                // SAFETY: tiles are configured. The codes are `steps` times 64 bytes of each of 32 rows
                // (of 16 if `height` is no more), either of `rows`, whose last one is within their
                // bytes, or of `copy`. Each step takes 16 times `columns` lines, and `lines` has these
                // for all steps of `dims`; there is a second tile of queries if `column + 1` is one.
                unsafe { block.multiply(height > SIDE, column + 1 < wanted.end, &mut sums) }
                add(first, height, column, &sums);
            }
        }
        start = end;
    }
}

/// The configured tiles of this thread, each of 16 rows of 64 bytes; released on drop.
struct Tiles(());

impl Tiles {
    const CONFIGURATION: [u8; 64] = {
        let mut bytes = [0; 64];
        // The palette; bytes in a row, 16 bits each; rows.
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = STEP as u8;
            bytes[48 + tile] = SIDE as u8;
            tile += 1;
        }
        bytes
    };

    /// # Safety
    /// The CPU has tiles, and the process may use them.
    unsafe fn configure() -> Self {
        let configuration = Self::CONFIGURATION;
        // SAFETY: reads 64 bytes, and sets registers that the compiler does not use.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) &raw const configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a value of this type proves that the instructions exist.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// Two tiles of rows and two of queries, for some steps of 64 dims.
struct Block {
    codes: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    queries: *const ByteLine,
    /// Lines from one quad of dims to the next.
    columns: usize,
    /// At least one.
    steps: usize,
}

/// The sums in tiles 0 to 3, two for the first sixteen rows and two for the others; their rows in 4 and
/// 5, the queries in 6 and 7.
macro_rules! multiply {
    ($block:expr, $sums:expr, $($instruction:literal),+) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            $($instruction,)+
            "add {upper}, 64",
            "add {lower}, 64",
            "add {queries}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            upper = inout(reg) $block.codes => _,
            lower = inout(reg) $block.codes.wrapping_add($block.stride * SIDE) => _,
            stride = in(reg) $block.stride,
            queries = inout(reg) $block.queries => _,
            quad = in(reg) $block.columns * 64,
            step = in(reg) $block.columns * 64 * SIDE,
            steps = inout(reg) $block.steps => _,
            sums = in(reg) $sums,
            line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Block {
    /// Multiplies them; `tall` is whether there are the other sixteen rows, `wide` whether there is a
    /// second tile of queries.
    ///
    /// # Safety
    /// Tiles are configured. There are `steps` times 64 bytes of each row, and 16 lines of each tile of
    /// queries for each step.
    unsafe fn multiply(&self, tall: bool, wide: bool, sums: &mut Sums) {
        let sums: *mut Sums = sums;
        // SAFETY: reads what the contract says is there, and writes the four tiles of sums.
        unsafe {
            match (tall, wide) {
                (true, true) => multiply!(
                    self,
                    sums,
                    "tileloadd tmm4, [{upper} + {stride}]",
                    "tileloadd tmm6, [{queries} + {quad}]",
                    "tileloadd tmm7, [{queries} + {quad} + 64]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{lower} + {stride}]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7"
                ),
                (true, false) => multiply!(
                    self,
                    sums,
                    "tileloadd tmm4, [{upper} + {stride}]",
                    "tileloadd tmm6, [{queries} + {quad}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{lower} + {stride}]",
                    "tdpbssd tmm2, tmm5, tmm6"
                ),
                (false, true) => multiply!(
                    self,
                    sums,
                    "tileloadd tmm4, [{upper} + {stride}]",
                    "tileloadd tmm6, [{queries} + {quad}]",
                    "tileloadd tmm7, [{queries} + {quad} + 64]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm4, tmm7"
                ),
                (false, false) => multiply!(
                    self,
                    sums,
                    "tileloadd tmm4, [{upper} + {stride}]",
                    "tileloadd tmm6, [{queries} + {quad}]",
                    "tdpbssd tmm0, tmm4, tmm6"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::scalar::Scalar;
    use super::*;

    fn amx() -> Option<&'static Amx> {
        let amx = Amx::detect();
        if amx.is_none() {
            eprintln!("skipped: no AMX is granted here");
        }
        amx
    }

    /// Numbers without an order that a mistake could hide behind.
    fn code(i: usize) -> u64 {
        (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23).wrapping_mul(0xD1B5_4A32_D192_ED03)
            >> 17
    }

    struct Shape {
        rows: usize,
        dims: usize,
        stride: usize,
        offset: usize,
        queries: usize,
        range: Range<usize>,
        list: bool,
    }

    impl Shape {
        /// What two kernels give, for bytes and for 16 bits.
        fn products(&self, kernels: [&dyn Kernel; 2]) -> [(Vec<i32>, Vec<i64>); 2] {
            let &Self { rows, dims, stride, offset, queries, ref range, list } = self;
            // Padding that must not be read as codes.
            let bytes: Vec<u8> = (0..offset + rows * stride).map(|i| code(i) as u8).collect();
            // Backwards, with gaps and one row twice.
            let list: Option<Vec<u32>> =
                list.then(|| (0..rows as u32).rev().filter(|row| row % 5 != 2).chain([0]).collect());
            let select = list.as_deref().map_or(Select::First(rows), Select::List);
            let rows = Rows::new(&bytes[offset..], stride, dims, select).unwrap();
            let (mut bytes, mut integers) = (Vec::new(), IntegerQueries::new(dims));
            for query in 0..queries {
                let code = |dim| code(query * dims + dim + 1_000_003);
                bytes.push((0..dims).map(|dim| code(dim) as i8).collect());
                integers.push(
                    &(0..dims)
                        .map(|dim| (code(dim) % 65_025) as i32 - 32_512)
                        .map(|p| p as i16)
                        .collect::<Vec<_>>(),
                );
            }
            let bytes = ByteQueries::new(dims, &bytes);
            kernels.map(|kernel| {
                let products = rows.len() * range.len();
                let (mut of_bytes, mut of_integers) = (vec![1; products], vec![1; products]);
                kernel.bytes(&rows, &bytes, range.clone(), &mut of_bytes);
                kernel.i8(&rows, &integers, range.clone(), &mut of_integers);
                (of_bytes, of_integers)
            })
        }
    }

    /// Catches a tile in another's place, rows and dims beyond the last whole tile that are skipped,
    /// read twice or read beyond their end, a list that is read in order, and a range of queries that
    /// begins or ends within a tile.
    #[test]
    fn products_equal_the_oracle_at_the_edges_of_tiles() {
        let Some(amx) = amx() else { return };
        let mut shapes = 0;
        for (at, &dims) in [1, 3, 4, 63, 64, 65, 127, 128, 200, 1023, 1024].iter().enumerate() {
            for (of, &rows) in [1, 15, 16, 17, 31, 32, 33, 48, 64, 70].iter().enumerate() {
                for (queries, range) in [
                    (1, 0..1),
                    (8, 0..8),
                    (16, 0..16),
                    (17, 0..17),
                    (33, 7..31),
                    (64, 0..64),
                    (80, 15..65),
                    (100, 32..100),
                ] {
                    let (pad, list) = ((at + of + queries) % 3 * 11, (at + of + queries) % 4 == 1);
                    let shape = Shape {
                        rows,
                        dims,
                        stride: dims + pad,
                        offset: pad,
                        queries,
                        range: range.clone(),
                        list,
                    };
                    let [expected, found] = shape.products([&Scalar, amx]);
                    assert!(
                        expected == found,
                        "{rows} rows, {dims} dims, {range:?} of {queries}, list: {list}"
                    );
                    shapes += 1;
                }
            }
        }
        eprintln!("{shapes} shapes");
    }

    /// Catches a part of the dims that is lost or counted twice where queries or rows are too large for
    /// one part.
    #[test]
    fn products_equal_the_oracle_with_many_dims() {
        let Some(amx) = amx() else { return };
        for (rows, dims, queries) in [(33, 8192 + 70, 16), (5, 2 * 8192, 40), (40, 4096 + 1, 300)] {
            for list in [false, true] {
                let shape =
                    Shape { rows, dims, stride: dims + 64, offset: 1, queries, range: 0..queries, list };
                let [expected, found] = shape.products([&Scalar, amx]);
                assert!(expected == found, "{rows} rows, {dims} dims, {queries} queries, list: {list}");
            }
        }
    }

    /// Catches sums that leave 32 bits: every code is -128, and every query's code the largest.
    #[test]
    fn products_of_extreme_codes_do_not_overflow() {
        let Some(amx) = amx() else { return };
        for dims in [65_536, 131_071, 200_003] {
            for code in [32_512i16, -32_512, 32_384, -32_384] {
                let (bytes, mut queries) = (vec![0x80u8; dims * 3], IntegerQueries::new(dims));
                (0..9).for_each(|_| queries.push(&vec![code; dims]));
                let rows = Rows::new(&bytes, dims, dims, Select::First(3)).unwrap();
                let mut out = vec![0; 27];
                amx.i8(&rows, &queries, 0..9, &mut out);
                assert_eq!(out, [-128 * i64::from(code) * dims as i64; 27], "{dims} dims of {code}");
            }
        }
        let dims = ByteQueries::MOST_DIMS;
        let (bytes, queries) = (vec![0x80u8; dims], ByteQueries::new(dims, &[vec![-128; dims]]));
        let rows = Rows::new(&bytes, dims, dims, Select::First(1)).unwrap();
        let mut out = [0];
        amx.bytes(&rows, &queries, 0..1, &mut out);
        assert_eq!(out, [128 * 128 * dims as i32]);
    }

    /// Catches a permission that threads lack, and tiles that are not saved when threads take turns.
    #[test]
    fn products_in_several_threads_equal_the_oracle() {
        let Some(amx) = amx() else { return };
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    for turn in 0..20 {
                        let (rows, dims) = (32 + seed, 1024 + 64 * seed + turn % 3);
                        let shape = Shape {
                            rows,
                            dims,
                            stride: dims + seed,
                            offset: 0,
                            queries: 32,
                            range: 0..32,
                            list: false,
                        };
                        let [expected, found] = shape.products([&Scalar, amx]);
                        assert!(expected == found, "thread {seed}, turn {turn}");
                    }
                });
            }
        });
    }
}
