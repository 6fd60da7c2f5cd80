//! The demo's use of the engine: gradients to sketches, sketches to an index on disk,
//! queries to rankings.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use experiments::data::Item;
use experiments::experiment::{Built, Ends, Place};
use gradix::burn::sketch_examples;
use gradix::sketch::{Sketch, Sketcher};
use gradix::{Encoding, Index, Row, Schema};

use super::model::{Transformer, is_kept};
use super::tracin::{Span, backward, by_length};

/// A failure of any layer; the demo only reports it.
pub type Failure = Box<dyn Error>;

/// One index that is compared.
pub struct Method {
    /// Numbers in a sketch.
    pub dims: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// The index's folder.
    pub path: PathBuf,
}

/// The sketches of spans, batch by batch, short sequences first: `sink` gets a span's place and its
/// sketch. Never more than one batch of them is in memory.
///
/// # Errors
/// Of the adapter, or of `sink`.
pub fn sketch_spans(
    model: &Transformer,
    spans: &[Span],
    sketcher: &Sketcher,
    batch: usize,
    mut sink: impl FnMut(usize, Sketch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let frozen = model.clone().no_grad();
    for places in by_length(spans).chunks(batch) {
        let chunk: Vec<&Span> = places.iter().map(|place| &spans[*place]).collect();
        let (taps, mut gradients) = backward(&frozen, &chunk)?;
        let sketches = sketch_examples(sketcher, &frozen, taps, &mut gradients, is_kept)?;
        for (place, sketch) in places.iter().zip(sketches) {
            sink(*place, sketch)?;
        }
    }
    Ok(())
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
    let mut found: Vec<Option<Sketch>> = vec![None; spans.len()];
    sketch_spans(model, spans, sketcher, batch, |place, sketch| {
        found[place] = Some(sketch);
        Ok(())
    })?;
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

/// Builds one index for each method from the sketches of `spans`, one for each of `items`. The
/// sketches are made once, at the sketcher's width, and narrowed. Returns the seconds of sketching too;
/// `progress` gets how many examples are done.
///
/// # Errors
/// Of the adapter or the engine.
pub fn build(
    model: &Transformer,
    spans: &[Span],
    items: &[Item],
    sketcher: &Sketcher,
    methods: &[Method],
    batch: usize,
    mut progress: impl FnMut(u64),
) -> Result<(f64, Vec<Built>), Failure> {
    let start = Instant::now();
    let mut indexes = Vec::new();
    let mut built = vec![Built::default(); methods.len()];
    for (method, built) in methods.iter().zip(&mut built) {
        if method.path.exists() {
            fs::remove_dir_all(&method.path)?;
        }
        let factor = u32::try_from(sketcher.spec().dims() / method.dims)?;
        let schema = Schema::new(sketcher.spec().nested(factor)?, method.encoding)?;
        built.row_bytes = schema.row_bytes();
        indexes.push(Index::options().create(&method.path, &schema)?);
    }
    let mut writers = indexes.iter().map(Index::writer).collect::<Result<Vec<_>, _>>()?;
    let mut appending = 0.0;
    sketch_spans(model, spans, sketcher, batch, |place, sketch| {
        for ((method, writer), built) in methods.iter().zip(&mut writers).zip(&mut built) {
            let narrow = narrowed(&sketch, method.dims)?;
            let began = Instant::now();
            let item = &items[place];
            let row = Row::new(&narrow).source(&item.source).metadata(item.answer.as_bytes());
            writer.append_rows(&item.id, &[row])?;
            built.append_seconds += began.elapsed().as_secs_f64();
            appending += began.elapsed().as_secs_f64();
        }
        progress(1);
        Ok(())
    })?;
    let sketching = start.elapsed().as_secs_f64() - appending;
    for ((writer, built), method) in writers.iter_mut().zip(&mut built).zip(methods) {
        let began = Instant::now();
        writer.commit()?;
        built.append_seconds += began.elapsed().as_secs_f64();
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
