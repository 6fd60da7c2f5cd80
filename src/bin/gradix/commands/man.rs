//! `gradix man`

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::args::Cli;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Write the manual pages into a folder
///
/// Writes gradix.1, and a page for each command. Says on stdout which folder has them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix man ~/.local/share/man/man1")]
pub struct Man {
    /// The folder, which is created if need be
    folder: PathBuf,
}

impl Man {
    pub fn run(&self, output: &Output) -> Result {
        let failed = || Failure::io(format!("write the manual into {}", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(failed())?;
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(failed())?;
        output.result(&serde_json::json!({"folder": self.folder}), || self.folder.display().to_string())
    }
}
