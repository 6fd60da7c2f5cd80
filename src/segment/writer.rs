//! Writes a segment front to back in one pass, holding one row group in memory.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::columns::{
    ByteStrings, NO_SOURCE, Span, f32s_to_bytes, source_names_to_bytes, spans_to_bytes, u32s_to_bytes,
};
use super::error::SegmentError;
use super::layout::{
    CHUNK, CONTAINER_VERSION, Compression, FEATURE_TIERS, Footer, Group, Header, Kind, Origin, PAGE,
    PAGE_BYTES, Region, chunk_checksum,
};
use super::row::{EncodedRow, EncodedTier, RowTags};
use super::storage::{Storage, StorageFile};
use super::{Identity, file_name};
use crate::codec::{CodeEncoding, TierKind};

/// The target size of a row group in bytes of codes.
const GROUP_BYTES: usize = 32 << 20;
/// The maximum number of rows of a row group, unless a single example has more.
const GROUP_ROWS: usize = 65_536;
/// The bytes of ids and metadata at which a row group ends: they are in memory three times while it is written,
/// and reading one row's metadata decompresses those of its group.
const GROUP_STRING_BYTES: usize = 16 << 20;
const ZSTD_LEVEL: i32 = 3;

/// A segment whose file is complete and durable, but not yet in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub segment: Uuid,
    pub rows: u32,
    pub examples: u64,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

pub(crate) struct SegmentWriter {
    storage: Arc<dyn Storage>,
    identity: Arc<Identity>,
    segment: Uuid,
    sink: Sink,
    footer: Footer,
    group: OpenGroup,
    group_rows: usize,
    rows: u32,
    examples: u64,
    sources: Sources,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("file", &self.sink.name)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// The open row group.
#[derive(Default)]
struct OpenGroup {
    rows: usize,
    /// One buffer for each block, as in the next two fields.
    codes: Vec<Vec<u8>>,
    scales: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
    /// One for each tier.
    tiers: Vec<OpenTier>,
    ids: ByteStrings,
    spans: Vec<Span>,
    sources: Vec<u32>,
    metadata: ByteStrings,
}

/// A tier of the open row group; one entry for each block that has it.
#[derive(Default)]
struct OpenTier {
    codes: Vec<Vec<u8>>,
    /// First and second factors.
    factors: Vec<[Vec<f32>; 2]>,
}

#[derive(Default)]
struct Sources {
    ordinals: HashMap<String, u32>,
    names: ByteStrings,
}

/// The file, its length and its digest.
struct Sink {
    file: Box<dyn StorageFile>,
    name: String,
    length: u64,
    digest: Sha256,
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.file.write(bytes).map_err(|source| io(&self.name, "write", source))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

fn io(file: &str, operation: &'static str, source: std::io::Error) -> SegmentError {
    SegmentError::Io { file: file.to_owned(), operation, source }
}

impl SegmentWriter {
    pub fn create(
        storage: Arc<dyn Storage>,
        identity: Arc<Identity>,
        segment: Uuid,
        origin: Origin,
    ) -> Result<Self, SegmentError> {
        let file_name = file_name(segment);
        let name = storage.describe(&file_name);
        let file = storage.create(&file_name).map_err(|source| io(&name, "create", source))?;
        let blocks = identity.schema.encodings().len();
        let header = Header {
            container_version: CONTAINER_VERSION,
            features_read: if identity.schema.tiers().is_empty() { 0 } else { FEATURE_TIERS },
            features_write: 0,
            index: identity.index,
            segment,
            schema_digest: identity.schema_digest,
            origin,
        };
        let mut sink = Sink { file, name, length: 0, digest: Sha256::new() };
        sink.write(&header.to_page())?;
        let fit = (GROUP_BYTES / identity.schema.row_bytes()).clamp(1, GROUP_ROWS);
        let tiers = identity.schema.tiers().iter().map(|tier| {
            let blocks = identity.schema.tier_blocks(*tier).count();
            OpenTier { codes: vec![Vec::new(); blocks], factors: vec![Default::default(); blocks] }
        });
        let group = OpenGroup {
            tiers: tiers.collect(),
            codes: vec![Vec::new(); blocks],
            scales: vec![Vec::new(); blocks],
            norms: vec![Vec::new(); blocks],
            ..OpenGroup::default()
        };
        Ok(Self {
            storage,
            identity,
            segment,
            sink,
            footer: Footer::default(),
            group,
            group_rows: 1 << fit.ilog2(),
            rows: 0,
            examples: 0,
            sources: Sources::default(),
        })
    }

    pub fn segment(&self) -> Uuid {
        self.segment
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The approximate number of bytes written and buffered so far.
    pub fn bytes(&self) -> u64 {
        self.sink.length + (self.group.rows * self.identity.schema.row_bytes()) as u64
    }

    /// Appends all rows of one example. Returns the ordinal of the first.
    ///
    /// The caller must have checked ids, spans, sources and metadata against the format's limits, and that
    /// the number of rows fits `u32`.
    pub fn push<'a>(
        &mut self,
        id: &[u8],
        rows: impl ExactSizeIterator<Item = (&'a EncodedRow, RowTags<'a>)>,
    ) -> Result<u32, SegmentError> {
        let strings = self.group.ids.byte_len() + self.group.metadata.byte_len();
        let full = self.group.rows + rows.len() > self.group_rows || strings > GROUP_STRING_BYTES;
        // Another example of the id, after a deletion. Without the manifest only row groups separate the two.
        let again = self.group.rows > 0 && self.group.ids.get(self.group.rows - 1) == id;
        if self.group.rows > 0 && (full || again) {
            self.close_group()?;
        }
        let first = self.rows;
        let schema = &self.identity.schema;
        let group = &mut self.group;
        for (row, tags) in rows {
            let mut start = 0;
            for block in 0..group.codes.len() {
                let end = start + schema.stride(block);
                group.codes[block].extend_from_slice(&row.codes[start..end]);
                group.scales[block].push(row.scales[block]);
                group.norms[block].push(row.norms[block]);
                start = end;
            }
            for ((tier, given), open) in schema.tiers().iter().zip(&row.tiers).zip(&mut group.tiers) {
                open.push(schema.tier_blocks(*tier).map(|(_, dims)| tier.stride(dims)), given);
            }
            group.ids.push(id);
            group.spans.push(tags.span);
            group.sources.push(self.sources.ordinal(tags.source));
            group.metadata.push(tags.metadata);
            group.rows += 1;
            self.rows += 1;
        }
        self.examples += 1;
        Ok(first)
    }

    /// Completes the file and makes it durable: first the file, then the folder.
    pub fn seal(mut self) -> Result<Sealed, SegmentError> {
        self.close_group()?;
        self.write_column(Kind::SourceNames, 0, &source_names_to_bytes(&self.sources.names))?;
        let offset = self.sink.length;
        let blocks = u32::try_from(self.group.codes.len()).unwrap_or(u32::MAX);
        self.sink.write(&self.footer.to_bytes(self.segment, blocks, offset))?;
        let Sink { mut file, name, length, digest } = self.sink;
        file.sync().map_err(|source| io(&name, "sync", source))?;
        self.storage.sync().map_err(|source| io(&name, "sync the folder of", source))?;
        Ok(Sealed {
            segment: self.segment,
            rows: self.rows,
            examples: self.examples,
            bytes: length,
            sha256: digest.finalize().into(),
        })
    }

    fn close_group(&mut self) -> Result<(), SegmentError> {
        if self.group.rows == 0 {
            return Ok(());
        }
        let mut group = std::mem::take(&mut self.group);
        let ordinal = u32::try_from(self.footer.groups.len()).unwrap_or(u32::MAX);
        let rows = u32::try_from(group.rows).unwrap_or(u32::MAX);
        self.footer.groups.push(Group { first_row: self.rows - rows, rows });
        let identity = Arc::clone(&self.identity);
        let encodings = identity.schema.encodings();
        for (block, (codes, &encoding)) in group.codes.iter_mut().zip(encodings).enumerate() {
            let stride = identity.schema.stride(block);
            self.write_codes(ordinal, None, block, CodeEncoding::Row(encoding), stride, codes)?;
        }
        let scaled = group.scales.iter().zip(encodings).filter(|(_, encoding)| encoding.has_scale());
        let scales = f32s_to_bytes(scaled.flat_map(|(scales, _)| scales));
        if !scales.is_empty() {
            self.write_plain(Kind::Scales, ordinal, None, scales)?;
        }
        self.write_plain(Kind::Norms, ordinal, None, f32s_to_bytes(group.norms.iter().flatten()))?;
        self.write_plain(Kind::Ids, ordinal, None, group.ids.to_bytes())?;
        self.write_plain(Kind::Spans, ordinal, None, spans_to_bytes(&group.spans))?;
        self.write_plain(Kind::Sources, ordinal, None, u32s_to_bytes(&group.sources))?;
        self.write_column(Kind::Metadata, ordinal, &group.metadata.to_bytes())?;
        for (tier, open) in identity.schema.tiers().iter().zip(&mut group.tiers) {
            for ((block, dims), codes) in identity.schema.tier_blocks(*tier).zip(&mut open.codes) {
                let (encoding, stride) = (tier.kind().encoding(), tier.stride(dims));
                self.write_codes(ordinal, Some(tier.kind()), block, encoding, stride, codes)?;
            }
            let factors = f32s_to_bytes(open.factors.iter().flatten().flatten());
            self.write_plain(Kind::Factors, ordinal, Some(tier.kind()), factors)?;
        }

        group.clear();
        self.group = group;
        Ok(())
    }

    /// Writes the codes of all rows of a group in one block and tier.
    fn write_codes(
        &mut self,
        group: u32,
        tier: Option<TierKind>,
        block: usize,
        encoding: CodeEncoding,
        stride: usize,
        codes: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        let region = Region {
            kind: Kind::Codes,
            tier,
            block: u32::try_from(block).unwrap_or(u32::MAX),
            group,
            encoding: Some(encoding),
            compression: Compression::None,
            stride: u32::try_from(stride).unwrap_or(u32::MAX),
            offset: self.sink.length,
            used: codes.len() as u64,
            raw: codes.len() as u64,
        };
        self.write_region(region, codes)
    }

    /// Writes a column as it is, without compression. Every scan decodes ids, spans and sources of nearly
    /// all row groups: decompressing them would take a tenth of a scan of 4,096 `i8` dims, and nearly half of
    /// one of 256, and saves .5% and 9% of the bytes.
    fn write_plain(
        &mut self,
        kind: Kind,
        group: u32,
        tier: Option<TierKind>,
        mut bytes: Vec<u8>,
    ) -> Result<(), SegmentError> {
        let length = bytes.len() as u64;
        let region = Region {
            kind,
            tier,
            block: 0,
            group,
            encoding: None,
            compression: Compression::None,
            stride: 0,
            offset: self.sink.length,
            used: length,
            raw: length,
        };
        self.write_region(region, &mut bytes)
    }

    /// Writes a column, compressed if that makes it smaller.
    fn write_column(&mut self, kind: Kind, group: u32, raw: &[u8]) -> Result<(), SegmentError> {
        let packed = zstd::bulk::compress(raw, ZSTD_LEVEL).ok().filter(|packed| {
            packed.len() < raw.len() && raw.len() as u64 <= Region::raw_limit(packed.len() as u64)
        });
        let (compression, mut bytes) = match packed {
            Some(packed) => (Compression::Zstd, packed),
            None => (Compression::None, raw.to_vec()),
        };
        let region = Region {
            kind,
            tier: None,
            block: 0,
            group,
            encoding: None,
            compression,
            stride: 0,
            offset: self.sink.length,
            used: bytes.len() as u64,
            raw: raw.len() as u64,
        };
        self.write_region(region, &mut bytes)
    }

    /// Writes the bytes, padded in place to whole pages, and records region and checksums.
    fn write_region(&mut self, region: Region, bytes: &mut Vec<u8>) -> Result<(), SegmentError> {
        debug_assert_eq!(region.offset % PAGE, 0, "regions start at a page");
        let padded = bytes.len().next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        bytes.resize(padded, 0);
        let ordinal = self.footer.regions.len();
        for (chunk, piece) in bytes.chunks(CHUNK).enumerate() {
            self.footer.checksums.push(chunk_checksum(self.segment, ordinal, chunk, piece));
        }
        self.footer.regions.push(region);
        self.sink.write(bytes)
    }
}

impl OpenGroup {
    /// Empties the buffers for the next group.
    fn clear(&mut self) {
        self.rows = 0;
        self.codes.iter_mut().for_each(Vec::clear);
        self.scales.iter_mut().for_each(Vec::clear);
        self.norms.iter_mut().for_each(Vec::clear);
        for tier in &mut self.tiers {
            tier.codes.iter_mut().for_each(Vec::clear);
            tier.factors.iter_mut().flatten().for_each(Vec::clear);
        }
        self.ids.clear();
        self.spans.clear();
        self.sources.clear();
        self.metadata.clear();
    }
}

impl OpenTier {
    /// Adds a row; `strides` are those of its codes in the blocks.
    fn push(&mut self, strides: impl Iterator<Item = usize>, row: &EncodedTier) {
        let mut start = 0;
        let columns = self.codes.iter_mut().zip(&mut self.factors);
        for ((stride, given), (codes, factors)) in strides.zip(&row.factors).zip(columns) {
            codes.extend_from_slice(&row.codes[start..start + stride]);
            factors[0].push(given.first);
            factors[1].push(given.second);
            start += stride;
        }
    }
}

impl Sources {
    fn ordinal(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return NO_SOURCE };
        if let Some(&ordinal) = self.ordinals.get(name) {
            return ordinal;
        }
        let ordinal = u32::try_from(self.names.len()).unwrap_or(NO_SOURCE);
        self.names.push(name.as_bytes());
        self.ordinals.insert(name.to_owned(), ordinal);
        ordinal
    }
}
