//! Warm scans beside the machine's memory bandwidth, measured in the same run.
//!
//! `cargo bench --bench scan`; `GRADIX_BENCH_MB` sets the size of each index (default 512 MiB of
//! codes; well beyond the last cache is what counts).

use std::hint::black_box;
use std::time::Instant;

use gradix::scan::{KernelChoice, KernelError, ScanError};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Schema};

const DIMS: u32 = 4096;
const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mebibytes = match std::env::var("GRADIX_BENCH_MB") {
        Ok(given) => given.parse()?,
        Err(_) => 512usize,
    };
    let bytes = mebibytes << 20;
    let cores = std::thread::available_parallelism()?.get();
    let mut counts = vec![1];
    if cores > 1 {
        counts.push(cores);
    }
    let roofs: Vec<f64> = counts.iter().map(|&threads| read_bandwidth(bytes, threads)).collect();
    for (threads, roof) in counts.iter().zip(&roofs) {
        println!("reading memory, {threads} thread(s): {roof:.2} GB/s");
    }
    println!();
    println!(
        "| encoding | rows | kernel | threads | queries | seconds | GB/s | of the roof | times one query |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let spec = SketchSpec::dense("bench", "1", [("all", DIMS)]);
    for encoding in [Encoding::I8, Encoding::F16, Encoding::F32] {
        let folder = tempfile::tempdir()?;
        let schema = Schema::new(spec.clone(), encoding)?;
        let index = Index::options().create(folder.path().join("bench.gradix"), &schema)?;
        let rows = bytes / schema.row_bytes();
        let mut writer = index.writer()?;
        let mut state = 1;
        for row in 0..rows {
            writer.append(format!("row {row}"), &gaussian(&spec, &mut state)?)?;
        }
        writer.commit()?;
        let snapshot = index.snapshot()?;
        let batch = (0..64).map(|_| gaussian(&spec, &mut state)).collect::<Result<Vec<_>, _>>()?;
        for kernel in [KernelChoice::Avx2, KernelChoice::Avx512, KernelChoice::Neon] {
            for (&threads, &roof) in counts.iter().zip(&roofs) {
                let mut of_one = f64::NAN;
                for queries in [1, 10, 64] {
                    let run = || {
                        let scan = snapshot.scan(&batch[..queries])?;
                        scan.top_k(100).kernel(kernel).threads(threads).run()
                    };
                    match run() {
                        Err(ScanError::Kernel(KernelError::Unsupported { .. })) => continue,
                        warmed => drop(warmed?),
                    }
                    let mut seconds = f64::INFINITY;
                    for _ in 0..REPEATS {
                        seconds = seconds.min(run()?.statistics().elapsed.as_secs_f64());
                    }
                    if queries == 1 {
                        of_one = seconds;
                    }
                    let speed = (rows * schema.row_bytes()) as f64 / seconds / 1e9;
                    println!(
                        "| {encoding} | {rows} | {kernel} | {threads} | {queries} | {seconds:.4} | {speed:.2} | {:.2} | {:.1} |",
                        speed / roof,
                        seconds / of_one
                    );
                }
            }
        }
    }
    Ok(())
}

/// GB/s of summing up words, the best of some passes.
fn read_bandwidth(bytes: usize, threads: usize) -> f64 {
    let words = vec![1u64; bytes / 8];
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(|| {
                    // Sixteen sums, so that additions never wait for each other.
                    let mut sums = [0u64; 16];
                    for chunk in part.as_chunks::<16>().0 {
                        for (sum, word) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*word);
                        }
                    }
                    black_box(sums);
                });
            }
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    bytes as f64 / best / 1e9
}

/// Numbers that are about Gaussian: the worst case for rankings, and no zeros for the kernels.
fn gaussian(spec: &SketchSpec, state: &mut u64) -> Result<Sketch, gradix::sketch::SketchError> {
    let mut number = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let parts = [16, 28, 40, 52].map(|shift| (*state >> shift & 0xFFF) as f32 / 4096.0 - 0.5);
        parts.iter().sum::<f32>()
    };
    let values = (0..spec.dims()).map(|_| number()).collect();
    Sketch::dense(spec.clone(), values)
}
