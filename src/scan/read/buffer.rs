//! Codes in memory: where a piece's are, and the buffers that are filled from files.

use std::ops::Range;

use crate::scan::options::Reading;
use crate::segment::storage::Pages;
use crate::segment::{Checking, CodeColumn, Codes, Extent, SegmentError, SegmentReader};

/// One read is at most so large; a scan that was cancelled waits for no more.
const READ_BYTES: usize = 4 << 20;

/// Where the codes of a piece are.
#[derive(Debug)]
pub(in crate::scan) enum PieceCodes {
    /// In the segment: mapped, or to be read when they are asked for.
    InPlace,
    /// What the pass over all rows needs; other codes are in place.
    Read(Buffer),
}

impl PieceCodes {
    /// Some rows of a column, from wherever they are, yet to be checked.
    pub fn of<'c>(
        &'c mut self,
        reader: &'c SegmentReader,
        column: CodeColumn,
        rows: Range<usize>,
    ) -> Result<Checking<'c>, SegmentError> {
        if let Self::Read(buffer) = self
            && let Some(part) = buffer.find(reader, column, &rows)
        {
            return buffer.codes(part, reader, column, rows);
        }
        reader.checking(column, rows)
    }

    /// Rows of a column, ascending and at least one, from wherever they are and checked; the bytes go from
    /// the first of them to the last. In place only the chunks that hold the rows are checked.
    pub fn checked<'c>(
        &'c mut self,
        reader: &'c SegmentReader,
        column: CodeColumn,
        rows: &[u32],
    ) -> Result<Codes<'c>, SegmentError> {
        let all = rows[0] as usize..rows[rows.len() - 1] as usize + 1;
        if let Self::Read(buffer) = self
            && let Some(part) = buffer.find(reader, column, &all)
        {
            return buffer.codes(part, reader, column, all)?.into_codes();
        }
        reader.codes_at(column, rows)
    }
}

/// Memory with the bytes of some extents of one segment.
#[derive(Debug, Default)]
pub(in crate::scan) struct Buffer {
    memory: Option<Pages>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Where it begins in the memory.
    at: usize,
    /// For each chunk: whether it was checked.
    sound: Vec<bool>,
}

impl Buffer {
    /// Reads extents in the place of what was there. `check` is asked before each read.
    pub fn fill<E: From<SegmentError>>(
        &mut self,
        reader: &SegmentReader,
        extents: Vec<Extent>,
        reading: Reading,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        self.parts.clear();
        let length = extents.iter().map(Extent::len).sum();
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= length => memory,
            _ => Pages::new(length).map_err(|source| SegmentError::Io {
                file: reader.file().to_owned(),
                operation: "take memory to read",
                source,
            })?,
        };
        let memory = self.memory.insert(memory);
        let mut at = 0;
        for extent in extents {
            let bytes = &mut memory[at..at + extent.len()];
            for (i, bytes) in bytes.chunks_mut(READ_BYTES).enumerate() {
                check()?;
                let offset = extent.range.start + (i * READ_BYTES) as u64;
                match reading {
                    Reading::Direct => reader.read_direct(offset, bytes)?,
                    Reading::Auto | Reading::Mapped | Reading::Buffered => reader.read(offset, bytes)?,
                }
            }
            let (length, chunks) = (extent.len(), extent.chunks());
            self.parts.push(Part { extent, at, sound: vec![false; chunks] });
            at += length;
        }
        Ok(())
    }

    /// The part that holds some rows of a column.
    fn find(&self, reader: &SegmentReader, column: CodeColumn, rows: &Range<usize>) -> Option<usize> {
        self.parts.iter().position(|part| reader.holds(&part.extent, column, rows.clone()))
    }

    fn codes<'c>(
        &'c mut self,
        part: usize,
        reader: &'c SegmentReader,
        column: CodeColumn,
        rows: Range<usize>,
    ) -> Result<Checking<'c>, SegmentError> {
        let Part { extent, at, sound } = &mut self.parts[part];
        let memory = self.memory.as_deref().unwrap_or_default();
        reader.checking_read(extent, &memory[*at..*at + extent.len()], sound, column, rows)
    }
}
