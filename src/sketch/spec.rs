//! The full description of a sketcher. Two sketches can be compared only if their specs are equal.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

use super::{OptimizerStep, SketchError};

/// The name of the block of a spec with global routing.
pub const WHOLE: &str = "all";

/// The maximum number of dims of a block.
pub const MAX_BLOCK_DIMS: u32 = 1 << 28;

/// The maximum number of dims over all blocks of a spec.
pub const MAX_DIMS: u64 = 1 << 30;

/// The minimum number of dims of a `RapidGrad` block: one tile of the fold.
pub const MIN_FOLD_DIMS: u32 = 16;

/// The maximum of each of the two sides of a `Kronecker` block, so that its dims are at most
/// [`MAX_BLOCK_DIMS`].
pub const MAX_SIDE: u32 = 1 << 14;

/// The full description of how a gradient becomes a sketch: the sketcher with its version and seed, and the
/// blocks.
///
/// The dot product of two sketches is meaningful only if their specs are equal. The index stores its spec;
/// an append or a query with another spec is an error.
///
/// ```
/// use gradix::sketch::SketchSpec;
/// let spec = SketchSpec::rapid_grad(7, 4096);
/// assert_eq!(spec.dims(), 4096);
/// assert!(spec.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SketchSpec {
    sketcher: SketcherKind,
    blocks: Vec<Block>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_step")]
    optimizer: Option<Box<OptimizerStep>>,
}

/// A spec without an optimizer has no such key: `null` is an error.
fn some_step<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Box<OptimizerStep>>, D::Error> {
    Box::deserialize(source).map(Some)
}

/// The function that computes sketches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SketcherKind {
    /// The sign-and-fold count-sketch of `format-spec/sketch.md`.
    RapidGrad {
        /// Version of the fold; only 1 exists.
        version: u32,
        /// Seed of the signs and buckets. In JSON a string of decimal digits.
        #[serde(with = "crate::codec::seed")]
        seed: u64,
        /// How a tensor is normalised before it is folded.
        normalisation: Normalisation,
        /// Which block a parameter is folded into.
        routing: Routing,
    },
    /// The two-sided projection of `format-spec/kronecker.md`, of matrix parameters only. Parameters go to
    /// blocks as with [`Routing::Prefix`].
    Kronecker {
        /// Version of the projections; only 1 exists.
        version: u32,
        /// Seed of the projections. In JSON a string of decimal digits.
        #[serde(with = "crate::codec::seed")]
        seed: u64,
        /// `[p_in, p_out]` of each block, whose dims are their product.
        sides: Vec<[u32; 2]>,
    },
    /// Sketches that the caller computes; gradix only compares name and digest.
    Dense {
        /// The caller's name for its sketcher.
        name: String,
        /// The caller's digest of everything that determines its sketches.
        digest: String,
    },
}

/// How a parameter's gradient is normalised before it is folded.
///
/// Raw gradients are the default: a scan can still normalise them, by [`Metric::Cosine`](crate::Metric::Cosine) and
/// others, and the [curvature](crate::Curvature) needs their lengths: fitted on tensors of length 1 it predicts the effect of
/// training data worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalisation {
    /// No normalisation.
    #[default]
    None,
    /// Each tensor is divided by its own L2 norm, so that no layer dominates.
    PerTensor,
}

/// How the block is chosen that a parameter is folded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Routing {
    /// All parameters go to the only block.
    Global,
    /// A parameter goes to the block whose name is its path, or the longest prefix of it that ends before a
    /// `.`.
    Prefix,
}

/// A named, fixed-width range of the sketch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Block {
    /// Unique within the spec; usually a module path such as `layers.3.attn.q`.
    pub name: String,
    /// The number of values.
    pub dims: u32,
}

impl SketchSpec {
    /// A `RapidGrad` spec with one block of `dims` buckets that takes every parameter.
    ///
    /// `dims` must be a power of two from 16 to 2^28, which [`SketchSpec::check`] checks.
    #[must_use]
    pub fn rapid_grad(seed: u64, dims: u32) -> Self {
        Self::folding(seed, Routing::Global, vec![Block { name: WHOLE.into(), dims }])
    }

    /// A `RapidGrad` spec with one block for each pair of name and dims, and [`Routing::Prefix`].
    ///
    /// ```
    /// use gradix::sketch::{SketchSpec, Sketcher};
    /// let spec = SketchSpec::rapid_grad_blocks(7, [("layers.0", 64), ("layers.1", 32)]);
    /// let sketcher = Sketcher::new(spec)?;
    /// let sketch = sketcher.sketch([("layers.1.weight", &[0.5, 2.0][..])])?;
    /// assert!(sketch.block(0).unwrap().iter().all(|&value| value == 0.0));
    /// assert!(sketch.block(1).unwrap().iter().any(|&value| value != 0.0));
    /// # Ok::<(), gradix::sketch::SketchError>(())
    /// ```
    #[must_use]
    pub fn rapid_grad_blocks<N: Into<String>>(seed: u64, blocks: impl IntoIterator<Item = (N, u32)>) -> Self {
        Self::folding(seed, Routing::Prefix, named(blocks))
    }

    /// A spec for sketches that the caller computes: the name and digest of its sketcher, and its blocks.
    #[must_use]
    pub fn dense<N: Into<String>>(
        name: impl Into<String>,
        digest: impl Into<String>,
        blocks: impl IntoIterator<Item = (N, u32)>,
    ) -> Self {
        let sketcher = SketcherKind::Dense { name: name.into(), digest: digest.into() };
        Self { sketcher, blocks: named(blocks), optimizer: None }
    }

    /// A `Kronecker` spec with one block for each triple of name, `p_in` and `p_out`.
    ///
    /// The sketch of a parameter of `n_in` inputs and `n_out` outputs with gradient `G` is
    /// `P_in G P_out^T / sqrt(p_in p_out)`: `p_in x p_out` numbers, row-major, which keep inputs and outputs
    /// apart. The entries of both projections are signs that are drawn by a hash. A side that is as long as the
    /// parameter's or longer keeps it whole instead: each element gets a sign and no scale, and the rest is
    /// zero. Several parameters of one block add up. `format-spec/kronecker.md` has the bits, the variance and
    /// the sources.
    ///
    /// Both sides are 1 to 16,384, which [`SketchSpec::check`] checks.
    ///
    /// ```
    /// use gradix::sketch::{SketchSpec, Sketcher};
    /// let spec = SketchSpec::kronecker(7, [("layers.0", 4, 2), ("layers.1", 8, 8)]);
    /// let sketcher = Sketcher::new(spec)?;
    /// let mut fold = sketcher.start();
    /// fold.add_matrix("layers.0.weight", [16, 3], &[0.25; 48])?;
    /// let sketch = fold.finish()?;
    /// assert_eq!(sketch.block(0).unwrap().len(), 8);
    /// # Ok::<(), gradix::sketch::SketchError>(())
    /// ```
    #[must_use]
    pub fn kronecker<N: Into<String>>(seed: u64, blocks: impl IntoIterator<Item = (N, u32, u32)>) -> Self {
        let mut sides = Vec::new();
        let mut side = |(name, p_in, p_out): (N, u32, u32)| {
            sides.push([p_in, p_out]);
            // A product above the maximum of dims is refused by `check`, whatever it is.
            (name, p_in.saturating_mul(p_out))
        };
        let blocks = named(blocks.into_iter().map(&mut side));
        Self { sketcher: SketcherKind::Kronecker { version: 1, seed, sides }, blocks, optimizer: None }
    }

    /// The same spec for gradients that an optimizer's step has changed. See [`OptimizerStep`].
    #[must_use]
    pub fn with_optimizer(mut self, step: OptimizerStep) -> Self {
        self.optimizer = Some(Box::new(step));
        self
    }

    /// The optimizer whose step changed the gradients; `None` if they are as the loss gave them.
    #[must_use]
    pub fn optimizer(&self) -> Option<&OptimizerStep> {
        self.optimizer.as_deref()
    }

    /// The spec of plain gradients, with which an index of this spec can be queried: this one without the
    /// optimizer.
    #[must_use]
    pub fn for_queries(&self) -> Self {
        Self { optimizer: None, ..self.clone() }
    }

    /// Whether an index of this spec takes queries of the spec `query`: this spec or
    /// [`SketchSpec::for_queries`].
    #[must_use]
    pub fn takes_queries_of(&self, query: &Self) -> bool {
        self.sketcher == query.sketcher
            && self.blocks == query.blocks
            && (query.optimizer.is_none() || self.optimizer == query.optimizer)
    }

    /// Sets the normalisation. Only a `RapidGrad` spec has one; others are unchanged.
    #[must_use]
    pub fn normalised(mut self, to: Normalisation) -> Self {
        match &mut self.sketcher {
            SketcherKind::RapidGrad { normalisation, .. } => *normalisation = to,
            SketcherKind::Kronecker { .. } | SketcherKind::Dense { .. } => {}
        }
        self
    }

    fn folding(seed: u64, routing: Routing, blocks: Vec<Block>) -> Self {
        let normalisation = Normalisation::None;
        let sketcher = SketcherKind::RapidGrad { version: 1, seed, normalisation, routing };
        Self { sketcher, blocks, optimizer: None }
    }

    /// The sketcher.
    #[must_use]
    pub fn sketcher(&self) -> &SketcherKind {
        &self.sketcher
    }

    /// The blocks, in their order in a sketch.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The ordinal of the block with this name; `None` if there is none.
    #[must_use]
    pub fn block(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|block| block.name == name)
    }

    /// The ordinals of the blocks that a name stands for: the block of this name alone; if there is none, all
    /// whose names begin with it and a `.`.
    pub(crate) fn blocks_under(&self, name: &str) -> Vec<usize> {
        if let Some(block) = self.block(name) {
            return vec![block];
        }
        let is_below =
            |block: &Block| block.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        (0..self.blocks.len()).filter(|&block| is_below(&self.blocks[block])).collect()
    }

    /// The number of values of a sketch: the sum of all blocks' dims.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.blocks.iter().map(|block| block.dims as usize).sum()
    }

    /// The range of each block's values in a sketch, in order.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.blocks.iter().scan(0usize, |start, block| {
            let range = *start..*start + block.dims as usize;
            *start = range.end;
            Some(range)
        })
    }

    /// The spec of [`Sketch::nested`](super::Sketch::nested): each block's dims are divided by `factor`.
    ///
    /// # Errors
    /// [`SketchError::NotNested`] if the spec is not `RapidGrad`, `factor` is not a power of two, or a block
    /// would have fewer than 16 dims.
    pub fn nested(&self, factor: u32) -> Result<Self, SketchError> {
        let fits = factor.is_power_of_two()
            && matches!(self.sketcher, SketcherKind::RapidGrad { .. })
            && self.blocks.iter().all(|block| block.dims / factor >= MIN_FOLD_DIMS);
        if !fits {
            return Err(SketchError::NotNested { spec: self.clone(), factor });
        }
        let mut nested = self.clone();
        for block in &mut nested.blocks {
            block.dims /= factor;
        }
        Ok(nested)
    }

    /// Checks the limits of `format-spec/index-file.md`, and that this version supports the sketcher.
    ///
    /// # Errors
    /// [`SketchError::InvalidSpec`] with the reason.
    pub fn check(&self) -> Result<(), SketchError> {
        let invalid = |reason: String| Err(SketchError::InvalidSpec { reason });
        if self.blocks.is_empty() || self.blocks.len() > usize::from(u16::MAX) {
            return invalid(format!("{} blocks; 1 to 65535 are possible", self.blocks.len()));
        }
        let mut names = std::collections::HashSet::new();
        let mut total = 0u64;
        for block in &self.blocks {
            let name = &block.name;
            if name.is_empty() || name.len() > 255 {
                return invalid(format!("block name {name:?} is not 1 to 255 bytes long"));
            }
            if !names.insert(name.as_str()) {
                return invalid(format!("block {name:?} occurs twice"));
            }
            if block.dims == 0 || block.dims > MAX_BLOCK_DIMS {
                return invalid(format!("block {name:?} has {} dims; 1 to 2^28 are possible", block.dims));
            }
            total += u64::from(block.dims);
        }
        if total > MAX_DIMS {
            return invalid(format!("{total} dims in all; at most 2^30 are possible"));
        }
        match &self.sketcher {
            SketcherKind::RapidGrad { version, routing, .. } => {
                if *version != 1 {
                    return invalid(format!("rapid_grad version {version} is not known, only 1 is"));
                }
                match routing {
                    Routing::Global if self.blocks.len() != 1 => {
                        return invalid(format!("global routing with {} blocks", self.blocks.len()));
                    }
                    Routing::Global | Routing::Prefix => {}
                }
                let odd = |block: &&Block| !block.dims.is_power_of_two() || block.dims < MIN_FOLD_DIMS;
                if let Some(Block { name, dims }) = self.blocks.iter().find(odd) {
                    return invalid(format!(
                        "block {name:?} has {dims} dims; rapid_grad needs a power of two of at least 16"
                    ));
                }
            }
            SketcherKind::Kronecker { version, sides, .. } => {
                if *version != 1 {
                    return invalid(format!("kronecker version {version} is not known, only 1 is"));
                }
                if sides.len() != self.blocks.len() {
                    return invalid(format!("sides of {} blocks for {}", sides.len(), self.blocks.len()));
                }
                for (Block { name, dims }, &[p_in, p_out]) in self.blocks.iter().zip(sides) {
                    if [p_in, p_out].iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
                        return invalid(format!(
                            "block {name:?} has sides {p_in} x {p_out}; 1 to 2^14 are possible"
                        ));
                    }
                    if *dims != p_in * p_out {
                        return invalid(format!(
                            "block {name:?} has {dims} dims, but sides {p_in} x {p_out}"
                        ));
                    }
                }
            }
            SketcherKind::Dense { .. } => {}
        }
        self.optimizer.as_deref().map_or(Ok(()), OptimizerStep::check)
    }
}

fn named<N: Into<String>>(blocks: impl IntoIterator<Item = (N, u32)>) -> Vec<Block> {
    blocks.into_iter().map(|(name, dims)| Block { name: name.into(), dims }).collect()
}

/// One line for messages: `rapid_grad v1 seed 7, per_tensor, global; 1 block, 4096 dims`.
impl fmt::Display for SketchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sketcher {
            SketcherKind::RapidGrad { version, seed, normalisation, routing } => {
                let normalisation = match normalisation {
                    Normalisation::None => "not normalised",
                    Normalisation::PerTensor => "normalised per tensor",
                };
                let routing = match routing {
                    Routing::Global => "global",
                    Routing::Prefix => "by prefix",
                };
                write!(f, "rapid_grad v{version} seed {seed}, {normalisation}, {routing}")?;
            }
            SketcherKind::Kronecker { version, seed, .. } => write!(f, "kronecker v{version} seed {seed}")?,
            SketcherKind::Dense { name, digest } => write!(f, "dense {name:?} digest {digest:?}")?,
        }
        if let Some(step) = &self.optimizer {
            write!(f, ", after {step}")?;
        }
        let (shown, rest) = self.blocks.split_at(self.blocks.len().min(4));
        let sides = match &self.sketcher {
            SketcherKind::Kronecker { sides, .. } => &sides[..],
            SketcherKind::RapidGrad { .. } | SketcherKind::Dense { .. } => &[],
        };
        for (ordinal, block) in shown.iter().enumerate() {
            match sides.get(ordinal) {
                Some([p_in, p_out]) => write!(f, "; {} x {p_in} x {p_out}", block.name)?,
                None => write!(f, "; {} x {}", block.name, block.dims)?,
            }
        }
        if !rest.is_empty() {
            write!(f, "; and {} more blocks", rest.len())?;
        }
        Ok(())
    }
}
