//! Numbers in a file, read by ranges.

use std::path::Path;

use super::super::input::{DataFile, PIECE, malformed, unsupported};
use super::super::numbers::{Stored, first_not_finite};
use super::super::{FormatError, Number};
use crate::sketch::SketchSpec;

/// The type that numpy calls so.
pub(super) fn named(path: &Path, name: &str) -> Result<Number, FormatError> {
    match name {
        "float16" | "<f2" => Ok(Number::F16),
        "bfloat16" | "<V2" => Ok(Number::Bf16),
        "float32" | "<f4" => Ok(Number::F32),
        "float64" | "<f8" => Ok(Number::F64),
        _ => {
            let what =
                format!("numbers of type {name:?}; float16, bfloat16, float32 and float64 can be read");
            Err(unsupported(path, what))
        }
    }
}

/// A file of numbers of one type.
pub(super) struct Numbers {
    file: DataFile,
    number: Number,
    piece: Vec<u8>,
    checksum: Option<Checksum>,
}

/// A CRC-32 of a range of the file, checked if all of it is read in order.
pub(super) struct Checksum {
    pub expected: u32,
    pub next: u64,
    pub end: u64,
    pub hasher: crc32fast::Hasher,
}

impl Numbers {
    pub fn new(file: DataFile, number: Number, checksum: Option<Checksum>) -> Self {
        Self { file, number, piece: Vec::new(), checksum }
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Appends the `count` numbers that begin at byte `offset`, all of which the file has.
    pub fn read(&mut self, mut offset: u64, count: usize, values: &mut Vec<f32>) -> Result<(), FormatError> {
        let mut at = values.len();
        values.resize(at + count, 0.0);
        while at < values.len() {
            let now = (values.len() - at).min(PIECE / self.number.bytes());
            self.piece.resize(now * self.number.bytes(), 0);
            self.file.read_at(&mut self.piece, offset)?;
            self.note(offset)?;
            Stored::little(self.number).decode(&self.piece, values.get_mut(at..at + now).unwrap_or_default());
            at += now;
            offset += self.piece.len() as u64;
        }
        Ok(())
    }

    /// Adds what was read at `offset` to the checksum, and compares it at the end.
    fn note(&mut self, offset: u64) -> Result<(), FormatError> {
        let Some(checksum) = &mut self.checksum else { return Ok(()) };
        if checksum.next != offset {
            // Rows were passed over, or lie in another order.
            self.checksum = None;
            return Ok(());
        }
        checksum.hasher.update(&self.piece);
        checksum.next += self.piece.len() as u64;
        if checksum.next == checksum.end && checksum.hasher.clone().finalize() != checksum.expected {
            return Err(malformed(
                &self.file.path,
                offset,
                "the numbers have another checksum than the file says",
            ));
        }
        Ok(())
    }
}

/// An error for the first value of rows from `first` on that is not finite.
pub(super) fn check_finite(
    path: &Path,
    spec: &SketchSpec,
    first: u64,
    values: &[f32],
) -> Result<(), FormatError> {
    let Some(at) = first_not_finite(values) else { return Ok(()) };
    let (mut position, mut name) = (at % spec.dims(), "");
    for block in spec.blocks() {
        name = &block.name;
        if position < block.dims as usize {
            break;
        }
        position -= block.dims as usize;
    }
    let value = values.get(at).copied().unwrap_or(f32::NAN);
    let row = first + (at / spec.dims()) as u64;
    Err(FormatError::NotFinite { path: path.into(), row, block: name.into(), position, value })
}
