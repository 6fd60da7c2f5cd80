//! `gradix verify`

use std::path::PathBuf;

use clap::Args;
use gradix::VerifyOptions;

use super::open;
use crate::failure::{Failure, Result};
use crate::interrupt;
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
        let index = open(&self.index)?;
        let mut progress = output.progress("verify", "bytes", None);
        let options = VerifyOptions::default().cancel(&interrupt::token()?);
        let options = options.progress(|at| progress.set(at.bytes_done, Some(at.bytes_total)));
        let report = index.verify_with(options)?;
        drop(progress);
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
