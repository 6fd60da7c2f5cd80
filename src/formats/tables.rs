//! Rows of tables of Arrow, which a file gives one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::Columns;
use super::input::{malformed, unsupported};
use super::{Batch, FormatError, Number, ReadOptions, RowSource};
use crate::sketch::SketchSpec;

/// A file of tables with the columns that were chosen.
pub(super) trait Tables: Send {
    /// The next one; `None` behind the last.
    fn next(&mut self) -> Result<Option<RecordBatch>, FormatError>;

    /// Passes over at most `rows` rows, and returns how many: fewer, if the rest is in the middle of a table.
    fn skip(&mut self, rows: u64) -> Result<u64, FormatError>;
}

/// Reads the rows of tables.
pub(super) struct TableRows<T> {
    path: PathBuf,
    columns: Columns,
    spec: SketchSpec,
    rows: Option<u64>,
    tables: T,
    table: Option<RecordBatch>,
    /// The next row in the table, and in the file.
    at: usize,
    row: u64,
}

impl<T: Tables> TableRows<T> {
    /// `open` gets the columns to read, as positions in the schema, and returns the tables and how many rows they have.
    pub(super) fn new(
        path: &Path,
        schema: &SchemaRef,
        options: &ReadOptions,
        open: impl FnOnce(&[usize]) -> Result<(T, Option<u64>), FormatError>,
    ) -> Result<Self, FormatError> {
        let mut columns = Columns::choose(path, schema, options)?;
        let (mut tables, rows) = open(&columns.projection)?;
        let table = first_with_rows(&mut tables)?;
        let spec = columns.spec(schema, table.as_ref())?;
        Ok(Self { path: path.to_owned(), columns, spec, rows, tables, table, at: 0, row: 0 })
    }

    fn left(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.num_rows() - self.at)
    }

    fn pass(&mut self, rows: usize) -> Result<(), FormatError> {
        self.at += rows;
        self.row += rows as u64;
        if self.left() == 0 {
            self.at = 0;
            self.table = None;
        }
        Ok(())
    }
}

fn first_with_rows(tables: &mut impl Tables) -> Result<Option<RecordBatch>, FormatError> {
    loop {
        match tables.next()? {
            Some(table) if table.num_rows() == 0 => {}
            other => return Ok(other),
        }
    }
}

impl<T: Tables> RowSource for TableRows<T> {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.columns.number()
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        self.columns.skip(rows)?;
        let mut left = rows;
        while left > 0 {
            if self.left() == 0 {
                let passed = self.tables.skip(left)?;
                left -= passed;
                self.row += passed;
                if left == 0 {
                    return Ok(());
                }
                self.table = first_with_rows(&mut self.tables)?;
            }
            let now = left.min(self.left() as u64) as usize;
            if now == 0 {
                let what = format!("{} rows, where row {} was asked for", self.row, self.row + left);
                return Err(unsupported(&self.path, what));
            }
            self.pass(now)?;
            left -= now as u64;
        }
        Ok(())
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        let values = std::mem::take(&mut batch.values);
        batch.clear();
        batch.values = values;
        if self.left() == 0 {
            self.table = first_with_rows(&mut self.tables)?;
            self.at = 0;
        }
        let Some(table) = &self.table else {
            batch.values.clear();
            return self.columns.end();
        };
        let rows = rows.min(table.num_rows() - self.at);
        self.columns.read(table, self.at, rows, self.row, batch)?;
        self.pass(rows)
    }
}

/// Runs what reads a damaged file with a library whose authors did not think of all damages: its panic is an error.
pub(super) fn guarded<R, E: std::fmt::Display>(
    path: &Path,
    offset: u64,
    work: impl FnOnce() -> Result<R, E>,
) -> Result<R, FormatError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(malformed(path, offset, error.to_string())),
        Err(_) => Err(malformed(path, offset, "damage that the decoder does not know")),
    }
}
