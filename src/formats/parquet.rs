//! Apache Parquet.

use std::fs::File;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type;
use parquet::file::metadata::ColumnChunkMetaData;

use super::input::{Input, malformed};
use super::tables::{TableRows, Tables, guarded};
use super::{FormatError, ReadOptions};

/// The bytes of values that are decoded at a time, about.
const BATCH_BYTES: u64 = 8 << 20;
/// And the most rows.
const BATCH_ROWS: u64 = 8192;

pub(super) fn open(input: Input, options: &ReadOptions) -> Result<TableRows<RowGroups>, FormatError> {
    let file = input.into_file()?;
    let path = file.path.clone();
    let metadata =
        guarded(&path, file.length, || ArrowReaderMetadata::load(&file.file, ArrowReaderOptions::default()))?;
    let schema = metadata.schema().clone();
    TableRows::new(&path, &schema, options, |projection| {
        let mask = ProjectionMask::roots(metadata.parquet_schema(), projection.iter().copied());
        let (mut rows, mut row_bytes) = (0u64, 1);
        for group in metadata.metadata().row_groups() {
            let its_rows = group.num_rows().max(0).cast_unsigned();
            rows = rows.saturating_add(its_rows);
            let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
            let bytes = columns.fold(0, |bytes: u64, (_, column)| bytes.saturating_add(bytes_of(column)));
            row_bytes = row_bytes.max(bytes.checked_div(its_rows).unwrap_or(0));
        }
        let listed = projection.iter().filter_map(|&at| schema.fields().get(at));
        let listed = listed.fold(0, |bytes: u64, field| bytes.saturating_add(fixed_bytes(field.data_type())));
        let batch = (BATCH_BYTES / row_bytes.max(listed)).clamp(1, BATCH_ROWS) as usize;
        let groups = RowGroups {
            path: path.clone(),
            file: file.file,
            length: file.length,
            metadata,
            mask,
            batch,
            row: 0,
            rows,
            reader: None,
        };
        Ok((groups, Some(rows)))
    })
}

/// The bytes of a column's values, encoded or decoded, whichever are more: of a dictionary or of runs, the encoded ones are
/// few however many values there are.
fn bytes_of(column: &ColumnChunkMetaData) -> u64 {
    let width = match column.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => column.column_descr().type_length().max(0).cast_unsigned().into(),
        // The length of each, in the place of which an offset is decoded.
        Type::BYTE_ARRAY => 4u64,
    };
    let strings = column.unencoded_byte_array_data_bytes().unwrap_or(0).max(0).cast_unsigned();
    let decoded = column.num_values().max(0).cast_unsigned().saturating_mul(width).saturating_add(strings);
    decoded.max(column.uncompressed_size().max(0).cast_unsigned())
}

/// The bytes that a row has of a type at least.
fn fixed_bytes(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeList(item, length) => {
            u64::from(length.max(&0).cast_unsigned()).saturating_mul(fixed_bytes(item.data_type()))
        }
        DataType::FixedSizeBinary(length) => length.max(&0).cast_unsigned().into(),
        other => other.primitive_width().unwrap_or(0) as u64,
    }
}

/// The row groups of a file.
pub(super) struct RowGroups {
    path: PathBuf,
    file: File,
    length: u64,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// Rows that are decoded at a time.
    batch: usize,
    /// The next row.
    row: u64,
    rows: u64,
    reader: Option<ParquetRecordBatchReader>,
}

impl RowGroups {
    /// A reader of the rows from here on, which does not decode those before.
    fn start(&self) -> Result<ParquetRecordBatchReader, FormatError> {
        let file = self.file.try_clone();
        let file =
            file.map_err(|source| FormatError::Io { path: self.path.clone(), operation: "open", source })?;
        guarded(&self.path, 0, || {
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(self.mask.clone())
                .with_batch_size(self.batch)
                .with_offset(self.row as usize)
                .build()
        })
    }
}

impl Tables for RowGroups {
    fn next(&mut self) -> Result<Option<RecordBatch>, FormatError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.start()?,
        };
        let table = guarded(&self.path, self.length, || reader.next().transpose())?;
        self.reader = Some(reader);
        self.row += table.as_ref().map_or(0, |table| table.num_rows() as u64);
        if table.is_none() && self.row != self.rows {
            let what = format!("{} rows, where {} are announced", self.row, self.rows);
            return Err(malformed(&self.path, self.length, what));
        }
        Ok(table)
    }

    fn skip(&mut self, rows: u64) -> Result<u64, FormatError> {
        let rows = rows.min(self.rows - self.row);
        self.row += rows;
        self.reader = None;
        Ok(rows)
    }
}
