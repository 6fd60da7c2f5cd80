//! What every row of an index looks like: the sketch spec, and an encoding for each block.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::Encoding;
use crate::sketch::{SketchError, SketchSpec};

/// The spec of an index's sketches and the encoding of each block. Fixed when the index is created.
///
/// ```
/// use gradix::{Encoding, Schema, sketch::SketchSpec};
/// let schema = Schema::new(SketchSpec::rapid_grad(7, 4096), Encoding::I8)?;
/// assert_eq!(schema.row_bytes(), 4096);
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    spec: SketchSpec,
    encodings: Vec<Encoding>,
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
    /// The spec is invalid, or has another number of blocks.
    pub fn with_encodings(spec: SketchSpec, encodings: Vec<Encoding>) -> Result<Self, SketchError> {
        let schema = Self { spec, encodings };
        schema.check()?;
        Ok(schema)
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

    /// Bytes of codes of one row in one block, padding to 64 included. Zero beyond the last block.
    #[must_use]
    pub fn stride(&self, block: usize) -> usize {
        match (self.spec.blocks().get(block), self.encodings.get(block)) {
            (Some(block), Some(encoding)) => encoding.stride(block.dims as usize),
            _ => 0,
        }
    }

    /// Bytes of codes of one row over all blocks, padding included.
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
