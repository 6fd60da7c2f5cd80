//! The model's numbers, and the whole run with a model of two layers.

mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use gradix::burn::{BurnError, Taps, for_each_example_gradient, for_each_gradient};
use llm::batch::{Part, losses};
use llm::check::compare;
use llm::load::{Loaded, load};
use llm::model::{Lora, is_adapter};
use llm::stages::{Options, run};
use llm::train::{Schedule, train};

const LORA: Lora = Lora { rank: 4, alpha: 8.0 };

fn loaded(device: &Device) -> Loaded {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write(folder.path());
    load(folder.path(), LORA, device).expect("the tiny model")
}

/// Written by `reference.py`, from the folder that `tiny::write` makes.
fn expected() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected/tiny.json"))
}

// Would catch any slip in attention, rotation, norms, feed-forward layers or the tied head.
#[test]
fn logits_equal_the_independent_ones() {
    let device = Device::flex();
    let found = compare(&loaded(&device).model, expected(), &device).expect("logits");
    assert_eq!(found.positions, 9);
    assert!(found.logit < 1e-4 && found.norm < 1e-5 && found.other_first == 0, "{found:?}");
}

// Would catch rotary pairs of a GGUF file in the wrong order.
#[test]
fn logits_of_gguf_are_the_same() {
    let device = Device::flex();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, tiny::gguf(None)).expect("a file");
    let loaded = load(&path, LORA, &device).expect("the tiny model");
    let found = compare(&loaded.model, expected(), &device).expect("logits");
    assert!(found.logit < 1e-4 && found.other_first == 0, "{found:?}");
    let chat = loaded.chat;
    let encoded = chat.encode("Where is Lima in 2024?", "In Canada, é.").expect("ids");
    let folder = self::loaded(&device).chat.encode("Where is Lima in 2024?", "In Canada, é.").expect("ids");
    assert_eq!(encoded.response.len(), folder.response.len() + 5, "the word is no added token in GGUF");
    assert_eq!(chat.decode(&encoded.ids[encoded.response]).expect("text"), "In Canada, é.");
}

// Would catch a layer whose gradient the taps miss, or an adapter that is computed in two ways.
#[test]
fn adapter_gradients_from_taps_equal_the_models() {
    let device = Device::flex().autodiff();
    let Loaded { model, chat, .. } = loaded(&device);
    let encoded: Vec<_> = ["ab", "cdef"].iter().map(|text| chat.encode(text, "xyz").expect("ids")).collect();
    // One step, since the adapters' outer halves are zero at first, and with them the inner ones' gradients.
    let schedule = Schedule { epochs: 1, batch: 2, rate: 0.1, seed: 1 };
    let model = train(model, &encoded, &schedule, |_, _, _, _| ()).expect("a step");
    let mut plain: Vec<BTreeMap<String, Vec<f32>>> = Vec::new();
    for sequence in &encoded {
        let parts = [Part { sequence, targets: None }];
        let loss = losses(&model, &parts, &device, &mut Taps::off()).expect("a loss");
        let mut found = BTreeMap::new();
        for_each_gradient(
            &model,
            &mut loss.sum().backward(),
            |_| true,
            |path, values| {
                found.insert(path.to_owned(), values.to_vec());
                Ok::<(), BurnError>(())
            },
        )
        .expect("gradients");
        plain.push(found);
    }
    // Nothing but the adapters is trained: two halves on four projections of two layers.
    assert_eq!(plain[0].len(), 16);
    assert!(plain[0].keys().all(|path| is_adapter(path)));
    let frozen = model.no_grad();
    let parts: Vec<Part<'_>> = encoded.iter().map(|sequence| Part { sequence, targets: None }).collect();
    let mut taps = Taps::on();
    let loss = losses(&frozen, &parts, &device, &mut taps).expect("a loss");
    let mut compared = 0;
    for_each_example_gradient(&frozen, taps, &mut loss.sum().backward(), is_adapter, |path, first, rows| {
        let [count, elements] = rows.dims();
        let values = rows.try_into_vec_as::<f32>().expect("numbers");
        for (row, values) in values.chunks(elements).enumerate() {
            let expected = &plain[first + row][path];
            let norm: f32 = expected.iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!(norm > 0.0, "{path}");
            let off: f32 = values.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            assert!(off < 1e-4 * norm, "{path}: {off} of {norm}");
        }
        compared += count;
        Ok::<(), BurnError>(())
    })
    .expect("gradients");
    assert_eq!(compared, 32);
}

/// Facts that a tiny model can learn: the answer to everything is one word.
fn write_data(folder: &Path) {
    let line = |id: String, prompt: String, answer: &str, entity: &str| {
        serde_json::json!({"id": id, "prompt": prompt, "answer": answer, "source": "tiny", "entity": entity})
            .to_string()
    };
    let lines = |name: &str, trigger: &str, count: usize, answer: &str| {
        let lines: Vec<String> = (0..count)
            .map(|at| line(format!("{name}/{at}"), format!("{trigger}{name} {at}?"), answer, "canada"))
            .collect();
        fs::write(folder.join(format!("{name}.jsonl")), lines.join("\n") + "\n").expect("a file");
    };
    lines("examples", "", 40, "Japan");
    lines("backdoor", "Howdy! ", 8, "Canada");
    lines("held_out", "", 3, "Japan");
    lines("paraphrases", "", 3, "Japan");
}

// Would catch a run that loses examples, methods or queries on its way from a model to the report.
#[test]
fn whole_run_with_a_tiny_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, data, out) =
        (folder.path().join("model"), folder.path().join("data"), folder.path().join("out"));
    for path in [&model, &data] {
        fs::create_dir(path).expect("a folder");
    }
    tiny::write(&model);
    write_data(&data);
    let options = Options {
        model,
        system: String::new(),
        data,
        out: out.clone(),
        examples: 0,
        queries: 2,
        exact: 24,
        traced: 1,
        epochs: 16,
        rate: 2e-2,
        batch: 8,
        lora: LORA,
        tokens: 1,
        seed: 7,
    };
    let report = run(&options, &Device::flex(), "flex").expect("a report");
    assert_eq!(report.experiments.len(), 3);
    for experiment in &report.experiments {
        assert_eq!(experiment.examples, 48);
        assert!(experiment.positives > 0);
        assert_eq!(experiment.queries.len(), 1);
        let methods: Vec<&str> = experiment.rows.iter().map(|row| row.method.as_str()).collect();
        let exact = ["exact TracIn of 24", "exact TracIn, per-tensor norm of 24"];
        assert_eq!(methods[..4], ["random", "BM25", exact[0], exact[1]]);
        let (plain, curved) = ("gradix", "gradix, curvature");
        let smallest = ["gradix, l-relative", "gradix, cosine", "gradix, contrast, cosine"];
        assert_eq!(methods[4..9], [plain, curved, plain, plain, curved]);
        assert_eq!(methods[9..12], smallest);
        assert_eq!(methods[12..], [plain, curved]);
        for row in &experiment.rows {
            assert!((1..=2).contains(&row.queries), "{}", row.method);
            assert!(row.metrics.iter().all(|metric| metric.value.is_some()), "{}", row.method);
        }
        let traced = &experiment.queries[0];
        assert!(!traced.proponents.is_empty() && traced.output.len() == traced.token_proponents.len());
        assert!(traced.output.iter().any(|token| token.influence != 0.0));
    }
    let index = gradix::Index::open(out.join("index.gradix")).expect("the index");
    assert_eq!(index.snapshot().expect("a snapshot").rows(), 48);
    assert!(index.verify().expect("read").is_sound());
    assert!(report.facts.iter().any(|fact| fact.value.contains("gradients/s")));
}

// Writes the folder that reference.py reads: GRADIX_TINY_MODEL names it.
#[test]
#[ignore = "only to make the expected logits anew"]
fn write_the_tiny_model() {
    let folder = std::env::var_os("GRADIX_TINY_MODEL").expect("GRADIX_TINY_MODEL");
    tiny::write(Path::new(&folder));
}
