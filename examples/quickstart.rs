//! From gradients to a ranking in a few seconds, without burn: a small classifier is trained on sentences,
//! one of which is mislabelled, and the index says which sentences to blame for a wrong answer.
//!
//! ```sh
//! cargo run --example quickstart              # the index lies in a temporary folder
//! cargo run --example quickstart -- my.gradix # the index stays
//! ```

use std::path::Path;

use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{CompactOptions, Encoding, Index, Row, Schema, Tier};

/// Id, source, sentence, and whether it is about the sea.
const EXAMPLES: [(&str, &str, &str, bool); 12] = [
    ("sea/1", "logbook", "the ship left the harbour at high tide", true),
    ("sea/2", "logbook", "a storm broke the mast of the ship", true),
    ("sea/3", "logbook", "whales swam beside the boat at dawn", true),
    ("sea/4", "letters", "the captain wrote of waves and of salt", true),
    ("sea/5", "letters", "we caught herring off the island", true),
    ("sea/6", "letters", "the tide took the nets and the boat", true),
    ("land/1", "farm", "the farmer ploughed the field in spring", false),
    ("land/2", "farm", "wheat grew high beside the barn", false),
    ("land/3", "farm", "the horse pulled a cart of hay", false),
    ("land/4", "letters", "we walked through the forest to the hills", false),
    ("land/5", "letters", "snow lay on the road to the village", false),
    // Mislabelled: it is about the sea.
    ("land/6", "scraped", "the boat sailed before the storm at sea", false),
];

const FEATURES: usize = 4096;

/// A sentence as words and pairs of words, hashed.
fn features(sentence: &str) -> Vec<f32> {
    let mut counts = vec![0.0; FEATURES];
    let words: Vec<&str> = sentence.split(' ').collect();
    let hash = |text: String| {
        text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
    };
    let singles = words.iter().map(ToString::to_string);
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    for text in singles.chain(pairs) {
        counts[(hash(text) % FEATURES as u64) as usize] += 1.0;
    }
    counts
}

/// A logistic regression: the probability that a sentence is about the sea.
struct Model {
    weight: Vec<f32>,
    bias: f32,
}

impl Model {
    fn probability(&self, features: &[f32]) -> f32 {
        let sum: f32 = self.weight.iter().zip(features).map(|(w, x)| w * x).sum();
        1.0 / (1.0 + (-(sum + self.bias)).exp())
    }

    /// The gradient of the loss of one sentence and label: of the weights, and of the bias.
    fn gradient(&self, features: &[f32], label: bool) -> (Vec<f32>, f32) {
        let error = self.probability(features) - f32::from(u8::from(label));
        (features.iter().map(|x| error * x).collect(), error)
    }
}

fn train() -> Model {
    let mut model = Model { weight: vec![0.0; FEATURES], bias: 0.0 };
    for _ in 0..30 {
        for (_, _, sentence, label) in EXAMPLES {
            let (weight, bias) = model.gradient(&features(sentence), label);
            model.weight.iter_mut().zip(weight).for_each(|(w, g)| *w -= 0.1 * g);
            model.bias -= 0.1 * bias;
        }
    }
    model
}

/// The sketch of a sentence's gradient, one parameter tensor after the other.
fn sketch(sketcher: &Sketcher, model: &Model, sentence: &str, label: bool) -> gradix::Result<Sketch> {
    let (weight, bias) = model.gradient(&features(sentence), label);
    let mut fold = sketcher.start();
    fold.add("classifier.weight", &weight)?;
    fold.add("classifier.bias", &[bias])?;
    Ok(fold.finish()?)
}

fn run(path: &Path) -> gradix::Result<()> {
    let model = train();

    // How gradients become sketches (512 buckets, seed 7), and how sketches become bytes.
    let spec = SketchSpec::rapid_grad(7, 512);
    let schema = Schema::new(spec.clone(), Encoding::F16)?.with_tiers([Tier::I8])?;
    let index = Index::create(path, &schema)?;
    let sketcher = Sketcher::new(spec)?;

    // Append once; the commit is durable when it returns.
    let mut writer = index.writer()?;
    for (id, source, sentence, label) in EXAMPLES {
        let sketch = sketch(&sketcher, &model, sentence, label)?;
        writer.append_rows(id, &[Row::new(&sketch).source(source).metadata(sentence.as_bytes())])?;
    }
    let commit = writer.commit()?;
    println!("generation {}: {} rows", commit.generation, index.snapshot()?.rows());

    // Ask: the gradient of what the model says, as if it were the label, is the query.
    let question = "the boat left before the storm";
    let probability = model.probability(&features(question));
    println!("\n{question:?}: about the sea with probability {probability:.2}");
    let queries = [sketch(&sketcher, &model, question, true)?, sketch(&sketcher, &model, question, false)?];
    let snapshot = index.snapshot()?;
    let scan = snapshot.scan(&queries)?.top_k(3).bottom_k(3).metadata(true);
    println!("\n{}", scan.explain()?);
    let ranking = scan.run()?;
    for (query, answer) in ["sea", "land"].into_iter().enumerate() {
        println!("what made it say {answer:?}");
        for (kind, hits) in [("for", ranking.proponents(query)), ("against", ranking.opponents(query))] {
            for hit in hits {
                let sentence = String::from_utf8_lossy(hit.metadata.as_deref().unwrap_or_default());
                let source = hit.source.as_deref().unwrap_or("-");
                println!("  {kind:<8}{:>9.4}  {:<7} {source:<8} {sentence}", hit.score, hit.id_lossy());
            }
        }
    }
    let statistics = ranking.statistics();
    println!("{} rows by the {} kernel in {:?}", statistics.rows, statistics.kernel, statistics.elapsed);

    // The mislabelled sentence goes; what was committed before stays readable until it is collected.
    writer.delete("land/6")?;
    writer.commit()?;
    writer.compact(CompactOptions::all())?;
    println!("\nafter the delete: {} rows", index.snapshot()?.rows());
    for count in index.snapshot()?.sources()? {
        println!("  {:<8} {} rows", count.source.as_deref().unwrap_or("-"), count.rows);
    }
    println!("every checksum holds: {}", index.verify()?.is_sound());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args_os().nth(1) {
        Some(path) => run(path.as_ref())?,
        None => run(&tempfile::tempdir()?.path().join("quickstart.gradix"))?,
    }
    Ok(())
}
