//! Results that are a table for people, and records for programs.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::failure::{Failure, Result};
use crate::id;
use crate::output::Output;
use crate::records::{self, Cell, Destination, Kind, Records};
use crate::table::{self, Table};

/// How results are printed, and where.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub struct SheetArgs {
    /// How to print [default: table, or what the name of the output ends in]
    #[arg(long, short, conflicts_with = "json")]
    format: Option<Format>,
    /// Write into this file, which has its name when it is whole
    #[arg(long, short, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Put the output in the place of a file that is there
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, as wide as the terminal
    Table,
    /// An object on each line
    Jsonl,
    /// Comma-separated, with a line of names
    Csv,
    Parquet,
}

impl SheetArgs {
    /// Checks that the output may be made, before there is work in it.
    pub fn check(&self) -> Result {
        self.output.as_deref().map_or(Ok(()), |path| records::check_free(path, self.force))
    }

    /// Records with these columns; `None` if it is to be a table.
    pub fn records(&self, columns: Vec<records::Column>) -> Result<Option<Records>> {
        let format = match (self.format, &self.output) {
            (Some(Format::Jsonl), _) => records::Format::Jsonl,
            (Some(Format::Csv), _) => records::Format::Csv,
            (Some(Format::Parquet), _) => records::Format::Parquet,
            (None, Some(path)) => records::Format::of(path)?,
            (Some(Format::Table), Some(_)) => {
                return Err(Failure::Usage(
                    "a table goes to stdout: take another --format with --output".into(),
                ));
            }
            (Some(Format::Table) | None, None) => return Ok(None),
        };
        Ok(Some(Records::create(format, Destination::new(self.output.as_deref(), self.force)?, columns)?))
    }

    /// Begins rows with these columns: as JSON lines with `--json`.
    pub fn begin(&self, columns: &[(&str, Kind)], output: &Output) -> Result<Sheet> {
        let named: Vec<records::Column> =
            columns.iter().map(|&(name, kind)| (name.to_owned(), kind)).collect();
        let records = match output.is_json() {
            true => Some(Records::create(records::Format::Jsonl, Destination::new(None, false)?, named)?),
            false => self.records(named)?,
        };
        Ok(match records {
            Some(records) => Sheet::Records(Box::new(records)),
            None => Sheet::Table(Table::new(columns.iter().map(|&(name, kind)| match kind {
                Kind::Count | Kind::Number => table::Column::number(name),
                Kind::Id | Kind::Bytes | Kind::Text => table::Column::text(name),
            }))),
        })
    }

    /// Prints rows.
    pub fn print<'r>(
        &self,
        columns: &[(&str, Kind)],
        rows: impl IntoIterator<Item = Vec<Cell<'r>>>,
        output: &Output,
    ) -> Result {
        let mut sheet = self.begin(columns, output)?;
        rows.into_iter().try_for_each(|cells| sheet.row(&cells))?;
        sheet.finish()
    }
}

/// Rows that are being printed.
pub enum Sheet {
    Records(Box<Records>),
    Table(Table),
}

impl Sheet {
    pub fn row(&mut self, cells: &[Cell<'_>]) -> Result {
        match self {
            Self::Records(records) => records.write(cells),
            Self::Table(table) => {
                let cells = cells.iter().map(|cell| shown(*cell)).collect();
                table.row(&mut io::stdout().lock(), cells).map_err(Failure::stdout)
            }
        }
    }

    pub fn finish(self) -> Result {
        match self {
            Self::Records(records) => records.finish(),
            Self::Table(mut table) => table.flush(&mut io::stdout().lock()).map_err(Failure::stdout),
        }
    }
}

fn shown(cell: Cell<'_>) -> String {
    match cell {
        Cell::Bytes(bytes) => id::shown(bytes),
        Cell::Text(text) => id::shown(text.as_bytes()),
        Cell::Count(count) => count.to_string(),
        Cell::Number(number) => score(number),
        Cell::Nothing => "-".into(),
    }
}

/// A score with seven digits or so.
pub fn score(score: f64) -> String {
    let size = score.abs();
    if score == 0.0 || (1e-3..1e6).contains(&size) { format!("{score:.6}") } else { format!("{score:.6e}") }
}
