//! Columns that grow at the same time, and are written one after the other at the end: until then they share one temporary
//! file, in pieces.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::formats::FormatError;
use crate::formats::input::{DataFile, FileRange};

/// What all columns together hold in memory, and the least that one writes at a time.
const MEMORY: usize = 32 << 20;
const LEAST: usize = 4096;

pub(super) struct Spool {
    path: PathBuf,
    file: Arc<DataFile>,
    columns: Vec<Column>,
    written: u64,
}

#[derive(Default)]
struct Column {
    buffer: Vec<u8>,
    pieces: Vec<(u64, u64)>,
    bytes: u64,
}

impl Spool {
    /// For the file `path`, in a folder.
    pub(super) fn new(path: &Path, folder: &Path, columns: usize) -> Result<Self, FormatError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| FormatError::Io {
            path: path.to_owned(),
            operation: "create a temporary file beside",
            source,
        })?;
        let file = Arc::new(DataFile { path: path.to_owned(), file, length: 0 });
        let columns = std::iter::repeat_with(Column::default).take(columns).collect();
        Ok(Self { path: path.to_owned(), file, columns, written: 0 })
    }

    /// Lets `add` append to a column, and returns what it returns.
    pub(super) fn add<T>(
        &mut self,
        column: usize,
        add: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, FormatError> {
        let limit = (MEMORY / self.columns.len().max(1)).max(LEAST);
        let added = match self.columns.get_mut(column) {
            Some(column) => {
                let before = column.buffer.len();
                let added = add(&mut column.buffer);
                column.bytes += (column.buffer.len() - before) as u64;
                if column.buffer.len() < limit {
                    return Ok(added);
                }
                added
            }
            None => add(&mut Vec::new()),
        };
        if let Some(column) = self.columns.get_mut(column) {
            let written = (&self.file.file).write_all(&column.buffer);
            written.map_err(|source| fails(&self.path, "write beside", source))?;
            let length = column.buffer.len() as u64;
            column.pieces.push((self.written, self.written + length));
            self.written += length;
            column.buffer.clear();
        }
        Ok(added)
    }

    /// How long a column is.
    pub(super) fn bytes(&self, column: usize) -> u64 {
        self.columns.get(column).map_or(0, |column| column.bytes)
    }

    /// The bytes of a column.
    pub(super) fn read(&self, column: usize) -> impl Read + '_ {
        let column = self.columns.get(column);
        let pieces = column.map(|column| column.pieces.as_slice()).unwrap_or_default();
        let pieces = pieces.iter().map(|&(offset, end)| FileRange { file: self.file.clone(), offset, end });
        let rest = column.map(|column| column.buffer.as_slice()).unwrap_or_default();
        Pieces { now: None, pieces }.chain(rest)
    }

    /// Copies a column.
    pub(super) fn copy(&self, column: usize, into: &mut impl Write) -> Result<(), FormatError> {
        let mut from = io::BufReader::with_capacity(1 << 20, self.read(column));
        io::copy(&mut from, into).map(drop).map_err(|source| fails(&self.path, "write", source))
    }
}

fn fails(path: &Path, operation: &'static str, source: io::Error) -> FormatError {
    FormatError::Io { path: path.to_owned(), operation, source }
}

struct Pieces<I> {
    now: Option<FileRange>,
    pieces: I,
}

impl<I: Iterator<Item = FileRange>> Read for Pieces<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(now) = &mut self.now {
                let read = now.read(into)?;
                if read > 0 || into.is_empty() {
                    return Ok(read);
                }
            }
            self.now = self.pieces.next();
            if self.now.is_none() {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches pieces that are lost, mixed up between columns or read in another order than they were written.
    #[test]
    fn columns_come_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let columns = 5000;
        let mut spool = Spool::new(Path::new("x"), folder.path(), columns).unwrap();
        for round in 0..40u32 {
            for column in 0..columns {
                let numbers = (0..column % 70).map(|i| column as u32 * 31 + round * 7 + i as u32);
                spool.add(column, |buffer| buffer.extend(numbers.flat_map(u32::to_le_bytes))).unwrap();
            }
        }
        assert!(spool.written > 0);
        for column in (0..columns).step_by(13) {
            let mut read = Vec::new();
            spool.copy(column, &mut read).unwrap();
            let expected = (0..40u32).flat_map(|round| {
                (0..column % 70).flat_map(move |i| (column as u32 * 31 + round * 7 + i as u32).to_le_bytes())
            });
            assert_eq!(read, expected.collect::<Vec<_>>());
            assert_eq!(spool.bytes(column), read.len() as u64);
        }
    }
}
