//! Apache Parquet.

use std::fs::File;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

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
        let (mut rows, mut bytes) = (0u64, 0u64);
        for group in metadata.metadata().row_groups() {
            rows = rows.saturating_add(group.num_rows().max(0).cast_unsigned());
            bytes = bytes.saturating_add(group.total_byte_size().max(0).cast_unsigned());
        }
        let batch = (BATCH_BYTES / bytes.checked_div(rows).unwrap_or(1).max(1)).clamp(1, BATCH_ROWS) as usize;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), projection.iter().copied());
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
