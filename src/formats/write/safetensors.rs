//! Safetensors. The header, which says how many rows there are, gets as much room as it can need; the tensor of a single block
//! is written behind it at once, those of several wait for the last row.

use std::collections::HashMap;
use std::io::Seek as _;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::labels::{COLUMNS, Labels};
use super::output::Output;
use super::spool::Spool;
use super::{add_blocks, check, too_large};
use crate::formats::input::unsupported;
use crate::formats::labels::{OFFSETS, SPANS};
use crate::formats::numbers::{encode, u64_bytes};
use crate::formats::safetensors::SPEC_KEY;
use crate::formats::{Batch, FormatError, Number, RowSink};
use crate::sketch::SketchSpec;

/// The room for what a tensor's entry has beside its name, and for a label's entry as a whole.
const ENTRY: usize = 160;
/// The key of the file's metadata.
const METADATA_KEY: &str = "__metadata__";

pub(super) struct Sink {
    spec: SketchSpec,
    number: Number,
    output: Output,
    /// The bytes of the header, with its length in front.
    header: usize,
    spool: Spool,
    labels: Labels,
    rows: u64,
    bytes: Vec<u8>,
}

impl Sink {
    pub(super) fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let cannot = |name: &str| Labels::is_label(name) || name == METADATA_KEY;
        if let Some(block) = spec.blocks().iter().find(|block| cannot(&block.name)) {
            return Err(unsupported(path, format!("a block cannot be the tensor {:?}", block.name)));
        }
        let text = |text: &str| serde_json::to_string(text).map_or(0, |text| text.len());
        let names: usize = spec.blocks().iter().map(|block| text(&block.name) + ENTRY).sum();
        let held = serde_json::to_string(spec).map_or(0, |spec| text(&spec));
        let header = (8 + names + held + (COLUMNS + 1) * ENTRY).next_multiple_of(8);
        let mut output = Output::create(path)?;
        output.write(&vec![0; header])?;
        let blocks = spec.blocks().len();
        let mut spool = Spool::new(path, &output.folder(), blocks + COLUMNS)?;
        let labels = Labels::new(&mut spool, blocks)?;
        Ok(Self { spec: spec.clone(), number, output, header, spool, labels, rows: 0, bytes: Vec::new() })
    }

    /// The tensors behind the vectors, and from which column they come. Texts are first, and padded so that all numbers lie where
    /// they can be used without a copy.
    fn label_tensors(&self, start: usize) -> Vec<(String, TensorInfo, usize)> {
        let rows = self.rows as usize;
        let mut tensors = Vec::new();
        let mut end = start;
        let mut add = |name: String, dtype, shape: Vec<usize>, bytes: usize, column| {
            tensors.push((name, TensorInfo { dtype, shape, data_offsets: (end, end + bytes) }, column));
            end += bytes;
        };
        let mut misplaced = start % 8;
        for texts in self.labels.texts() {
            let bytes = self.spool.bytes(texts.bytes) as usize;
            let padded = (misplaced + bytes).next_multiple_of(8) - misplaced;
            misplaced = 0;
            add(texts.name.to_owned(), Dtype::U8, vec![padded], padded, texts.bytes);
        }
        for texts in self.labels.texts() {
            add(
                format!("{}{OFFSETS}", texts.name),
                Dtype::I64,
                vec![rows + 1],
                8 * (rows + 1),
                texts.offsets,
            );
        }
        if let Some(column) = self.labels.spans() {
            add(SPANS.to_owned(), Dtype::U32, vec![rows, 2], 8 * rows, column);
        }
        tensors
    }

    fn write_rest(&mut self) -> Result<(), FormatError> {
        let path = self.output.path().to_owned();
        let dtype = match self.number {
            Number::F16 => Dtype::F16,
            Number::Bf16 => Dtype::BF16,
            Number::F32 => Dtype::F32,
            Number::F64 => Dtype::F64,
        };
        let (rows, mut end) = (self.rows as usize, 0);
        let mut tensors = Vec::new();
        for block in self.spec.blocks() {
            let shape = vec![rows, block.dims as usize];
            let bytes = rows * block.dims as usize * self.number.bytes();
            tensors.push((block.name.clone(), TensorInfo { dtype, shape, data_offsets: (end, end + bytes) }));
            end += bytes;
        }
        if self.spec.blocks().len() > 1 {
            for column in 0..self.spec.blocks().len() {
                self.spool.copy(column, self.output.file())?;
            }
        }
        for (name, info, column) in self.label_tensors(end) {
            self.spool.copy(column, self.output.file())?;
            let (start, end) = info.data_offsets;
            let padding = (end - start).saturating_sub(self.spool.bytes(column) as usize);
            self.output.write(&vec![0; padding])?;
            tensors.push((name, info));
        }
        let wrong = |error: String| unsupported(&path, error);
        let spec = serde_json::to_string(&self.spec).map_err(|error| wrong(error.to_string()))?;
        let metadata = HashMap::from([(SPEC_KEY.to_owned(), spec)]);
        let header = Metadata::new(Some(metadata), tensors).map_err(|error| wrong(error.to_string()))?;
        let mut text = serde_json::to_vec(&header).map_err(|error| wrong(error.to_string()))?;
        let room = self.header - 8;
        if text.len() > room {
            return Err(wrong(format!("a header of {} bytes, where {room} were reserved", text.len())));
        }
        text.resize(room, b' ');
        self.output.file().rewind().map_err(|source| self.output.fails("write", source))?;
        self.output.write(&u64_bytes(room as u64))?;
        self.output.write(&text)
    }
}

impl RowSink for Sink {
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError> {
        check(self.output.path(), &self.spec, self.rows, batch, true)?;
        if self.spec.blocks().len() > 1 {
            add_blocks(&mut self.spool, self.output.path(), &self.spec, self.number, self.rows, batch)?;
        } else {
            self.bytes.clear();
            encode(self.number, &batch.values, &mut self.bytes).map_err(|at| {
                too_large(self.output.path(), &self.spec, self.rows, &batch.values, at, self.number)
            })?;
            self.output.write(&self.bytes)?;
        }
        self.labels.add(&mut self.spool, batch)?;
        self.rows += batch.rows as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), FormatError> {
        self.write_rest()?;
        self.output.finish()
    }
}
