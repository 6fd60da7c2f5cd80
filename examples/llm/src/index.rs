//! The program's use of the engine: a replica for the collector, and one collection into several indexes.

use std::time::Duration;

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;
use experiments::Failure;
use experiments::comparison::{Compared, Method};
use experiments::data::Item;
use experiments::experiment::Built;
use experiments::trace::Encoded;
use gradix::Span;
use gradix::burn::Taps;
use gradix::burn::collect::{Cause, Collector, Example, OnFailure, Piece, Progress, Replica, sketch_pieces};
use gradix::sketch::{Sketch, Sketcher};

use crate::batch::{Part, losses};
use crate::model::{Llama, is_adapter};

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
    let mut compared = Compared::create(sketcher.spec(), methods)?;
    let done = Collector::new(sketcher)
        .device(frozen)
        .batch_rows(batch)
        .total(sequences.len() as u64)
        .on_failure(OnFailure::Fatal)
        .commit_time(Duration::from_secs(60))
        .progress(|done| progress(done))
        .run(sequences, &mut compared)?;
    Ok((done, compared.finish()?))
}
