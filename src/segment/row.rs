//! Encodes rows and reads them back: the only module that handles a row across all its columns.

use std::cell::OnceCell;
use std::ops::Range;

use super::codes::{CodeColumn, Codes};
use super::columns::{ByteStrings, Span};
use super::error::SegmentError;
use super::layout::CHUNK;
use super::reader::SegmentReader;
use crate::codec::{EncodeError, Encoding, Factors, Tier, TierEncoder};
use crate::schema::Schema;

/// One encoded row: what a segment stores of it except id, span, source and metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EncodedRow {
    /// The codes of all blocks, one stride after the other.
    pub codes: Vec<u8>,
    /// One for each block; 1 if the encoding has no scale.
    pub scales: Vec<f32>,
    /// One for each block.
    pub norms: Vec<f32>,
    /// One for each tier of the schema.
    pub tiers: Vec<EncodedTier>,
}

/// What a segment stores of one row in one tier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EncodedTier {
    /// The codes of the blocks that have the tier, one stride after the other.
    pub codes: Vec<u8>,
    /// One for each of these blocks.
    pub factors: Vec<Factors>,
}

/// What a caller gives for a row besides its sketch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowTags<'a> {
    pub span: Span,
    pub source: Option<&'a str>,
    pub metadata: &'a [u8],
}

/// The scale of a row in a block whose encoding has no scale.
const NO_SCALE: f32 = 1.0;

/// Encodes rows of a schema.
#[derive(Debug)]
pub(crate) struct RowEncoder {
    blocks: Vec<Block>,
    /// For each tier: each block that has it.
    tiers: Vec<Vec<TierBlock>>,
}

#[derive(Debug)]
struct Block {
    encoding: Encoding,
    /// The range of its values in a sketch.
    values: Range<usize>,
    /// The range of its codes in a row.
    codes: Range<usize>,
}

#[derive(Debug)]
struct TierBlock {
    block: usize,
    stride: usize,
    encoder: TierEncoder,
}

impl RowEncoder {
    pub fn new(schema: &Schema) -> Self {
        let mut end = 0;
        let ranges = schema.spec().ranges().zip(schema.encodings());
        let blocks = ranges.map(|(values, &encoding)| {
            let start = end;
            end += encoding.stride(values.len());
            Block { encoding, values, codes: start..end }
        });
        let tier = |&tier: &Tier| {
            let blocks = schema.tier_blocks(tier).map(|(block, dims)| {
                let ordinal = u32::try_from(block).unwrap_or(u32::MAX);
                TierBlock { block, stride: tier.stride(dims), encoder: TierEncoder::new(tier, ordinal, dims) }
            });
            blocks.collect()
        };
        Self { blocks: blocks.collect(), tiers: schema.tiers().iter().map(tier).collect() }
    }

    /// Encodes a row and its tiers from the values of a sketch of the schema's spec. The error has the
    /// ordinal of the block that cannot be encoded.
    pub fn encode(&self, values: &[f32]) -> Result<EncodedRow, (usize, EncodeError)> {
        let bytes = self.blocks.last().map_or(0, |block| block.codes.end);
        let mut row = EncodedRow { codes: vec![0; bytes], ..EncodedRow::default() };
        for (ordinal, block) in self.blocks.iter().enumerate() {
            let codes = &mut row.codes[block.codes.clone()];
            let done = block.encoding.encode(&values[block.values.clone()], codes);
            let done = done.map_err(|error| (ordinal, error))?;
            row.scales.push(done.scale);
            row.norms.push(done.norm);
        }
        row.tiers = self.tiers_of(&row);
        Ok(row)
    }

    /// The tiers of an encoded row, in the schema's order.
    pub fn tiers_of(&self, row: &EncodedRow) -> Vec<EncodedTier> {
        self.tiers(|block| (&row.codes[self.blocks[block].codes.clone()], row.scales[block]))
    }

    /// Computes the tiers of a row from the codes and the scale of each block.
    pub fn tiers<'r>(&self, row: impl Fn(usize) -> (&'r [u8], f32)) -> Vec<EncodedTier> {
        let mut scratch = Vec::new();
        let encode = |blocks: &Vec<TierBlock>| {
            let mut made = EncodedTier::default();
            for TierBlock { block, stride, encoder } in blocks {
                let (codes, scale) = row(*block);
                let start = made.codes.len();
                made.codes.resize(start + stride, 0);
                let own = &mut made.codes[start..];
                let encoding = self.blocks[*block].encoding;
                made.factors.push(encoder.encode(encoding, codes, scale, own, &mut scratch));
            }
            made
        };
        self.tiers.iter().map(encode).collect()
    }
}

/// The rows of a row group. The small columns are decoded once. Codes are borrowed from the mapped file, or
/// read some rows at a time, so that memory does not depend on the size of the codes.
///
/// Row ordinals are relative to the group.
#[derive(Debug)]
pub(crate) struct RowGroup<'a> {
    reader: &'a SegmentReader,
    group: usize,
    ids: ByteStrings,
    spans: Vec<Span>,
    sources: Vec<u32>,
    metadata: ByteStrings,
    numbers: OnceCell<Numbers>,
    factors: OnceCell<Vec<TierFactors>>,
    codes: Window<'a>,
    tier_codes: Window<'a>,
}

/// For each block: one number for each row.
#[derive(Debug)]
struct Numbers {
    /// Empty if the encoding has no scale.
    scales: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
}

/// For each block that has the tier: the two factors of each row.
type TierFactors = Vec<(Vec<f32>, Vec<f32>)>;

impl<'a> RowGroup<'a> {
    /// All rows of a row group of the segment.
    pub fn open(reader: &'a SegmentReader, group: usize) -> Result<Self, SegmentError> {
        Self::with_rows(reader, group, 0..reader.groups()[group].rows as usize)
    }

    /// A row group of which only `rows` will be read: no codes after them are read ahead.
    pub fn with_rows(
        reader: &'a SegmentReader,
        group: usize,
        rows: Range<usize>,
    ) -> Result<Self, SegmentError> {
        let schema = reader.schema();
        let own = (0..schema.encodings().len()).map(|block| CodeColumn { group, tier: None, block });
        let of_tiers = schema.tiers().iter().flat_map(|&tier| {
            let blocks = schema.tier_blocks(tier);
            blocks.map(move |(block, _)| CodeColumn { group, tier: Some(tier), block })
        });
        let strides = schema.tiers().iter().flat_map(|&tier| {
            let blocks = schema.tier_blocks(tier);
            blocks.map(move |(_, dims)| tier.stride(dims))
        });
        Ok(Self {
            reader,
            group,
            ids: reader.ids(group)?,
            spans: reader.spans(group)?,
            sources: reader.sources(group)?,
            metadata: reader.metadata(group)?,
            numbers: OnceCell::new(),
            factors: OnceCell::new(),
            codes: Window::new(own.collect(), schema.row_bytes(), rows.end),
            tier_codes: Window::new(of_tiers.collect(), strides.sum(), rows.end),
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The ordinal of a row in the segment.
    pub fn ordinal(&self, row: usize) -> u32 {
        // At most the number of rows of the segment, which is below 2^32.
        self.reader.groups()[self.group].first_row + u32::try_from(row).unwrap_or(u32::MAX)
    }

    /// The id of a row's example.
    pub fn id(&self, row: usize) -> &[u8] {
        self.ids.get(row)
    }

    /// The run of rows from `row` that have its id. An id has several runs if it was deleted and appended
    /// again; the live rows belong to one of them.
    pub fn run(&self, row: usize) -> Range<usize> {
        let id = self.id(row);
        let rows = (row..self.len()).take_while(|&next| self.id(next) == id).count();
        row..row + rows
    }

    /// Span, source and metadata of a row.
    pub fn tags(&self, row: usize) -> RowTags<'_> {
        RowTags {
            span: self.spans[row],
            source: self.reader.source_name(self.sources[row]),
            metadata: self.metadata.get(row),
        }
    }

    /// The L2 norm of a row in each block.
    pub fn norms(&self, row: usize) -> Result<Vec<f32>, SegmentError> {
        Ok(self.numbers()?.norms.iter().map(|norms| norms[row]).collect())
    }

    /// The codes, scales and norms of a row. Cheapest in ascending order.
    pub fn row(&mut self, row: usize) -> Result<StoredRow<'_>, SegmentError> {
        self.numbers()?;
        self.codes.load(self.reader, row)?;
        let (schema, codes) = (self.reader.schema(), &self.codes);
        Ok(StoredRow { schema, codes, numbers: self.numbers()?, row })
    }

    /// The stored tiers of a row.
    pub fn tiers(&mut self, row: usize) -> Result<Vec<EncodedTier>, SegmentError> {
        self.tier_codes.load(self.reader, row)?;
        let mut column = 0;
        let tiers = self.factors()?.iter().map(|blocks| {
            let mut tier = EncodedTier::default();
            for (first, second) in blocks {
                tier.codes.extend_from_slice(self.tier_codes.row(column, row));
                tier.factors.push(Factors { first: first[row], second: second[row] });
                column += 1;
            }
            tier
        });
        Ok(tiers.collect())
    }

    /// A verbatim copy of a row, for compaction.
    pub fn encoded(&mut self, row: usize) -> Result<EncodedRow, SegmentError> {
        let tiers = self.tiers(row)?;
        let stored = self.row(row)?;
        let blocks = 0..stored.schema.encodings().len();
        Ok(EncodedRow {
            codes: blocks.clone().flat_map(|block| stored.codes(block)).copied().collect(),
            scales: blocks.clone().map(|block| stored.scale(block)).collect(),
            norms: blocks.map(|block| stored.norm(block)).collect(),
            tiers,
        })
    }

    fn numbers(&self) -> Result<&Numbers, SegmentError> {
        once(&self.numbers, || {
            let blocks = 0..self.reader.schema().encodings().len();
            Ok(Numbers {
                scales: blocks
                    .clone()
                    .map(|block| self.reader.scales(self.group, block))
                    .collect::<Result<_, _>>()?,
                norms: blocks.map(|block| self.reader.norms(self.group, block)).collect::<Result<_, _>>()?,
            })
        })
    }

    fn factors(&self) -> Result<&[TierFactors], SegmentError> {
        let read = || {
            let schema = self.reader.schema();
            let tiers = schema.tiers().iter().map(|&tier| {
                let blocks = schema.tier_blocks(tier);
                blocks.map(|(block, _)| self.reader.factors(self.group, tier, block)).collect()
            });
            tiers.collect()
        };
        once(&self.factors, read).map(Vec::as_slice)
    }
}

fn once<T>(cell: &OnceCell<T>, read: impl FnOnce() -> Result<T, SegmentError>) -> Result<&T, SegmentError> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = read()?;
            Ok(cell.get_or_init(|| value))
        }
    }
}

/// The stored codes, scales and norms of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredRow<'g> {
    schema: &'g Schema,
    codes: &'g Window<'g>,
    numbers: &'g Numbers,
    row: usize,
}

impl<'g> StoredRow<'g> {
    /// The codes of a block: one row stride.
    pub fn codes(&self, block: usize) -> &'g [u8] {
        self.codes.row(block, self.row)
    }

    /// The scale of a block; 1 if the encoding has no scale.
    pub fn scale(&self, block: usize) -> f32 {
        self.numbers.scales[block].get(self.row).copied().unwrap_or(NO_SCALE)
    }

    /// The L2 norm of a block.
    pub fn norm(&self, block: usize) -> f32 {
        self.numbers.norms[block][self.row]
    }

    /// Decodes all blocks, one after the other; `out` has the spec's `dims`.
    pub fn decode(&self, out: &mut [f32]) {
        for ((block, range), &encoding) in
            self.schema.spec().ranges().enumerate().zip(self.schema.encodings())
        {
            encoding.decode(self.codes(block), self.scale(block), &mut out[range]);
        }
    }
}

/// The bytes of codes that a window holds, in addition to a chunk per column.
const WINDOW_BYTES: usize = 4 << 20;

/// The codes of some rows in some columns of a row group.
#[derive(Debug)]
struct Window<'a> {
    columns: Vec<CodeColumn>,
    /// The maximum number of rows of the window.
    most: usize,
    /// The row at which reading ahead ends.
    end: usize,
    rows: Range<usize>,
    /// For each column: the codes of `rows`.
    codes: Vec<Codes<'a>>,
}

impl<'a> Window<'a> {
    /// For columns whose rows have `row_bytes` in total; rows before `end` may be read ahead.
    fn new(columns: Vec<CodeColumn>, row_bytes: usize, end: usize) -> Self {
        let most = (WINDOW_BYTES + columns.len() * CHUNK) / row_bytes.max(1);
        Self { columns, most: most.max(1), end, rows: 0..0, codes: Vec::new() }
    }

    /// Moves the window to `row`, unless it contains it.
    fn load(&mut self, reader: &'a SegmentReader, row: usize) -> Result<(), SegmentError> {
        if self.rows.contains(&row) {
            return Ok(());
        }
        // Free the old codes before reading.
        self.codes.clear();
        self.rows = 0..0;
        let rows = row..self.end.min(row.saturating_add(self.most)).max(row + 1);
        for &column in &self.columns {
            self.codes.push(reader.codes(column, rows.clone())?);
        }
        self.rows = rows;
        Ok(())
    }

    fn row(&self, column: usize, row: usize) -> &[u8] {
        self.codes[column].row(row - self.rows.start)
    }
}
