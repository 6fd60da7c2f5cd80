//! Numbers in a file, read by ranges.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::super::{FormatError, Number};
use super::files;
use crate::sketch::SketchSpec;

/// The bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// The bytes of one number.
pub(super) const fn width(number: Number) -> usize {
    match number {
        Number::F16 | Number::Bf16 => 2,
        Number::F32 => 4,
        Number::F64 => 8,
    }
}

/// Appends what `bytes` hold; a rest that is no whole number is left out.
fn decode(bytes: &[u8], number: Number, values: &mut Vec<f32>) {
    match number {
        Number::F16 => values.extend(whole(bytes).map(|bytes| f16::from_le_bytes(bytes).to_f32())),
        Number::Bf16 => values.extend(whole(bytes).map(|bytes| bf16::from_le_bytes(bytes).to_f32())),
        Number::F32 => values.extend(whole(bytes).map(f32::from_le_bytes)),
        Number::F64 => values.extend(whole(bytes).map(|bytes| f64::from_le_bytes(bytes) as f32)),
    }
}

fn whole<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}

/// A file of numbers of one type.
#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    file: File,
    number: Number,
    buffer: Vec<u8>,
}

impl Numbers {
    pub fn new(path: &Path, file: File, number: Number) -> Self {
        Self { path: path.into(), file, number, buffer: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the `count` numbers that begin at byte `offset`.
    pub fn read(&mut self, offset: u64, count: usize, values: &mut Vec<f32>) -> Result<(), FormatError> {
        let mut at = offset;
        self.file.seek(SeekFrom::Start(at)).map_err(|source| files::io_error(&self.path, "read", source))?;
        let mut left = count * width(self.number);
        while left > 0 {
            self.buffer.resize(left.min(CHUNK), 0);
            self.file.read_exact(&mut self.buffer).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => files::malformed(&self.path, at, "the file is cut off"),
                _ => files::io_error(&self.path, "read", source),
            })?;
            decode(&self.buffer, self.number, values);
            left -= self.buffer.len();
            at += self.buffer.len() as u64;
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
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let dims = spec.dims();
    let (mut position, mut name) = (at % dims, "");
    for block in spec.blocks() {
        name = &block.name;
        if position < block.dims as usize {
            break;
        }
        position -= block.dims as usize;
    }
    let value = values.get(at).copied().unwrap_or(f32::NAN);
    let row = first + (at / dims) as u64;
    Err(FormatError::NotFinite { path: path.into(), row, block: name.into(), position, value })
}
