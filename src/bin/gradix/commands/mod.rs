//! The commands. Each file has the arguments of one, and what it does.

mod backup;
mod stats;

use std::path::Path;

use clap::Subcommand;
use gradix::Index;

use crate::failure::{Failure, Result};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum Command {
    Backup(backup::Backup),
    Stats(stats::Stats),
}

/// Does what was asked.
pub fn run(command: Command, output: &Output) -> Result {
    match command {
        Command::Backup(command) => command.run(output),
        Command::Stats(command) => command.run(output),
    }
}

/// Opens an index that is only read, so that a read-only file system serves too.
fn open(path: &Path) -> Result<Index> {
    Index::options().read_only(true).open(path).map_err(|error| Failure::from(error).hint_if_missing(path))
}
