//! Dot products of rows and queries, one kernel for each instruction set.
//!
//! [`Kernel`] is all that the engine knows: a tile of rows of one block times a batch of packed
//! queries. `scalar` transcribes `format-spec/encodings.md` and is the oracle; each folder beside it
//! holds the kernels of one architecture, which give the oracle's bits. All `unsafe` of the scan is
//! in those folders, and rests on what [`Rows::new`] and the packed queries have checked here.
//!
//! # Adding a kernel
//! 1. A file in the folder of its architecture (a new folder is declared here, for its targets only),
//!    with a type that only its `detect` makes, and only where the instructions exist.
//! 2. `impl Kernel` for it. No method but [`Kernel::name`] has a default: what it has no instructions
//!    for it forwards to another kernel's function, or to the one in `scalar`, in so many words.
//! 3. A line in the list of `choice.rs`, slowest first. Until then [`Kernel::choice`] has nothing to
//!    return; after it [`KernelChoice::ALL`], the names and the environment variable know the kernel,
//!    and the compiler asks for it in `KernelChoice::supported`. A kernel that is left out there is dead
//!    code, which the lints refuse.
//! 4. Its constants in `speeds.rs`, measured with `cargo bench --bench kernels`.
//!
//! `tests.rs` takes every kernel of [`KernelChoice::ALL`] that the machine can run and compares each
//! operation with the oracle, bit for bit: lengths around every register, rows that are unaligned,
//! sparse or padded, numbers of all kinds, and codes at which partial sums could overflow. For aarch64
//! `scripts/test-aarch64.sh` runs them under emulation. So nothing is to be added there, except where a
//! kernel behaves differently on machines that all can run it (`variants`).
//!
//! The folder uses nothing else of the crate but `codec::lanes`, so that it compiles by itself: for
//! another architecture, and in `benches/kernels.rs`.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod choice;
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

/// What an instruction set has to offer. Every implementation gives the same bits.
///
/// Products come out query after query: that of query `queries.start + j` and row `i` stands at
/// `j * rows.len() + i`.
///
/// # Panics
/// If `rows` was checked for another code or other dims than the queries have, `queries` is not
/// within the batch, or `out` is not as long as there are products: mistakes of the engine, which
/// no file and no caller can cause.
pub(crate) trait Kernel: std::fmt::Debug + Send + Sync {
    /// The choice that stands for it.
    fn choice(&self) -> KernelChoice;

    /// The name by which it is asked for, and named in the statistics.
    fn name(&self) -> &'static str {
        self.choice().name()
    }

    /// How fast it is, about: for the planner to begin with.
    fn speeds(&self) -> Speeds;

    /// How many products take it some milliseconds.
    fn products(&self) -> usize;

    /// `f32` rows: sixteen lanes of fused multiply-adds in f32.
    fn f32(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]);

    /// `f16` rows: the codes as numbers, without their scale; else as `f32`.
    fn f16(&self, rows: &Rows<'_>, batch: &FloatQueries, queries: Range<usize>, out: &mut [f32]);

    /// `i8` rows and 16-bit queries: the exact integer sums.
    fn i8(&self, rows: &Rows<'_>, batch: &IntegerQueries, queries: Range<usize>, out: &mut [i64]);

    /// Whether [`Kernel::bytes`] is faster than [`Kernel::i8`] for many queries.
    fn has_bytes(&self) -> bool;

    /// `i8` rows and queries in signed bytes: the exact integer sums. For screening many queries.
    fn bytes(&self, rows: &Rows<'_>, batch: &ByteQueries, queries: Range<usize>, out: &mut [i32]);

    /// Rows of one bit a dim and queries in bit planes: the exact integer sums of the query's numbers
    /// where the row's bit is set. For screening few queries.
    fn planes(&self, rows: &Rows<'_>, batch: &PlaneQueries, queries: Range<usize>, out: &mut [i32]);

    /// `f32` rows in signed bytes; see [`Narrow`].
    fn narrow_f32(&self, rows: &Rows<'_>, out: &mut Narrow);

    /// `f16` rows in signed bytes, without their scale; see [`Narrow`].
    fn narrow_f16(&self, rows: &Rows<'_>, out: &mut Narrow);
}

/// Rows of one block in a slice of bytes; every byte that they need is known to be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
    /// Bytes of a row's codes, without padding.
    row_bytes: usize,
    select: Select<'a>,
}

/// Which rows of the slice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Select<'a> {
    /// The first `n`.
    First(usize),
    /// These, in this order.
    List(&'a [u32]),
}

impl<'a> Rows<'a> {
    /// Rows of `row_bytes` bytes of codes, `stride` apart; `None` if one would end beyond `bytes`.
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

    /// The codes of the `i`-th row of the selection, without padding.
    pub fn row(&self, i: usize) -> &'a [u8] {
        let row = match self.select {
            Select::First(_) => i,
            Select::List(rows) => rows[i] as usize,
        };
        &self.bytes[row * self.stride..][..self.row_bytes]
    }

    /// The contract of [`Kernel`], as far as lengths go: a batch of `count` queries goes with rows of
    /// `row_bytes`.
    fn check(&self, row_bytes: usize, count: usize, queries: &Range<usize>, out: usize) {
        assert_eq!(self.row_bytes, row_bytes, "queries of other dims, or rows of another encoding");
        assert!(queries.start <= queries.end && queries.end <= count, "{queries:?} of {count} queries");
        assert_eq!(out, self.len() * queries.len(), "length of the output");
    }
}
