//! Reads a segment: everything is checked when it is opened, and each chunk when it is first touched.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::columns::{ByteStrings, Span, parse_f32, parse_spans};
use super::error::{Fault, Place, SegmentError};
use super::layout::{
    CHUNK, CONTAINER_VERSION, Compression, FEATURE_TIERS, Footer, Group, Header, Kind, Region,
    chunk_checksum, chunk_hasher, tier_name, to_usize, u32_at,
};
use super::storage::{Storage, StorageBytes};
use super::writer::NO_SOURCE;
use crate::codec::{Factors, MAX_NORM, Tier};

use super::{Identity, MAX_ID, MAX_METADATA, MAX_SOURCE, file_name};

/// The codes of one block in one row group: rows of `stride` bytes, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
}

impl<'a> Codes<'a> {
    pub fn row(&self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.stride..(i + 1) * self.stride]
    }
}

/// What tells a column of a segment from its others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Column {
    pub name: &'static str,
    pub tier: Option<&'static str>,
    pub block: Option<usize>,
}

/// The chunks of a column that some rows of a row group lie in: what is read of it at once.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// Ordinal of the region.
    ordinal: usize,
    /// The first of the chunks, in the region.
    first_chunk: usize,
    /// Where it lies in the file; whole pages.
    pub range: Range<u64>,
}

impl Extent {
    pub fn len(&self) -> usize {
        to_usize(self.range.end - self.range.start)
    }

    pub fn chunks(&self) -> usize {
        self.len().div_ceil(CHUNK)
    }
}

/// Codes that are checked while they are read: a chunk is cheapest to check piece by piece just before
/// a kernel reads the same bytes, while they are in the first cache.
///
/// What was computed from codes counts only after [`Checking::finish`].
#[derive(Debug)]
pub(crate) struct Checking<'a> {
    reader: &'a SegmentReader,
    /// The chunks that hold the rows, and their bytes.
    extent: Extent,
    bytes: &'a [u8],
    sound: Sound<'a>,
    /// Where the rows lie in `bytes`.
    rows: Range<usize>,
    stride: usize,
    /// How many of `bytes` were taken into account.
    done: usize,
    /// The checksum so far of the chunk that `done` lies in.
    hasher: Option<crc32fast::Hasher>,
}

/// Which chunks are known to be sound.
#[derive(Debug)]
enum Sound<'a> {
    /// Those of the file, for everyone who reads it through the same map.
    File,
    /// Those of an extent, from its first on.
    Extent(&'a mut [bool]),
}

impl<'a> Checking<'a> {
    /// All the rows, checked or not.
    pub fn codes(&self) -> Codes<'a> {
        Codes { bytes: &self.bytes[self.rows.clone()], stride: self.stride }
    }

    /// Whether nothing is left to be checked.
    pub fn is_sound(&self) -> bool {
        let chunks = self.done / CHUNK..self.extent.chunks();
        self.hasher.is_none() && chunks.into_iter().all(|chunk| self.is_chunk_sound(chunk))
    }

    /// Checks all chunks that end before the row `row`, counted from the first of the codes, and begins
    /// to check the one that it lies in.
    pub fn advance(&mut self, row: usize) -> Result<(), SegmentError> {
        self.advance_to((self.rows.start + row * self.stride).min(self.rows.end))
    }

    /// Checks what is left, the ends of chunks beyond the last row included.
    pub fn finish(&mut self) -> Result<(), SegmentError> {
        self.advance_to(self.bytes.len())
    }

    fn advance_to(&mut self, end: usize) -> Result<(), SegmentError> {
        while self.done < end {
            let chunk = self.done / CHUNK;
            let chunk_end = ((chunk + 1) * CHUNK).min(self.bytes.len());
            if self.hasher.is_none() && self.is_chunk_sound(chunk) {
                self.done = chunk_end;
                continue;
            }
            let (reader, extent) = (self.reader, &self.extent);
            let start = || chunk_hasher(reader.segment, extent.ordinal, extent.first_chunk + chunk);
            let hasher = self.hasher.get_or_insert_with(start);
            let stop = end.min(chunk_end);
            hasher.update(&self.bytes[self.done..stop]);
            self.done = stop;
            if stop == chunk_end
                && let Some(hasher) = self.hasher.take()
            {
                let (ordinal, chunk_of_region) = (self.extent.ordinal, self.extent.first_chunk + chunk);
                self.reader.compare(ordinal, chunk_of_region, hasher.finalize())?;
                match &mut self.sound {
                    Sound::File => self.reader.set_sound(ordinal, chunk_of_region),
                    Sound::Extent(sound) => sound[chunk] = true,
                }
            }
        }
        Ok(())
    }

    fn is_chunk_sound(&self, chunk: usize) -> bool {
        match &self.sound {
            Sound::File => self.reader.is_sound(self.extent.ordinal, self.extent.first_chunk + chunk),
            Sound::Extent(sound) => sound[chunk],
        }
    }
}

/// An open segment. Cheap to share; its bytes stay readable until it is dropped.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    bytes: Arc<dyn StorageBytes>,
    file: String,
    segment: Uuid,
    identity: Arc<Identity>,
    /// Bits that somebody who writes this segment anew must understand.
    features_write: u64,
    footer: Footer,
    /// Ordinal in the region table of each group's first region.
    group_regions: Vec<usize>,
    /// Ordinal in the checksum table of each region's first chunk.
    first_chunks: Vec<usize>,
    /// One bit for each chunk that has been found sound.
    sound: Vec<AtomicU64>,
    source_names: Vec<String>,
}

impl SegmentReader {
    pub fn open(
        storage: &dyn Storage,
        identity: &Arc<Identity>,
        segment: Uuid,
    ) -> Result<Self, SegmentError> {
        let name = file_name(segment);
        let file = storage.describe(&name);
        let bytes = match storage.open(&name) {
            Ok(bytes) => bytes,
            Err(source) => return Err(SegmentError::Io { file, operation: "open", source }),
        };
        let header = check_header(bytes.bytes(), &file, identity)?;
        if header.segment != segment {
            return Err(SegmentError::Misplaced { file, found: header.segment });
        }
        let footer =
            Footer::parse(bytes.bytes(), segment, &identity.schema).map_err(|fault| fault.in_file(&file))?;

        let mut group_regions = Vec::with_capacity(footer.groups.len());
        let mut first_chunks = Vec::with_capacity(footer.regions.len());
        let mut chunks = 0;
        for (i, region) in footer.regions.iter().enumerate() {
            if region.kind == Kind::Codes && region.tier == 0 && region.block == 0 {
                group_regions.push(i);
            }
            first_chunks.push(chunks);
            chunks += region.chunks();
        }
        let sound = (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let identity = Arc::clone(identity);
        let mut reader = Self {
            bytes,
            file,
            segment,
            identity,
            features_write: header.features_write,
            footer,
            group_regions,
            first_chunks,
            sound,
            source_names: Vec::new(),
        };
        reader.source_names = reader.read_source_names()?;
        Ok(reader)
    }

    pub fn segment(&self) -> Uuid {
        self.segment
    }

    /// Whether its rows can be copied into a new segment without losing anything.
    pub fn check_copyable(&self) -> Result<(), SegmentError> {
        match self.features_write {
            0 => Ok(()),
            bits => Err(SegmentError::UnknownFeature { file: self.file.clone(), bits }),
        }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn rows(&self) -> u32 {
        // The footer's check holds the sum below 2^32.
        u32::try_from(self.footer.rows()).unwrap_or(u32::MAX)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.bytes().len() as u64
    }

    pub fn groups(&self) -> &[Group] {
        &self.footer.groups
    }

    pub fn source_names(&self) -> &[String] {
        &self.source_names
    }

    /// The row group that a row of the segment lies in, and its place there.
    pub fn locate(&self, row: u32) -> Option<(usize, usize)> {
        let group = self.footer.groups.partition_point(|group| group.range().end <= row);
        let found = self.footer.groups.get(group)?;
        Some((group, (row - found.first_row) as usize))
    }

    /// All rows of a block in a row group.
    pub fn codes(&self, group: usize, block: usize) -> Result<Codes<'_>, SegmentError> {
        let (ordinal, region) = self.region(group, Kind::Codes, block)?;
        let bytes = self.used_bytes(ordinal, region, 0..region.used)?;
        Ok(Codes { bytes, stride: region.stride as usize })
    }

    /// Some rows of a block in a row group; only the chunks that they lie in are touched.
    pub fn codes_of(
        &self,
        group: usize,
        block: usize,
        rows: Range<usize>,
    ) -> Result<Codes<'_>, SegmentError> {
        let (ordinal, region) = self.region(group, Kind::Codes, block)?;
        let stride = region.stride as usize;
        let bytes =
            self.used_bytes(ordinal, region, (rows.start * stride) as u64..(rows.end * stride) as u64)?;
        Ok(Codes { bytes, stride })
    }

    /// Rows of a block in a row group, ascending and at least one; only the chunks that they lie in are
    /// touched. The bytes go from the first of them to the last.
    pub fn codes_at(&self, group: usize, block: usize, rows: &[u32]) -> Result<Codes<'_>, SegmentError> {
        let (ordinal, region) = self.region(group, Kind::Codes, block)?;
        let stride = region.stride as usize;
        let at = |row: u32| (row as usize * stride) as u64;
        for run in rows.chunk_by(|row, next| row + 1 == *next) {
            self.used_bytes(ordinal, region, at(run[0])..at(run[run.len() - 1] + 1))?;
        }
        let bytes = at(rows[0])..at(rows[rows.len() - 1] + 1);
        Ok(Codes { bytes: self.unchecked(region, bytes), stride })
    }

    /// Where some rows of a block in a row group lie, with the whole of the chunks that hold them: their
    /// own codes or those of a tier.
    pub fn extent(
        &self,
        group: usize,
        tier: Option<Tier>,
        block: usize,
        rows: Range<usize>,
    ) -> Result<Extent, SegmentError> {
        let (ordinal, region) = match tier {
            None => self.region(group, Kind::Codes, block)?,
            Some(tier) => self.region_of_tier(group, Kind::Codes, tier.number(), block)?,
        };
        let stride = region.stride as usize;
        let used = (rows.start * stride) as u64..(rows.end * stride) as u64;
        self.extent_of(ordinal, region, used)
    }

    /// Whether `extent` holds some rows of a block in a row group.
    pub fn holds(&self, extent: &Extent, group: usize, block: usize, rows: Range<usize>) -> bool {
        self.extent(group, None, block, rows).is_ok_and(|other| {
            other.ordinal == extent.ordinal
                && extent.range.start <= other.range.start
                && other.range.end <= extent.range.end
        })
    }

    /// Reads a part of a file.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.bytes.read_at(offset, buffer).map_err(|error| self.unreadable(offset, &error))
    }

    /// Reads a part of a file past the page cache: whole pages into memory that begins at one.
    pub fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.bytes.read_direct(offset, buffer).map_err(|error| self.unreadable(offset, &error))
    }

    /// Some rows of a block in a row group, mapped and yet to be checked.
    pub fn checking(
        &self,
        group: usize,
        block: usize,
        rows: Range<usize>,
    ) -> Result<Checking<'_>, SegmentError> {
        let extent = self.extent(group, None, block, rows.clone())?;
        let bytes = &self.bytes.bytes()[to_usize(extent.range.start)..to_usize(extent.range.end)];
        Ok(self.checking_in(extent, bytes, Sound::File, rows))
    }

    /// Like [`SegmentReader::checking`], from the bytes of an extent, if it holds the rows. `sound` has
    /// an entry for each of its chunks: whether these bytes of it were checked before.
    pub fn checking_read<'a>(
        &'a self,
        extent: &Extent,
        bytes: &'a [u8],
        sound: &'a mut [bool],
        (group, block, rows): (usize, usize, Range<usize>),
    ) -> Result<Checking<'a>, SegmentError> {
        let wanted = self.extent(group, None, block, rows.clone())?;
        // The caller has seen that the extent holds these rows.
        let skipped = wanted.first_chunk.saturating_sub(extent.first_chunk);
        let bytes = &bytes[skipped * CHUNK..skipped * CHUNK + wanted.len()];
        let sound = &mut sound[skipped..skipped + wanted.chunks()];
        Ok(self.checking_in(wanted, bytes, Sound::Extent(sound), rows))
    }

    fn checking_in<'a>(
        &'a self,
        extent: Extent,
        bytes: &'a [u8],
        sound: Sound<'a>,
        rows: Range<usize>,
    ) -> Checking<'a> {
        let stride = self.footer.regions[extent.ordinal].stride as usize;
        let before = extent.first_chunk * CHUNK;
        let rows = rows.start * stride - before..rows.end * stride - before;
        Checking { reader: self, extent, bytes, sound, rows, stride, done: 0, hasher: None }
    }

    /// The file's bytes, to advise on.
    pub fn storage(&self) -> &dyn StorageBytes {
        &*self.bytes
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
        // Written so that NaN is out as well; -0 is told by its sign.
        self.numbers(group, Kind::Norms, block, |norm| norm.is_sign_positive() && *norm <= MAX_NORM)
    }

    /// Some rows of a tier of a block in a row group, as [`Self::codes_of`] for the rows themselves. The
    /// schema must have the tier, and the tier must cover the block.
    pub fn tier_codes_of(
        &self,
        group: usize,
        tier: Tier,
        block: usize,
        rows: Range<usize>,
    ) -> Result<Codes<'_>, SegmentError> {
        let (ordinal, region) = self.region_of_tier(group, Kind::Codes, tier.number(), block)?;
        let stride = region.stride as usize;
        let bytes =
            self.used_bytes(ordinal, region, (rows.start * stride) as u64..(rows.end * stride) as u64)?;
        Ok(Codes { bytes, stride })
    }

    /// The first and the second factor of each row in a tier of a block: gains and spreads, or scales
    /// and residuals.
    pub fn factors(
        &self,
        group: usize,
        tier: Tier,
        block: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), SegmentError> {
        let (ordinal, region) = self.region_of_tier(group, Kind::Factors, tier.number(), 0)?;
        let before = self.identity.schema.tier_blocks(tier).take_while(|(found, _)| *found < block).count();
        let bytes = (self.footer.groups[group].rows as usize * 4) as u64;
        let start = before as u64 * 2 * bytes;
        let run = |start: u64| Ok(parse_f32(self.used_bytes(ordinal, region, start..start + bytes)?));
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
        let raw = self.raw(ordinal, region)?;
        let sources: Vec<u32> = raw.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect();
        let names = self.source_names.len();
        match sources.iter().find(|&&source| source != NO_SOURCE && source as usize >= names) {
            Some(source) => Err(self.damaged(region, format!("source {source} of {names}"))),
            None => Ok(sources),
        }
    }

    /// The stored bytes of each column, by its name, tier and block; for statistics.
    pub fn column_bytes(&self) -> impl Iterator<Item = (Column, u64)> + '_ {
        self.footer.regions.iter().map(|region| {
            let column = Column {
                name: region.kind.name(),
                tier: tier_name(region.tier),
                block: (region.kind == Kind::Codes).then_some(region.block as usize),
            };
            (column, region.stored())
        })
    }

    /// Checks every chunk of the file anew, whatever was found before, and each padding byte.
    /// Calls back for each fault instead of stopping at the first.
    pub fn verify(&self, mut found: impl FnMut(SegmentError)) {
        for (ordinal, region) in self.footer.regions.iter().enumerate() {
            for chunk in 0..region.chunks() {
                if let Err(error) = self.check_chunk(ordinal, region, chunk) {
                    found(error);
                }
            }
            let padding = &self.bytes.bytes()[to_usize(region.offset + region.used)..to_usize(region.end())];
            if let Some(at) = padding.iter().position(|&byte| byte != 0) {
                let offset = region.offset + region.used + at as u64;
                found(Fault::new(region.place(), offset, "padding is not zero").in_file(&self.file));
            }
        }
    }

    /// The digest of the whole file, as the manifest keeps it.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.bytes.bytes()).into()
    }

    /// An error of this file, in one of its columns.
    pub fn fault(&self, kind: Kind, group: usize, block: usize, reason: String) -> SegmentError {
        match self.region(group, kind, block) {
            Ok((_, region)) => self.damaged(region, reason),
            Err(error) => error,
        }
    }

    /// An error of this file, in the codes of a tier.
    pub fn tier_fault(&self, group: usize, tier: Tier, block: usize, reason: String) -> SegmentError {
        match self.region_of_tier(group, Kind::Codes, tier.number(), block) {
            Ok((_, region)) => self.damaged(region, reason),
            Err(error) => error,
        }
    }

    fn damaged(&self, region: &Region, reason: String) -> SegmentError {
        Fault::new(region.place(), region.offset, reason).in_file(&self.file)
    }

    /// A column of the rows themselves.
    fn region(&self, group: usize, kind: Kind, block: usize) -> Result<(usize, &Region), SegmentError> {
        self.region_of_tier(group, kind, 0, block)
    }

    /// `Footer::parse` has seen that each group has each column once, in order.
    fn region_of_tier(
        &self,
        group: usize,
        kind: Kind,
        tier: u16,
        block: usize,
    ) -> Result<(usize, &Region), SegmentError> {
        let start = self.group_regions.get(group).copied().unwrap_or(usize::MAX);
        let is_own = kind == Kind::Codes && tier == 0;
        let before = if is_own { block } else { self.identity.schema.encodings().len() };
        let mut regions = self.footer.regions.iter().enumerate().skip(start.saturating_add(before));
        let is_it = |(_, region): &(usize, &Region)| {
            region.kind == kind && region.tier == tier && region.block as usize == block
        };
        regions.find(is_it).ok_or_else(|| SegmentError::Damaged {
            file: self.file.clone(),
            place: Place::Footer,
            offset: 0,
            reason: format!("no {} of row group {group}, block {block}, tier {tier}", kind.name()),
        })
    }

    /// A range of a region's used bytes, its chunks checked if they are touched for the first time.
    fn used_bytes(&self, ordinal: usize, region: &Region, range: Range<u64>) -> Result<&[u8], SegmentError> {
        if range.end > region.used {
            return Err(self.damaged(region, format!("bytes {range:?} of {}", region.used)));
        }
        let chunks = to_usize(range.start) / CHUNK..to_usize(range.end).div_ceil(CHUNK);
        for chunk in chunks {
            if !self.is_sound(ordinal, chunk) {
                self.check_chunk(ordinal, region, chunk)?;
                self.set_sound(ordinal, chunk);
            }
        }
        Ok(self.unchecked(region, range))
    }

    /// A range of a region's used bytes.
    fn unchecked(&self, region: &Region, range: Range<u64>) -> &[u8] {
        &self.bytes.bytes()[to_usize(region.offset + range.start)..to_usize(region.offset + range.end)]
    }

    /// Whether a chunk was found sound before.
    fn is_sound(&self, ordinal: usize, chunk: usize) -> bool {
        let bit = self.first_chunks[ordinal] + chunk;
        // Relaxed: the bit only saves work; the bytes themselves never change.
        self.sound[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
    }

    fn set_sound(&self, ordinal: usize, chunk: usize) {
        let bit = self.first_chunks[ordinal] + chunk;
        self.sound[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    fn check_chunk(&self, ordinal: usize, region: &Region, chunk: usize) -> Result<(), SegmentError> {
        let start = to_usize(region.offset) + chunk * CHUNK;
        let end = (start + CHUNK).min(to_usize(region.end()));
        self.check_bytes(ordinal, chunk, &self.bytes.bytes()[start..end])
    }

    fn check_bytes(&self, ordinal: usize, chunk: usize, bytes: &[u8]) -> Result<(), SegmentError> {
        self.compare(ordinal, chunk, chunk_checksum(self.segment, ordinal, chunk, bytes))
    }

    fn compare(&self, ordinal: usize, chunk: usize, found: u32) -> Result<(), SegmentError> {
        if found == self.footer.checksums[self.first_chunks[ordinal] + chunk] {
            return Ok(());
        }
        let region = &self.footer.regions[ordinal];
        let start = region.offset + (chunk * CHUNK) as u64;
        let fault = Fault::new(region.place(), start, format!("checksum of chunk {chunk} does not match"));
        Err(fault.in_file(&self.file))
    }

    /// Used bytes of a region with the whole of the chunks that hold them.
    fn extent_of(&self, ordinal: usize, region: &Region, used: Range<u64>) -> Result<Extent, SegmentError> {
        if used.end > region.used {
            return Err(self.damaged(region, format!("bytes {used:?} of {}", region.used)));
        }
        let first_chunk = to_usize(used.start) / CHUNK;
        let end = used.end.next_multiple_of(CHUNK as u64).min(region.stored());
        let range = region.offset + (first_chunk * CHUNK) as u64..region.offset + end;
        Ok(Extent { ordinal, first_chunk, range })
    }

    /// A copy of some used bytes of a region, read rather than mapped, so that a file that another
    /// program cuts off is an error; its chunks are checked.
    fn read_used(&self, ordinal: usize, region: &Region, used: Range<u64>) -> Result<Vec<u8>, SegmentError> {
        let extent = self.extent_of(ordinal, region, used.clone())?;
        let offset = extent.range.start;
        let mut bytes = vec![0; extent.len()];
        self.read(offset, &mut bytes)?;
        for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
            self.check_bytes(ordinal, extent.first_chunk + i, chunk)?;
        }
        let end = to_usize(region.offset + used.end - offset);
        bytes.truncate(end);
        bytes.drain(..to_usize(region.offset + used.start - offset));
        Ok(bytes)
    }

    fn unreadable(&self, offset: u64, error: &io::Error) -> SegmentError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Fault::new(Place::File, offset, "the file ends here").in_file(&self.file);
        }
        let source = io::Error::new(error.kind(), format!("at offset {offset}: {error}"));
        SegmentError::Io { file: self.file.clone(), operation: "read", source }
    }

    /// A small column's bytes, decompressed.
    fn raw(&self, ordinal: usize, region: &Region) -> Result<Vec<u8>, SegmentError> {
        let used = self.read_used(ordinal, region, 0..region.used)?;
        if region.compression == Compression::None {
            return Ok(used);
        }
        // One frame and nothing after it; its decompressed length is bounded by the footer's check.
        let one_frame =
            zstd::zstd_safe::find_frame_compressed_size(&used).is_ok_and(|size| size == used.len());
        let raw = decompress(&used, to_usize(region.raw));
        match raw {
            Ok(raw) if one_frame && raw.len() as u64 == region.raw => Ok(raw),
            _ => Err(self.damaged(region, format!("not one zstd frame of {} bytes", region.raw))),
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

    /// The `run`-th run of one f32 for each row, all of them `possible`.
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

    fn read_source_names(&self) -> Result<Vec<String>, SegmentError> {
        let found =
            self.footer.regions.iter().enumerate().find(|(_, region)| region.kind == Kind::SourceNames);
        let Some((ordinal, region)) = found else { return Ok(Vec::new()) };
        let raw = self.raw(ordinal, region)?;
        let damaged = |reason: String| self.damaged(region, reason);
        if raw.len() < 8 {
            return Err(damaged("too short for a count".into()));
        }
        let (count, strings) = (u32_at(&raw, 0) as usize, &raw[4..]);
        let strings = ByteStrings::parse(strings, count, 1..=MAX_SOURCE).map_err(damaged)?;
        let mut names: Vec<String> = Vec::with_capacity(count);
        let mut seen = std::collections::HashSet::new();
        for name in strings.iter() {
            let name = std::str::from_utf8(name).map_err(|error| damaged(error.to_string()))?;
            if !seen.insert(name.to_owned()) {
                return Err(damaged(format!("the name {name:?} occurs twice")));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }
}

/// Decompresses one frame of at most `capacity` bytes.
fn decompress(frame: &[u8], capacity: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        // A new one for each column would cost more than most columns do.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(frame, capacity)
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
        let fault = Fault::new(Place::Header, 16, "the bit for tiers is not what the schema asks for");
        return Err(fault.in_file(&file()));
    }
    Ok(header)
}
