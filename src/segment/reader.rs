//! Reads a segment. Opening it checks header, footer and tail; chunks are checked when they are read.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::columns::{
    ByteStrings, NO_SOURCE, Names, Span, parse_f32, parse_source_names, parse_sources, parse_spans,
    window_of_frame,
};
use super::error::{Fault, Place, SegmentError};
use super::file::SegmentFile;
use super::layout::{
    CHUNK, CONTAINER_VERSION, Compression, FEATURE_TIERS, Footer, Group, Header, Kind, Origin, PAGE, Region,
    TAIL_LEN, Tail, chunk_checksum, to_usize,
};
use super::storage::{Storage, StorageBytes};
use super::{Identity, MAX_ID, MAX_METADATA, file_name};
use crate::codec::{Factors, MAX_NORM, Tier, TierKind};
use crate::schema::Schema;

/// The number of chunks that a verification reads at once.
const CHUNKS_AT_ONCE: usize = 16;

/// The maximum zstd window of a compressed column, which bounds the memory of a streaming reader.
const MAX_WINDOW: u64 = 1 << 27;

/// Identifies a column of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Column {
    pub name: &'static str,
    pub tier: Option<&'static str>,
    pub block: Option<usize>,
}

/// An open segment. Its bytes stay readable until it is dropped.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    pub(super) file: SegmentFile,
    /// Whether the storage maps the whole file.
    pub(super) is_mapped: bool,
    segment: Uuid,
    origin: Origin,
    identity: Arc<Identity>,
    /// Feature bits that a writer must support to copy this segment.
    features_write: u64,
    footer: Footer,
    /// Ordinal in the region table of each group's first region.
    group_regions: Vec<usize>,
    /// Ordinal in the checksum table of each region's first chunk.
    first_chunks: Vec<usize>,
    /// One bit per chunk: whether it has been checked.
    sound: Vec<AtomicU64>,
    source_names: Names,
}

impl SegmentReader {
    pub fn open(
        storage: &dyn Storage,
        identity: &Arc<Identity>,
        segment: Uuid,
    ) -> Result<Self, SegmentError> {
        Self::open_as(storage, identity, segment, storage.describe(&file_name(segment)))
    }

    /// As [`SegmentReader::open`], with another name for messages.
    pub fn open_as(
        storage: &dyn Storage,
        identity: &Arc<Identity>,
        segment: Uuid,
        described: String,
    ) -> Result<Self, SegmentError> {
        let file = match storage.open(&file_name(segment)) {
            Ok(bytes) => SegmentFile { name: described, bytes },
            Err(source) => return Err(SegmentError::Io { file: described, operation: "open", source }),
        };
        let length = file.bytes.len();
        let header = check_header(&file.read_range(0..length.min(PAGE))?, &file.name, identity)?;
        if header.segment != segment {
            return Err(SegmentError::Misplaced { file: file.name, found: header.segment });
        }
        let footer = read_footer(&file, length, segment, &identity.schema)?;
        let is_mapped = file.mapped(&(0..length)).is_some();

        let mut group_regions = Vec::with_capacity(footer.groups.len());
        let mut first_chunks = Vec::with_capacity(footer.regions.len());
        let mut chunks = 0;
        for (i, region) in footer.regions.iter().enumerate() {
            if region.kind == Kind::Codes && region.tier.is_none() && region.block == 0 {
                group_regions.push(i);
            }
            first_chunks.push(chunks);
            chunks += region.chunks();
        }
        let sound = (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let identity = Arc::clone(identity);
        let mut reader = Self {
            file,
            is_mapped,
            segment,
            origin: header.origin,
            identity,
            features_write: header.features_write,
            footer,
            group_regions,
            first_chunks,
            sound,
            source_names: Names::default(),
        };
        reader.source_names = reader.read_source_names()?;
        Ok(reader)
    }

    pub fn segment(&self) -> Uuid {
        self.segment
    }

    /// The commit for which the segment was written.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Checks that this version can copy the rows into a new segment without loss.
    pub fn check_copyable(&self) -> Result<(), SegmentError> {
        match self.features_write {
            0 => Ok(()),
            bits => Err(SegmentError::UnknownFeature { file: self.file.name.clone(), bits }),
        }
    }

    /// The file, as named in messages.
    pub fn file(&self) -> &str {
        &self.file.name
    }

    pub fn schema(&self) -> &Schema {
        &self.identity.schema
    }

    pub fn rows(&self) -> u32 {
        // The footer's check ensures that the sum is below 2^32.
        u32::try_from(self.footer.rows()).unwrap_or(u32::MAX)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.file.bytes.len()
    }

    pub fn groups(&self) -> &[Group] {
        &self.footer.groups
    }

    /// The names of all sources, in the order of their ordinals.
    pub fn source_names(&self) -> &Names {
        &self.source_names
    }

    /// The name of a row's source by its ordinal; `None` for [`NO_SOURCE`].
    pub fn source_name(&self, ordinal: u32) -> Option<&str> {
        match ordinal {
            NO_SOURCE => None,
            ordinal => self.source_names.get(ordinal as usize),
        }
    }

    /// The row group of a row of the segment, and the row's ordinal in it.
    pub fn locate(&self, row: u32) -> Option<(usize, usize)> {
        let group = self.footer.groups.partition_point(|group| group.range().end <= row);
        let found = self.footer.groups.get(group)?;
        Some((group, (row - found.first_row) as usize))
    }

    /// Reads a range of the file.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.file.read(offset, buffer)
    }

    /// Reads a range of the file, bypassing the page cache: whole pages, into page-aligned memory.
    pub fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.file.read_direct(offset, buffer)
    }

    /// The file's bytes, for advice and residency.
    pub fn storage(&self) -> &dyn StorageBytes {
        &*self.file.bytes
    }

    /// The scale of each row; empty if the block's encoding has none.
    pub fn scales(&self, group: usize, block: usize) -> Result<Vec<f32>, SegmentError> {
        let encodings = self.identity.schema.encodings();
        if !encodings[block].has_scale() {
            return Ok(Vec::new());
        }
        let before = encodings[..block].iter().filter(|encoding| encoding.has_scale()).count();
        self.numbers(group, Kind::Scales, before, |&scale| encodings[block].may_scale_by(scale))
    }

    /// The norm of each row in a block.
    pub fn norms(&self, group: usize, block: usize) -> Result<Vec<f32>, SegmentError> {
        // The comparison excludes NaN too; the sign excludes -0.
        self.numbers(group, Kind::Norms, block, |norm| norm.is_sign_positive() && *norm <= MAX_NORM)
    }

    /// The first and the second factor of each row in a tier of a block: gains and spreads, or scales
    /// and residuals.
    pub fn factors(
        &self,
        group: usize,
        tier: Tier,
        block: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), SegmentError> {
        let (ordinal, region) = self.region_of_tier(group, Kind::Factors, Some(tier.kind()), 0)?;
        let before = self.identity.schema.tier_blocks(tier).take_while(|(found, _)| *found < block).count();
        let bytes = (self.footer.groups[group].rows as usize * 4) as u64;
        let start = before as u64 * 2 * bytes;
        let run = |start: u64| Ok(parse_f32(&self.read_used(ordinal, region, start..start + bytes)?));
        let (first, second): (Vec<f32>, Vec<f32>) = (run(start)?, run(start + bytes)?);
        let factors = || first.iter().zip(&second).map(|(&first, &second)| Factors { first, second });
        match factors().position(|factors| !tier.may_have(factors)) {
            Some(row) => {
                let (first, second) = (first[row], second[row]);
                Err(self.damaged(region, format!("row {row} of block {block} has {first} and {second}")))
            }
            None => Ok((first, second)),
        }
    }

    pub fn ids(&self, group: usize) -> Result<ByteStrings, SegmentError> {
        self.strings(group, Kind::Ids, 1..=MAX_ID)
    }

    pub fn metadata(&self, group: usize) -> Result<ByteStrings, SegmentError> {
        self.strings(group, Kind::Metadata, 0..=MAX_METADATA)
    }

    pub fn spans(&self, group: usize) -> Result<Vec<Span>, SegmentError> {
        let (ordinal, region) = self.region(group, Kind::Spans, 0)?;
        parse_spans(&self.raw(ordinal, region)?).map_err(|reason| self.damaged(region, reason))
    }

    /// The ordinal of each row's source in `source_names`; `NO_SOURCE` for none.
    pub fn sources(&self, group: usize) -> Result<Vec<u32>, SegmentError> {
        let (ordinal, region) = self.region(group, Kind::Sources, 0)?;
        parse_sources(&self.raw(ordinal, region)?, self.source_names.len())
            .map_err(|reason| self.damaged(region, reason))
    }

    /// The stored bytes of each column, by its name, tier and block; for statistics.
    pub fn column_bytes(&self) -> impl Iterator<Item = (Column, u64)> + '_ {
        self.footer.regions.iter().map(|region| {
            let column = Column {
                name: region.kind.name(),
                tier: region.tier.map(TierKind::name),
                block: (region.kind == Kind::Codes).then_some(region.block as usize),
            };
            (column, region.stored())
        })
    }

    /// Reads and checks every chunk of the file and each padding byte, even if checked before. Calls `found`
    /// for each fault instead of stopping at the first.
    pub fn verify(&self, mut found: impl FnMut(SegmentError)) {
        for (ordinal, region) in self.footer.regions.iter().enumerate() {
            for first in (0..region.chunks()).step_by(CHUNKS_AT_ONCE) {
                let start = region.offset + (first * CHUNK) as u64;
                let end = region.end().min(start + (CHUNKS_AT_ONCE * CHUNK) as u64);
                let bytes = match self.file.read_range(start..end) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let is_cut_off = matches!(error, SegmentError::Damaged { .. });
                        found(error);
                        // The file ends here.
                        if is_cut_off {
                            return;
                        }
                        continue;
                    }
                };
                for (chunk, bytes) in (first..).zip(bytes.chunks(CHUNK)) {
                    if let Err(error) = self.check_chunk(ordinal, chunk, bytes) {
                        found(error);
                    }
                }
                let padding = (region.offset + region.used).clamp(start, end);
                let padding_bytes = &bytes[to_usize(padding - start)..];
                if let Some(at) = padding_bytes.iter().position(|&byte| byte != 0) {
                    let fault = Fault::new(region.place(), padding + at as u64, "padding is not zero");
                    found(fault.in_file(self.file()));
                }
            }
        }
    }

    /// The digest of the whole file, as stored in the manifest.
    pub fn sha256(&self) -> Result<[u8; 32], SegmentError> {
        let (mut digest, length) = (Sha256::new(), self.bytes());
        for start in (0..length).step_by(CHUNKS_AT_ONCE * CHUNK) {
            let end = length.min(start + (CHUNKS_AT_ONCE * CHUNK) as u64);
            digest.update(self.file.read_range(start..end)?);
        }
        Ok(digest.finalize().into())
    }

    /// An error of this file, in one of its columns.
    pub fn fault(&self, kind: Kind, group: usize, block: usize, reason: String) -> SegmentError {
        match self.region(group, kind, block) {
            Ok((_, region)) => self.damaged(region, reason),
            Err(error) => error,
        }
    }

    pub(super) fn damaged(&self, region: &Region, reason: String) -> SegmentError {
        Fault::new(region.place(), region.offset, reason).in_file(self.file())
    }

    /// A column of the rows, not of a tier.
    fn region(&self, group: usize, kind: Kind, block: usize) -> Result<(usize, &Region), SegmentError> {
        self.region_of_tier(group, kind, None, block)
    }

    /// `Footer::parse` has checked that each group has each column once, in order.
    pub(super) fn region_of_tier(
        &self,
        group: usize,
        kind: Kind,
        tier: Option<TierKind>,
        block: usize,
    ) -> Result<(usize, &Region), SegmentError> {
        let start = self.group_regions.get(group).copied().unwrap_or(usize::MAX);
        let is_own = kind == Kind::Codes && tier.is_none();
        let before = if is_own { block } else { self.identity.schema.encodings().len() };
        let mut regions = self.footer.regions.iter().enumerate().skip(start.saturating_add(before));
        let is_it = |(_, region): &(usize, &Region)| {
            region.kind == kind && region.tier == tier && region.block as usize == block
        };
        regions.find(is_it).ok_or_else(|| SegmentError::Damaged {
            file: self.file().to_owned(),
            place: Place::Footer,
            offset: 0,
            reason: format!("no {} of row group {group}, block {block}, tier {tier:?}", kind.name()),
        })
    }

    /// Whether a chunk has been checked before.
    pub(super) fn is_sound(&self, ordinal: usize, chunk: usize) -> bool {
        let bit = self.first_chunks[ordinal] + chunk;
        // Relaxed: a stale bit only repeats a check; the bytes never change.
        self.sound[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
    }

    pub(super) fn set_sound(&self, ordinal: usize, chunk: usize) {
        let bit = self.first_chunks[ordinal] + chunk;
        self.sound[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    pub(super) fn check_chunk(&self, ordinal: usize, chunk: usize, bytes: &[u8]) -> Result<(), SegmentError> {
        self.compare(ordinal, chunk, chunk_checksum(self.segment, ordinal, chunk, bytes))
    }

    /// Compares a chunk's computed checksum with the stored one.
    pub(super) fn compare(&self, ordinal: usize, chunk: usize, found: u32) -> Result<(), SegmentError> {
        if found == self.footer.checksums[self.first_chunks[ordinal] + chunk] {
            return Ok(());
        }
        let region = &self.footer.regions[ordinal];
        let start = region.offset + (chunk * CHUNK) as u64;
        let fault = Fault::new(region.place(), start, format!("checksum of chunk {chunk} does not match"));
        Err(fault.in_file(self.file()))
    }

    /// A checked copy of a range of a region's used bytes. Read rather than mapped, so that a file that
    /// another program truncates gives an error.
    fn read_used(&self, ordinal: usize, region: &Region, used: Range<u64>) -> Result<Vec<u8>, SegmentError> {
        let extent = self.extent_of(ordinal, region, used.clone())?;
        let offset = extent.range.start;
        let mut bytes = self.file.read_range(extent.range)?;
        for (chunk, bytes) in (extent.first_chunk..).zip(bytes.chunks(CHUNK)) {
            self.check_chunk(ordinal, chunk, bytes)?;
        }
        let end = to_usize(region.offset + used.end - offset);
        bytes.truncate(end);
        bytes.drain(..to_usize(region.offset + used.start - offset));
        Ok(bytes)
    }

    /// A small column's bytes, decompressed.
    fn raw(&self, ordinal: usize, region: &Region) -> Result<Vec<u8>, SegmentError> {
        let used = self.read_used(ordinal, region, 0..region.used)?;
        if region.compression == Compression::None {
            return Ok(used);
        }
        // Exactly one frame of the length that the footer gives: looked at before memory is taken for it.
        let is_one = zstd::zstd_safe::find_frame_compressed_size(&used).is_ok_and(|size| size == used.len());
        let states =
            zstd::zstd_safe::get_frame_content_size(&used).is_ok_and(|size| size == Some(region.raw));
        let not_it = || self.damaged(region, format!("not one zstd frame of {} bytes", region.raw));
        if !is_one || !states {
            return Err(not_it());
        }
        if window_of_frame(&used, region.raw).is_some_and(|window| window > MAX_WINDOW) {
            return Err(self.damaged(region, "a zstd frame with a window of more than 2^27 bytes".into()));
        }
        let mut raw = Vec::new();
        let room = raw.try_reserve_exact(to_usize(region.raw));
        room.map_err(|_| self.damaged(region, format!("no memory for {} bytes", region.raw)))?;
        match decompress(&used, &mut raw) {
            Ok(length) if length as u64 == region.raw => Ok(raw),
            _ => Err(not_it()),
        }
    }

    fn strings(
        &self,
        group: usize,
        kind: Kind,
        lengths: std::ops::RangeInclusive<u32>,
    ) -> Result<ByteStrings, SegmentError> {
        let (ordinal, region) = self.region(group, kind, 0)?;
        let rows = self.footer.groups[group].rows as usize;
        ByteStrings::parse(&self.raw(ordinal, region)?, rows, lengths)
            .map_err(|reason| self.damaged(region, reason))
    }

    /// Run number `run` of one f32 for each row, all of which must be `possible`.
    fn numbers(
        &self,
        group: usize,
        kind: Kind,
        run: usize,
        possible: impl Fn(&f32) -> bool,
    ) -> Result<Vec<f32>, SegmentError> {
        let (ordinal, region) = self.region(group, kind, 0)?;
        let bytes = self.footer.groups[group].rows as usize * 4;
        let range = (run * bytes) as u64..((run + 1) * bytes) as u64;
        let numbers = parse_f32(&self.read_used(ordinal, region, range)?);
        match numbers.iter().position(|x| !possible(x)) {
            Some(row) => Err(self.damaged(region, format!("row {row} has {}", numbers[row]))),
            None => Ok(numbers),
        }
    }

    fn read_source_names(&self) -> Result<Names, SegmentError> {
        let found =
            self.footer.regions.iter().enumerate().find(|(_, region)| region.kind == Kind::SourceNames);
        let Some((ordinal, region)) = found else { return Ok(Names::default()) };
        parse_source_names(&self.raw(ordinal, region)?).map_err(|reason| self.damaged(region, reason))
    }
}

fn read_footer(
    file: &SegmentFile,
    length: u64,
    segment: Uuid,
    schema: &Schema,
) -> Result<Footer, SegmentError> {
    let in_file = |fault: Fault| fault.in_file(&file.name);
    let start = Tail::start(length).map_err(in_file)?;
    let mut tail = [0; TAIL_LEN];
    file.read(start, &mut tail)?;
    let tail = Tail::parse(&tail, start, segment).map_err(in_file)?;
    let footer = file.read_range(tail.footer.clone())?;
    Footer::parse(&footer, &tail, schema).map_err(in_file)
}

/// Decompresses one frame into the capacity of `raw`.
fn decompress(frame: &[u8], raw: &mut Vec<u8>) -> io::Result<usize> {
    thread_local! {
        // Creating one for each column costs more than decompressing most columns.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(frame, raw)
    })
}

fn check_header(bytes: &[u8], file: &str, identity: &Identity) -> Result<Header, SegmentError> {
    let file = || file.to_owned();
    let header = Header::parse(bytes).map_err(|fault| fault.in_file(&file()))?;
    let header = header.ok_or_else(|| SegmentError::NotASegment { file: file() })?;
    if header.container_version > CONTAINER_VERSION {
        let found = header.container_version;
        return Err(SegmentError::Newer { file: file(), found, supported: CONTAINER_VERSION });
    }
    let unknown = header.features_read & !FEATURE_TIERS;
    if unknown != 0 {
        return Err(SegmentError::UnknownFeature { file: file(), bits: unknown });
    }
    if header.index != identity.index {
        let (found, expected) = (header.index, identity.index);
        return Err(SegmentError::Foreign { file: file(), found, expected });
    }
    if header.schema_digest != identity.schema_digest {
        return Err(SegmentError::OtherSchema { file: file() });
    }
    if (header.features_read & FEATURE_TIERS != 0) == identity.schema.tiers().is_empty() {
        let fault = Fault::new(Place::Header, 16, "the bit for tiers does not match the schema");
        return Err(fault.in_file(&file()));
    }
    Ok(header)
}
