//! The full description of a sketcher: what two sketches must share to be compared.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::SketchError;

/// The name of the single block of a spec that has no blocks of its own.
pub const WHOLE: &str = "all";

/// A block may have at most this many dims.
pub const MAX_BLOCK_DIMS: u32 = 1 << 28;

/// The blocks of a spec may have at most this many dims together.
pub const MAX_DIMS: u64 = 1 << 30;

/// A `RapidGrad` block has at least this many dims: one tile of the fold.
pub const MIN_FOLD_DIMS: u32 = 16;

/// How a gradient becomes a sketch, in full: the sketcher with its version and seed, and the blocks.
///
/// Two sketches may meet in a dot product only if their specs are equal. The spec is stored in the
/// index; an append or a query under another spec is refused.
///
/// ```
/// use gradix::sketch::{Normalisation, SketchSpec};
/// let spec = SketchSpec::rapid_grad(7, 4096).normalised(Normalisation::PerTensor);
/// assert_eq!(spec.dims(), 4096);
/// assert!(spec.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SketchSpec {
    sketcher: SketcherKind,
    blocks: Vec<Block>,
}

/// Which function made the sketches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SketcherKind {
    /// The sign-and-fold count-sketch of `format-spec/sketch.md`.
    RapidGrad {
        /// Version of the fold; 1 is the only one there is.
        version: u32,
        /// Seed of the signs and places. In JSON a string of decimal digits.
        #[serde(with = "crate::codec::seed")]
        seed: u64,
        /// What happens to a tensor before it is folded.
        normalisation: Normalisation,
        /// Which block a parameter is folded into.
        routing: Routing,
    },
    /// Numbers that the caller made elsewhere; gradix only compares name and digest.
    Dense {
        /// The caller's name for its sketcher.
        name: String,
        /// The caller's digest of everything that its sketcher depends on.
        digest: String,
    },
}

/// What happens to a parameter's gradient before it is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalisation {
    /// Nothing.
    #[default]
    None,
    /// Each tensor is divided by its own L2 norm, so that no layer dominates.
    PerTensor,
}

/// Which block a parameter is folded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Routing {
    /// One block takes every parameter.
    Global,
    /// The block whose name is the parameter's, or its longest prefix before a `.`.
    Prefix,
}

/// A named, fixed-width range of the sketch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Unique within the spec; usually a module path such as `layers.3.attn.q`.
    pub name: String,
    /// How many numbers it has.
    pub dims: u32,
}

impl SketchSpec {
    /// A `RapidGrad` spec with one block of `dims` buckets that takes every parameter.
    ///
    /// `dims` must be a power of two from 16 to 2^28; [`SketchSpec::check`] says so if it is not.
    #[must_use]
    pub fn rapid_grad(seed: u64, dims: u32) -> Self {
        Self::folding(seed, Routing::Global, vec![Block { name: WHOLE.into(), dims }])
    }

    /// A `RapidGrad` spec with a block for each name; a parameter goes to the block whose name is
    /// its own or the longest prefix of its path.
    #[must_use]
    pub fn rapid_grad_blocks<N: Into<String>>(seed: u64, blocks: impl IntoIterator<Item = (N, u32)>) -> Self {
        Self::folding(seed, Routing::Prefix, named(blocks))
    }

    /// A spec for finished numbers: the caller's name and digest of its sketcher, and its blocks.
    #[must_use]
    pub fn dense<N: Into<String>>(
        name: impl Into<String>,
        digest: impl Into<String>,
        blocks: impl IntoIterator<Item = (N, u32)>,
    ) -> Self {
        let sketcher = SketcherKind::Dense { name: name.into(), digest: digest.into() };
        Self { sketcher, blocks: named(blocks) }
    }

    /// The same spec with another normalisation. A `Dense` spec has none and stays as it is.
    #[must_use]
    pub fn normalised(mut self, to: Normalisation) -> Self {
        if let SketcherKind::RapidGrad { normalisation, .. } = &mut self.sketcher {
            *normalisation = to;
        }
        self
    }

    fn folding(seed: u64, routing: Routing, blocks: Vec<Block>) -> Self {
        let normalisation = Normalisation::None;
        let sketcher = SketcherKind::RapidGrad { version: 1, seed, normalisation, routing };
        Self { sketcher, blocks }
    }

    /// The sketcher.
    #[must_use]
    pub fn sketcher(&self) -> &SketcherKind {
        &self.sketcher
    }

    /// The blocks, in the order in which they stand in a sketch.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The ordinal of the block with this name.
    #[must_use]
    pub fn block(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|block| block.name == name)
    }

    /// How many numbers a sketch has: the sum over the blocks.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.blocks.iter().map(|block| block.dims as usize).sum()
    }

    /// The range of each block's numbers in a sketch.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.blocks.iter().scan(0usize, |start, block| {
            let range = *start..*start + block.dims as usize;
            *start = range.end;
            Some(range)
        })
    }

    /// The spec whose blocks have `1 / factor` as many buckets; the one of a nested sketch.
    ///
    /// # Errors
    /// [`SketchError::NotNested`] if the spec is `Dense`, `factor` is not a power of two, or a block
    /// would have less than 16 dims.
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

    /// Whether the spec is one that this version can use, as `format-spec/index-file.md` says.
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
        if let SketcherKind::RapidGrad { version, routing, .. } = &self.sketcher {
            if *version != 1 {
                return invalid(format!("rapid_grad version {version} is not known, only 1 is"));
            }
            if *routing == Routing::Global && self.blocks.len() != 1 {
                return invalid(format!("global routing with {} blocks", self.blocks.len()));
            }
            let odd = |block: &&Block| !block.dims.is_power_of_two() || block.dims < MIN_FOLD_DIMS;
            if let Some(Block { name, dims }) = self.blocks.iter().find(odd) {
                return invalid(format!(
                    "block {name:?} has {dims} dims; rapid_grad needs a power of two of at least 16"
                ));
            }
        }
        Ok(())
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
            SketcherKind::Dense { name, digest } => write!(f, "dense {name:?} digest {digest:?}")?,
        }
        let (shown, rest) = self.blocks.split_at(self.blocks.len().min(4));
        for block in shown {
            write!(f, "; {} x {}", block.name, block.dims)?;
        }
        if !rest.is_empty() {
            write!(f, "; and {} more blocks", rest.len())?;
        }
        Ok(())
    }
}
