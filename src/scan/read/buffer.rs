//! The codes of a piece: mapped, or in buffers that are filled from files.

use std::ops::Range;

use crate::scan::options::Reading;
use crate::segment::storage::Pages;
use crate::segment::{Checking, CodeColumn, Codes, Extent, SegmentError, SegmentReader};

/// The maximum length of one read, in bytes: a cancelled scan waits for at most one.
const READ_BYTES: usize = 4 << 20;

/// Where the codes of a piece are.
#[derive(Debug)]
pub(in crate::scan) enum PieceCodes {
    /// In the segment: mapped, or read on demand.
    InPlace,
    /// In a buffer, which has the codes of the pass over all rows; other codes are in place.
    Read(Buffer),
}

impl PieceCodes {
    /// The codes of some rows of a column, not yet checked.
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

    /// The checked codes of some rows of a column, from the first row to the last; `rows` are ascending and
    /// at least one. In place, only the chunks that hold the rows are checked.
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

/// A buffer with the bytes of some extents of one segment.
#[derive(Debug, Default)]
pub(in crate::scan) struct Buffer {
    memory: Option<Pages>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Its offset in the memory.
    at: usize,
    /// For each chunk: whether it has been checked.
    sound: Vec<bool>,
}

impl Buffer {
    /// Reads extents into the buffer, replacing its contents. Calls `check` before each read.
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
                operation: "allocate memory to read",
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
