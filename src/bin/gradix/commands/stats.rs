//! `gradix stats`

use std::path::PathBuf;

use clap::Args;

use super::open;
use crate::failure::Result;
use crate::output::Output;

/// Count rows and bytes
///
/// Says how many rows an index has, and what its columns, segments and artifacts take on disk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n    gradix stats my.gradix\n    gradix stats my.gradix --json | jq .rows")]
pub struct Stats {
    /// The index
    index: PathBuf,
}

impl Stats {
    pub fn run(self, output: &Output) -> Result {
        let stats = open(&self.index)?.stats()?;
        output.result(&stats, || {
            let columns: Vec<_> = stats.columns.iter().map(|column| (&column.name, column.bytes)).collect();
            format!(
                "{} rows in {} segments, {} bytes\n{columns:?}",
                stats.rows,
                stats.segments.len(),
                stats.bytes
            )
        })
    }
}
