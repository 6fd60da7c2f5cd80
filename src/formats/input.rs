//! Where bytes come from: a file that is read at any place, or a stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FormatError;

/// The first bytes that are looked at to find the format.
const FIRST: u64 = 16;

/// The most that is read at a time.
pub(super) const PIECE: usize = 1 << 20;

/// A file or a stream that was opened, and its first bytes.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) first: Vec<u8>,
    pub(super) from: From,
}

pub(super) enum From {
    File(DataFile),
    /// Standard input, or what is not a regular file; the first bytes come again.
    Stream(Box<dyn Read + Send>),
}

impl Input {
    /// Opens a path; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self, FormatError> {
        let fails = |operation, source| FormatError::Io { path: path.to_owned(), operation, source };
        let stream: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(|source| fails("open", source))?;
            let metadata = file.metadata().map_err(|source| fails("open", source))?;
            if metadata.is_dir() {
                return Err(fails("open", io::ErrorKind::IsADirectory.into()));
            }
            if metadata.is_file() {
                let file = DataFile { path: path.to_owned(), file, length: metadata.len() };
                let mut first = vec![0; metadata.len().min(FIRST) as usize];
                file.read_at(&mut first, 0)?;
                return Ok(Self { path: path.to_owned(), first, from: From::File(file) });
            }
            Box::new(file)
        };
        let mut stream = stream.take(FIRST);
        let mut first = Vec::new();
        stream.read_to_end(&mut first).map_err(|source| fails("read", source))?;
        let stream = Box::new(io::Cursor::new(first.clone()).chain(stream.into_inner()));
        Ok(Self { path: path.to_owned(), first, from: From::Stream(stream) })
    }

    /// A file that is read at any place; a stream is copied to a temporary one first.
    pub(super) fn into_file(self) -> Result<DataFile, FormatError> {
        let mut stream = match self.from {
            From::File(file) => return Ok(file),
            From::Stream(stream) => stream,
        };
        let fails = |source| FormatError::Io {
            path: self.path.clone(),
            operation: "copy to a temporary file what is read from",
            source,
        };
        let mut file = tempfile::tempfile().map_err(fails)?;
        let length = io::copy(&mut stream, &mut file).map_err(fails)?;
        Ok(DataFile { path: self.path, file, length })
    }

    /// All bytes from the beginning, in order.
    pub(super) fn into_section(self) -> Section {
        match self.from {
            From::File(file) => {
                let end = file.length;
                Section::of_file(Arc::new(file), 0, end)
            }
            From::Stream(stream) => Section::of_stream(self.path, stream, None),
        }
    }
}

/// A file, and the length that it had when it was opened.
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) length: u64,
}

impl DataFile {
    /// All bytes from the beginning, in order, beside this.
    pub(super) fn section(&self) -> Result<Section, FormatError> {
        let fails = |source| FormatError::Io { path: self.path.clone(), operation: "open", source };
        let file = self.file.try_clone().map_err(fails)?;
        let again = Self { path: self.path.clone(), file, length: self.length };
        Ok(Section::of_file(Arc::new(again), 0, self.length))
    }

    pub(super) fn read_at(&self, mut into: &mut [u8], mut offset: u64) -> Result<(), FormatError> {
        while !into.is_empty() {
            match read_at(&self.file, into, offset) {
                Ok(0) => return Err(malformed(&self.path, offset, "the file ends within its data")),
                Ok(read) => {
                    into = into.get_mut(read..).unwrap_or_default();
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(FormatError::Io { path: self.path.clone(), operation: "read", source });
                }
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

pub(super) fn malformed(path: &Path, offset: u64, what: impl Into<String>) -> FormatError {
    FormatError::Malformed { path: path.to_owned(), offset, what: what.into() }
}

pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> FormatError {
    FormatError::Unsupported { path: path.to_owned(), what: what.into() }
}

/// Bytes that are read in order: a range of a file, or a stream.
pub(super) struct Section {
    path: PathBuf,
    /// Where the next byte lies: in the file, or in the stream.
    offset: u64,
    bytes: Bytes,
}

enum Bytes {
    File { file: Arc<DataFile>, end: u64 },
    Stream { stream: Box<dyn Read + Send>, left: Option<u64> },
}

const ENDS: &str = "the data end before all that they should hold";

impl Section {
    /// The bytes `start..end` of a file.
    pub(super) fn of_file(file: Arc<DataFile>, start: u64, end: u64) -> Self {
        Self { path: file.path.clone(), offset: start, bytes: Bytes::File { file, end } }
    }

    /// A stream, and how long it is if that is known.
    pub(super) fn of_stream(path: PathBuf, stream: Box<dyn Read + Send>, left: Option<u64>) -> Self {
        Self { path, offset: 0, bytes: Bytes::Stream { stream, left } }
    }

    /// Where the next byte lies.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes are left; `None` for a stream, which only its end tells.
    pub(super) fn left(&self) -> Option<u64> {
        match &self.bytes {
            Bytes::File { end, .. } => Some(end - self.offset),
            Bytes::Stream { left, .. } => *left,
        }
    }

    /// Fills `into`.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), FormatError> {
        match &mut self.bytes {
            Bytes::File { file, end } => {
                if end.saturating_sub(self.offset) < into.len() as u64 {
                    return Err(malformed(&self.path, *end, ENDS));
                }
                file.read_at(into, self.offset)?;
            }
            Bytes::Stream { stream, left } => {
                if left.is_some_and(|left| left < into.len() as u64) {
                    return Err(malformed(&self.path, self.offset, ENDS));
                }
                stream.read_exact(into).map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => malformed(&self.path, self.offset, ENDS),
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                        malformed(&self.path, self.offset, source.to_string())
                    }
                    _ => FormatError::Io { path: self.path.clone(), operation: "read", source },
                })?;
                *left = left.map(|left| left - into.len() as u64);
            }
        }
        self.offset += into.len() as u64;
        Ok(())
    }

    /// Appends as many bytes. Of a stream, memory is taken as they come.
    pub(super) fn append(&mut self, bytes: u64, into: &mut Vec<u8>) -> Result<(), FormatError> {
        let mut left = bytes;
        if let Some(there) = self.left() {
            let fits = usize::try_from(left).is_ok_and(|left| into.try_reserve_exact(left).is_ok());
            if left > there || !fits {
                let what = format!("{left} bytes are announced; {there} are left, and must fit into memory");
                return Err(malformed(&self.path, self.offset, what));
            }
        }
        while left > 0 {
            let now = left.min(PIECE as u64) as usize;
            let start = into.len();
            into.resize(start + now, 0);
            self.read(into.get_mut(start..).unwrap_or_default())?;
            left -= now as u64;
        }
        Ok(())
    }

    /// Passes over bytes, without reading those of a file.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), FormatError> {
        if let Bytes::File { end, .. } = self.bytes {
            if end.saturating_sub(self.offset) < bytes {
                return Err(malformed(&self.path, end, ENDS));
            }
            self.offset += bytes;
            return Ok(());
        }
        let mut left = bytes;
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        while left > 0 {
            let next = left.min(PIECE as u64) as usize;
            self.read(piece.get_mut(..next).unwrap_or_default())?;
            left -= next as u64;
        }
        Ok(())
    }
}

/// A range of a file, read in order.
pub(super) struct FileRange {
    pub(super) file: Arc<DataFile>,
    pub(super) offset: u64,
    pub(super) end: u64,
}

impl Read for FileRange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let longest = (self.end - self.offset).min(into.len() as u64) as usize;
        let read = read_at(&self.file.file, into.get_mut(..longest).unwrap_or_default(), self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
