//! `gradix scores`

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gradix::scan::ScoredRows;

use super::{At, span_cells};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::npy::NpyWriter;
use crate::output::Output;
use crate::queries::QueryArgs;
use crate::records::{self, Cell, Destination, Kind, Records, check_free};
use crate::scoring::{Filters, Scoring};
use crate::units::of;

/// Score every row for outputs
///
/// Writes the score of each row (or of each example, with --group) for each query, in row order: the columns are id,
/// span_start, span_end (of rows that are parts of examples), source, and score_0, score_1, ... for the queries in their order.
/// In npy, an array of float64 with a row for each row and a column for each query. Rows stream: memory does not grow with
/// their number.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix scores my.gradix output.npy -o scores.parquet
    gradix scores my.gradix output.npy --metric unit-rows --format npy -o scores.npy
    gradix scores my.gradix --id 'page 7' --source wiki | head -n 3")]
pub struct Scores {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    queries: QueryArgs,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    filters: Filters,
    /// How to write [default: jsonl, or what the name of the output ends in]
    #[arg(long, short, conflicts_with = "json")]
    format: Option<Format>,
    /// Write into this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put the output in the place of a file that is there
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An object on each line
    Jsonl,
    /// Comma-separated, with a line of names
    Csv,
    /// An array of numpy, into a file
    Npy,
    Parquet,
}

enum Writer {
    Records(Box<Records>),
    Npy(NpyWriter),
}

impl Scores {
    pub fn run(&self, output: &Output) -> Result {
        let cancel = interrupt::token()?;
        if let Some(path) = &self.output {
            check_free(path, self.force)?;
        }
        let (_, snapshot) = self.at.open()?;
        let queries = self.queries.all(&snapshot, &cancel)?;
        let scan = snapshot.scan(&queries.sketches)?.cancel(&cancel);
        let scan = self.scoring.configure(self.filters.read()?.configure(scan));
        let mut progress = output.progress("scan", "rows", None);
        let scan = scan.progress(|at| progress.set(at.rows_done, Some(at.rows_total)));
        let mut writer = self.writer(queries.sketches.len())?;
        let mut failure = None;
        let found = scan.scores(|rows| match write(&mut writer, rows, queries.sketches.len()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        });
        drop(progress);
        if let Some(failure) = failure {
            return Err(failure);
        }
        let found = found?;
        match writer {
            Writer::Records(records) => records.finish()?,
            Writer::Npy(npy) => npy.finish()?,
        }
        let count = queries.sketches.len() as u64;
        output.note(&format!("scored {} for {}", of(found.rows, "row"), of(count, "query")));
        Ok(())
    }

    fn writer(&self, queries: usize) -> Result<Writer> {
        let path = self.output.as_deref();
        let destination = || Destination::new(path, self.force);
        let format = match (self.format, path) {
            (Some(Format::Jsonl), _) | (None, None) => records::Format::Jsonl,
            (Some(Format::Csv), _) => records::Format::Csv,
            (Some(Format::Parquet), _) => records::Format::Parquet,
            (None, Some(path)) if path.extension().is_none_or(|ending| ending != "npy") => {
                records::Format::of(path)?
            }
            (Some(Format::Npy) | None, Some(_)) => {
                return Ok(Writer::Npy(NpyWriter::create(destination()?, queries as u64)?));
            }
            (Some(Format::Npy), None) => {
                let why = "an array of numpy begins with its number of rows, which is known at the end: give it --output";
                return Err(Failure::Usage(why.into()));
            }
        };
        let mut columns: Vec<records::Column> = vec![
            ("id".into(), Kind::Id),
            ("span_start".into(), Kind::Count),
            ("span_end".into(), Kind::Count),
            ("source".into(), Kind::Text),
        ];
        columns.extend((0..queries).map(|query| (format!("score_{query}"), Kind::Number)));
        Ok(Writer::Records(Box::new(Records::create(format, destination()?, columns)?)))
    }
}

fn write(writer: &mut Writer, rows: &ScoredRows<'_>, queries: usize) -> Result {
    let scores: Vec<&[f64]> = (0..queries).map(|query| rows.scores(query)).collect();
    for row in 0..rows.len() {
        let of_row = scores.iter().filter_map(|scores| scores.get(row).copied());
        match writer {
            Writer::Npy(npy) => npy.row(of_row)?,
            Writer::Records(records) => {
                let (start, end) = span_cells(rows.span(row)?);
                let mut cells = vec![Cell::Bytes(rows.id(row)?), start, end, Cell::text(rows.source(row)?)];
                cells.extend(of_row.map(Cell::Number));
                records.write(&cells)?;
            }
        }
    }
    Ok(())
}
