//! How fast rows become sums, sums become a factor, and queries are divided by it.
//!
//! Prints tables: GFLOP/s (a fused multiply-add is two), and their share of what the same threads do in
//! independent fused multiply-adds, measured in turns with them. `f64` has half of the `f32` peak. Each figure is
//! the best of some runs.
//!
//! ```text
//! cargo bench --bench curvature            # one thread, and two
//! cargo bench --bench curvature -- 8       # eight threads
//! cargo bench --bench curvature -- sums    # one table: sums, factors or kernels
//! ```
//!
//! The numerics are private to the crate, so this program compiles their files again.

#[expect(dead_code, reason = "as below")]
#[path = "../src/codec"]
mod codec {
    pub mod lanes;
}
#[expect(dead_code, reason = "a part of the crate, of which this program needs less")]
#[path = "../src/curvature"]
mod curvature {
    pub mod cholesky;
    pub mod eigen;
    pub mod estimate;
    pub mod factor;
    pub mod factor_error;
    pub mod kernel;
    pub mod low_rank;
    pub mod sums;

    pub(crate) use estimate::Estimate;
    pub(crate) use factor_error::FactorError;
    pub(crate) use sums::BlockSums;
}
#[cfg(test)]
#[expect(dead_code, reason = "the kernels' tests, which are compiled too, need less")]
#[path = "../tests/fixtures/random.rs"]
mod random;

use std::hint::black_box;
use std::time::Instant;

use curvature::factor::Factor;
use curvature::kernel::{HEIGHT, Kernel, WIDTH};
use curvature::sums::{Sign, panel_rows};
use curvature::{BlockSums, Estimate, FactorError};
use gradix::Encoding;

type Failure = Box<dyn std::error::Error>;

const NESTED: Estimate = Estimate::Nystrom { width: 512 };

fn main() -> Result<(), Failure> {
    // Cargo passes options of its own; only numbers and names of tables are meant for this program.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut threads: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    let named = |table: &str| arguments.iter().any(|argument| argument == table);
    let all = !["sums", "factors", "kernels"].into_iter().any(named);
    for threads in threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        println!("\n{threads} threads; the peak is {:.0} GFLOP/s", pool.install(peak));
        if all || named("sums") {
            pool.install(sums)?;
        }
        if all || named("factors") {
            pool.install(factors)?;
        }
        if all || named("kernels") {
            pool.install(kernels);
        }
    }
    Ok(())
}

/// Seconds of the best of some runs, and the peak in GFLOP/s measured between them.
fn best(runs: usize, mut run: impl FnMut()) -> (f64, f64) {
    let (mut seconds, mut most) = (f64::INFINITY, 0.0f64);
    for _ in 0..runs {
        most = most.max(peak());
        let start = Instant::now();
        run();
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    (seconds, most)
}

/// Panels of rows, as they are and decoded.
fn sums() -> Result<(), gradix::EncodeError> {
    println!("{:>8} {:>8} {:>9} {:>9} {:>8}", "dims", "columns", "rows of", "GFLOP/s", "of peak");
    for (dims, estimate) in [(1024, Estimate::Full), (4096, Estimate::Full), (4096, NESTED), (65_536, NESTED)]
    {
        let count = panel_rows(dims);
        let mut rows = vec![0.0; count * dims];
        gaussian(&mut rows);
        let mut sums = BlockSums::new(dims, estimate);
        let columns = sums.values.len() / dims;
        let flops = 2.0 * (count * sums.values.len()) as f64;
        let print = |name: &str, (seconds, peak): (f64, f64)| {
            let rate = flops / seconds / 1e9;
            println!("{dims:>8} {columns:>8} {name:>9} {rate:>9.1} {:>7.0}%", rate / peak * 100.0);
        };
        print("panel", best(10, || sums.add(&rows, Sign::Plus)));
        for encoding in [Encoding::F16, Encoding::I8] {
            let stride = encoding.stride(dims);
            let mut codes = vec![0; count * stride];
            let mut scales = Vec::with_capacity(count);
            for (row, codes) in rows.chunks(dims).zip(codes.chunks_mut(stride)) {
                scales.push(encoding.encode(row, codes)?.scale);
            }
            let mut decoded = vec![0.0; count * dims];
            let run = best(10, || {
                let codes = codes.chunks(stride).zip(&scales);
                for (row, (codes, &scale)) in decoded.chunks_mut(dims).zip(codes) {
                    encoding.decode(codes, scale, row);
                }
                sums.add(&decoded, Sign::Plus);
            });
            print(encoding.name(), run);
        }
    }
    Ok(())
}

/// Factors, queries and self-influences.
fn factors() -> Result<(), FactorError> {
    println!(
        "{:>8} {:>8} {:>16} {:>11} {:>9} {:>8}",
        "dims", "rank", "what", "seconds", "GFLOP/s", "of peak"
    );
    for (dims, estimate, rank) in [
        (1024, Estimate::Full, None),
        (4096, Estimate::Full, None),
        (4096, Estimate::Full, Some(256)),
        (65_536, NESTED, Some(256)),
    ] {
        let rows = 2 * panel_rows(dims);
        let mut sums = BlockSums::new(dims, estimate);
        let mut panel = vec![0.0; panel_rows(dims) * dims];
        for _ in 0..2 {
            gaussian(&mut panel);
            sums.add(&panel, Sign::Plus);
        }
        let rank_name = rank.map_or("all".to_owned(), |rank: u32| rank.to_string());
        let print = |what: &str, flops: f64, (seconds, peak): (f64, f64)| {
            let rate = flops / seconds / 1e9;
            println!(
                "{dims:>8} {rank_name:>8} {what:>16} {seconds:>11.6} {rate:>9.1} {:>7.0}%",
                rate / (peak / 2.0) * 100.0
            );
        };
        let k = dims as f64;
        let factor = || Factor::new(&sums, rows as f64 / 100.0, rank, &|| false);
        let made = factor()?;
        // The factor and its inverse; or B, its Gram matrix and the eigenvectors.
        let flops = match (estimate, rank) {
            (Estimate::Full, None) => k.powi(3) / 3.0 * 2.0,
            _ => k * 512.0 * (512.0 + 512.0 + 2.0 * 256.0),
        };
        print("factor", flops, best(2, || drop(black_box(factor()))));
        let per_query = rank.map_or(2.0 * k * k, |rank| 4.0 * k * f64::from(rank));
        for count in [1, 64] {
            let mut queries: Vec<Vec<f64>> = panel
                .chunks(dims)
                .take(count)
                .map(|row| row.iter().map(|x| f64::from(*x)).collect())
                .collect();
            let name = format!("{count} queries");
            print(&name, per_query * count as f64, best(3, || made.precondition(&mut queries)));
        }
        let count = 192.min(panel_rows(dims));
        let run = best(3, || drop(black_box(made.self_influence(&panel[..count * dims]))));
        print(&format!("{count} influences"), per_query / 2.0 * count as f64, run);
    }
    Ok(())
}

/// The tiles alone, from the second cache, on one thread.
fn kernels() {
    let threads = rayon::current_num_threads() as f64;
    println!("{:>8} {:>11} {:>9} {:>8}", "kernel", "sums", "GFLOP/s", "of peak");
    for kernel in Kernel::available() {
        let repeats = if kernel == Kernel::fastest() { 400 } else { 20 };
        let print = |name: &str, flops: usize, share: f64, (seconds, peak): (f64, f64)| {
            let rate = (flops * repeats) as f64 / seconds / 1e9;
            println!(
                "{:>8} {name:>11} {rate:>9.1} {:>7.0}%",
                kernel.to_string(),
                rate / (peak / threads) / share * 100.0
            );
        };
        let (left, right) = (vec![[1.0; WIDTH]; 256], vec![[0.5; WIDTH]; 256]);
        let mut tile = [[0.0; WIDTH]; HEIGHT];
        let run = || (0..repeats).for_each(|_| kernel.add_f32(black_box(&left), 0, &right, &mut tile));
        print("f32", 2 * 256 * WIDTH * HEIGHT, 1.0, best(5, run));
        let (left, right) = (vec![[[1.0; WIDTH]; WIDTH]; 4], vec![[[0.5; WIDTH]; WIDTH]; 4]);
        let mut sums = [[0.0; WIDTH]; WIDTH];
        let run = || (0..repeats).for_each(|_| kernel.subtract(black_box(&left), WIDTH, &right, &mut sums));
        print("f64", 2 * 4 * WIDTH * WIDTH * WIDTH, 0.5, best(5, run));
    }
}

/// GFLOP/s of independent fused multiply-adds in `f32` on all threads of the pool.
fn peak() -> f64 {
    const STEPS: usize = 1 << 19;
    let seconds = rayon::broadcast(|_| {
        let start = Instant::now();
        let lanes = multiply_adds(STEPS);
        (lanes, start.elapsed().as_secs_f64())
    });
    seconds.iter().map(|(lanes, seconds)| 2.0 * (*lanes * STEPS) as f64 / seconds / 1e9).sum()
}

/// Makes steps of multiply-adds, and returns how many there are in a step.
fn multiply_adds(steps: usize) -> usize {
    const SUMS: usize = 12;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        #[target_feature(enable = "avx512f")]
        fn avx512(steps: usize) {
            let mut sums = [_mm512_set1_ps(1.0); SUMS];
            let (by, plus) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
            for _ in 0..steps {
                sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(*sum, by, plus));
            }
            black_box(sums);
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(steps: usize) {
            let mut sums = [_mm256_set1_ps(1.0); SUMS];
            let (by, plus) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
            for _ in 0..steps {
                sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, by, plus));
            }
            black_box(sums);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the instructions.
            unsafe { avx512(steps) };
            return 16 * SUMS;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has the instructions.
            unsafe { avx2(steps) };
            return 8 * SUMS;
        }
    }
    let mut sums = [[1.0f32; 4]; SUMS];
    let (by, plus) = (black_box(0.5f32), black_box(1.0f32));
    for _ in 0..steps {
        sums.iter_mut().flatten().for_each(|sum| *sum = sum.mul_add(by, plus));
    }
    black_box(sums);
    4 * SUMS
}

/// Approximately normal numbers: sums of uniform numbers from a 64-bit congruential generator.
fn gaussian(numbers: &mut [f32]) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(numbers.first().map_or(0, |x| x.to_bits()));
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    numbers.fill_with(|| uniform() + uniform() + uniform() + uniform());
}
