//! How fast gradients become sketches and sketches become codes, on one core.
//!
//! Prints a table: elements a second of the fold, and bytes a second next to what the same core reads from
//! the same buffer by plain loads (`benches/roof`), in huge pages, measured in turns with the fold. Each
//! figure is the best of some runs. With normalisation a tensor is read twice, so that half of the read rate
//! is the most.
//!
//! ```text
//! cargo bench --bench fold            # tensors of 2^26 elements
//! cargo bench --bench fold -- 28      # and of 2^28 (1 GiB)
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

#[expect(dead_code, reason = "other benchmarks need the rest")]
mod roof;

use gradix::Encoding;
use gradix::sketch::{FoldKernel, Normalisation, SketchSpec, Sketcher};
use roof::Memory;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut logs = vec![26];
    // Cargo passes options of its own; only numbers are meant for this program.
    logs.extend(std::env::args().filter_map(|argument| argument.parse::<u32>().ok()));
    for log in logs {
        let mut memory = Memory::new(4 << log)?;
        gaussian(memory.floats());
        large(log, &mut memory)?;
    }
    small()?;
    projections()?;
    encodings()
}

/// One tensor that is larger than most caches.
fn large(log: u32, memory: &mut Memory) -> Result<(), Failure> {
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
                let (mut time, mut reading) = (Duration::MAX, f64::INFINITY);
                for _ in 0..if kernel == FoldKernel::Scalar { 1 } else { 5 } {
                    reading = reading.min(memory.seconds(4 << log, 1));
                    let gradient = &*memory.floats();
                    time = time.min(best(1, || sketcher.sketch([("layers.0.mlp.up.weight", gradient)])));
                }
                let rate = gigabytes(1 << log, time);
                let read = gigabytes(1 << log, Duration::from_secs_f64(reading));
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

/// Adapters of a model: many tensors, each of which fits a cache; a whole gradient at a time.
fn small() -> Result<(), Failure> {
    let (rows, columns, count) = (16, 576, 360);
    let mut memory = Memory::new(4 * rows * columns * count)?;
    let seconds = memory.seconds(4 * rows * columns * count, 1);
    let gradient = &mut memory.floats()[..rows * columns * count];
    gaussian(gradient);
    let names: Vec<String> = (0..count).map(|i| format!("layers.{i}.attention.query.lora_a")).collect();
    let read = gigabytes(gradient.len(), Duration::from_secs_f64(seconds));
    println!("\n{count} tensors of {rows} x {columns}; plain loads read {read:.1} GB/s");
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

/// One layer's gradient under both sketchers, of as many dims: matrices a second, measured in turns.
fn projections() -> Result<(), Failure> {
    println!("\nlayers of a model, p x p dims each");
    println!(
        "{:>8} {:>12} {:>4} {:>10} {:>14} {:>10} {:>9}",
        "kernel", "layer", "p", "folds/s", "projections/s", "Gterms/s", "fold/proj"
    );
    for kernel in FoldKernel::available() {
        for [n_in, n_out] in [[576, 576], [576, 1536]] {
            let mut gradient = vec![0.0; n_in * n_out];
            gaussian(&mut gradient);
            for p in [16, 64] {
                let name = "layers.0.mlp.up";
                let folding = Sketcher::new(SketchSpec::rapid_grad(7, p * p))?.on_kernel(kernel)?;
                let projecting =
                    Sketcher::new(SketchSpec::kronecker(7, [(name, p, p)]))?.on_kernel(kernel)?;
                let sketch = |sketcher: &Sketcher| {
                    let mut fold = sketcher.start();
                    fold.add_matrix(name, [n_in, n_out], &gradient)?;
                    fold.finish()
                };
                let (mut fold, mut projection) = (Duration::MAX, Duration::MAX);
                for _ in 0..if kernel == FoldKernel::Scalar { 5 } else { 30 } {
                    fold = fold.min(best(1, || sketch(&folding)));
                    projection = projection.min(best(1, || sketch(&projecting)));
                }
                let terms = p as usize * n_out * (n_in + p as usize);
                println!(
                    "{:>8} {:>12} {p:>4} {:>10.0} {:>14.0} {:>10.1} {:>9.1}",
                    kernel.to_string(),
                    format!("{n_in} x {n_out}"),
                    1.0 / fold.as_secs_f64(),
                    1.0 / projection.as_secs_f64(),
                    terms as f64 / projection.as_secs_f64() / 1e9,
                    projection.as_secs_f64() / fold.as_secs_f64(),
                );
            }
        }
    }
    Ok(())
}

/// Encodes and decodes rows.
fn encodings() -> Result<(), Failure> {
    println!("\nrows of 2^16 numbers; GB/s of f32\n{:>8} {:>9} {:>9}", "encoding", "encode", "decode");
    let mut row = vec![0.0; 1 << 16];
    gaussian(&mut row);
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

/// The least time of some runs, after one that warms the caches.
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

/// Approximately normal numbers: sums of uniform numbers from a 64-bit congruential generator.
fn gaussian(numbers: &mut [f32]) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    numbers.fill_with(|| uniform() + uniform() + uniform() + uniform());
}
