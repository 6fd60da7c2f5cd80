//! `gradix gc`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gradix::{Collection, GcOptions};
use serde::Serialize;

use super::{open, open_to_write};
use crate::failure::Result;
use crate::output::Output;
use crate::units::{Span, bytes, of};

/// Remove old generations and their files
///
/// Keeps the newest generations, those that were replaced within the grace, and what lies in between. What is removed cannot be
/// read any more, not even by a scan of another process that began before: the grace is for these.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix gc my.gradix --dry-run
    gradix gc my.gradix --keep 10 --grace 7d")]
pub struct Gc {
    /// The index
    index: PathBuf,
    /// Keep so many of the newest generations
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    keep: u64,
    /// Keep generations that were replaced within this time
    #[arg(long, value_name = "TIME", default_value = "1h")]
    grace: Span,
    /// Say what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    dry_run: bool,
    #[serde(flatten)]
    done: Collection,
}

impl Gc {
    pub fn run(&self, output: &Output) -> Result {
        let Span(grace) = self.grace;
        let options = GcOptions::default().keep_generations(self.keep).grace(grace);
        let done = match self.dry_run {
            true => open(&self.index)?.snapshot()?.plan_gc(options)?,
            false => open_to_write(&self.index)?.writer()?.gc(options)?,
        };
        output.result(&Printed { dry_run: self.dry_run, done }, || {
            let would = if self.dry_run { "would remove" } else { "removed" };
            let hint = match grace {
                Duration::ZERO => "",
                _ if done.segments + done.artifacts == 0 => "; generations replaced within --grace stay",
                _ => "",
            };
            format!(
                "{would} {} and {}, {}; the oldest generation is {}{hint}",
                of(done.segments, "segment"),
                of(done.artifacts, "artifact"),
                bytes(done.bytes),
                done.oldest
            )
        })
    }
}
