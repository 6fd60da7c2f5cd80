//! Checks checksums of codes while kernels use the codes.

use std::borrow::Cow;
use std::ops::Range;

use super::codes::Codes;
use super::error::SegmentError;
use super::layout::{CHUNK, chunk_hasher, to_usize};
use super::reader::SegmentReader;

/// The chunks that contain some rows of a column of a row group: the unit of reads.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// Ordinal of the region.
    pub(super) ordinal: usize,
    /// The first of the chunks, in the region.
    pub(super) first_chunk: usize,
    /// Its range in the file; whole pages.
    pub range: Range<u64>,
}

impl Extent {
    /// Bytes.
    pub fn len(&self) -> usize {
        to_usize(self.range.end - self.range.start)
    }

    /// Number of chunks; the last may be shorter.
    pub fn chunks(&self) -> usize {
        self.len().div_ceil(CHUNK)
    }

    /// Whether it contains all bytes of another extent.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.ordinal == other.ordinal
            && self.range.start <= other.range.start
            && other.range.end <= self.range.end
    }
}

/// Codes whose checksums are checked while the codes are used: checking is cheapest just before a kernel
/// reads the same bytes, which are then in L1.
///
/// Results computed from the codes are valid only after [`Checking::finish`].
#[derive(Debug)]
pub(crate) struct Checking<'a> {
    reader: &'a SegmentReader,
    /// The chunks that contain the rows, and their bytes.
    extent: Extent,
    bytes: Cow<'a, [u8]>,
    sound: Sound<'a>,
    /// The range of the rows in `bytes`.
    rows: Range<usize>,
    stride: usize,
    /// The number of `bytes` that have been checked or skipped.
    done: usize,
    /// The partial checksum of the chunk that contains `done`.
    hasher: Option<crc32fast::Hasher>,
}

/// The chunks that are known to be sound.
#[derive(Debug)]
pub(super) enum Sound<'a> {
    /// Those checked before in the mapped file.
    File,
    /// Those of an extent, from its first.
    Extent(&'a mut [bool]),
    /// None: the bytes have just been read.
    Unknown,
}

impl<'a> Checking<'a> {
    /// For rows `rows` of a row group, in the bytes of `extent`, which contains them.
    pub(super) fn new(
        reader: &'a SegmentReader,
        extent: Extent,
        bytes: Cow<'a, [u8]>,
        sound: Sound<'a>,
        (rows, stride): (Range<usize>, usize),
    ) -> Self {
        let before = extent.first_chunk * CHUNK;
        let rows = rows.start * stride - before..rows.end * stride - before;
        Self { reader, extent, bytes, sound, rows, stride, done: 0, hasher: None }
    }

    /// All the rows, checked or not.
    pub fn codes(&self) -> Codes<'_> {
        Codes { bytes: Cow::Borrowed(&self.bytes[self.rows.clone()]), stride: self.stride }
    }

    /// All the rows, checked.
    pub fn into_codes(mut self) -> Result<Codes<'a>, SegmentError> {
        self.finish()?;
        Ok(Codes { bytes: part(self.bytes, self.rows), stride: self.stride })
    }

    /// Whether everything has been checked.
    pub fn is_sound(&self) -> bool {
        let mut chunks = self.done / CHUNK..self.extent.chunks();
        self.done == self.bytes.len()
            || (self.hasher.is_none() && chunks.all(|chunk| self.is_chunk_sound(chunk)))
    }

    /// Checks all chunks that end before row `row`, relative to the first row of the codes, and the part of
    /// its chunk before it.
    pub fn advance(&mut self, row: usize) -> Result<(), SegmentError> {
        self.advance_to((self.rows.start + row * self.stride).min(self.rows.end))
    }

    /// Checks the rest, including the ends of chunks beyond the last row.
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
            let start = || chunk_hasher(reader.segment(), extent.ordinal, extent.first_chunk + chunk);
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
                    Sound::Unknown => {}
                }
            }
        }
        Ok(())
    }

    fn is_chunk_sound(&self, chunk: usize) -> bool {
        match &self.sound {
            Sound::File => self.reader.is_sound(self.extent.ordinal, self.extent.first_chunk + chunk),
            Sound::Extent(sound) => sound[chunk],
            Sound::Unknown => false,
        }
    }
}

/// A range of `bytes`, which must contain it.
pub(super) fn part(bytes: Cow<'_, [u8]>, range: Range<usize>) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(range.end);
            bytes.drain(..range.start);
            Cow::Owned(bytes)
        }
    }
}
