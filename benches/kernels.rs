//! The speed of the scan's kernels alone, on one core.
//!
//! The first table has one query over rows in memory, in bytes per second, compared with plain loads of the
//! same memory by the same core; and 64 queries, in products per cycle. The second table compares
//! `src/scan/kernel/speeds.rs` with speeds measured from cache.
//!
//! ```text
//! cargo bench --bench kernels                  # all that the machine can run
//! cargo bench --bench kernels -- avx2 planes   # these kernels, these operations
//! ```
//!
//! The kernels are private to the crate, so this program compiles their folder again.

#[expect(dead_code, unused_imports, reason = "a part of the crate, of which this program needs less")]
#[path = "../src/scan/kernel/mod.rs"]
mod kernel;
#[expect(dead_code, reason = "as above")]
#[path = "../src/codec"]
mod codec {
    pub mod lanes;
}
#[expect(dead_code, reason = "other benchmarks need the rest")]
mod roof;

use std::hint::black_box;
use std::time::{Duration, Instant};

use kernel::{
    ByteQueries, FloatQueries, IntegerQueries, Kernel, KernelChoice, Narrow, PlaneQueries, Rows, Select,
    Speed,
};
use roof::Memory;

/// Beyond the last cache of most machines.
const MEMORY: usize = 256 << 20;
/// Rows per call, similar to the engine's.
const ROWS: usize = 48;
const DIMS: [usize; 5] = [4096, 8192, 16_384, 32_768, 65_536];
const MANY: usize = 64;
/// The time budget of a figure, after its first run.
const PATIENCE: Duration = Duration::from_millis(60);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    F32,
    F16,
    I8,
    Bytes,
    Planes,
    NarrowF32,
    NarrowF16,
}

use Operation::{Bytes, F16, F32, I8, NarrowF16, NarrowF32, Planes};

impl Operation {
    const ALL: [Self; 7] = [F32, F16, I8, Bytes, Planes, NarrowF32, NarrowF16];

    fn name(self) -> &'static str {
        match self {
            F32 => "f32",
            F16 => "f16",
            I8 => "i8",
            Bytes => "bytes",
            Planes => "planes",
            NarrowF32 => "narrow_f32",
            NarrowF16 => "narrow_f16",
        }
    }

    fn row_bytes(self, dims: usize) -> usize {
        match self {
            F32 | NarrowF32 => 4 * dims,
            F16 | NarrowF16 => 2 * dims,
            I8 | Bytes => dims,
            Planes => dims / 8,
        }
    }

    fn has_queries(self) -> bool {
        !matches!(self, NarrowF32 | NarrowF16)
    }
}

/// A batch in each packing, and buffers for the products.
struct Batch {
    floats: FloatQueries,
    integers: IntegerQueries,
    bytes: ByteQueries,
    planes: PlaneQueries,
    of_floats: Vec<f32>,
    of_integers: Vec<i64>,
    of_bytes: Vec<i32>,
    narrow: Narrow,
}

impl Batch {
    fn new(dims: usize) -> Self {
        let (mut floats, mut integers) = (FloatQueries::new(dims), IntegerQueries::new(dims));
        let mut planes = PlaneQueries::new(dims);
        for _ in 0..MANY {
            floats.push(&vec![0.5; dims]);
            integers.push(&vec![3; dims]);
            planes.push(&vec![3; dims]);
        }
        Self {
            floats,
            integers,
            bytes: ByteQueries::new(dims, &vec![vec![3; dims]; MANY]),
            planes,
            of_floats: vec![0.0; ROWS * MANY],
            of_integers: vec![0; ROWS * MANY],
            of_bytes: vec![0; ROWS * MANY],
            narrow: Narrow::default(),
        }
    }

    fn run(&mut self, kernel: &dyn Kernel, operation: Operation, rows: &Rows<'_>, queries: usize) {
        let (all, length) = (0..queries, rows.len() * queries);
        match operation {
            F32 => kernel.f32(rows, &self.floats, all, &mut self.of_floats[..length]),
            F16 => kernel.f16(rows, &self.floats, all, &mut self.of_floats[..length]),
            I8 => kernel.i8(rows, &self.integers, all, &mut self.of_integers[..length]),
            Bytes => kernel.bytes(rows, &self.bytes, all, &mut self.of_bytes[..length]),
            Planes => kernel.planes(rows, &self.planes, all, &mut self.of_bytes[..length]),
            NarrowF32 => kernel.narrow_f32(rows, &mut self.narrow),
            NarrowF16 => kernel.narrow_f16(rows, &mut self.narrow),
        }
    }

    /// Seconds for a pass over `memory` in calls of `count` rows, for one query or many.
    fn seconds(
        &mut self,
        kernel: &dyn Kernel,
        operation: Operation,
        memory: &[u8],
        row_bytes: usize,
        count: usize,
        queries: usize,
    ) -> f64 {
        best(|| {
            for bytes in memory.chunks(row_bytes * count) {
                let count = bytes.len() / row_bytes;
                let rows = Rows::new(bytes, row_bytes, row_bytes, Select::First(count));
                self.run(kernel, operation, &rows.expect("whole rows"), queries);
            }
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes options of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let kernels: Vec<_> = KernelChoice::available()
        .filter(|kernel| {
            !words.iter().any(|word| is_kernel(word)) || words.iter().any(|w| w == kernel.name())
        })
        .collect();
    let operations: Vec<_> = Operation::ALL
        .into_iter()
        .filter(|operation| words.iter().all(|w| is_kernel(w)) || words.iter().any(|w| w == operation.name()))
        .collect();

    let mut memory = Memory::new(MEMORY)?;
    let read = MEMORY as f64 / memory.seconds(MEMORY, 1);
    // Small numbers in each encoding.
    let memory = memory.bytes();
    memory.fill(0x11);
    let clock = clock();
    println!("one core reads {:.1} GB/s; {:.2} GHz", read / 1e9, clock / 1e9);

    println!(
        "\n{:<10} {:>10} {:>6} {:>9} {:>8} {:>13}",
        "kernel", "operation", "dims", "1: GB/s", "of read", "64: MAC/cycle"
    );
    for &kernel in &kernels {
        for &operation in &operations {
            for dims in DIMS {
                let mut batch = Batch::new(dims);
                let row_bytes = operation.row_bytes(dims);
                // The oracle is a thousand times slower.
                let bytes = if kernel.choice() == KernelChoice::Scalar { 4 << 20 } else { MEMORY };
                let one = batch.seconds(kernel, operation, &memory[..bytes], row_bytes, ROWS, 1);
                let rate = bytes as f64 / one;
                print!(
                    "{:<10} {:>10} {dims:>6} {:>9.2} {:>7.0}%",
                    kernel.name(),
                    operation.name(),
                    rate / 1e9,
                    rate / read * 100.0
                );
                if operation.has_queries() {
                    // 2^30 products, of rows that L2 holds with the queries; for the oracle 2^24.
                    let products = if kernel.choice() == KernelChoice::Scalar { 1 << 24 } else { 1 << 30 };
                    let rows = (products / dims / MANY).max(1);
                    let count = ((1 << 20) / row_bytes).clamp(1, ROWS);
                    let bytes = &memory[..(rows * row_bytes).min(MEMORY)];
                    let many = batch.seconds(kernel, operation, bytes, row_bytes, count, MANY);
                    print!(" {:>13.2}", (bytes.len() / row_bytes * dims * MANY) as f64 / many / clock);
                }
                println!();
            }
        }
    }
    constants(&kernels, &operations, memory);
    Ok(())
}

fn is_kernel(word: &str) -> bool {
    word.parse::<KernelChoice>().is_ok()
}

/// Picoseconds per dim, for rows in L2: measured, and as the planner assumes.
fn constants(kernels: &[&'static dyn Kernel], operations: &[Operation], memory: &[u8]) {
    const DIMS: usize = 4096;
    const ROWS: usize = 24;
    println!(
        "\n{:<10} {:>10} {:>12} {:>10} {:>12} {:>10}  (ps a dim)",
        "kernel", "operation", "first query", "constant", "each further", "constant"
    );
    let mut batch = Batch::new(DIMS);
    for kernel in kernels {
        let speeds = kernel.speeds();
        for &operation in operations {
            let constant = match operation {
                F32 => speeds.f32,
                F16 => speeds.f16,
                I8 => speeds.i8,
                Bytes => speeds.bytes,
                Planes => speeds.planes,
                NarrowF32 | NarrowF16 => Speed { first: speeds.narrow, further: 0.0 },
            };
            let row_bytes = operation.row_bytes(DIMS);
            let memory = &memory[..ROWS * row_bytes];
            let mut picoseconds = |queries| {
                let seconds = batch.seconds(*kernel, operation, memory, row_bytes, ROWS, queries);
                seconds / (ROWS * DIMS) as f64 * 1e12
            };
            let one = picoseconds(1);
            print!(
                "{:<10} {:>10} {one:>12.2} {:>10.2}",
                kernel.name(),
                operation.name(),
                constant.first * 1e12
            );
            if operation.has_queries() {
                let further = (picoseconds(MANY) - one) / (MANY - 1) as f64;
                print!(" {further:>12.2} {:>10.2}", constant.further * 1e12);
            }
            println!();
        }
    }
}

/// Seconds of the fastest run.
fn best(mut run: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    run();
    let warm = Instant::now();
    loop {
        let started = Instant::now();
        run();
        best = best.min(started.elapsed().as_secs_f64());
        if warm.elapsed() > PATIENCE || begun.elapsed() > 10 * PATIENCE {
            return best;
        }
    }
}

/// Cycles a second: each step of the chain takes one for `^` and one for `+`.
fn clock() -> f64 {
    const STEPS: u64 = 20_000_000;
    let seconds = best(|| {
        let (mut x, mask, step) = (black_box(1u64), black_box(0x5555u64), black_box(3u64));
        for _ in 0..STEPS {
            x = (x ^ mask).wrapping_add(step);
        }
        black_box(x);
    });
    (2 * STEPS) as f64 / seconds
}
