//! The commands. Each file has the arguments of one, and what it does.

mod append;
mod attach;
mod backup;
mod compact;
mod completions;
mod create;
mod delete;
mod explain;
mod export;
mod fit;
mod gc;
mod get;
mod import;
mod log;
mod ls;
mod man;
mod query;
mod recover;
mod report;
mod schema;
mod scores;
mod select;
mod stats;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use gradix::{Index, Snapshot, Span};

use crate::failure::{Failure, Result};
use crate::interrupt::check;
use crate::output::Output;
use crate::records::Cell;

#[derive(Debug, Subcommand)]
pub enum Command {
    Append(append::Append),
    Attach(attach::Attach),
    Backup(backup::Backup),
    Compact(compact::Compact),
    Completions(completions::Completions),
    Create(create::Create),
    Delete(delete::Delete),
    Explain(explain::Explain),
    Export(export::Export),
    Fit(fit::Fit),
    Gc(gc::Gc),
    Get(get::Get),
    Import(import::Import),
    Log(log::Log),
    Ls(ls::Ls),
    Man(man::Man),
    Query(query::Query),
    Recover(recover::Recover),
    Report(report::Report),
    Schema(schema::Schema),
    Scores(scores::Scores),
    Select(select::Select),
    Stats(stats::Stats),
    Verify(verify::Verify),
}

/// Does what was asked.
pub fn run(command: Command, output: &Output) -> Result {
    match command {
        Command::Append(command) => command.run(output),
        Command::Attach(command) => command.run(output),
        Command::Backup(command) => command.run(output),
        Command::Compact(command) => command.run(output),
        Command::Completions(command) => command.run(output),
        Command::Create(command) => command.run(output),
        Command::Delete(command) => command.run(output),
        Command::Explain(command) => command.run(output),
        Command::Export(command) => command.run(output),
        Command::Fit(command) => command.run(output),
        Command::Gc(command) => command.run(output),
        Command::Get(command) => command.run(output),
        Command::Import(command) => command.run(output),
        Command::Log(command) => command.run(output),
        Command::Ls(command) => command.run(output),
        Command::Man(command) => command.run(output),
        Command::Query(command) => command.run(output),
        Command::Recover(command) => command.run(output),
        Command::Report(command) => command.run(output),
        Command::Schema(command) => command.run(output),
        Command::Scores(command) => command.run(output),
        Command::Select(command) => command.run(output),
        Command::Stats(command) => command.run(output),
        Command::Verify(command) => command.run(output),
    }
}

/// Opens an index that is only read, so that a read-only file system serves too.
fn open(path: &Path) -> Result<Index> {
    Index::options().read_only(true).open(path).map_err(|error| Failure::from(error).hint_if_missing(path))
}

/// Opens an index that is changed.
fn open_to_write(path: &Path) -> Result<Index> {
    Index::open(path).map_err(|error| Failure::from(error).hint_if_missing(path))
}

/// Which index, and as of when.
#[derive(Debug, Args)]
struct At {
    /// The index
    index: PathBuf,
    /// The generation, one of `gradix log`; the newest if not given
    #[arg(long)]
    generation: Option<u64>,
}

impl At {
    fn open(&self) -> Result<(Index, Snapshot)> {
        let index = open(&self.index)?;
        let snapshot = match self.generation {
            Some(generation) => index.snapshot_at(generation)?,
            None => index.snapshot()?,
        };
        Ok((index, snapshot))
    }

    fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.open()?.1)
    }
}

/// The ends of a span as cells: nothing for a whole example.
fn span_cells(span: Span) -> (Cell<'static>, Cell<'static>) {
    match span.is_whole() {
        true => (Cell::Nothing, Cell::Nothing),
        false => (Cell::Count(span.start.into()), Cell::Count(span.end.into())),
    }
}
