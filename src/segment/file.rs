//! An open segment file: reads ranges, with errors that name the file.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::error::{Fault, Place, SegmentError};
use super::layout::to_usize;
use super::storage::StorageBytes;

#[derive(Debug)]
pub(super) struct SegmentFile {
    pub name: String,
    pub bytes: Arc<dyn StorageBytes>,
}

impl SegmentFile {
    /// Fills `buffer` with the bytes from `offset`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.bytes.read_at(offset, buffer).map_err(|error| self.unreadable(offset, &error))
    }

    /// As [`SegmentFile::read`], bypassing the page cache.
    pub fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.bytes.read_direct(offset, buffer).map_err(|error| self.unreadable(offset, &error))
    }

    /// A copy of a range, which must be within the file's length.
    pub fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>, SegmentError> {
        let mut bytes = vec![0; to_usize(range.end - range.start)];
        self.read(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// A range of the mapped file, if the storage maps it.
    pub fn mapped(&self, range: &Range<u64>) -> Option<&[u8]> {
        let length = range.end.saturating_sub(range.start);
        self.bytes.mapped(range.clone()).filter(|bytes| bytes.len() as u64 == length)
    }

    fn unreadable(&self, offset: u64, error: &io::Error) -> SegmentError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Fault::new(Place::File, offset, "the file ends here").in_file(&self.name);
        }
        let source = io::Error::new(error.kind(), format!("at offset {offset}: {error}"));
        SegmentError::Io { file: self.name.clone(), operation: "read", source }
    }
}
