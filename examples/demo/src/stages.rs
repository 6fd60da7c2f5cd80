//! The run, stage by stage, from the files to the report.

use std::collections::HashMap;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use experiments::Failure;
use experiments::comparison::{DIMS, Scoring, methods, rank_all};
use experiments::data::Dataset;
use experiments::draws::Draws;
use experiments::experiment::{Asked, Cost, baselines, experiments, outcome, sorted};
use experiments::info_rag;
use experiments::report::{Clock, Fact, Machine, Report};
use experiments::trace::{Encoded, Gradient, Tracer};
use experiments::training::bar;
use gradix::sketch::{Normalisation, SketchSpec, Sketcher};

use super::experiment;
use super::index::{self, BATCH};
use super::model::{CONTEXT, Shape, Transformer};
use super::tokens::Vocabulary;
use super::tracin::{self, Span};
use super::train::{self, Schedule};
use super::{On, Options, Set};

/// How many outputs of each task are traced in full.
const TRACED: usize = 2;
/// For how many proponents of each of them the influence of every token is computed.
const SHOWN: usize = 5;

/// Runs everything; prints what happens, returns what was found.
///
/// # Errors
/// Whatever the data, the device or the engine reports.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let mut clock = Clock::default();
    let data = Dataset::load(&options.data)?;
    let mut items = data.training_set(options.seed);
    if options.set == Set::InfoRag {
        // <bos>, <sep> and <eos> come to a row's words.
        items.extend(info_rag::rows(&items, CONTEXT - 3, options.seed));
        Draws(options.seed).shuffle(&mut items);
    }
    let vocabulary = Vocabulary::of(&data, &items);
    let encoded: Vec<Encoded> =
        items.iter().map(|item| vocabulary.encode(&item.prompt, &item.answer)).collect();
    clock.stage("load the data");

    let shape = Shape { vocabulary: vocabulary.size(), width: 64, layers: 2, heads: 4 };
    let model = trained(options, &shape, &encoded);
    clock.stage("train the model");

    let mut queries = data.backdoor_queries();
    queries.extend(data.error_queries());
    let asked: Vec<Vec<u32>> = queries.iter().map(|query| vocabulary.encode_prompt(&query.prompt)).collect();
    let cases = experiment::cases(&data, &vocabulary, &queries, &train::generate(&model, &asked));
    let asked_about: Vec<Asked> = cases.iter().map(|case| case.asked(&vocabulary)).collect();
    clock.stage("generate");
    let outcome = outcome(&asked_about, data.held_out.len(), queries.len() - data.held_out.len());
    println!("{outcome}");

    let spans: Vec<Span> = encoded.iter().cloned().map(Span::whole).collect();
    let asked: Vec<Span> = cases.iter().map(|case| case.span.clone()).collect();
    let normalisation = if options.per_tensor { Normalisation::PerTensor } else { Normalisation::None };
    let sketcher = Sketcher::new(SketchSpec::rapid_grad(options.seed, DIMS[0]).normalised(normalisation))?;
    let mut methods = methods(&options.out);
    if options.observe.is_some()
        && let Some(smallest) = methods.iter_mut().find(|method| method.scorings.len() > 2)
    {
        smallest.scorings.push(Scoring::observed());
    }
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    let bar = bar("gradients, sketches, indexes", items.len() as u64);
    let (sketching, built) =
        index::build(&model, &spans, &items, &sketcher, &methods, options.observe, |n| {
            bar.set_position(n);
        })?;
    bar.finish_and_clear();
    clock.stage("make the gradients, sketch them, build four indexes");

    let places: HashMap<&str, usize> = ids.iter().copied().zip(0..).collect();
    let queries = index::queries(&model, &vocabulary, &cases, &sketcher)?;
    index::keep_queries(&options.out.join("queries.gradix"), &queries.outputs)?;
    let mut ranked = baselines(&items, &asked_about, options.seed);
    let (ours, shown, curvatures) = rank_all(&methods, &built, &queries, sketching, &items)?;
    clock.stage("sketch the queries, fit the curvature, scan the indexes");

    let bar = self::bar("exact TracIn", items.len() as u64);
    let began = Instant::now();
    let exact = tracin::scores(&model, &spans, &asked, BATCH, |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();
    let each = Some(began.elapsed().as_secs_f64() / asked.len().max(1) as f64);
    for (name, scores) in [
        ("exact TracIn", &exact.inner),
        ("exact TracIn, per-tensor norm", &exact.per_tensor),
        ("exact TracIn, cosine", &exact.cosine),
    ] {
        let rankings = scores.iter().map(|row| sorted(row, &items)).collect();
        ranked.push((Cost::of(name, each), rankings));
    }
    ranked.extend(ours);
    clock.stage("exact TracIn");

    let sketches = |asked: &[Gradient<'_>]| {
        let span = |&(sequence, at): &Gradient<'_>| Span {
            sequence: sequence.clone(),
            tokens: at.map(|at| vec![at]),
        };
        let spans: Vec<Span> = asked.iter().map(span).collect();
        index::sketches(&model, &spans, &sketcher)
    };
    let tracer = Tracer {
        items: &items,
        encoded: &encoded,
        places: &places,
        index: &methods[0].path,
        shown: SHOWN,
        sketches,
        tokens: |ids: &[u32]| Ok(vocabulary.pieces(ids)),
    };
    let name = format!("gradix, K = {}, i8", DIMS[0]);
    let experiments = experiments(&asked_about, &items, &ranked, &name, TRACED, |case| {
        tracer.trace(cases[case].output(), &queries.outputs[case], &shown[case])
    })?;
    clock.stage("trace some outputs token by token");
    for method in &methods[1..] {
        std::fs::remove_dir_all(&method.path)?;
    }

    let of_layers = "weights of the blocks' linear layers";
    let mut facts = vec![
        Fact::new(
            "model",
            format!("{} layers, width {}, {} parameters", shape.layers, shape.width, model.num_params()),
        ),
        Fact::new(
            "training",
            format!("{} examples, {} epochs, seed {}", items.len(), epochs(options), options.seed),
        ),
        Fact::new(
            "gradients",
            if options.per_tensor { format!("{of_layers}, per-tensor norm") } else { of_layers.to_owned() },
        ),
        Fact::new("outputs", outcome),
        Fact::new("device", format!("{:?}", options.device).to_lowercase()),
    ];
    facts.extend(curvatures);
    Ok(Report { machine: Machine::this(), facts, timings: clock.timings(), experiments })
}

fn trained(options: &Options, shape: &Shape, encoded: &[Encoded]) -> Transformer {
    let device = device(options.device).autodiff();
    device.seed(options.seed);
    let schedule =
        Schedule { epochs: epochs(options), batch: 64, rate: 3e-3, decay: 0.01, seed: options.seed };
    let bar = bar("train", 0);
    let model = train::train(shape.init(&device), encoded, &schedule, |step, steps, loss| {
        bar.set_length(steps as u64);
        bar.set_position(step as u64);
        bar.set_message(format!("loss {loss:.3}"));
    });
    bar.finish_and_clear();
    model
}

fn epochs(options: &Options) -> usize {
    if options.quick { options.epochs.min(3) } else { options.epochs }
}

fn device(on: On) -> Device {
    match on {
        On::Flex => Device::flex(),
        #[cfg(feature = "wgpu")]
        On::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        On::Cuda => Device::cuda(0),
    }
}
