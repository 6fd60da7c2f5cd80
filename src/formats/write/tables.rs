//! Tables of Arrow: a column of vectors for each block, and what is said of the rows.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeListArray, Float16Array, Float32Array, RecordBatch, StringArray,
    UInt32Array,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::output::Output;
use super::{check, metadata_of, source_of, span_of, too_large};
use crate::formats::columns::{ID, METADATA, SOURCE, SPAN_END, SPAN_START, SPEC_KEY};
use crate::formats::input::unsupported;
use crate::formats::numbers::fits;
use crate::formats::{Batch, FormatError, Number, RowSink};
use crate::segment::Span;
use crate::sketch::SketchSpec;

/// A row group of Parquet is in memory until it is written.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Makes tables of batches.
struct Maker {
    path: std::path::PathBuf,
    spec: SketchSpec,
    number: Number,
    schema: SchemaRef,
    rows: u64,
}

impl Maker {
    fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let labels = [ID, SOURCE, SPAN_START, SPAN_END, METADATA];
        if let Some(block) = spec.blocks().iter().find(|block| labels.contains(&block.name.as_str())) {
            return Err(unsupported(path, format!("a block cannot be the column {:?}", block.name)));
        }
        let mut fields = vec![
            Field::new(ID, DataType::Binary, false),
            Field::new(SOURCE, DataType::Utf8, true),
            Field::new(SPAN_START, DataType::UInt32, true),
            Field::new(SPAN_END, DataType::UInt32, true),
            Field::new(METADATA, DataType::Binary, true),
        ];
        for block in spec.blocks() {
            let vectors = DataType::FixedSizeList(item(number), block.dims.cast_signed());
            fields.push(Field::new(&block.name, vectors, false));
        }
        let held = serde_json::to_string(spec).map_err(|error| unsupported(path, error.to_string()))?;
        let schema = Schema::new(fields).with_metadata(HashMap::from([(SPEC_KEY.to_owned(), held)]));
        Ok(Self { path: path.to_owned(), spec: spec.clone(), number, schema: Arc::new(schema), rows: 0 })
    }

    fn table(&mut self, batch: &Batch) -> Result<RecordBatch, FormatError> {
        check(&self.path, &self.spec, self.rows, batch, true)?;
        fits(self.number, &batch.values)
            .map_err(|at| too_large(&self.path, &self.spec, self.rows, &batch.values, at, self.number))?;
        let rows = 0..batch.rows;
        let spans =
            || rows.clone().map(|row| Some(span_of(batch, row)).filter(|span: &Span| !span.is_whole()));
        let texts = |text: &[u8]| i32::try_from(text.len()).is_ok();
        if !batch.ids.iter().chain(&batch.metadata).all(|text| texts(text)) {
            return Err(unsupported(&self.path, "an id or metadata of more than 2 GiB"));
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(BinaryArray::from_iter_values(&batch.ids)),
            Arc::new(StringArray::from_iter(
                rows.clone().map(|row| Some(source_of(batch, row)).filter(|source| !source.is_empty())),
            )),
            Arc::new(UInt32Array::from_iter(spans().map(|span| span.map(|span| span.start)))),
            Arc::new(UInt32Array::from_iter(spans().map(|span| span.map(|span| span.end)))),
            Arc::new(BinaryArray::from_iter(
                rows.clone().map(|row| Some(metadata_of(batch, row)).filter(|metadata| !metadata.is_empty())),
            )),
        ];
        let stride = self.spec.dims();
        for (block, range) in self.spec.blocks().iter().zip(self.spec.ranges()) {
            let mut values = Vec::with_capacity(batch.rows * range.len());
            for row in batch.values.chunks(stride) {
                values.extend(row.get(range.clone()).unwrap_or_default());
            }
            let values: ArrayRef = match self.number {
                Number::F16 => {
                    let mut halves = vec![f16::ZERO; values.len()];
                    halves.convert_from_f32_slice(&values);
                    Arc::new(Float16Array::from(halves))
                }
                _ => Arc::new(Float32Array::from(values)),
            };
            let lists =
                FixedSizeListArray::try_new(item(self.number), block.dims.cast_signed(), values, None);
            columns.push(Arc::new(lists.map_err(|error| unsupported(&self.path, error.to_string()))?));
        }
        self.rows += batch.rows as u64;
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| unsupported(&self.path, error.to_string()))
    }
}

/// The type of a vector's values, which are never null.
fn item(number: Number) -> Arc<Field> {
    let number = if number == Number::F16 { DataType::Float16 } else { DataType::Float32 };
    Arc::new(Field::new("item", number, false))
}

/// An Arrow file; on standard output, a stream.
pub(super) struct ArrowSink {
    maker: Maker,
    writer: Ipc,
}

enum Ipc {
    File(Output, FileWriter<File>),
    Stream(StreamWriter<io::Stdout>),
}

impl ArrowSink {
    pub(super) fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let maker = Maker::new(path, spec, number)?;
        let fails = |error| fails(path, error);
        let writer = if path == Path::new("-") {
            Ipc::Stream(StreamWriter::try_new(io::stdout(), &maker.schema).map_err(fails)?)
        } else {
            let mut output = Output::create(path)?;
            let file = output.file().try_clone().map_err(|source| output.fails("create", source))?;
            Ipc::File(output, FileWriter::try_new(file, &maker.schema).map_err(fails)?)
        };
        Ok(Self { maker, writer })
    }
}

impl RowSink for ArrowSink {
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError> {
        let table = self.maker.table(batch)?;
        let written = match &mut self.writer {
            Ipc::File(_, writer) => writer.write(&table),
            Ipc::Stream(writer) => writer.write(&table),
        };
        written.map_err(|error| fails(&self.maker.path, error))
    }

    fn finish(self: Box<Self>) -> Result<(), FormatError> {
        let path = &self.maker.path;
        match self.writer {
            Ipc::File(output, mut writer) => {
                writer.finish().map_err(|error| fails(path, error))?;
                drop(writer);
                output.finish()
            }
            Ipc::Stream(mut writer) => writer.finish().map_err(|error| fails(path, error)),
        }
    }
}

/// A Parquet file.
pub(super) struct ParquetSink {
    maker: Maker,
    output: Output,
    writer: ArrowWriter<File>,
}

impl ParquetSink {
    pub(super) fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let maker = Maker::new(path, spec, number)?;
        let mut output = Output::create(path)?;
        let file = output.file().try_clone().map_err(|source| output.fails("create", source))?;
        // Neither a dictionary nor a least and a greatest value says anything of vectors.
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_column_dictionary_enabled(SOURCE.into(), true)
            .set_column_statistics_enabled(ID.into(), EnabledStatistics::Chunk)
            .set_column_statistics_enabled(SOURCE.into(), EnabledStatistics::Chunk)
            .build();
        let writer = ArrowWriter::try_new(file, maker.schema.clone(), Some(properties));
        let writer = writer.map_err(|error| fails(path, error))?;
        Ok(Self { maker, output, writer })
    }
}

impl RowSink for ParquetSink {
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError> {
        let table = self.maker.table(batch)?;
        let writer = &mut self.writer;
        let written = writer
            .write(&table)
            .and_then(|()| if writer.in_progress_size() < ROW_GROUP_BYTES { Ok(()) } else { writer.flush() });
        written.map_err(|error| fails(&self.maker.path, error))
    }

    fn finish(self: Box<Self>) -> Result<(), FormatError> {
        let closed = self.writer.close();
        closed.map_err(|error| fails(&self.maker.path, error))?;
        self.output.finish()
    }
}

/// What a library says about a write: the system's error, if it is one.
fn fails(path: &Path, error: impl Into<WriteError>) -> FormatError {
    match error.into() {
        WriteError::Io(source) => FormatError::Io { path: path.to_owned(), operation: "write", source },
        WriteError::Other(what) => unsupported(path, what),
    }
}

enum WriteError {
    Io(io::Error),
    Other(String),
}

impl From<ArrowError> for WriteError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, source) => Self::Io(source),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<ParquetError> for WriteError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(error) => match error.downcast::<io::Error>() {
                Ok(source) => Self::Io(*source),
                Err(other) => Self::Other(other.to_string()),
            },
            other => Self::Other(other.to_string()),
        }
    }
}
