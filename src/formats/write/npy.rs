//! Arrays of numpy.

use std::io::Seek as _;
use std::path::Path;

use super::output::Output;
use super::{check, too_large};
use crate::formats::input::unsupported;
use crate::formats::numbers::encode;
use crate::formats::{Batch, FormatError, Number, RowSink};
use crate::sketch::SketchSpec;

/// The bytes of a header; numpy aligns to 64.
const HEADER: usize = 128;

/// The header of an array, padded so that it has as many bytes whatever its shape is.
pub(super) fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let shape: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend([(HEADER - 10) as u8, 0]);
    bytes.extend(text.bytes());
    bytes.resize(HEADER - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// The type of numbers as numpy names it.
pub(super) fn descr(number: Number) -> &'static str {
    match number {
        Number::F16 | Number::Bf16 => "<f2",
        Number::F32 => "<f4",
        Number::F64 => "<f8",
    }
}

/// One array of all blocks, and the ids in a text file.
pub(super) struct Sink {
    spec: SketchSpec,
    number: Number,
    output: Output,
    ids: Option<Output>,
    rows: u64,
    bytes: Vec<u8>,
}

impl Sink {
    pub(super) fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let mut output = Output::create(path)?;
        output.write(&header(descr(number), &[0, 0]))?;
        Ok(Self { spec: spec.clone(), number, output, ids: None, rows: 0, bytes: Vec::new() })
    }

    fn write_ids(&mut self, batch: &Batch) -> Result<(), FormatError> {
        let path = self.output.path();
        if self.rows > 0 && self.ids.is_none() {
            return Err(unsupported(path, "rows with ids behind rows without"));
        }
        if path == Path::new("-") {
            return Err(unsupported(path, "an npy array on standard output has no place for ids; npz has"));
        }
        let mut lines = Vec::new();
        for (id, row) in batch.ids.iter().zip(self.rows..) {
            if id.is_empty() || id.contains(&b'\n') || id.ends_with(b"\r") {
                let what = "the id cannot be a line of the text file beside an npy array; npz can hold it";
                return Err(FormatError::Row { path: path.to_owned(), row, what: what.into() });
            }
            lines.extend(id);
            lines.push(b'\n');
        }
        let ids = match self.ids.take() {
            Some(ids) => ids,
            None => Output::create(&path.with_extension("ids.txt"))?,
        };
        self.ids.insert(ids).write(&lines)
    }
}

impl RowSink for Sink {
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError> {
        check(self.output.path(), &self.spec, self.rows, batch, self.ids.is_some())?;
        let says_more = batch.sources.iter().any(Option::is_some)
            || batch.spans.iter().any(|span| !span.is_whole())
            || batch.metadata.iter().any(|metadata| !metadata.is_empty());
        if says_more {
            let what = "npy holds no sources, spans or metadata; the other formats do";
            return Err(unsupported(self.output.path(), what));
        }
        if !batch.ids.is_empty() {
            self.write_ids(batch)?;
        }
        self.bytes.clear();
        encode(self.number, &batch.values, &mut self.bytes).map_err(|at| {
            too_large(self.output.path(), &self.spec, self.rows, &batch.values, at, self.number)
        })?;
        self.output.write(&self.bytes)?;
        self.rows += batch.rows as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), FormatError> {
        let header = header(descr(self.number), &[self.rows, self.spec.dims() as u64]);
        self.output.file().rewind().map_err(|source| self.output.fails("write", source))?;
        self.output.write(&header)?;
        self.ids.map_or(Ok(()), Output::finish)?;
        self.output.finish()
    }
}
