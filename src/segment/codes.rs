//! Locates, reads and checks the codes of a segment.

use std::borrow::Cow;
use std::ops::Range;

use super::checking::{Checking, Extent, Sound, part};
use super::error::SegmentError;
use super::layout::{CHUNK, Kind, Region, to_usize};
use super::reader::SegmentReader;
use crate::codec::Tier;

/// The codes of a block in a row group: the rows' own, or those of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeColumn {
    /// Ordinal of the row group in the segment.
    pub group: usize,
    /// `None`: the rows' own codes. Otherwise a tier of the schema that covers the block.
    pub tier: Option<Tier>,
    /// Ordinal of the block in the schema.
    pub block: usize,
}

/// Rows of a block, each of `stride` bytes, one after the other: borrowed from the mapped file, or read.
#[derive(Debug, Clone)]
pub(crate) struct Codes<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub stride: usize,
}

impl Codes<'_> {
    /// Row `i` of the codes.
    pub fn row(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.stride..(i + 1) * self.stride]
    }
}

/// A column's place in the file.
struct Found<'a> {
    ordinal: usize,
    region: &'a Region,
    stride: usize,
}

impl SegmentReader {
    /// Whether the whole file is mapped: codes are borrowed, and each chunk is checked once. Otherwise codes
    /// are read, and checked each time.
    pub fn is_mapped(&self) -> bool {
        self.is_mapped
    }

    /// Some rows of a row group, checked: borrowed if the storage has the file in memory, otherwise read. Only
    /// scans use the map of a file: where the disk cannot read a sector, or another program has cut the file off,
    /// a map ends the process.
    pub fn codes(&self, column: CodeColumn, rows: Range<usize>) -> Result<Codes<'_>, SegmentError> {
        if !self.file.bytes.is_on_disk() {
            return self.checking(column, rows)?.into_codes();
        }
        let found = self.find(column)?;
        let extent = self.extent_of_rows(&found, rows.clone())?;
        let bytes = Cow::Owned(self.file.read_range(extent.range.clone())?);
        Checking::new(self, extent, bytes, Sound::Unknown, (rows, found.stride)).into_codes()
    }

    /// Some rows of a row group, ascending and at least one. The result spans the first row to the last, but
    /// only the chunks that contain `rows` are checked; do not use the others.
    pub fn codes_at(&self, column: CodeColumn, rows: &[u32]) -> Result<Codes<'_>, SegmentError> {
        let found = self.find(column)?;
        let stride = found.stride;
        let (first, last) = (rows[0] as usize, rows[rows.len() - 1] as usize);
        let extent = self.extent_of_rows(&found, first..last + 1)?;
        let mapped = self.file.mapped(&extent.range);
        let mut read = if mapped.is_some() { Vec::new() } else { vec![0; extent.len()] };
        let mut next = extent.first_chunk;
        for &row in rows {
            let start = (row as usize * stride / CHUNK).max(next);
            next = ((row as usize + 1) * stride).div_ceil(CHUNK).max(next);
            for chunk in start..next {
                let at = (chunk - extent.first_chunk) * CHUNK;
                let place = at..(at + CHUNK).min(extent.len());
                match mapped {
                    Some(_) if self.is_sound(found.ordinal, chunk) => {}
                    Some(mapped) => {
                        self.check_chunk(found.ordinal, chunk, &mapped[place])?;
                        self.set_sound(found.ordinal, chunk);
                    }
                    None => {
                        self.file.read(extent.range.start + at as u64, &mut read[place.clone()])?;
                        self.check_chunk(found.ordinal, chunk, &read[place])?;
                    }
                }
            }
        }
        let before = extent.first_chunk * CHUNK;
        let bytes = mapped.map_or(Cow::Owned(read), Cow::Borrowed);
        Ok(Codes { bytes: part(bytes, first * stride - before..(last + 1) * stride - before), stride })
    }

    /// The extent of some rows of a row group: the whole chunks that contain them.
    pub fn extent(&self, column: CodeColumn, rows: Range<usize>) -> Result<Extent, SegmentError> {
        self.extent_of_rows(&self.find(column)?, rows)
    }

    /// Whether `extent` contains some rows of a row group.
    pub fn holds(&self, extent: &Extent, column: CodeColumn, rows: Range<usize>) -> bool {
        self.extent(column, rows).is_ok_and(|wanted| extent.contains(&wanted))
    }

    /// Some rows of a row group, not yet checked: borrowed if the file is mapped, otherwise read.
    pub fn checking(&self, column: CodeColumn, rows: Range<usize>) -> Result<Checking<'_>, SegmentError> {
        let found = self.find(column)?;
        let extent = self.extent_of_rows(&found, rows.clone())?;
        let (bytes, sound) = match self.file.mapped(&extent.range) {
            Some(bytes) => (Cow::Borrowed(bytes), Sound::File),
            None => (Cow::Owned(self.file.read_range(extent.range.clone())?), Sound::Unknown),
        };
        Ok(Checking::new(self, extent, bytes, sound, (rows, found.stride)))
    }

    /// As [`SegmentReader::checking`], from the bytes of an extent that [contains](Self::holds) the rows.
    /// `sound` has one entry per chunk of the extent: whether these bytes have been checked before.
    pub fn checking_read<'a>(
        &'a self,
        extent: &Extent,
        bytes: &'a [u8],
        sound: &'a mut [bool],
        column: CodeColumn,
        rows: Range<usize>,
    ) -> Result<Checking<'a>, SegmentError> {
        let found = self.find(column)?;
        let wanted = self.extent_of_rows(&found, rows.clone())?;
        let skipped = wanted.first_chunk.saturating_sub(extent.first_chunk);
        let bytes = &bytes[skipped * CHUNK..skipped * CHUNK + wanted.len()];
        let sound = Sound::Extent(&mut sound[skipped..skipped + wanted.chunks()]);
        Ok(Checking::new(self, wanted, Cow::Borrowed(bytes), sound, (rows, found.stride)))
    }

    /// An error of this file, in a column of codes.
    pub fn code_fault(&self, column: CodeColumn, reason: String) -> SegmentError {
        match self.find(column) {
            Ok(found) => self.damaged(found.region, reason),
            Err(error) => error,
        }
    }

    fn find(&self, column: CodeColumn) -> Result<Found<'_>, SegmentError> {
        let CodeColumn { group, tier, block } = column;
        let (ordinal, region) = self.region_of_tier(group, Kind::Codes, tier.map(Tier::kind), block)?;
        Ok(Found { ordinal, region, stride: region.stride as usize })
    }

    fn extent_of_rows(&self, found: &Found<'_>, rows: Range<usize>) -> Result<Extent, SegmentError> {
        let used = (rows.start * found.stride) as u64..(rows.end * found.stride) as u64;
        self.extent_of(found.ordinal, found.region, used)
    }

    /// The extent of a range of a region's used bytes: the whole chunks that contain it.
    pub(super) fn extent_of(
        &self,
        ordinal: usize,
        region: &Region,
        used: Range<u64>,
    ) -> Result<Extent, SegmentError> {
        if used.end > region.used {
            return Err(self.damaged(region, format!("bytes {used:?} of {}", region.used)));
        }
        let first_chunk = to_usize(used.start) / CHUNK;
        let end = used.end.next_multiple_of(CHUNK as u64).min(region.stored());
        let range = region.offset + (first_chunk * CHUNK) as u64..region.offset + end;
        Ok(Extent { ordinal, first_chunk, range })
    }
}
