//! The schema of an index: the sketch spec, the encoding of each block, and the tiers.

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::{Encoding, Tier};
use crate::sketch::{SketchError, SketchSpec};

/// The schema of an index: the spec of its sketches, the encoding of each block, and the tiers. It is fixed
/// when the index is created.
///
/// ```
/// use gradix::{Encoding, Schema, Tier, sketch::SketchSpec};
/// let schema = Schema::new(SketchSpec::rapid_grad(7, 4096), Encoding::F16)?;
/// assert_eq!(schema.row_bytes(), 8192);
/// let schema = schema.with_tiers([Tier::I8, Tier::Sign { seed: 1 }])?;
/// assert_eq!(schema.tiers(), [Tier::Sign { seed: 1 }, Tier::I8]);
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    spec: SketchSpec,
    encodings: Vec<Encoding>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "some_tiers")]
    tiers: Vec<Tier>,
}

/// A schema without tiers has no such key: an empty list is an error.
fn some_tiers<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Tier>, D::Error> {
    let tiers = Vec::deserialize(source)?;
    if tiers.is_empty() { Err(serde::de::Error::custom("an empty list of tiers")) } else { Ok(tiers) }
}

impl Schema {
    /// A schema with one encoding for all blocks.
    ///
    /// # Errors
    /// The spec is invalid.
    pub fn new(spec: SketchSpec, encoding: Encoding) -> Result<Self, SketchError> {
        let encodings = vec![encoding; spec.blocks().len()];
        Self::with_encodings(spec, encodings)
    }

    /// A schema with an encoding for each block, in the spec's order.
    ///
    /// # Errors
    /// The spec is invalid, or the number of encodings is not its number of blocks.
    pub fn with_encodings(spec: SketchSpec, encodings: Vec<Encoding>) -> Result<Self, SketchError> {
        let schema = Self { spec, encodings, tiers: Vec::new() };
        schema.check()?;
        Ok(schema)
    }

    /// Replaces the tiers; their order does not matter. A tier costs disk space and append time, and lets
    /// scans prune most rows.
    ///
    /// # Errors
    /// A kind of tier occurs twice, or no block has an encoding that the tier covers.
    pub fn with_tiers(mut self, tiers: impl IntoIterator<Item = Tier>) -> Result<Self, SketchError> {
        self.tiers = tiers.into_iter().collect();
        self.tiers.sort_by_key(|tier| tier.kind().number());
        self.check()?;
        Ok(self)
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    /// The encoding of each block, in order.
    #[must_use]
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The tiers, in the order of the file: `sign`, then `i8`.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The blocks that have a tier, in order, and the dims of each.
    pub(crate) fn tier_blocks(&self, tier: Tier) -> impl Iterator<Item = (usize, usize)> + '_ {
        let blocks = self.spec.blocks().iter().zip(&self.encodings).enumerate();
        blocks
            .filter(move |(_, (_, encoding))| tier.covers(**encoding))
            .map(|(block, (found, _))| (block, found.dims as usize))
    }

    /// Bytes of one row's codes in one block, including padding to a multiple of 64. Zero if there is no such
    /// block.
    #[must_use]
    pub fn stride(&self, block: usize) -> usize {
        match (self.spec.blocks().get(block), self.encodings.get(block)) {
            (Some(block), Some(encoding)) => encoding.stride(block.dims as usize),
            _ => 0,
        }
    }

    /// Bytes of one row's codes over all blocks, including padding. Tiers are not counted.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        (0..self.encodings.len()).map(|block| self.stride(block)).sum()
    }

    pub(crate) fn check(&self) -> Result<(), SketchError> {
        self.spec.check()?;
        let (blocks, encodings) = (self.spec.blocks().len(), self.encodings.len());
        if blocks != encodings {
            let reason = format!("{encodings} encodings for {blocks} blocks");
            return Err(SketchError::InvalidSpec { reason });
        }
        if self.tiers.windows(2).any(|pair| pair[0].kind().number() >= pair[1].kind().number()) {
            let reason = "duplicate tiers, or tiers out of order".into();
            return Err(SketchError::InvalidSpec { reason });
        }
        if let Some(tier) = self.tiers.iter().find(|tier| self.tier_blocks(**tier).next().is_none()) {
            let reason = format!("no block has an encoding that the {} tier covers", tier.name());
            return Err(SketchError::InvalidSpec { reason });
        }
        Ok(())
    }

    /// The schema as `INDEX` holds it.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn from_json(body: &[u8]) -> Result<Self, String> {
        let schema: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        schema.check().map_err(|error| error.to_string())?;
        Ok(schema)
    }
}

/// The schema digest of `format-spec/index-file.md`: SHA-256 of the body of `INDEX`.
pub(crate) fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}
