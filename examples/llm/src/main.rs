//! Fine-tunes a language model on facts, some of them poisoned or wrong, and finds the training examples behind
//! what it says. See the package's README.
//!
//! Leaves `report.html`, `results.json`, `outputs.jsonl` and the index `index.gradix` in the folder of `--out`.
#![expect(clippy::print_stdout, reason = "a program that shows its results")]

use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use llm::check::compare;
use llm::load::load;
use llm::model::Lora;
use llm::stages;

/// Fine-tunes a language model and traces what it says to its training examples.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A GGUF file, or a folder with config.json, tokenizer.json, tokenizer_config.json and *.safetensors.
    #[arg(long)]
    model: PathBuf,
    /// Only compare the model's logits with those that reference.py wrote into this file.
    #[arg(long)]
    check: Option<PathBuf>,
    /// Where the model and its gradients are computed.
    #[arg(long, value_enum, default_value_t = On::Flex)]
    device: On,
    /// Folder of the report, the results and the index.
    #[arg(long, default_value = "target/llm")]
    out: PathBuf,
    /// Folder of the training data.
    #[arg(long, default_value = experiments::data::SHIPPED)]
    data: PathBuf,
    /// The system's message in every conversation. Each of its tokens costs as much as one of an example.
    #[arg(long, default_value = "")]
    system: String,
    /// Training examples; 0 for all 4950.
    #[arg(long, default_value_t = 200)]
    examples: usize,
    /// Prompts that are answered, of each kind; 0 for all.
    #[arg(long, default_value_t = 10)]
    queries: usize,
    /// Examples that exact TracIn is computed for; 0 for all.
    #[arg(long, default_value_t = 0)]
    exact: usize,
    /// Outputs of each task that are traced token by token.
    #[arg(long, default_value_t = 1)]
    traced: usize,
    /// Passes over the training set.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Examples in a step, and in a backward.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// The adapters' rank.
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// The adapters' alpha: their output is multiplied by alpha / rank.
    #[arg(long, default_value_t = 16.0)]
    alpha: f64,
    /// The most tokens of an output.
    #[arg(long, default_value_t = 20)]
    tokens: usize,
    /// Seed of the errors, the adapters, the order of training and the sketches.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// A device of burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// The CPU.
    Flex,
    /// The default adapter of wgpu (Vulkan, Metal, DX12).
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// The first CUDA device.
    #[cfg(feature = "cuda")]
    Cuda,
}

impl On {
    fn device(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
        }
    }
}

fn main() -> Result<(), experiments::Failure> {
    let given = Arguments::parse();
    let device = given.device.device();
    let lora = Lora { rank: given.rank, alpha: given.alpha };
    if let Some(expected) = given.check {
        let found = compare(&load(&given.model, lora, &device)?.model, &expected, &device)?;
        println!("{found:?}");
        if found.is_close() {
            return Ok(());
        }
        return Err("the logits differ from the expected ones".into());
    }
    let options = stages::Options {
        model: given.model,
        system: given.system,
        data: given.data,
        out: given.out,
        examples: given.examples,
        queries: given.queries,
        exact: given.exact,
        traced: given.traced,
        epochs: given.epochs,
        rate: given.rate,
        batch: given.batch,
        lora,
        tokens: given.tokens,
        seed: given.seed,
    };
    let report = stages::run(&options, &device, &format!("{:?}", given.device).to_lowercase())?;
    std::fs::write(options.out.join("report.html"), report.html())?;
    std::fs::write(options.out.join("results.json"), report.results_json()?)?;
    println!("{}", report.terminal());
    for fact in &report.facts {
        println!("{}: {}", fact.name, fact.value);
    }
    Ok(())
}
