//! `gradix verify`

use std::path::PathBuf;

use clap::Args;

use super::open;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::units::{bytes, of};

/// Check every byte, row and reference
///
/// Reads the whole index: all checksums, all rows, and what the manifest says of them. Changes nothing. Lists all damage
/// that there is on stdout, and the exit code is 1 then.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix verify my.gradix
    gradix verify my.gradix --json | jq .findings[]
    gradix verify my.gradix --quiet || echo damaged")]
pub struct Verify {
    /// The index
    index: PathBuf,
}

impl Verify {
    pub fn run(&self, output: &Output) -> Result {
        let report = open(&self.index)?.verify()?;
        output.result(&report, || {
            let read = format!(
                "generation {}, {}, {}, {}, {}, {}",
                report.generation,
                of(report.segments, "segment"),
                of(report.artifacts, "artifact"),
                of(report.rows, "row"),
                of(report.examples, "example"),
                bytes(report.bytes)
            );
            if report.is_sound() {
                return format!("{}: sound: {read}", self.index.display());
            }
            let findings =
                report.findings.iter().map(|finding| format!("{}: {}\n", finding.file, finding.message));
            let count = of(report.findings.len() as u64, "finding");
            format!("{}{}: {count}: {read}", findings.collect::<String>(), self.index.display())
        })?;
        if report.is_sound() { Ok(()) } else { Err(Failure::Found) }
    }
}
