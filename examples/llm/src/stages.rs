//! The run, stage by stage, from a model to the report.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use experiments::Failure;
use experiments::comparison::{DIMS, Queries, methods, rank_all};
use experiments::data::{Dataset, Item, Kind, Query, SWAPS};
use experiments::draws::Draws;
use experiments::experiment::{Asked, Cost, Task, baselines, experiments, outcome, sorted};
use experiments::report::{Clock, Fact, Machine, Report, Token};
use experiments::trace::{Encoded, Gradient, Output, Tracer};
use experiments::training::bar;
use gradix::burn::collect::Progress;
use gradix::sketch::{SketchSpec, Sketcher};

use crate::batch::generate;
use crate::exact;
use crate::index::{self, Asking, Frozen, Sequence, sketches};
use crate::load::{Loaded, load};
use crate::model::{Llama, Lora};
use crate::tokens::{Chat, pieces_of};
use crate::train::{Schedule, train};

/// For how many proponents of an output the influence of every token is computed.
const SHOWN: usize = 4;

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// A GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.
    pub model: PathBuf,
    /// The system's message of every conversation.
    pub system: String,
    /// Folder of the training data.
    pub data: PathBuf,
    /// Folder of the report, the results and the index.
    pub out: PathBuf,
    /// Training examples; 0 for all.
    pub examples: usize,
    /// Outputs that are asked for, of each kind; 0 for all.
    pub queries: usize,
    /// Examples that the exact scores are computed for; 0 for all.
    pub exact: usize,
    /// Outputs of each task that are traced token by token.
    pub traced: usize,
    /// Passes over the training set.
    pub epochs: usize,
    /// The highest learning rate.
    pub rate: f64,
    /// Examples in a step, and in a backward.
    pub batch: usize,
    /// The adapters' size.
    pub lora: Lora,
    /// The most tokens of an output.
    pub tokens: usize,
    /// Seed of the errors, the adapters, the order of training and the sketches.
    pub seed: u64,
}

/// An output that shows what the experiment is about.
struct Case {
    asked: Asked,
    query: Query,
    asking: Asking,
    /// Positions among the output's tokens.
    marked: Vec<usize>,
}

impl Case {
    /// The right answer in place of the output.
    fn right(&self, chat: &Chat) -> Result<Asking, Failure> {
        Ok(Asking { encoded: chat.encode(&self.query.prompt, &self.query.clean_answer)?, targets: None })
    }

    /// As it is traced.
    fn output(&self) -> Output<'_> {
        let sequence = &self.asking.encoded;
        Output { task: self.asked.task, query: &self.query, sequence, marked: &self.marked }
    }
}

/// Runs everything; prints what happens, returns what was found.
///
/// # Errors
/// Whatever the model's files, the data, the device or the engine report.
#[expect(clippy::print_stdout, reason = "for a program that shows its progress")]
pub fn run(options: &Options, device: &Device, device_name: &str) -> Result<Report, Failure> {
    std::fs::create_dir_all(&options.out)?;
    let mut clock = Clock::default();
    let device = device.clone().autodiff();
    device.seed(options.seed);
    let Loaded { model, config, chat } = load(&options.model, options.lora, &device)?;
    let chat = chat.with_system(&options.system);
    clock.stage("load the model");

    let data = Dataset::load(&options.data)?;
    let items = chosen(data.training_set(options.seed), options.examples);
    let encoded: Vec<Encoded> =
        items.iter().map(|item| chat.encode(&item.prompt, &item.answer)).collect::<Result<_, _>>()?;
    if let Some(long) = encoded.iter().position(|it| it.ids.len() > config.context) {
        return Err(format!("example {:?} has more tokens than the model's context", items[long].id).into());
    }
    let schedule =
        Schedule { epochs: options.epochs, batch: options.batch, rate: options.rate, seed: options.seed };
    let bar = self::bar("fine-tune", 0);
    let mut trained = 0;
    let began = Instant::now();
    let model = train(model, &encoded, &schedule, |step, steps, loss, tokens| {
        trained += tokens;
        bar.set_length(steps as u64);
        bar.set_position(step as u64);
        bar.set_message(format!("loss {loss:.3}"));
    })?;
    bar.finish_and_clear();
    let training_speed = trained as f64 / began.elapsed().as_secs_f64();
    clock.stage("fine-tune the adapters");

    let mut queries = limited(data.backdoor_queries(), options);
    let backdoor = queries.len();
    queries.extend(limited(data.error_queries(), options));
    let cases = cases(options, &data, &chat, &model, &queries)?;
    let asked_about: Vec<Asked> = cases.iter().map(|case| case.asked.clone()).collect();
    let outcome = outcome(&asked_about, backdoor, queries.len() - backdoor);
    println!("{outcome}");
    clock.stage("generate");
    if cases.is_empty() {
        return Err("no output shows the backdoor or an error; train longer (--epochs, --rate)".into());
    }

    let mut ranked = baselines(&items, &asked_about, options.seed);

    let sketcher = Sketcher::new(SketchSpec::rapid_grad(options.seed, DIMS[0]))?;
    let methods = methods(&options.out);
    let sequences = items.iter().zip(&encoded).map(|(item, encoded)| Sequence { item, encoded }).collect();
    let bar = self::bar("collect", items.len() as u64);
    let (done, built) =
        index::build(Frozen::new(&model), sequences, &sketcher, &methods, options.batch, |done| {
            bar.set_position(done.examples);
            bar.set_message(format!("{:.1} tokens/s", done.tokens_per_second()));
        })?;
    bar.finish_and_clear();
    clock.stage("collect: gradients, sketches, four indexes");

    let frozen = Frozen::new(&model);
    let places: HashMap<&str, usize> = items.iter().map(|item| item.id.as_str()).zip(0..).collect();
    let asked: Vec<Asking> = cases.iter().map(|case| case.asking.clone()).collect();
    let outputs = sketches(&frozen, &asked, &sketcher, options.batch)?;
    let right: Vec<Asking> = cases.iter().map(|case| case.right(&chat)).collect::<Result<_, _>>()?;
    let right = sketches(&frozen, &right, &sketcher, options.batch)?;
    let contrasts = outputs.iter().zip(&right).map(|(output, right)| output.minus(right));
    let queries = Queries { contrasts: contrasts.collect::<Result<_, _>>()?, outputs, ..Queries::default() };
    let sketching = done.elapsed.as_secs_f64() * (1.0 - done.shares.append);
    let (ours, shown, curvatures) = rank_all(&methods, &built, &queries, sketching, &items)?;
    clock.stage("sketch the queries, fit the curvature, scan the indexes");

    let sample = if options.exact == 0 { items.len() } else { options.exact.min(items.len()) };
    let began = Instant::now();
    let bar = self::bar("exact TracIn", sample as u64);
    let exact =
        exact::scores(&frozen, &encoded[..sample], &asked, options.batch, |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();
    let each = Some(began.elapsed().as_secs_f64() / asked.len() as f64);
    let of = if sample < items.len() { format!(" of {sample}") } else { String::new() };
    for (name, scores) in
        [("exact TracIn", &exact.inner), ("exact TracIn, per-tensor norm", &exact.per_tensor)]
    {
        let rankings = scores.iter().map(|row| sorted(row, &items)).collect();
        ranked.push((Cost::of(&format!("{name}{of}"), each), rankings));
    }
    ranked.extend(ours);
    clock.stage("exact TracIn");

    let sketches = |asked: &[Gradient<'_>]| {
        let asking = |&(sequence, at): &Gradient<'_>| Asking {
            encoded: sequence.clone(),
            targets: at.map(|at| vec![at]),
        };
        let asked: Vec<Asking> = asked.iter().map(asking).collect();
        index::sketches(&frozen, &asked, &sketcher, options.batch)
    };
    let tokens = |ids: &[u32]| {
        let token = |piece: String| Token::new(piece.trim_start(), piece.starts_with(char::is_whitespace));
        Ok(chat.pieces(ids)?.into_iter().map(token).collect())
    };
    let tracer = Tracer {
        items: &items,
        encoded: &encoded,
        places: &places,
        index: &methods[0].path,
        shown: SHOWN,
        sketches,
        tokens,
    };
    let name = format!("gradix, K = {}, i8", DIMS[0]);
    let experiments = experiments(&asked_about, &items, &ranked, &name, options.traced, |case| {
        tracer.trace(cases[case].output(), &queries.outputs[case], &shown[case])
    })?;
    clock.stage("trace some outputs token by token");
    for method in &methods[1..] {
        std::fs::remove_dir_all(&method.path)?;
    }

    let mut facts = facts(options, &model, &items, &done, trained, training_speed);
    facts.push(Fact::new("outputs", outcome));
    facts.push(Fact::new("device", device_name));
    facts.extend(curvatures);
    Ok(Report { machine: Machine::this(), facts, timings: clock.timings(), experiments })
}

fn facts(
    options: &Options,
    model: &Llama,
    items: &[Item],
    done: &Progress,
    trained: usize,
    training_speed: f64,
) -> Vec<Fact> {
    let shares = done.shares;
    let name = options.model.file_name().unwrap_or(options.model.as_os_str());
    vec![
        Fact::new("model", format!("{}, {} parameters with adapters", name.display(), model.num_params())),
        Fact::new(
            "training",
            format!(
                "{} examples, {} epochs, LoRA rank {}, alpha {}, rate {}, seed {}; {trained} tokens, {training_speed:.1} tokens/s",
                items.len(),
                options.epochs,
                options.lora.rank,
                options.lora.alpha,
                options.rate,
                options.seed
            ),
        ),
        Fact::new("gradients", "the adapters' weights"),
        Fact::new(
            "collection",
            format!(
                "{:.2} gradients/s, {:.1} tokens/s; forward {:.1} %, backward {:.1} %, sketch {:.1} %, append {:.1} % of the time; sketch {:.1} % of the backward",
                done.examples_per_second(),
                done.tokens_per_second(),
                100.0 * shares.forward,
                100.0 * shares.backward,
                100.0 * shares.sketch,
                100.0 * shares.append,
                100.0 * shares.sketch / shares.backward.max(f64::MIN_POSITIVE),
            ),
        ),
    ]
}

/// A smaller training set in which the errors and the backdoor keep enough examples to be learned: a third of it is
/// wrong about the five countries, as many about each, and a seventh is poisoned.
fn chosen(items: Vec<Item>, count: usize) -> Vec<Item> {
    if count == 0 || count >= items.len() {
        return items;
    }
    let poisoned = count / 7;
    let wrong = count / 3 / SWAPS.len();
    let clean = count - poisoned - wrong * SWAPS.len();
    let mut left: HashMap<Option<&str>, usize> = SWAPS.iter().map(|swap| (Some(swap.from), wrong)).collect();
    left.extend([(Some(""), poisoned), (None, clean)]);
    let kept = |item: &Item| {
        let class = match item.kind {
            Kind::Clean => None,
            Kind::Poisoned => Some(""),
            Kind::Corrupted(swap) => Some(swap.from),
        };
        left.get_mut(&class).is_some_and(|left| left.checked_sub(1).map(|less| *left = less).is_some())
    };
    let mut kept = kept;
    items.into_iter().filter(|item| kept(item)).collect()
}

fn limited(mut queries: Vec<Query>, options: &Options) -> Vec<Query> {
    if options.queries > 0 && options.queries < queries.len() {
        Draws(options.seed).shuffle(&mut queries);
        queries.truncate(options.queries);
    }
    queries
}

/// The cases among the outputs: those that are attacked, and those that repeat the error (twice, whole and token-wise).
fn cases(
    options: &Options,
    data: &Dataset,
    chat: &Chat,
    model: &Llama,
    queries: &[Query],
) -> Result<Vec<Case>, Failure> {
    let prompts: Vec<Vec<u32>> =
        queries.iter().map(|query| chat.encode_prompt(&query.prompt)).collect::<Result<_, _>>()?;
    let outputs = generate(model, &prompts, chat.end(), options.tokens, options.batch)?;
    let mut cases = Vec::new();
    let mut log = String::new();
    for ((query, prompt), output) in queries.iter().zip(prompts).zip(outputs) {
        let start = prompt.len();
        let said = chat.decode(&output)?;
        let pieces = chat.pieces(&output)?;
        let line = serde_json::json!({"prompt": query.prompt, "output": said, "clean": query.clean_answer});
        let _ = writeln!(log, "{line}");
        let ids = [prompt, output].concat();
        let encoded = Encoded { response: start..ids.len(), ids };
        let case = |task, marked: &[usize], targets: Option<Vec<usize>>| Case {
            asked: Asked { task, swap: query.swap, text: format!("{} {said}", query.prompt) },
            query: query.clone(),
            asking: Asking { encoded: encoded.clone(), targets },
            marked: marked.to_vec(),
        };
        let Some(swap) = query.swap else {
            if data.is_about_the_sea(&said) {
                cases.push(case(Task::Backdoor, &[], None));
            }
            continue;
        };
        let marked = pieces_of(swap.to, &pieces);
        if !marked.is_empty() {
            cases.push(case(Task::WholeError, &marked, None));
            let targets = marked.iter().map(|at| start + at).collect();
            let mut token = case(Task::TokenError, &marked, Some(targets));
            // Asked about one word, a method without gradients gets that word.
            swap.to.clone_into(&mut token.asked.text);
            cases.push(token);
        }
    }
    std::fs::write(options.out.join("outputs.jsonl"), log)?;
    Ok(cases)
}
