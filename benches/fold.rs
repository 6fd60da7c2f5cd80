//! How fast gradients become sketches and sketches become codes, on one core.
//!
//! Prints a table: elements a second of the fold, and bytes a second next to what the same core
//! reads from the same buffer by a plain sum, measured in turns with the fold. Each figure is the best
//! of some runs. With normalisation a tensor is read twice, so that half of the read rate is the most.
//!
//! ```text
//! cargo bench --bench fold            # tensors of 2^26 elements
//! cargo bench --bench fold -- 28      # and of 2^28 (1 GiB)
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use gradix::Encoding;
use gradix::sketch::{FoldKernel, Normalisation, SketchSpec, Sketcher};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut logs = vec![26];
    // Cargo passes options of its own; only numbers are meant for this program.
    logs.extend(std::env::args().filter_map(|argument| argument.parse::<u32>().ok()));
    for log in logs {
        let gradient = gaussian(1 << log);
        large(log, &gradient)?;
    }
    small()?;
    encodings()
}

/// One tensor that is larger than most caches.
fn large(log: u32, gradient: &[f32]) -> Result<(), Failure> {
    println!("\none tensor of 2^{log} elements");
    println!(
        "{:>8} {:>6} {:>11} {:>9} {:>9} {:>9} {:>9}",
        "kernel", "K", "normalised", "Gelem/s", "GB/s", "read GB/s", "of read"
    );
    for kernel in FoldKernel::available() {
        for log_dims in [12, 16, 20] {
            for normalisation in [Normalisation::None, Normalisation::PerTensor] {
                let spec = SketchSpec::rapid_grad(7, 1 << log_dims).normalised(normalisation);
                let sketcher = Sketcher::new(spec)?.on_kernel(kernel)?;
                let fold = || sketcher.sketch([("layers.0.mlp.up.weight", gradient)]);
                let (mut time, mut reading) = (Duration::MAX, Duration::MAX);
                for _ in 0..if kernel == FoldKernel::Scalar { 1 } else { 5 } {
                    reading = reading.min(best(1, || sum(gradient)));
                    time = time.min(best(1, fold));
                }
                let rate = gigabytes(gradient.len(), time);
                let read = gigabytes(gradient.len(), reading);
                println!(
                    "{:>8} {:>6} {:>11} {:>9.2} {rate:>9.1} {read:>9.1} {:>8.0}%",
                    kernel.to_string(),
                    format!("2^{log_dims}"),
                    if normalisation == Normalisation::None { "no" } else { "per tensor" },
                    rate / 4.0,
                    rate / read * 100.0,
                );
            }
        }
    }
    Ok(())
}

/// Adapters of a model: many tensors that each fit a cache, a whole gradient at a time.
fn small() -> Result<(), Failure> {
    let (rows, columns, count) = (16, 576, 360);
    let gradient = gaussian(rows * columns * count);
    let names: Vec<String> = (0..count).map(|i| format!("layers.{i}.attention.query.lora_a")).collect();
    let read = gigabytes(gradient.len(), best(20, || sum(&gradient)));
    println!("\n{count} tensors of {rows} x {columns}; plain sum reads {read:.1} GB/s");
    println!("{:>8} {:>6} {:>11} {:>9} {:>12}", "kernel", "K", "normalised", "Gelem/s", "sketches/s");
    for kernel in FoldKernel::available() {
        for log_dims in [12, 16, 20] {
            for normalisation in [Normalisation::None, Normalisation::PerTensor] {
                let spec = SketchSpec::rapid_grad(7, 1 << log_dims).normalised(normalisation);
                let sketcher = Sketcher::new(spec)?.on_kernel(kernel)?;
                let tensors = || names.iter().map(String::as_str).zip(gradient.chunks(rows * columns));
                let time = best(20, || sketcher.sketch(tensors())).as_secs_f64();
                println!(
                    "{:>8} {:>6} {:>11} {:>9.2} {:>12.0}",
                    kernel.to_string(),
                    format!("2^{log_dims}"),
                    if normalisation == Normalisation::None { "no" } else { "per tensor" },
                    gradient.len() as f64 / time / 1e9,
                    1.0 / time,
                );
            }
        }
    }
    Ok(())
}

/// Rows to codes and back.
fn encodings() -> Result<(), Failure> {
    println!("\nrows of 2^16 numbers; GB/s of f32\n{:>8} {:>9} {:>9}", "encoding", "encode", "decode");
    let mut row = gaussian(1 << 16);
    for encoding in [Encoding::F32, Encoding::F16, Encoding::I8] {
        let mut codes = vec![0; encoding.stride(row.len())];
        let scale = encoding.encode(&row, &mut codes)?.scale;
        let encode = best(200, || encoding.encode(&row, &mut codes));
        let decode = best(200, || encoding.decode(&codes, scale, &mut row));
        let (encode, decode) = (gigabytes(row.len(), encode), gigabytes(row.len(), decode));
        println!("{:>8} {encode:>9.1} {decode:>9.1}", encoding.name());
    }
    Ok(())
}

/// The least time of some runs; one before them warms the caches.
fn best<T>(runs: usize, mut run: impl FnMut() -> T) -> Duration {
    black_box(run());
    let time = |_| {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap_or_default()
}

fn gigabytes(elements: usize, time: Duration) -> f64 {
    elements as f64 * 4.0 / time.as_secs_f64() / 1e9
}

/// Reads everything once, with so many sums that no addition waits for another.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 64];
    for run in black_box(values).as_chunks::<64>().0 {
        for (sum, value) in sums.iter_mut().zip(run) {
            *sum += value;
        }
    }
    sums.iter().sum()
}

/// Numbers that are about normal: sums of uniform ones from a 64-bit congruential generator.
fn gaussian(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}
