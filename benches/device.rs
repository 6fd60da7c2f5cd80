//! How fast a device sketches a gradient that lies in its memory, beside what it copies, and beside the founding
//! paper's way on the CPU.
//!
//! Prints a table for each device that is there: flex (the host's fold) and, with the feature, wgpu or CUDA.
//! "read" is bytes of the gradient a second of `sketch_gradients`, with the transfer of the sums; "copy" is bytes
//! read and written a second by a product with a number, on the same device, in turns with the fold. Each is the
//! best of some runs.
//!
//! With `GRADIX_BENCH_SHUFFLE` (a program; `scripts/bench.sh device` sets it) the paper's 20 rounds of two
//! permutations run in PyTorch on the same number of elements: "of shuffle" is its time over ours.
//!
//! ```text
//! cargo bench --features wgpu --bench device            # 2^24 elements
//! cargo bench --features wgpu --bench device -- 26
//! ```

mod devices;

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution};
use gradix::burn::sketch_gradients;
use gradix::sketch::{Normalisation, SketchSpec, Sketcher};

use devices::devices;

type Failure = Box<dyn std::error::Error>;

const RUNS: usize = 5;

/// A model of one parameter, so that its gradient is one tensor on the device.
#[derive(Module, Debug)]
struct One {
    weight: Param<Tensor<2>>,
}

fn main() -> Result<(), Failure> {
    // Cargo passes options of its own; only numbers are meant for this program.
    let logs: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    for log in if logs.is_empty() { vec![24] } else { logs } {
        let shuffle = shuffle(log)?;
        println!("\none tensor of 2^{log} elements");
        if let Some(time) = shuffle {
            println!("40 passes of PyTorch on the CPU: {:.1} ms", time.as_secs_f64() * 1e3);
        }
        println!(
            "{:>8} {:>6} {:>11} {:>9} {:>9} {:>9} {:>8} {:>10}",
            "device", "K", "normalised", "ms", "read GB/s", "copy GB/s", "of copy", "of shuffle"
        );
        for (name, device) in devices() {
            for log_dims in [12, 16] {
                for normalisation in [Normalisation::None, Normalisation::PerTensor] {
                    measure(name, &device, log, log_dims, normalisation, shuffle)?;
                }
            }
        }
    }
    Ok(())
}

fn measure(
    name: &str,
    device: &Device,
    log: u32,
    log_dims: u32,
    normalisation: Normalisation,
    shuffle: Option<Duration>,
) -> Result<(), Failure> {
    let spec = SketchSpec::rapid_grad(7, 1 << log_dims).normalised(normalisation);
    let sketcher = Sketcher::new(spec)?;
    let autodiff = device.clone().autodiff();
    let shape = [1 << (log / 2), 1 << (log - log / 2)];
    let model = One { weight: Param::from_tensor(Tensor::zeros(shape, &autodiff)) };
    let values = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let (mut fold, mut copy) = (Duration::MAX, Duration::MAX);
    // One run more, which compiles kernels.
    for run in 0..=RUNS {
        let factor = Tensor::from_inner(values.clone());
        let mut gradients = (model.weight.val() * factor).sum().backward();
        device.sync()?;
        let start = Instant::now();
        black_box(sketch_gradients(&sketcher, &model, &mut gradients, |_| true)?);
        let time = start.elapsed();
        let start = Instant::now();
        let copied = black_box(values.clone() * 2.0);
        device.sync()?;
        if run > 0 {
            fold = fold.min(time);
            copy = copy.min(start.elapsed());
        }
        drop(copied);
    }
    let rate = |bytes: f64, time: Duration| bytes / time.as_secs_f64() / 1e9;
    let bytes = 4.0 * f64::from(log).exp2();
    let (read, copied) = (rate(bytes, fold), rate(2.0 * bytes, copy));
    let of_shuffle =
        shuffle.map_or("-".into(), |time| format!("{:.1}", time.as_secs_f64() / fold.as_secs_f64()));
    println!(
        "{name:>8} {:>6} {:>11} {:>9.2} {read:>9.2} {copied:>9.2} {:>7.0}% {of_shuffle:>10}",
        format!("2^{log_dims}"),
        if normalisation == Normalisation::None { "no" } else { "per tensor" },
        fold.as_secs_f64() * 1e3,
        read / copied * 100.0,
    );
    Ok(())
}

/// The time of the paper's passes; `None` if nobody asked.
fn shuffle(log: u32) -> Result<Option<Duration>, Failure> {
    let Some(program) = std::env::var_os("GRADIX_BENCH_SHUFFLE") else { return Ok(None) };
    let elements = 1u64 << log;
    let output = std::process::Command::new(program)
        .args([elements.to_string(), (1u64 << 16).to_string(), RUNS.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the shuffle ended with {}", output.status).into());
    }
    let seconds: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}
