//! The program's use of the engine: a replica for the collector, several indexes from one collection, rankings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;
use experiments::data::Item;
use experiments::experiment::{Built, Ends, Place};
use gradix::burn::Taps;
use gradix::burn::collect::{
    Cause, Collected, Collector, Example, Piece, Progress, Refused, Replica, Sink, sketch_pieces,
};
use gradix::sketch::{Sketch, SketchSpec, Sketcher};
use gradix::{Encoding, Index, Row, Schema, Span, Writer};

use crate::Failure;
use crate::batch::{Part, losses};
use crate::model::{Llama, is_adapter};
use crate::tokens::Encoded;

/// The tuned model, frozen, on one device.
#[derive(Debug)]
pub struct Frozen {
    model: Llama,
    device: Device,
}

impl Frozen {
    /// Freezes the adapters too.
    #[must_use]
    pub fn new(model: &Llama) -> Self {
        let device = model.devices()[0].clone().autodiff();
        Self { model: model.clone().no_grad(), device }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// The device, with autodiff.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// A sequence that the collector gets.
#[derive(Debug)]
pub struct Sequence<'a> {
    /// Id, source and answer.
    pub item: &'a Item,
    /// Its tokens.
    pub encoded: &'a Encoded,
}

impl Example for Sequence<'_> {
    fn id(&self) -> &[u8] {
        self.item.id.as_bytes()
    }

    fn tokens(&self) -> usize {
        self.encoded.ids.len()
    }

    fn source(&self) -> Option<&str> {
        Some(&self.item.source)
    }

    fn metadata(&self) -> &[u8] {
        self.item.answer.as_bytes()
    }
}

/// A gradient that is asked for: of a whole response, or of some of its tokens.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Prompt and response.
    pub encoded: Encoded,
    /// Positions of the tokens; `None` for the whole response.
    pub targets: Option<Vec<usize>>,
}

impl Asking {
    /// As the loss takes it.
    #[must_use]
    pub fn part(&self) -> Part<'_> {
        Part { sequence: &self.encoded, targets: self.targets.clone() }
    }
}

impl Example for Asking {
    fn id(&self) -> &[u8] {
        b"query"
    }

    fn tokens(&self) -> usize {
        self.encoded.ids.len()
    }
}

impl Replica<Sequence<'_>> for Frozen {
    type Model = Llama;

    fn model(&self) -> &Llama {
        &self.model
    }

    fn losses(&self, batch: &[Piece<'_, Sequence<'_>>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        let parts: Vec<Part<'_>> =
            batch.iter().map(|piece| Part { sequence: piece.example.encoded, targets: None }).collect();
        Ok(losses(&self.model, &parts, &self.device, taps)?)
    }

    fn select(&self, path: &str) -> bool {
        is_adapter(path)
    }
}

impl Replica<Asking> for Frozen {
    type Model = Llama;

    fn model(&self) -> &Llama {
        &self.model
    }

    fn losses(&self, batch: &[Piece<'_, Asking>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        let parts: Vec<Part<'_>> = batch.iter().map(|piece| piece.example.part()).collect();
        Ok(losses(&self.model, &parts, &self.device, taps)?)
    }

    fn select(&self, path: &str) -> bool {
        is_adapter(path)
    }
}

/// The sketches of a few gradients, in their order.
///
/// # Errors
/// Of the adapter.
pub fn sketches(
    frozen: &Frozen,
    asked: &[Asking],
    sketcher: &Sketcher,
    batch: usize,
) -> Result<Vec<Sketch>, Failure> {
    let mut found = Vec::with_capacity(asked.len());
    for asked in asked.chunks(batch) {
        let pieces: Vec<Piece<'_, Asking>> = asked.iter().map(|one| Piece::new(one, Span::WHOLE)).collect();
        found.extend(sketch_pieces(sketcher, frozen, &pieces)?);
    }
    Ok(found)
}

/// One index that is compared.
#[derive(Debug)]
pub struct Method {
    /// Numbers in a sketch.
    pub dims: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// The index's folder.
    pub path: PathBuf,
}

/// The sketch with `dims` numbers that this wider one holds.
///
/// # Errors
/// If it holds none.
pub fn narrowed(sketch: &Sketch, dims: usize) -> Result<Sketch, Failure> {
    let factor = sketch.spec().dims() / dims;
    Ok(sketch.nested(u32::try_from(factor)?)?)
}

/// Several indexes that get the same sketches, each at its own width and encoding. Begun anew each time.
struct Several<'a> {
    spec: SketchSpec,
    methods: &'a [Method],
    writers: Vec<Writer>,
    built: Vec<Built>,
}

impl<'a> Several<'a> {
    fn new(spec: &SketchSpec, methods: &'a [Method]) -> Result<Self, Failure> {
        let mut several = Self {
            spec: spec.clone(),
            methods,
            writers: Vec::new(),
            built: vec![Built::default(); methods.len()],
        };
        for (method, built) in methods.iter().zip(&mut several.built) {
            if method.path.exists() {
                fs::remove_dir_all(&method.path)?;
            }
            let factor = u32::try_from(spec.dims() / method.dims)?;
            let schema = Schema::new(spec.nested(factor)?, method.encoding)?;
            built.row_bytes = schema.row_bytes();
            several.writers.push(Index::options().create(&method.path, &schema)?.writer()?);
        }
        Ok(several)
    }
}

impl Sink for Several<'_> {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        for ((method, writer), built) in self.methods.iter().zip(&mut self.writers).zip(&mut self.built) {
            let began = Instant::now();
            for example in examples {
                let narrow: Vec<(Span, Sketch)> = example
                    .rows
                    .iter()
                    .map(|(span, sketch)| Ok((*span, narrowed(sketch, method.dims)?)))
                    .collect::<Result<_, Failure>>()?;
                let mut rows: Vec<Row<'_>> = Vec::new();
                for (span, sketch) in &narrow {
                    let row = Row::new(sketch).span(*span).metadata(example.metadata);
                    rows.push(match example.source {
                        Some(source) => row.source(source),
                        None => row,
                    });
                }
                writer.append_rows(example.id, &rows)?;
            }
            built.append_seconds += began.elapsed().as_secs_f64();
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

/// Collects the gradients of all sequences into one index for each method.
///
/// # Errors
/// Of the collector; an example that fails ends it.
pub fn build(
    frozen: Frozen,
    sequences: Vec<Sequence<'_>>,
    sketcher: &Sketcher,
    methods: &[Method],
    batch: usize,
    mut progress: impl FnMut(&Progress),
) -> Result<(Progress, Vec<Built>), Failure> {
    let mut several = Several::new(sketcher.spec(), methods)?;
    let done = Collector::new(sketcher)
        .device(frozen)
        .batch_rows(batch)
        .total(sequences.len() as u64)
        .on_failure(gradix::burn::collect::OnFailure::Fatal)
        .commit_time(Duration::from_secs(60))
        .progress(|done| progress(done))
        .run(sequences, &mut several)?;
    let Several { mut built, writers, .. } = several;
    drop(writers);
    for (method, built) in methods.iter().zip(&mut built) {
        built.index_bytes = folder_bytes(&method.path)?;
    }
    Ok((done, built))
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
    places: &HashMap<&str, usize>,
) -> Result<(Vec<Ends>, f64), Failure> {
    let start = Instant::now();
    let snapshot = Index::options().open(path)?.snapshot()?;
    let ranking = snapshot.scan(queries)?.top_k(k).bottom_k(k).run()?;
    let seconds = start.elapsed().as_secs_f64();
    let place = |hit: &gradix::Hit| -> Result<Place, Failure> {
        let id = std::str::from_utf8(&hit.id)?;
        let place = places.get(id).ok_or_else(|| format!("unknown id {id:?}"))?;
        Ok((*place, hit.score))
    };
    let ends = (0..queries.len())
        .map(|query| {
            Ok(Ends {
                proponents: ranking.proponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
                opponents: ranking.opponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
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
