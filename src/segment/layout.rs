//! The bytes of a segment's header, footer and tail. No other module reads or writes them.
//!
//! Specified by `format-spec/segment.md`; `tests::constants_never_change` pins it.

use std::ops::Range;

use uuid::Uuid;

use super::error::{Fault, Place};
use crate::bytes::{array_at, u16_at, u32_at, u64_at, uuid_at};
use crate::codec::{CodeEncoding, TierKind, listed};
use crate::schema::Schema;

pub(crate) const CONTAINER_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"\x89GDX\r\n\x1a\n";
const END_MAGIC: [u8; 8] = *b"\n\x1a\r\nXDG\x89";
pub(crate) const PAGE: u64 = 4096;
pub(crate) const PAGE_BYTES: usize = 4096;
const HEADER_LEN: usize = 128;
pub(crate) const TAIL_LEN: usize = 64;
const FOOTER_FIXED: usize = 32;
const GROUP_LEN: usize = 8;
const REGION_LEN: usize = 64;
/// Bytes that one checksum covers.
pub(crate) const CHUNK: usize = 65_536;
const CHUNK_LEN: u32 = 65_536;
const FIRST_INFORMATIVE_KIND: u16 = 0x8000;
/// The bit of `features_read` that is set in segments with tiers.
pub(crate) const FEATURE_TIERS: u64 = 1;

/// The kind of a region, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Codes,
    Scales,
    Norms,
    Ids,
    Spans,
    Sources,
    Metadata,
    /// Two numbers for each row, block and tier.
    Factors,
    SourceNames,
    /// A kind of a later version, which readers may ignore.
    Informative(u16),
}

listed!(pub(crate) Kind { Codes, Scales, Norms, Ids, Spans, Sources, Metadata, Factors, SourceNames } and Kind::Informative(_));

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::Codes => 1,
            Self::Scales => 2,
            Self::Norms => 3,
            Self::Ids => 4,
            Self::Spans => 5,
            Self::Sources => 6,
            Self::Metadata => 7,
            Self::SourceNames => 8,
            Self::Factors => 9,
            Self::Informative(number) => number,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        if number >= FIRST_INFORMATIVE_KIND {
            return Some(Self::Informative(number));
        }
        Self::ALL.iter().copied().find(|kind| kind.number() == number)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Codes => "codes",
            Self::Scales => "scales",
            Self::Norms => "norms",
            Self::Ids => "ids",
            Self::Spans => "spans",
            Self::Sources => "sources",
            Self::Metadata => "metadata",
            Self::Factors => "factors",
            Self::SourceNames => "source names",
            Self::Informative(_) => "informative region",
        }
    }

    fn may_be_compressed(self) -> bool {
        match self {
            Self::Codes | Self::Scales | Self::Norms | Self::Factors => false,
            Self::Ids | Self::Spans | Self::Sources | Self::Metadata | Self::SourceNames => true,
            Self::Informative(_) => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Zstd,
}

/// One entry of the region table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub kind: Kind,
    /// The tier of codes and factors; `None` for the rows' own codes.
    pub tier: Option<TierKind>,
    pub block: u32,
    pub group: u32,
    /// The encoding of codes.
    pub encoding: Option<CodeEncoding>,
    pub compression: Compression,
    pub stride: u32,
    pub offset: u64,
    pub used: u64,
    pub raw: u64,
}

impl Region {
    pub fn stored(&self) -> u64 {
        self.used.next_multiple_of(PAGE).max(PAGE)
    }

    pub fn end(&self) -> u64 {
        self.offset + self.stored()
    }

    pub fn chunks(&self) -> usize {
        to_usize(self.stored().div_ceil(CHUNK as u64))
    }

    pub fn place(&self) -> Place {
        let (block, group) = (self.block, self.group);
        match (self.kind, self.tier) {
            (Kind::Codes, tier) => Place::Codes { block, group, tier: tier.map(TierKind::name) },
            (Kind::Factors, Some(tier)) => Place::Column { name: tier.factors_name(), group },
            (kind, _) => Place::Column { name: kind.name(), group },
        }
    }

    /// The maximum raw length of a region of this used length.
    pub fn raw_limit(used: u64) -> u64 {
        ((1 << 20) + 256 * used).min(1 << 30)
    }
}

/// A row group: a run of rows whose columns are adjacent in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Ordinal of its first row in the segment.
    pub first_row: u32,
    /// Number of rows, at least one.
    pub rows: u32,
}

impl Group {
    pub fn range(&self) -> Range<u32> {
        self.first_row..self.first_row + self.rows
    }
}

/// For which commit a segment was written, to recover a lost manifest: later segments have a greater one. All
/// 0 if it is not stated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The generation of that commit.
    pub generation: u64,
    /// The ordinal of the segment among those of the commit, in the order of writing.
    pub ordinal: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub container_version: u32,
    pub features_read: u64,
    /// A reader may ignore these.
    pub features_write: u64,
    pub index: Uuid,
    pub segment: Uuid,
    pub schema_digest: [u8; 32],
    pub origin: Origin,
}

impl Header {
    pub fn to_page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend(MAGIC);
        page.extend(self.container_version.to_le_bytes());
        page.extend((HEADER_LEN as u32).to_le_bytes());
        page.extend(self.features_read.to_le_bytes());
        page.extend(self.features_write.to_le_bytes());
        page.extend([0; 8]);
        page.extend(self.index.as_bytes());
        page.extend(self.segment.as_bytes());
        page.extend(self.schema_digest);
        page.extend(self.origin.generation.to_le_bytes());
        page.extend(self.origin.ordinal.to_le_bytes());
        page.extend([0; 8]);
        let crc = crc32fast::hash(&page);
        page.extend(crc.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// `start` is the file's first page, or the whole file if it is shorter. Checks magic and version first,
    /// since the rest depends on the version. `Ok(None)`: not a segment.
    pub fn parse(start: &[u8]) -> Result<Option<Self>, Fault> {
        if start.get(..8) != Some(&MAGIC[..]) {
            return Ok(None);
        }
        let fault = |offset, reason: &str| Err(Fault::new(Place::Header, offset, reason));
        let Some(page) = start.get(..PAGE_BYTES) else {
            return fault(start.len() as u64, "the file ends within its first page");
        };
        let container_version = u32_at(page, 8);
        let header = Self {
            container_version,
            features_read: u64_at(page, 16),
            features_write: u64_at(page, 24),
            index: uuid_at(page, 40),
            segment: uuid_at(page, 56),
            schema_digest: array_at(page, 72),
            origin: Origin { generation: u64_at(page, 104), ordinal: u32_at(page, 112) },
        };
        if container_version > CONTAINER_VERSION {
            return Ok(Some(header)); // The caller checks the version.
        }
        if crc32fast::hash(&page[..124]) != u32_at(page, 124) {
            return fault(124, "checksum does not match");
        }
        if container_version == 0 || u32_at(page, 12) as usize != HEADER_LEN {
            return fault(8, "container version 0, or a header length other than 128");
        }
        if header.origin.generation >= 1 << 63 {
            return fault(104, "the generation is 2^63 or more");
        }
        if page[116..124].iter().any(|&byte| byte != 0) {
            return fault(116, "reserved bytes are not zero");
        }
        if let Some(at) = page[HEADER_LEN..].iter().position(|&byte| byte != 0) {
            return fault((HEADER_LEN + at) as u64, "padding is not zero");
        }
        Ok(Some(header))
    }
}

/// The footer: the locations and checksums of the columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    pub groups: Vec<Group>,
    pub regions: Vec<Region>,
    /// One checksum for each chunk of each region, in file order.
    pub checksums: Vec<u32>,
}

impl Footer {
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.rows)).sum()
    }

    /// Footer and tail.
    pub fn to_bytes(&self, segment: Uuid, blocks: u32, offset: u64) -> Vec<u8> {
        let mut footer = Vec::new();
        footer.extend(self.rows().to_le_bytes());
        footer.extend(count(self.groups.len()).to_le_bytes());
        footer.extend(blocks.to_le_bytes());
        footer.extend(count(self.regions.len()).to_le_bytes());
        footer.extend(CHUNK_LEN.to_le_bytes());
        footer.extend([0; 8]);
        for group in &self.groups {
            footer.extend(group.rows.to_le_bytes());
            footer.extend([0; 4]);
        }
        for region in &self.regions {
            footer.extend(region.kind.number().to_le_bytes());
            footer.extend(region.tier.map_or(0, TierKind::number).to_le_bytes());
            footer.extend(region.block.to_le_bytes());
            footer.extend(region.group.to_le_bytes());
            footer.extend(region.encoding.map_or(0, CodeEncoding::number).to_le_bytes());
            footer.extend(region.encoding.map_or(0, CodeEncoding::version).to_le_bytes());
            footer.extend(u16::from(region.compression == Compression::Zstd).to_le_bytes());
            footer.extend([0; 2]);
            footer.extend(region.stride.to_le_bytes());
            footer.extend(region.offset.to_le_bytes());
            footer.extend(region.stored().to_le_bytes());
            footer.extend(region.used.to_le_bytes());
            footer.extend(region.raw.to_le_bytes());
            footer.extend([0; 8]);
        }
        for checksum in &self.checksums {
            footer.extend(checksum.to_le_bytes());
        }
        let mut tail = Vec::with_capacity(TAIL_LEN);
        tail.extend(offset.to_le_bytes());
        tail.extend((footer.len() as u64).to_le_bytes());
        tail.extend(crc32fast::hash(&footer).to_le_bytes());
        tail.extend(CONTAINER_VERSION.to_le_bytes());
        tail.extend(segment.as_bytes());
        tail.extend([0; 12]);
        let crc = crc32fast::hash(&tail);
        tail.extend(crc.to_le_bytes());
        tail.extend(END_MAGIC);
        footer.extend(tail);
        footer
    }

    /// Parses and checks the footer, whose bytes the tail locates.
    pub fn parse(bytes: &[u8], tail: &Tail, schema: &Schema) -> Result<Self, Fault> {
        let start = tail.footer.start;
        if crc32fast::hash(bytes) != tail.footer_checksum {
            return Err(Fault::new(Place::Footer, start, "checksum does not match"));
        }
        let fault = |at: usize, reason: String| Fault::new(Place::Footer, start + at as u64, reason);
        let short = || fault(0, "its length is not that of its tables".into());
        let fixed = bytes.get(..FOOTER_FIXED).ok_or_else(short)?;
        let (rows, groups) = (u64_at(fixed, 0), u32_at(fixed, 8) as usize);
        let (blocks, regions) = (u32_at(fixed, 12) as usize, u32_at(fixed, 16) as usize);
        if blocks != schema.encodings().len() {
            return Err(fault(
                12,
                format!("{blocks} blocks where the schema has {}", schema.encodings().len()),
            ));
        }
        if u32_at(fixed, 20) != CHUNK_LEN || u64_at(fixed, 24) != 0 {
            return Err(fault(20, "another chunk length, or reserved bytes that are not zero".into()));
        }
        let group_table = FOOTER_FIXED..FOOTER_FIXED + groups * GROUP_LEN;
        let region_table = group_table.end..group_table.end + regions * REGION_LEN;
        let (group_bytes, region_bytes) = (
            bytes.get(group_table.clone()).ok_or_else(short)?,
            bytes.get(region_table.clone()).ok_or_else(short)?,
        );

        let mut footer = Self::default();
        let mut first_row = 0u64;
        for (i, entry) in group_bytes.chunks_exact(GROUP_LEN).enumerate() {
            let at = group_table.start + i * GROUP_LEN;
            let rows = u32_at(entry, 0);
            let end = first_row + u64::from(rows);
            if rows == 0 || u32_at(entry, 4) != 0 || end > u64::from(u32::MAX) {
                return Err(fault(at, format!("row group {i} of {rows} rows, ending at row {end}")));
            }
            // `first_row` is below 2^32 here, by the check of the group before.
            footer.groups.push(Group { first_row: u32::try_from(first_row).unwrap_or(u32::MAX), rows });
            first_row = end;
        }
        if groups == 0 || first_row != rows {
            return Err(fault(0, format!("{rows} rows, where the row groups have {first_row}")));
        }
        let mut next = PAGE;
        for (i, entry) in region_bytes.chunks_exact(REGION_LEN).enumerate() {
            let at = region_table.start + i * REGION_LEN;
            let region = parse_region(entry).map_err(|reason| fault(at, format!("region {i}: {reason}")))?;
            if region.offset != next || region.end() > start {
                let reason =
                    format!("region {i} at {} where {next} is expected, or beyond the footer", region.offset);
                return Err(fault(at, reason));
            }
            next = region.end();
            footer.regions.push(region);
        }
        if next != start {
            return Err(fault(0, format!("the regions end at {next} and the footer begins at {start}")));
        }
        footer.check_columns(schema).map_err(|reason| fault(region_table.start, reason))?;

        let chunks: usize = footer.regions.iter().map(Region::chunks).sum();
        let checksums = &bytes[region_table.end..];
        if checksums.len() != chunks * 4 {
            return Err(short());
        }
        footer.checksums = checksums.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect();
        Ok(footer)
    }

    /// Checks that the regions are those that the groups and the schema require, in order.
    fn check_columns(&self, schema: &Schema) -> Result<(), String> {
        let mut regions = self.regions.iter().filter(|region| !matches!(region.kind, Kind::Informative(_)));
        let mut expect = |wanted: Wanted| {
            let region = regions.next().ok_or_else(|| format!("{wanted} is missing"))?;
            if !wanted.is(region) {
                return Err(format!("{} where {wanted} is expected", region.place()));
            }
            match wanted.raw {
                Some(raw) if raw != region.raw => {
                    Err(format!("{wanted} has {} bytes, not {raw}", region.raw))
                }
                _ => Ok(()),
            }
        };
        let encodings = schema.encodings();
        let scaled = encodings.iter().filter(|encoding| encoding.has_scale()).count() as u64;
        for (g, group) in self.groups.iter().enumerate() {
            let rows = u64::from(group.rows);
            for (b, &encoding) in encodings.iter().enumerate() {
                let encoding = CodeEncoding::Row(encoding);
                expect(Wanted::codes(g, None, b, rows, schema.stride(b), encoding))?;
            }
            if scaled > 0 {
                expect(Wanted::column(Kind::Scales, g, Some(rows * 4 * scaled)))?;
            }
            expect(Wanted::column(Kind::Norms, g, Some(rows * 4 * encodings.len() as u64)))?;
            expect(Wanted::column(Kind::Ids, g, None))?;
            expect(Wanted::column(Kind::Spans, g, Some(rows * 8)))?;
            expect(Wanted::column(Kind::Sources, g, Some(rows * 4)))?;
            expect(Wanted::column(Kind::Metadata, g, None))?;
            for tier in schema.tiers() {
                let kind = Some(tier.kind());
                let mut blocks = 0;
                for (block, dims) in schema.tier_blocks(*tier) {
                    let (stride, encoding) = (tier.stride(dims), tier.kind().encoding());
                    expect(Wanted::codes(g, kind, block, rows, stride, encoding))?;
                    blocks += 1;
                }
                let factors = Wanted::column(Kind::Factors, g, Some(rows * 8 * blocks));
                expect(Wanted { tier: kind, ..factors })?;
            }
        }
        expect(Wanted::column(Kind::SourceNames, 0, None))?;
        match regions.next() {
            Some(region) => Err(format!("a second {}", region.place())),
            None => Ok(()),
        }
    }
}

/// The region that the schema and the groups require.
struct Wanted {
    kind: Kind,
    tier: Option<TierKind>,
    group: usize,
    block: usize,
    encoding: Option<CodeEncoding>,
    stride: usize,
    raw: Option<u64>,
}

impl Wanted {
    fn codes(
        group: usize,
        tier: Option<TierKind>,
        block: usize,
        rows: u64,
        stride: usize,
        encoding: CodeEncoding,
    ) -> Self {
        let (encoding, raw) = (Some(encoding), Some(rows * stride as u64));
        Self { kind: Kind::Codes, tier, group, block, encoding, stride, raw }
    }

    fn column(kind: Kind, group: usize, raw: Option<u64>) -> Self {
        Self { kind, tier: None, group, block: 0, encoding: None, stride: 0, raw }
    }

    fn is(&self, region: &Region) -> bool {
        region.kind == self.kind
            && region.tier == self.tier
            && region.group as usize == self.group
            && region.block as usize == self.block
            && region.stride as usize == self.stride
            && region.encoding == self.encoding
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, tier, group, block, .. } = self;
        match tier.map(TierKind::name) {
            None => write!(f, "{} of row group {group}, block {block}", kind.name()),
            Some(tier) => write!(f, "{} of tier {tier}, row group {group}, block {block}", kind.name()),
        }
    }
}

/// The last bytes of a file, which locate the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The footer's range in the file.
    pub footer: Range<u64>,
    footer_checksum: u32,
}

impl Tail {
    /// The offset of the tail in a file of this length.
    pub fn start(file_len: u64) -> Result<u64, Fault> {
        if file_len < PAGE * 2 + TAIL_LEN as u64 {
            return Err(Fault::new(Place::Tail, file_len, "the file is too short to have one"));
        }
        Ok(file_len - TAIL_LEN as u64)
    }

    /// `tail` holds the bytes from `at` to the end of the file. Checks that the footer is not longer than one
    /// that describes the bytes before it.
    pub fn parse(tail: &[u8; TAIL_LEN], at: u64, segment: Uuid) -> Result<Self, Fault> {
        let fault = |at: u64, reason: &str| Err(Fault::new(Place::Tail, at, reason));
        if tail[56..] != END_MAGIC {
            return fault(at + 56, "the end magic is missing: the file is cut off or not a segment");
        }
        if crc32fast::hash(&tail[..52]) != u32_at(tail, 52) {
            return fault(at + 52, "checksum does not match");
        }
        if u32_at(tail, 20) != CONTAINER_VERSION || uuid_at(tail, 24) != segment {
            return fault(at + 20, "version or segment is not that of the header");
        }
        if tail[40..52].iter().any(|&byte| byte != 0) {
            return fault(at + 40, "reserved bytes are not zero");
        }
        let (offset, length) = (u64_at(tail, 0), u64_at(tail, 8));
        if offset % PAGE != 0 || offset.checked_add(length) != Some(at) {
            return fault(at, "the footer does not end where the tail begins");
        }
        // Each region has at least a page, each group has regions, and each chunk except the last of a
        // region is full, which bounds the length of the tables.
        let regions = offset / PAGE;
        let tables = (GROUP_LEN + REGION_LEN + 4) as u64 * regions + 4 * (offset / CHUNK as u64);
        if length > FOOTER_FIXED as u64 + tables {
            let reason = format!("{length} bytes are too many for {regions} pages of regions");
            return Err(Fault::new(Place::Footer, offset, reason));
        }
        Ok(Self { footer: offset..at, footer_checksum: u32_at(tail, 16) })
    }
}

fn parse_region(entry: &[u8]) -> Result<Region, String> {
    let number = u16_at(entry, 0);
    let kind = Kind::from_number(number).ok_or_else(|| format!("unknown kind {number}"))?;
    let informative = matches!(kind, Kind::Informative(_));
    let number = u16_at(entry, 2);
    let tier = match (kind, TierKind::from_number(number)) {
        (Kind::Codes | Kind::Factors, Some(tier)) => Some(tier),
        (Kind::Informative(_), _) => None,
        _ if number == 0 && kind != Kind::Factors => None,
        _ => return Err(format!("unknown tier {number}")),
    };
    let (number, version) = (u16_at(entry, 12), u16_at(entry, 14));
    let encoding = match CodeEncoding::from_number(number) {
        Some(encoding) if encoding.version() == version => Some(encoding),
        _ if informative || (number, version) == (0, 0) => None,
        _ => return Err(format!("unknown encoding {number} version {version}")),
    };
    let compression = match u16_at(entry, 16) {
        _ if informative => Compression::None,
        0 => Compression::None,
        1 if kind.may_be_compressed() => Compression::Zstd,
        other => return Err(format!("compression {other} of {}", kind.name())),
    };
    let region = Region {
        kind,
        tier,
        block: u32_at(entry, 4),
        group: u32_at(entry, 8),
        encoding,
        compression,
        stride: u32_at(entry, 20),
        offset: u64_at(entry, 24),
        used: u64_at(entry, 40),
        raw: u64_at(entry, 48),
    };
    // No file is longer than 2^63 bytes; below that none of the sums here can overflow.
    if region.used >= 1 << 54 || region.offset >= 1 << 62 {
        return Err(format!("impossible length {} or offset {}", region.used, region.offset));
    }
    if u64_at(entry, 32) != region.stored() {
        return Err(format!("stored length {} for {} used bytes", u64_at(entry, 32), region.used));
    }
    let raw_fits = match region.compression {
        _ if informative => true,
        Compression::None => region.raw == region.used,
        Compression::Zstd => region.raw <= Region::raw_limit(region.used),
    };
    if !raw_fits {
        return Err(format!("raw length {} for {} used bytes", region.raw, region.used));
    }
    if u16_at(entry, 18) != 0 || u64_at(entry, 56) != 0 {
        return Err("reserved bytes are not zero".into());
    }
    Ok(region)
}

/// The checksum of one chunk, bound to its segment, region and ordinal.
pub(crate) fn chunk_checksum(segment: Uuid, region: usize, chunk: usize, bytes: &[u8]) -> u32 {
    let mut hasher = chunk_hasher(segment, region, chunk);
    hasher.update(bytes);
    hasher.finalize()
}

/// A hasher for the checksum of one chunk, to be updated with its bytes.
pub(crate) fn chunk_hasher(segment: Uuid, region: usize, chunk: usize) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(segment.as_bytes());
    hasher.update(&count(region).to_le_bytes());
    hasher.update(&(chunk as u64).to_le_bytes());
    hasher
}

/// Converts ordinals and counts of tables in memory, which are far below 2^32.
fn count(n: usize) -> u32 {
    debug_assert!(u32::try_from(n).is_ok(), "{n} does not fit u32");
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Converts offsets that have been checked against the length of a slice.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
