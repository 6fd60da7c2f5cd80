//! From an iterator of examples to committed rows: batches by length, on one or several devices, in the input's
//! order, resumable.
//!
//! ```text
//! input ─► windows ─► batches by length ─► bounded queue ─┬─► device 0: forward, backward, sketch ─┐
//!                                                         └─► device 1: ...                       ─┤
//! index ◄─ commit ◄─ append ◄─ whole windows, in the order of the input ◄──────────────────────────┘
//! ```
//!
//! The caller gives a [`Replica`] of the model for each device, and an [`Example`] for each training item:
//!
//! ```
//! # use burn::{Tensor, module::Module, nn::{Embedding, EmbeddingConfig, Linear, LinearConfig}};
//! # use burn::tensor::{Device, Int, TensorData};
//! # use gradix::burn::{Taps, collect::{Cause, Collector, Example, Piece, Replica, sketch_pieces}, target_loss};
//! # use gradix::{Encoding, Index, Schema, Span, sketch::{SketchSpec, Sketcher}};
//! #[derive(Module, Debug)]
//! struct Model { tokens: Embedding, head: Linear }
//!
//! struct Text { id: String, prompt: usize, tokens: Vec<i32> }
//!
//! impl Example for Text {
//!     fn id(&self) -> &[u8] { self.id.as_bytes() }
//!     fn tokens(&self) -> usize { self.tokens.len() }
//! }
//!
//! struct OnDevice { model: Model, device: Device }
//!
//! impl Replica<Text> for OnDevice {
//!     type Model = Model;
//!     fn model(&self) -> &Model { &self.model }
//!     fn losses(&self, batch: &[Piece<'_, Text>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
//!         // Padded to the longest, each cut off behind its last target.
//!         let longest = batch.iter().map(|piece| piece.tokens).max().unwrap_or(0);
//!         let mut ids = Vec::new();
//!         for piece in batch {
//!             ids.extend(&piece.example.tokens[..piece.tokens]);
//!             ids.resize(ids.len().next_multiple_of(longest), 0);
//!         }
//!         let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), longest]), &self.device);
//!         let logits = taps.linear(&self.model.head, self.model.tokens.forward(tokens.clone()));
//!         let targets: Vec<_> =
//!             batch.iter().map(|it| it.targets(it.example.prompt..it.example.tokens.len())).collect();
//!         Ok(target_loss(logits, tokens, &targets)?)
//!     }
//!     fn select(&self, path: &str) -> bool { path.starts_with("head") }
//! }
//! # fn replica() -> OnDevice {
//! #     let device = Device::flex().autodiff();
//! #     device.seed(1);
//! #     let tokens = EmbeddingConfig::new(10, 4).init(&device);
//! #     OnDevice { model: Model { tokens, head: LinearConfig::new(4, 10).init(&device) }, device }
//! # }
//! # let text = |number: i32| Text { id: format!("text {number}"), prompt: 1, tokens: vec![1, number, 7] };
//! # let examples: Vec<Text> = (0..10).map(text).collect();
//! # let folder = tempfile::tempdir()?;
//!
//! let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 64))?;
//! let schema = Schema::new(sketcher.spec().clone(), Encoding::F16)?;
//! let index = Index::create(folder.path().join("my.gradix"), &schema)?;
//! let done = Collector::new(&sketcher)
//!     .device(replica())
//!     .device(replica())
//!     .total(examples.len() as u64)
//!     .weights("step 1000 of run 7")
//!     .progress(|done| println!("{:.1} examples/s", done.examples_per_second()))
//!     .run(examples, &mut index.writer()?)?;
//! assert_eq!((done.rows, done.failed), (10, 0));
//!
//! // An output of the model is sketched in the same way, and is a query.
//! let output = Text { id: "output".into(), prompt: 1, tokens: vec![1, 3, 7] };
//! let queries = sketch_pieces(&sketcher, &replica(), &[Piece::new(&output, Span::WHOLE)])?;
//! let ranking = index.snapshot()?.scan(&queries)?.top_k(3).run()?;
//! assert_eq!(ranking.proponents(0)[0].id_lossy(), "text 3");
//! # Ok::<(), Cause>(())
//! ```
//!
//! **Batches are a function of the input.** The input is cut into windows at fixed positions, a window's pieces are
//! sorted by length and cut into batches, and commits come at ends of windows only. So a run that is interrupted and
//! started again makes the same batches as one that is not, on any number of devices of a kind, and its rows are equal
//! bit for bit. (Unless a device runs out of memory in one of the two alone: the halves of a batch may round
//! differently.)
//!
//! **Resume.** Each commit's payload is a [`Record`]: how far the input was, a digest of it, and the examples that
//! failed. [`Collector::run`] looks for the last one, reads the input up to there, compares it, and goes on behind it.
//! If these commits have been collected as garbage, it goes on behind the last window of which the index has an
//! example. The index may have been changed otherwise in between.
//!
//! **What must stay the same** is recorded too: what decides batches, and names and shapes of the sketched parameters of each
//! checkpoint. A model whose parameters differ is refused by the name of the first that does, at a resume; for queries,
//! [`Record::last`] and [`Record::check_parameters`] do it. Other *values* under the same names are not seen. Give
//! [`Collector::weights`] a digest of the file, or the collection another [name](Collector::named).
//!
//! **Several processes** or machines collect parts of a training set into [detached](crate::DetachedWriter) segments, each
//! resumable by itself, and a writer attaches them: `examples/two_devices.rs`.
//!
//! **Failures** are isolated: a batch that fails as a whole is tried again in halves, so that its other examples are not
//! lost. What failed alone is recorded and skipped, or ends the run ([`OnFailure`]). When examples fail alone for a
//! reason that may be the device's, the shortest others of the window are tried; if they fail too, it is the device
//! that is lost, and the run ends. So it does when model, taps and spec do not fit together.
//!
//! **Memory**: two windows of examples and sketches (`window_rows` times the dims times 4 bytes, each), and a batch on
//! each device. A slow sink slows the devices: nothing is computed ahead of the second window.
//!
//! **Checkpoints.** A device may have several replicas, one for each checkpoint of a training run, or for each of
//! several LoRA adapters: [`Collector::checkpoints`]. A checkpoint's parameters are called `prefix.name`, and the spec has
//! blocks of these names (`step-100`, or `step-100.layers.3`). A row is the sum of the checkpoints' sketches, each in its own
//! blocks, so that a scan with [`Scan::weights`](crate::Scan::weights) is TracIn's weighted sum over checkpoints. A replica
//! may share with another one all tensors that their models do not differ in: clones of a burn model do.
//!
//! **Optimizer-aware rows.** A replica whose [`Replica::sketch`] calls [`sketch_steps`](crate::burn::sketch_steps) under a
//! spec with an optimizer, and [`sketch_examples`](crate::burn::sketch_examples) under one without, serves rows and queries.
//! The spec records the optimizer's state, so a collection with another one is refused.
//!
//! **Token losses.** A row for each token, or for windows of tokens, of an example's answer: [`Example::spans`], for which
//! [`windows`] makes lists. The gradient of token t's loss is a backward of its own: the backward of a sum of losses
//! gives the sum of their gradients, and burn keeps no graph for a second one. So T spans of an example are T pieces,
//! T copies of the sequence in one or several batches, each with its own target. The model is causal, so a copy is cut off
//! behind its last target: T single tokens behind a prompt of P cost a forward and a backward of T · P + T² / 2 tokens,
//! against P + T for the whole. Padding adds to it: 64 tokens behind 32 take
//! 4,809 tokens, not 4,128, in batches of 2,048. Batches make that faster, not fewer. [`sketch_pieces`] does the same for queries.
//! `benches/tokens.rs` measures it.
//!
//! **Observed tokens** ([`Collector::observe`]): sketches of a few tokens of each example are added to the sums of a
//! curvature, and not stored. A curvature of tokens is finer than one of whole examples.
//!
//! **Position rows** ([`RowKind::Positions`]) cost one backward for all spans of an example, and are something else: the
//! terms of the whole loss's gradient, by the position at which a layer computed them.

mod error;
mod example;
mod failure;
mod plan;
mod progress;
mod record;
mod replica;
mod resume;
mod run;
mod sink;
mod work;

pub use error::CollectError;
pub use example::{Example, Piece, windows};
pub use failure::{Failure, Reason};
pub use progress::{Progress, Shares};
pub use record::Record;
pub use replica::Replica;
pub use sink::{Collected, Refused, Sink};

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scan::CancelToken;
use crate::sketch::{Sketch, Sketcher};
use plan::{Bounds, Observe};

/// An error of the caller's code, or one that is passed on as it is.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What [`Collector::progress`] was given.
type Callback<'c> = Box<dyn FnMut(&Progress) + 'c>;

/// What becomes of a collection when an example fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// The example is recorded in the commit's payload, and has no rows.
    #[default]
    Skip,
    /// The collection ends with [`CollectError::Failed`], behind the last complete window.
    Fatal,
}

/// What the rows of an example are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RowKind {
    /// For each span the gradient of a loss: the mean of its tokens', or the whole loss. Each span is a piece of a batch.
    #[default]
    Losses,
    /// For each span the terms of its positions in the gradient of the **whole** loss, by
    /// [`sketch_positions`](crate::burn::sketch_positions): all spans of an example from one backward. Spans that cover
    /// the sequence add up to the gradient of the whole loss; a row says what the layers did there, and not how its
    /// tokens' own loss moves the parameters. A batch has one row for each example, whose sketches may be many:
    /// [`Collector::batch_rows`] counts examples then.
    Positions,
}

impl RowKind {
    /// The kind's name in a commit's payload.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Losses => "losses",
            Self::Positions => "positions",
        }
    }
}

/// A replica of the model as it was at some step of its training, or with one of several adapters.
#[derive(Debug)]
pub struct Checkpoint<R> {
    /// What its parameters' names begin with; `None` to leave them as they are.
    prefix: Option<String>,
    replica: R,
}

impl<R> Checkpoint<R> {
    /// A checkpoint whose parameters are called `prefix.name`.
    #[must_use]
    pub fn new(prefix: impl Into<String>, replica: R) -> Self {
        Self { prefix: Some(prefix.into()), replica }
    }

    fn sketcher(&self, sketcher: &Sketcher) -> Sketcher {
        self.prefix.as_ref().map_or_else(|| sketcher.clone(), |prefix| sketcher.under(prefix))
    }
}

/// Collects the sketches of a training set. See [the module](self).
#[must_use = "a collector does nothing until `run` is called"]
pub struct Collector<'c, R> {
    sketcher: Sketcher,
    devices: Vec<Vec<Checkpoint<R>>>,
    bounds: Bounds,
    queue: usize,
    commit_rows: u64,
    commit_time: Duration,
    on_failure: OnFailure,
    name: String,
    weights: String,
    total: Option<u64>,
    cancel: CancelToken,
    progress: Option<Callback<'c>>,
}

impl<R> fmt::Debug for Collector<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("spec", self.sketcher.spec())
            .field("devices", &self.devices.len())
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl<'c, R> Collector<'c, R> {
    /// A collector without a device yet.
    pub fn new(sketcher: &Sketcher) -> Self {
        Self {
            sketcher: sketcher.clone(),
            devices: Vec::new(),
            bounds: Bounds {
                rows: RowKind::default(),
                window_rows: 1024,
                batch_rows: 32,
                batch_tokens: 1 << 14,
                max_tokens: usize::MAX,
                observe: None,
            },
            queue: 2,
            commit_rows: 8192,
            commit_time: Duration::from_secs(300),
            on_failure: OnFailure::default(),
            name: String::new(),
            weights: String::new(),
            total: None,
            cancel: CancelToken::new(),
            progress: None,
        }
    }

    /// Adds a device with its replica, which gets a thread of its own.
    pub fn device(mut self, replica: R) -> Self {
        self.devices.push(vec![Checkpoint { prefix: None, replica }]);
        self
    }

    /// Adds a device with a replica for each of several checkpoints. Every device must have the same ones.
    pub fn checkpoints(mut self, checkpoints: impl IntoIterator<Item = Checkpoint<R>>) -> Self {
        self.devices.push(checkpoints.into_iter().collect());
        self
    }

    /// What the rows of an example are. Default: [`RowKind::Losses`].
    pub fn rows(mut self, kind: RowKind) -> Self {
        self.bounds.rows = kind;
        self
    }

    /// The rows, and observed tokens, from which on a window of the input is complete, at most 65,536. Larger windows have
    /// less padding, and take more memory. Default: 1024.
    pub fn window_rows(mut self, rows: usize) -> Self {
        self.bounds.window_rows = rows;
        self
    }

    /// The maximum number of rows of a batch. Default: 32.
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.bounds.batch_rows = rows;
        self
    }

    /// The maximum number of tokens of a batch, with padding: its rows times the tokens of the longest. A piece that has
    /// more is a batch of its own. Default: 16,384.
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.bounds.batch_tokens = tokens;
        self
    }

    /// Longer examples fail with [`Reason::TooLong`]. Default: no limit.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.bounds.max_tokens = tokens;
        self
    }

    /// Adds sketches of single tokens to the sums of a curvature, without storing them: `tokens` of each example, or all of
    /// them where it has fewer. They are drawn from [`Example::observable`] by a hash of the example's id
    /// (format-spec/collect.md), so that a collection that is resumed draws the same. The commits publish the sums under
    /// `curvature`, for [`Scan::curvature`](crate::Scan::curvature); see [`Writer::observe`](crate::Writer::observe).
    ///
    /// Under [`RowKind::Losses`] each is the gradient of one token's loss, a piece of a batch with a backward of its own.
    /// Under [`RowKind::Positions`] it is the position's term in the gradient of the whole loss, from the one backward of the
    /// example. Only examples that the sink takes are observed; one that has no token to draw counts as covered, and adds
    /// nothing to the sums. A token that fails is a failure of its example. Default: nothing is observed.
    pub fn observe(mut self, curvature: impl Into<String>, tokens: usize) -> Self {
        self.bounds.observe = Some(Observe { curvature: curvature.into(), tokens: tokens as u64 });
        self
    }

    /// How many batches wait for each device, at most. Default: 2.
    pub fn queue(mut self, batches: usize) -> Self {
        self.queue = batches;
        self
    }

    /// Commits at the end of a window when there are this many rows. Default: 8192.
    pub fn commit_rows(mut self, rows: u64) -> Self {
        self.commit_rows = rows;
        self
    }

    /// Commits at the end of a window when the last commit is as long ago as this. Default: 5 minutes.
    pub fn commit_time(mut self, time: Duration) -> Self {
        self.commit_time = time;
        self
    }

    /// What becomes of the collection when an example fails. Default: [`OnFailure::Skip`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// The collection's name, by which it finds its own commits. An index that gets a second, different input needs a
    /// second name. Default: empty.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What tells these weights from others under the same names, at most 255 bytes: a digest of their file, or the step.
    /// Each commit records it, and a collection that goes on must be given the same. The collector itself compares names
    /// and shapes of parameters, never their values: rows of two models under one name would go unnoticed without
    /// this. Default: empty.
    pub fn weights(mut self, label: impl Into<String>) -> Self {
        self.weights = label.into();
        self
    }

    /// The number of examples of the whole input, from which [`Progress::time_left`] is computed.
    pub fn total(mut self, examples: u64) -> Self {
        self.total = Some(examples);
        self
    }

    /// A token that ends the collection from another thread, with [`CollectError::Cancelled`]. The batches that are on the
    /// devices are finished first, and complete windows are committed.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Called on the thread of [`Collector::run`] after each batch and each window.
    pub fn progress(mut self, callback: impl FnMut(&Progress) + 'c) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Collects the rows of all examples, behind those that the sink has already, and returns how far this run has come.
    /// Returns when the threads of all devices have ended.
    ///
    /// The sink should have no uncommitted changes: they would be part of the first commit.
    ///
    /// # Errors
    /// As [`CollectError`] lists; complete windows stay committed.
    pub fn run<E: Example>(
        self,
        input: impl IntoIterator<Item = E>,
        sink: &mut impl Sink,
    ) -> Result<Progress, CollectError>
    where
        R: Replica<E>,
    {
        self.try_run(input.into_iter().map(Ok::<E, Cause>), sink)
    }

    /// As [`Collector::run`], from an iterator that may fail.
    ///
    /// # Errors
    /// As [`Collector::run`]; or the iterator's, as [`CollectError::Input`].
    pub fn try_run<E: Example, X: Into<Cause>>(
        self,
        input: impl IntoIterator<Item = Result<E, X>>,
        sink: &mut impl Sink,
    ) -> Result<Progress, CollectError>
    where
        R: Replica<E>,
    {
        self.check()?;
        if sink.spec() != self.sketcher.spec() {
            let (sketcher, index) = (Box::new(self.sketcher.spec().clone()), Box::new(sink.spec().clone()));
            return Err(CollectError::OtherSpec { sketcher, index });
        }
        run::run(self, input.into_iter().map(|example| example.map_err(Into::into)), sink)
    }

    fn check(&self) -> Result<(), CollectError> {
        let Bounds { window_rows, batch_rows, batch_tokens, max_tokens, .. } = self.bounds;
        let observed = self.bounds.observe.as_ref().map_or(1, |observe| observe.tokens);
        if observed == 0 {
            return Err(CollectError::Setting {
                setting: "observe",
                reason: "at least 1 token is needed".into(),
            });
        }
        let least = [
            ("batch_rows", batch_rows),
            ("batch_tokens", batch_tokens),
            ("max_tokens", max_tokens),
            ("queue", self.queue),
        ];
        if let Some((setting, _)) = least.into_iter().find(|(_, given)| *given == 0) {
            return Err(CollectError::Setting { setting, reason: "at least 1 is needed".into() });
        }
        if !(1..=MAX_WINDOW_ROWS).contains(&window_rows) {
            let reason = format!("{window_rows}; 1 to {MAX_WINDOW_ROWS} are possible");
            return Err(CollectError::Setting { setting: "window_rows", reason });
        }
        for (setting, text) in [("named", &self.name), ("weights", &self.weights)] {
            if text.len() > MAX_NAME {
                let reason = format!("{} bytes; at most {MAX_NAME} are possible", text.len());
                return Err(CollectError::Setting { setting, reason });
            }
        }
        let Some(first) = self.devices.first().filter(|device| !device.is_empty()) else {
            return Err(CollectError::Setting { setting: "device", reason: "there is no replica".into() });
        };
        let prefixes = |device: &[Checkpoint<R>]| -> Vec<String> {
            device.iter().map(|it| it.prefix.clone().unwrap_or_default()).collect()
        };
        let expected = prefixes(first);
        for (device, checkpoints) in self.devices.iter().enumerate() {
            let given = prefixes(checkpoints);
            if given != expected {
                return Err(CollectError::OtherCheckpoints { device, given, expected });
            }
        }
        let mut sorted = expected.clone();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let reason = format!("{:?} occurs twice", pair[0]);
            return Err(CollectError::Setting { setting: "checkpoints", reason });
        }
        self.check_prefixes(&sorted)
    }

    /// Checks that a weight or a choice of blocks by a checkpoint's prefix is one of all its blocks, and of no others.
    fn check_prefixes(&self, prefixes: &[String]) -> Result<(), CollectError> {
        let is_below = |name: &str, prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| !prefix.is_empty() && rest.starts_with('.'))
        };
        let blocks = self.sketcher.spec().blocks();
        for prefix in prefixes {
            let has_own = blocks.iter().any(|block| block.name == *prefix);
            let below = blocks.iter().find(|block| is_below(&block.name, prefix)).filter(|_| has_own);
            let other = prefixes.iter().find(|other| is_below(other, prefix));
            let reason = match (below, other) {
                (Some(block), _) => {
                    format!(
                        "{prefix:?} is a block, and so is {:?}: a weight would be of the first alone",
                        block.name
                    )
                }
                (None, Some(other)) => {
                    format!("{prefix:?} is a prefix of {other:?}: a weight would be of both")
                }
                (None, None) => continue,
            };
            return Err(CollectError::Setting { setting: "checkpoints", reason });
        }
        Ok(())
    }
}

/// Tags of a window's examples take half a payload at most.
const MAX_WINDOW_ROWS: usize = 1 << 16;
/// The maximum length of a collection's name, and of the label of its weights, in bytes.
const MAX_NAME: usize = 255;

/// The sketches of some pieces that fit into one batch, without an index: queries, for the most part. One forward and
/// one backward, on the calling thread.
///
/// # Errors
/// The replica's or the adapter's. Nothing is tried again.
pub fn sketch_pieces<E: Example, R: Replica<E>>(
    sketcher: &Sketcher,
    replica: &R,
    pieces: &[Piece<'_, E>],
) -> Result<Vec<Sketch>, Cause> {
    work::sketch_pieces(sketcher, replica, pieces)
}
