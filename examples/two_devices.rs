//! One index from two processes, each with a device of its own and half of the examples.
//!
//! ```sh
//! cargo run --features burn --example two_devices
//! ```
//!
//! The program starts itself twice. Each process collects the gradients of its half into parts of segments, apart from
//! the index; a process that is killed and started again goes on behind its last part. Then the parts are attached in
//! one commit, and the index is asked. Processes on other machines would need a copy of the file `INDEX`, and bring
//! back their folder of parts.

use std::path::{Path, PathBuf};
use std::process::Command;

use burn::Tensor;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, TensorData};
use gradix::burn::collect::{Cause, Collector, Example, Piece, Record, Replica, Sink, sketch_pieces};
use gradix::burn::{Parameters, Taps, sequence_loss};
use gradix::sketch::{SketchSpec, Sketcher};
use gradix::{Attach, Encoding, Index, Schema, Span};

/// The processes.
const HALVES: usize = 2;
/// The examples of each: a multiple of [`WINDOW`], so that batches are those of a single process.
const EXAMPLES: usize = 48;
const WINDOW: usize = 16;
/// What tells these weights from others: here the seed from which every process draws them.
const WEIGHTS: &str = "seed 3";
const WIDTH: usize = 16;

/// A sentence; its letters are its tokens.
struct Sentence {
    id: String,
    text: String,
}

impl Example for Sentence {
    fn id(&self) -> &[u8] {
        self.id.as_bytes()
    }

    fn tokens(&self) -> usize {
        self.text.len()
    }

    fn metadata(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// The examples of one half.
fn sentences(half: usize) -> impl Iterator<Item = Sentence> {
    const WHO: [&str; 4] = ["the captain", "a farmer", "my neighbour", "the old cat"];
    const DOES: [&str; 4] = ["looks for", "has lost", "paints", "writes about"];
    const WHAT: [&str; 6] =
        ["the harbour", "a ship", "wild geese", "his hat", "the moon", "an island in the north"];
    (half * EXAMPLES..(half + 1) * EXAMPLES).map(|number| {
        let text = format!("{} {} {}", WHO[number % 4], DOES[number / 4 % 4], WHAT[number / 16]);
        Sentence { id: format!("sentence/{number:02}"), text }
    })
}

/// A language model in which position t sees the letters up to t.
#[derive(Module, Debug)]
struct Model {
    letters: Embedding,
    mixing: Linear,
    head: Linear,
}

/// The model on the device of one process.
struct OnDevice {
    model: Model,
    device: Device,
}

impl OnDevice {
    /// A machine with two GPUs would give each half one of them; the host has one device for all.
    fn of(_half: usize) -> Self {
        let device = Device::flex().autodiff();
        device.seed(3);
        let model = Model {
            letters: EmbeddingConfig::new(128, WIDTH).init(&device),
            mixing: LinearConfig::new(WIDTH, WIDTH).init(&device),
            head: LinearConfig::new(WIDTH, 128).with_bias(false).init(&device),
        };
        Self { model, device }
    }

    fn parameters(&self) -> Parameters {
        Parameters::of(&self.model, |path| Replica::<Sentence>::select(self, path))
    }
}

impl Replica<Sentence> for OnDevice {
    type Model = Model;

    fn model(&self) -> &Model {
        &self.model
    }

    fn losses(&self, batch: &[Piece<'_, Sentence>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        let longest = batch.iter().map(|piece| piece.tokens).max().unwrap_or(0);
        let (mut letters, mut counts) = (Vec::new(), Vec::new());
        for piece in batch {
            let text = piece.example.text.as_bytes();
            letters.extend(text.iter().map(|&letter| i32::from(letter)));
            counts.extend(text.iter().map(|_| true));
            letters.resize(letters.len().next_multiple_of(longest), 0);
            counts.resize(letters.len(), false);
        }
        let shape = [batch.len(), longest];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(letters, shape), &self.device);
        let counts = Tensor::from_data(TensorData::new(counts, shape), &self.device);
        let x = self.model.letters.forward(tokens.clone());
        let x = taps.linear(&self.model.mixing, x).cumsum(1).tanh();
        Ok(sequence_loss(taps.linear(&self.model.head, x), tokens, counts)?)
    }

    fn select(&self, path: &str) -> bool {
        !path.starts_with("letters")
    }
}

fn sketcher() -> Result<Sketcher, Cause> {
    Ok(Sketcher::new(SketchSpec::rapid_grad_blocks(7, [("mixing", 256), ("head", 256)]))?)
}

fn create(path: &Path) -> Result<Index, Cause> {
    Ok(Index::create(path, &Schema::new(sketcher()?.spec().clone(), Encoding::F16)?)?)
}

fn collect(
    name: &str,
    replica: OnDevice,
    input: impl Iterator<Item = Sentence>,
    sink: &mut impl Sink,
) -> Result<(), Cause> {
    let collector = Collector::new(&sketcher()?).device(replica).named(name).weights(WEIGHTS);
    let done = collector.window_rows(WINDOW).batch_rows(8).commit_rows(32).run(input, sink)?;
    println!("{name}: {} rows in {} commits, behind {}", done.rows, done.commits, done.resumed_at);
    Ok(())
}

/// One process: collects its half into parts in a folder, of which the index knows nothing yet.
///
/// # Errors
/// Of the collection, or of the folder of parts.
pub fn collect_half(half: usize, description: &Path, parts: &Path) -> Result<(), Cause> {
    let mut writer = Index::options().detached(description, parts)?;
    collect(&format!("half {half}"), OnDevice::of(half), sentences(half), &mut writer)
}

/// Starts a process for each half by `process`, which is given what [`collect_half`] needs, and makes one index of what
/// they build.
///
/// # Errors
/// A process that has failed, by its half; or parts that cannot be attached.
pub fn collect_in_processes(
    folder: &Path,
    process: impl Fn(usize, &Path, &Path) -> std::io::Result<Command>,
) -> Result<Index, Cause> {
    let index = create(&folder.join("index.gradix"))?;
    let description = index.path().join("INDEX");
    let parts: Vec<PathBuf> = (0..HALVES).map(|half| folder.join(format!("half-{half}"))).collect();
    let start = |(half, parts): (usize, &PathBuf)| process(half, &description, parts)?.spawn();
    let processes: Vec<_> = parts.iter().enumerate().map(start).collect();
    // All are waited for, also if one has failed.
    let ends: Vec<_> = processes.into_iter().map(|process| process?.wait()).collect();
    for (half, end) in ends.into_iter().enumerate() {
        let status = end?;
        if !status.success() {
            return Err(format!("the process of half {half} ended with {status}").into());
        }
    }
    let parameters = OnDevice::of(0).parameters();
    let mut writer = index.writer()?;
    for parts in &parts {
        let attached = writer.attach(parts, Attach::Move)?;
        for part in &attached.parts {
            let record = Record::parse(&part.payload)?.ok_or("a part without a record")?;
            record.check_parameters("", &parameters)?;
            println!("{}: examples {} to {}, {} rows", record.name, record.start, record.end, record.rows);
        }
    }
    let commit = writer.commit()?;
    println!("generation {}: {} examples", commit.generation, commit.appended);
    drop(writer);
    Ok(index)
}

/// The same index from this process alone.
///
/// # Errors
/// Of the collection, or of the index.
pub fn collect_alone(path: &Path) -> Result<Index, Cause> {
    let index = create(path)?;
    let all = (0..HALVES).flat_map(sentences);
    collect("all", OnDevice::of(0), all, &mut index.writer()?)?;
    Ok(index)
}

/// The ids of the examples that speak most for a sentence, the first one first.
///
/// # Errors
/// Of the model, or of the scan.
pub fn ask(index: &Index, text: &str) -> Result<Vec<String>, Cause> {
    let output = Sentence { id: "output".into(), text: text.into() };
    let queries = sketch_pieces(&sketcher()?, &OnDevice::of(0), &[Piece::new(&output, Span::WHOLE)])?;
    let ranking = index.snapshot()?.scan(&queries)?.top_k(3).metadata(true).run()?;
    println!("what makes the model say {text:?}");
    for hit in ranking.proponents(0) {
        let text = String::from_utf8_lossy(hit.metadata.as_deref().unwrap_or_default());
        println!("  {:>9.4}  {:<12} {text}", hit.score, hit.id_lossy());
    }
    Ok(ranking.proponents(0).iter().map(|hit| hit.id_lossy().into_owned()).collect())
}

fn main() -> Result<(), Cause> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [half, description, parts] = arguments.as_slice() {
        return collect_half(half.parse()?, description.as_ref(), parts.as_ref());
    }
    let folder = tempfile::tempdir()?;
    let index = collect_in_processes(folder.path(), |half, description, parts| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(half.to_string()).arg(description).arg(parts);
        Ok(command)
    })?;
    ask(&index, "my neighbour has lost an island in the north")?;
    let alone = collect_alone(&folder.path().join("alone.gradix"))?;
    ask(&alone, "my neighbour has lost an island in the north")?;
    Ok(())
}
