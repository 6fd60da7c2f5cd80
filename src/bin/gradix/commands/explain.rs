//! `gradix explain`

use clap::Args;

use super::query::Asked;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;

/// Say how a query would be answered
///
/// Prints the scan path that `gradix query` would take with the same options, and what each path would cost: bytes to read, and
/// time. Reads no rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix explain my.gradix output.npy
    gradix explain my.gradix output.npy --guarantee 1e-6 --json | jq .chosen")]
pub struct Explain {
    #[command(flatten)]
    asked: Asked,
}

impl Explain {
    pub fn run(&self, output: &Output) -> Result {
        let cancel = interrupt::token()?;
        let (_, snapshot) = self.asked.at.open()?;
        let mut reader = self.asked.queries.reader(&snapshot, &cancel)?;
        // All batches cost the same, but for the last.
        let queries = reader.next_batch()?.ok_or_else(|| Failure::Usage("the files have no rows".into()))?;
        let rows = self.asked.filters.read()?;
        let explanation = self.asked.scan(&snapshot, &queries.sketches, &rows)?.cancel(&cancel).explain()?;
        output.result(&explanation, || explanation.to_string())
    }
}
