//! Rows that lie in arrays `[rows, dims]`, one for each block.

use std::path::{Path, PathBuf};

use super::input::{PIECE, Section, unsupported};
use super::labels::Labels;
use super::numbers::{Stored, first_not_finite};
use super::{Batch, FormatError, Number, ReadOptions, RowSource};
use crate::sketch::SketchSpec;

/// An array, row after row.
pub(super) struct Array {
    pub(super) name: String,
    pub(super) dims: u64,
    pub(super) stored: Stored,
    pub(super) values: Section,
}

/// Reads arrays of as many rows.
pub(super) struct Arrays {
    path: PathBuf,
    spec: SketchSpec,
    number: Number,
    rows: u64,
    next: u64,
    arrays: Vec<Array>,
    labels: Labels,
    piece: Vec<u8>,
}

impl Arrays {
    /// `spec` is what the file says of its rows; it counts if its blocks are these arrays.
    pub(super) fn new(
        path: PathBuf,
        options: &ReadOptions,
        rows: u64,
        arrays: Vec<Array>,
        labels: Labels,
        spec: Option<SketchSpec>,
    ) -> Result<Self, FormatError> {
        let blocks: Vec<(&str, u64)> = arrays.iter().map(|array| (array.name.as_str(), array.dims)).collect();
        let spec = spec_of(&path, &blocks, spec)?;
        let number = arrays.iter().map(|array| array.stored.number).reduce(Number::or);
        let number = number.ok_or_else(|| unsupported(&path, "no vectors"))?;
        let labels = labels.complete(&path, options)?;
        Ok(Self { path, spec, number, rows, next: 0, arrays, labels, piece: Vec::new() })
    }
}

/// The spec that a file holds, if its blocks are these, or else a dense one.
pub(super) fn spec_of(
    path: &Path,
    blocks: &[(&str, u64)],
    held: Option<SketchSpec>,
) -> Result<SketchSpec, FormatError> {
    let is_same = |spec: &SketchSpec| {
        let of_spec = spec.blocks().iter().map(|block| (block.name.as_str(), u64::from(block.dims)));
        spec.check().is_ok() && of_spec.eq(blocks.iter().copied())
    };
    if let Some(spec) = held.filter(is_same) {
        return Ok(spec);
    }
    let too_wide =
        |name: &str, dims| unsupported(path, format!("block {name:?} has {dims} dims, more than 2^28"));
    let blocks: Vec<(&str, u32)> = blocks
        .iter()
        .map(|&(name, dims)| Ok((name, u32::try_from(dims).map_err(|_| too_wide(name, dims))?)))
        .collect::<Result<_, FormatError>>()?;
    let spec = SketchSpec::dense("vectors", "", blocks);
    spec.check().map_err(|error| unsupported(path, error.to_string()))?;
    Ok(spec)
}

impl RowSource for Arrays {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.number
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        if rows > self.rows - self.next {
            let what =
                format!("{} rows, where row {} was asked for", self.rows, self.next.saturating_add(rows));
            return Err(unsupported(&self.path, what));
        }
        for array in &mut self.arrays {
            array.values.skip(rows * array.dims * array.stored.number.bytes() as u64)?;
        }
        self.next += rows;
        self.labels.skip(&self.path, rows)
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        let values = std::mem::take(&mut batch.values);
        batch.clear();
        batch.values = values;
        let rows = (self.rows - self.next).min(rows as u64) as usize;
        let dims = self.spec.dims();
        let is_stream = self.arrays.iter().any(|array| array.values.left().is_none());
        if !is_stream {
            // The file is known to be as long.
            batch.values.resize(rows * dims, 0.0);
        }
        let mut offset = 0;
        for array in &mut self.arrays {
            let width = array.dims as usize;
            let layout = Layout { rows, width, stride: dims, offset };
            read_array(array, &layout, &mut self.piece, &mut batch.values).map_err(|error| match error {
                ReadError::Format(error) => error,
                ReadError::NotFinite { row, position, value } => FormatError::NotFinite {
                    path: self.path.clone(),
                    row: self.next + row as u64,
                    block: array.name.clone(),
                    position,
                    value,
                },
            })?;
            offset += width;
        }
        batch.values.truncate(rows * dims);
        batch.rows = rows;
        self.labels.read(&self.path, rows, batch)?;
        self.next += rows as u64;
        if self.next == self.rows {
            self.labels.end()?;
        }
        Ok(())
    }
}

/// Where the values of an array go in the values of a batch.
struct Layout {
    rows: usize,
    width: usize,
    stride: usize,
    offset: usize,
}

enum ReadError {
    Format(FormatError),
    NotFinite { row: usize, position: usize, value: f32 },
}

impl From<FormatError> for ReadError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

/// Reads the next rows of an array, in pieces that end within a row if one is long. Memory for values is taken only when
/// their bytes are there.
fn read_array(
    array: &mut Array,
    layout: &Layout,
    piece: &mut Vec<u8>,
    values: &mut Vec<f32>,
) -> Result<(), ReadError> {
    let bytes = array.stored.number.bytes();
    let total = layout.rows * layout.width;
    piece.resize(PIECE, 0);
    let mut done = 0;
    while done < total {
        let count = (total - done).min(PIECE / bytes);
        let raw = piece.get_mut(..count * bytes).unwrap_or_default();
        array.values.read(raw)?;
        let mut raw = &*raw;
        while !raw.is_empty() {
            let (row, position) = (done / layout.width, done % layout.width);
            // Neighbouring rows lie as in the file if there is one block.
            let is_whole = layout.stride == layout.width;
            let run =
                if is_whole { raw.len() / bytes } else { (raw.len() / bytes).min(layout.width - position) };
            let start = row * layout.stride + layout.offset + position;
            if values.len() < start + run {
                values.resize(start + run, 0.0);
            }
            let out = values.get_mut(start..start + run).unwrap_or_default();
            let (now, rest) = raw.split_at(run * bytes);
            array.stored.decode(now, out);
            if let Some(at) = first_not_finite(out) {
                return Err(ReadError::NotFinite {
                    row: (done + at) / layout.width,
                    position: (done + at) % layout.width,
                    value: out.get(at).copied().unwrap_or_default(),
                });
            }
            raw = rest;
            done += run;
        }
    }
    Ok(())
}
