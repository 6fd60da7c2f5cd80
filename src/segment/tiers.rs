//! The tiers of a row, made from its codes when it is encoded and again when it is verified.

use super::EncodedRow;
use crate::codec::{Encoding, Factors, Rotation, Tier, i8_tier, sign_tier};
use crate::schema::Schema;

/// What a segment keeps of one row in one tier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EncodedTier {
    /// The codes of the blocks that have it, one stride after the other.
    pub codes: Vec<u8>,
    /// One for each of these blocks.
    pub factors: Vec<Factors>,
}

/// Makes the tiers of rows by a schema.
#[derive(Debug)]
pub(crate) struct TierEncoder {
    blocks: Vec<Block>,
    tiers: Vec<Tier>,
}

#[derive(Debug)]
struct Block {
    encoding: Encoding,
    dims: usize,
    stride: usize,
    /// There if there is a `sign` tier.
    rotation: Option<Rotation>,
}

impl TierEncoder {
    pub fn new(schema: &Schema) -> Self {
        let seed = schema.tiers().iter().find_map(|tier| match tier {
            Tier::Sign { seed } => Some(*seed),
            Tier::I8 => None,
        });
        let found = schema.encodings().iter().zip(schema.spec().blocks());
        let blocks = found.zip(0..).map(|((&encoding, block), ordinal)| {
            let dims = block.dims as usize;
            let rotation = seed.map(|seed| Rotation::new(seed, ordinal, dims));
            Block { encoding, dims, stride: encoding.stride(dims), rotation }
        });
        Self { blocks: blocks.collect(), tiers: schema.tiers().to_vec() }
    }

    /// The tiers of a row whose codes and scales are there, in the schema's order.
    pub fn encode(&self, row: &EncodedRow) -> Vec<EncodedTier> {
        let mut scratch = Vec::new();
        self.tiers.iter().map(|tier| self.encode_one(*tier, row, &mut scratch)).collect()
    }

    fn encode_one(&self, tier: Tier, row: &EncodedRow, scratch: &mut Vec<f32>) -> EncodedTier {
        let mut made = EncodedTier::default();
        let mut start = 0;
        for (block, &scale) in self.blocks.iter().zip(&row.scales) {
            let codes = &row.codes[start..start + block.stride];
            start += block.stride;
            if !tier.covers(block.encoding) {
                continue;
            }
            let place = made.codes.len();
            made.codes.resize(place + tier.stride(block.dims), 0);
            let own = &mut made.codes[place..];
            made.factors.push(match (tier, &block.rotation) {
                (Tier::I8, _) => i8_tier(block.encoding, block.dims, codes, scale, own, scratch),
                (Tier::Sign { .. }, Some(rotation)) => {
                    sign_tier(rotation, block.encoding, codes, scale, own, scratch)
                }
                (Tier::Sign { .. }, None) => Factors::default(),
            });
        }
        made
    }
}
