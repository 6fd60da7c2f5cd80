//! Dot products of rows and queries, one kernel for each instruction set.
//!
//! [`Kernel`] is the interface to the engine: products of a tile of rows of one block with packed queries.
//! `scalar` transcribes `format-spec/encodings.md` and is the oracle; each other folder has the kernels of
//! one architecture, which give the oracle's bits. All `unsafe` of the scan is in those folders, and relies
//! on the checks of [`Rows::new`] and of the packed queries.
//!
//! # Adding a kernel
//! 1. A file in the folder of its architecture (a new folder is declared here, for its targets only),
//!    with a type that only its `detect` makes, and only where the instructions exist.
//! 2. `impl Kernel` for it. Only [`Kernel::name`] has a default: an operation without instructions of its own
//!    forwards explicitly to another kernel's function, or to the one in `scalar`.
//! 3. A line in the list of `choice.rs`, slowest first, which adds the kernel to [`KernelChoice::ALL`], its
//!    names and the environment variable. Then `detect.rs` does not compile without it.
//! 4. Its constants in `speeds.rs`, measured with `cargo bench --bench kernels`.
//!
//! `tests.rs` takes every kernel of [`KernelChoice::ALL`] that the machine can run and compares each
//! operation with the oracle, bit for bit: lengths around every register, rows that are unaligned,
//! sparse or padded, numbers of all kinds, and codes at which partial sums could overflow. For aarch64,
//! `scripts/test-aarch64.sh` runs them under emulation. So a new kernel needs no new tests, unless it
//! behaves differently on machines that all support it (`variants`).
//!
//! The folder uses only `codec::lanes` of the crate, so that it compiles by itself: for another architecture,
//! and in `benches/kernels.rs`.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod choice;
mod detect;
mod narrow;
mod packed;
mod scalar;
mod speeds;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod tiling;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use choice::{KernelChoice, KernelError};
pub(crate) use narrow::Narrow;
pub(crate) use packed::{ByteQueries, FloatQueries, IntegerQueries, PlaneQueries};
pub(crate) use speeds::{Speed, Speeds};

/// The products of one instruction set. Every implementation gives the same bits.
///
/// Products are in the order of queries: that of query `queries.start + j` and row `i` is at
/// `j * rows.len() + i`.
///
/// # Panics
/// If `rows` was checked for another encoding or other dims than the queries have, `queries` is not within
/// the batch, or the length of `out` is not the number of products: errors of the engine, which no file and
/// no caller can cause.
pub(crate) trait Kernel: std::fmt::Debug + Send + Sync {
    /// The choice of this kernel.
    fn choice(&self) -> KernelChoice;

    /// The name, in requests and statistics.
    fn name(&self) -> &'static str {
        self.choice().name()
    }

    /// The approximate speed, as the planner's initial estimate.
    fn speeds(&self) -> Speeds;

    /// The number of products that take some milliseconds.
    fn products(&self) -> usize;

    /// `f32` rows: sixteen lanes of fused multiply-adds in f32.
    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]);

    /// `f16` rows: the codes as numbers, without their scale; otherwise as `f32`.
    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]);

    /// `i8` rows and 16-bit queries: the exact integer sums.
    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]);

    /// Whether [`Kernel::bytes`] is faster than [`Kernel::i8`] for many queries.
    fn has_bytes(&self) -> bool;

    /// `i8` rows and queries in signed bytes: the exact integer sums. For screening many queries.
    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]);

    /// Rows of one bit per dim and queries in bit planes: the exact integer sums of the query's numbers over
    /// the row's set bits. For screening few queries.
    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]);

    /// Narrows `f32` rows to signed bytes; see [`Narrow`].
    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow);

    /// Narrows `f16` rows, without their scale, to signed bytes; see [`Narrow`].
    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow);
}

/// Rows of one block in a slice of bytes, which is checked to contain them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
    /// Bytes of a row's codes, without padding.
    row_bytes: usize,
    select: Select<'a>,
}

/// The selected rows of the slice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Select<'a> {
    /// The first `n` rows.
    First(usize),
    /// These rows, in this order.
    List(&'a [u32]),
}

impl<'a> Rows<'a> {
    /// Rows of `row_bytes` bytes of codes, `stride` apart; `None` if one would end past `bytes`.
    pub fn new(bytes: &'a [u8], stride: usize, row_bytes: usize, select: Select<'a>) -> Option<Self> {
        let last = match select {
            Select::First(rows) => rows.checked_sub(1),
            Select::List(rows) => rows.iter().max().map(|&row| row as usize),
        };
        if let Some(last) = last {
            let end = last.checked_mul(stride)?.checked_add(row_bytes)?;
            if end > bytes.len() {
                return None;
            }
        }
        Some(Self { bytes, stride, row_bytes, select })
    }

    pub fn len(&self) -> usize {
        match self.select {
            Select::First(rows) => rows,
            Select::List(rows) => rows.len(),
        }
    }

    /// The codes of row `i` of the selection, without padding.
    pub fn row(&self, i: usize) -> &'a [u8] {
        let row = match self.select {
            Select::First(_) => i,
            Select::List(rows) => rows[i] as usize,
        };
        &self.bytes[row * self.stride..][..self.row_bytes]
    }

    /// Checks the lengths of the contract of [`Kernel`]: the dims of a batch of `count` queries are those of
    /// rows of `row_bytes`.
    fn check(&self, row_bytes: usize, count: usize, queries: &Range<usize>, out: usize) {
        assert_eq!(self.row_bytes, row_bytes, "queries of other dims, or rows of another encoding");
        assert!(queries.start <= queries.end && queries.end <= count, "{queries:?} of {count} queries");
        assert_eq!(out, self.len() * queries.len(), "length of the output");
    }
}
