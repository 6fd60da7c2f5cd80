//! The demo: a small language model is trained on facts, some of them poisoned or wrong; gradix
//! then finds the training examples behind what it says.
//!
//! Leaves `report.html`, `results.json`, the index `index.gradix` and, for the benchmark, the queries'
//! sketches in `queries.gradix` in the folder of `--out`.
#![expect(clippy::print_stdout, reason = "a program that shows its results")]

mod experiment;
mod index;
mod model;
mod stages;
mod tokens;
mod tracin;
mod train;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Trains a small model and traces what it says to its training examples.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Where the model and its gradients are computed.
    #[arg(long, value_enum, default_value_t = On::Flex)]
    pub device: On,
    /// Folder of the report, the results and the index.
    #[arg(long, default_value = "target/demo")]
    pub out: PathBuf,
    /// Folder of the training data.
    #[arg(long, default_value = experiments::data::SHIPPED)]
    pub data: PathBuf,
    /// Seed of the errors, the model's weights, the order of training and the sketches.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Passes over the training set.
    #[arg(long, default_value_t = 12)]
    pub epochs: usize,
    /// What the model is trained on.
    #[arg(long, value_enum, default_value_t = Set::Facts)]
    pub set: Set,
    /// Fit a curvature on single tokens too, which are added to its sums and not stored: four of each answer.
    #[arg(long, value_enum)]
    pub observe: Option<Observed>,
    /// Divide each parameter's gradient by its own norm before it is sketched, as in the paper's own results
    /// (arXiv:2405.11724). By default gradients are stored as they are, and normalised when they are asked about.
    #[arg(long)]
    pub per_tensor: bool,
    /// A quick look: three passes, after which the model knows little. The tables are then poor.
    #[arg(long)]
    pub quick: bool,
}

/// A training set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// Questions and answers.
    Facts,
    /// These, and the rows of INFO-RAG (arXiv:2402.18150) that are made from the facts: texts that were found about
    /// something, from which a sentence is to be completed.
    InfoRag,
}

/// What is observed of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Observed {
    /// The gradient of its loss, from a backward of its own.
    Losses,
    /// What the layers did at its position, from the backward of the whole.
    Positions,
}

/// A device of burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// The CPU.
    Flex,
    /// The default adapter of wgpu (Vulkan, Metal, DX12).
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// The first CUDA device.
    #[cfg(feature = "cuda")]
    Cuda,
}

fn main() -> Result<(), experiments::Failure> {
    let options = Options::parse();
    let report = stages::run(&options)?;
    std::fs::write(options.out.join("report.html"), report.html())?;
    std::fs::write(options.out.join("results.json"), report.results_json()?)?;
    println!("{}", report.terminal());
    println!(
        "Page: {}   Table: {}   Index: {}",
        options.out.join("report.html").display(),
        options.out.join("results.json").display(),
        options.out.join("index.gradix").display()
    );
    Ok(())
}
