//! The demo's use of the engine: gradients to sketches, sketches to an index on disk,
//! queries to rankings.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::Tensor;
use burn::module::Module;
use experiments::data::Item;
use experiments::experiment::{Built, Ends, Place};
use gradix::burn::Taps;
use gradix::burn::collect::{
    Cause, Collected, Collector, Example, OnFailure, Piece, Refused, Replica, Sink, sketch_pieces,
};
use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{Encoding, Index, Row, Schema, Writer};

use super::model::{Transformer, is_kept};
use super::tracin::{Span, by_length, losses};

/// A failure of any layer; the demo only reports it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// One index that is compared.
pub struct Method {
    /// Numbers in a sketch.
    pub dims: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// The index's folder.
    pub path: PathBuf,
}

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

/// The sketch with `dims` numbers that this wider one holds.
///
/// # Errors
/// If it holds none.
pub fn narrowed(sketch: &Sketch, dims: usize) -> Result<Sketch, Failure> {
    let factor = sketch.spec().dims() / dims;
    Ok(sketch.nested(u32::try_from(factor)?)?)
}

/// The indexes that are compared, each of which gets every sketch at its own width.
struct Compared<'a> {
    spec: &'a SketchSpec,
    methods: &'a [Method],
    writers: Vec<Writer>,
    built: Vec<Built>,
}

impl Sink for Compared<'_> {
    fn spec(&self) -> &SketchSpec {
        self.spec
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        for example in examples {
            for (_, sketch) in &example.rows {
                let targets = self.methods.iter().zip(&mut self.writers).zip(&mut self.built);
                for ((method, writer), built) in targets {
                    let narrow = narrowed(sketch, method.dims)?;
                    let began = Instant::now();
                    let row = Row::new(&narrow).source(example.source.unwrap_or_default());
                    writer.append_rows(example.id, &[row.metadata(example.metadata)])?;
                    built.append_seconds += began.elapsed().as_secs_f64();
                }
            }
        }
        Ok(Vec::new())
    }

    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause> {
        for (writer, built) in self.writers.iter_mut().zip(&mut self.built) {
            let began = Instant::now();
            writer.prepare_commit()?.payload(payload.clone()).commit()?;
            built.append_seconds += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Cause> {
        for writer in &mut self.writers {
            writer.abort()?;
        }
        Ok(())
    }
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
    let mut built = vec![Built::default(); methods.len()];
    let mut writers = Vec::new();
    for (method, built) in methods.iter().zip(&mut built) {
        if method.path.exists() {
            fs::remove_dir_all(&method.path)?;
        }
        let factor = u32::try_from(sketcher.spec().dims() / method.dims)?;
        let schema = Schema::new(sketcher.spec().nested(factor)?, method.encoding)?;
        built.row_bytes = schema.row_bytes();
        writers.push(Index::options().create(&method.path, &schema)?.writer()?);
    }
    let mut compared = Compared { spec: sketcher.spec(), methods, writers, built };
    let texts = items.iter().zip(spans).map(|(item, span)| Text { item: Some(item), span });
    let done = Collector::new(sketcher)
        .device(Frozen(model.clone().no_grad()))
        .window_rows(512)
        .batch_rows(batch)
        .on_failure(OnFailure::Fatal)
        .progress(|done| progress(done.examples))
        .run(texts, &mut compared)?;
    let sketching = done.elapsed.as_secs_f64() * (1.0 - done.shares.append);
    let mut built = compared.built;
    for (built, method) in built.iter_mut().zip(methods) {
        built.index_bytes = folder_bytes(&method.path)?;
    }
    Ok((sketching, built))
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

/// The `k` first and `k` last examples for each query, from an index on disk, and the seconds that
/// opening and scanning it took. `places` gives an id's place in the training set.
///
/// # Errors
/// Of the engine, or an id that is not in the training set.
pub fn rank(
    path: &Path,
    queries: &[Sketch],
    k: usize,
    places: &std::collections::HashMap<&str, usize>,
) -> Result<(Vec<Ends>, f64), Failure> {
    let start = Instant::now();
    let snapshot = Index::options().open(path)?.snapshot()?;
    let ranking = snapshot.scan(queries)?.top_k(k).bottom_k(k).run()?;
    let seconds = start.elapsed().as_secs_f64();
    let place = |id: &[u8], score: f64| -> Result<Place, Failure> {
        let id = std::str::from_utf8(id)?;
        let place = places.get(id).ok_or_else(|| format!("unknown id {id:?}"))?;
        Ok((*place, score))
    };
    let ends = (0..queries.len())
        .map(|query| {
            Ok(Ends {
                proponents: ranking
                    .proponents(query)
                    .iter()
                    .map(|hit| place(&hit.id, hit.score))
                    .collect::<Result<_, Failure>>()?,
                opponents: ranking
                    .opponents(query)
                    .iter()
                    .map(|hit| place(&hit.id, hit.score))
                    .collect::<Result<_, Failure>>()?,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok((ends, seconds))
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { folder_bytes(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}
