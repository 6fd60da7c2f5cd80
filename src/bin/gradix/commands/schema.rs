//! `gradix schema`

use std::path::PathBuf;

use clap::Args;

use super::open;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Print the schema of an index
///
/// Prints the sketch spec, the encoding of each block, and the tiers, as the JSON that `gradix create --schema` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix schema my.gradix > schema.json
    gradix schema my.gradix --json | jq '.spec.blocks[].name'")]
pub struct Schema {
    /// The index
    index: PathBuf,
}

impl Schema {
    pub fn run(&self, output: &Output) -> Result {
        let index = open(&self.index)?;
        let schema = index.schema();
        let pretty = serde_json::to_string_pretty(schema);
        let pretty = pretty.map_err(|error| Failure::io("write JSON")(error.into()))?;
        output.result(schema, || pretty)
    }
}
