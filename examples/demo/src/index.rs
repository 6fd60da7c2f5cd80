//! The demo's use of the engine: gradients to sketches, sketches to indexes on disk.

use std::fs;
use std::path::Path;

use burn::Tensor;
use burn::module::Module;
use experiments::Failure;
use experiments::comparison::{Compared, Method};
use experiments::data::Item;
use experiments::experiment::Built;
use gradix::burn::Taps;
use gradix::burn::collect::{Cause, Collector, Example, OnFailure, Piece, Replica, sketch_pieces};
use gradix::sketch::{Sketch, Sketcher};
use gradix::{Encoding, Index, Schema};

use super::model::{Transformer, is_kept};
use super::tracin::{Span, by_length, losses};

/// A training example or a query, as the collector takes it.
struct Text<'a> {
    item: Option<&'a Item>,
    span: &'a Span,
}

impl Example for Text<'_> {
    fn id(&self) -> &[u8] {
        self.item.map_or(b"query", |item| item.id.as_bytes())
    }

    fn tokens(&self) -> usize {
        self.span.sequence.ids.len()
    }

    fn source(&self) -> Option<&str> {
        self.item.map(|item| item.source.as_str())
    }

    fn metadata(&self) -> &[u8] {
        self.item.map_or(&[], |item| item.answer.as_bytes())
    }
}

/// The model on its device, without gradients of its own.
struct Frozen(Transformer);

impl Replica<Text<'_>> for Frozen {
    type Model = Transformer;

    fn model(&self) -> &Transformer {
        &self.0
    }

    fn losses(&self, batch: &[Piece<'_, Text<'_>>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        let spans: Vec<&Span> = batch.iter().map(|piece| piece.example.span).collect();
        Ok(losses(&self.0, &spans, taps)?)
    }

    fn select(&self, path: &str) -> bool {
        is_kept(path)
    }
}

/// The sketches of a few spans, in their order.
///
/// # Errors
/// Of the adapter.
pub fn sketches(
    model: &Transformer,
    spans: &[Span],
    sketcher: &Sketcher,
    batch: usize,
) -> Result<Vec<Sketch>, Failure> {
    let frozen = Frozen(model.clone().no_grad());
    let texts: Vec<Text<'_>> = spans.iter().map(|span| Text { item: None, span }).collect();
    let mut found: Vec<Option<Sketch>> = vec![None; spans.len()];
    for places in by_length(spans).chunks(batch) {
        let pieces: Vec<_> = places.iter().map(|at| Piece::new(&texts[*at], gradix::Span::WHOLE)).collect();
        for (place, sketch) in places.iter().zip(sketch_pieces(sketcher, &frozen, &pieces)?) {
            found[*place] = Some(sketch);
        }
    }
    found.into_iter().map(|sketch| sketch.ok_or_else(|| "a span without a sketch".into())).collect()
}

/// Builds one index for each method from the sketches of `spans`, one for each of `items`. The
/// sketches are made once, at the sketcher's width, and narrowed. Returns the seconds of sketching too;
/// `progress` gets how many examples are done.
///
/// # Errors
/// Of the collector or the engine. An example that fails is an error, too.
pub fn build(
    model: &Transformer,
    spans: &[Span],
    items: &[Item],
    sketcher: &Sketcher,
    methods: &[Method],
    batch: usize,
    mut progress: impl FnMut(u64),
) -> Result<(f64, Vec<Built>), Failure> {
    let mut compared = Compared::create(sketcher.spec(), methods)?;
    let texts = items.iter().zip(spans).map(|(item, span)| Text { item: Some(item), span });
    let done = Collector::new(sketcher)
        .device(Frozen(model.clone().no_grad()))
        .window_rows(512)
        .batch_rows(batch)
        .on_failure(OnFailure::Fatal)
        .progress(|done| progress(done.examples))
        .run(texts, &mut compared)?;
    let sketching = done.elapsed.as_secs_f64() * (1.0 - done.shares.append);
    Ok((sketching, compared.finish()?))
}

/// Keeps the queries' sketches in an index of their own, in their order and at full precision.
///
/// # Errors
/// Of the engine.
pub fn keep_queries(path: &Path, queries: &[Sketch]) -> Result<(), Failure> {
    let Some(first) = queries.first() else { return Ok(()) };
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    let schema = Schema::new(first.spec().clone(), Encoding::F32)?;
    let mut writer = Index::options().create(path, &schema)?.writer()?;
    for (query, sketch) in queries.iter().enumerate() {
        writer.append(format!("query {query:04}"), sketch)?;
    }
    writer.commit()?;
    Ok(())
}
