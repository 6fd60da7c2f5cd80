//! `gradix compact`

use std::path::PathBuf;

use clap::Args;
use gradix::{CompactOptions, Compaction, MaintenanceError};
use serde::Serialize;

use super::{open, open_to_write};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;
use crate::units::{count, of};

/// Copy live rows into fewer segments
///
/// Rewrites segments with many dead rows, and those that are small, so that dead rows are gone and scans read fewer files. Codes
/// are copied bit by bit. Earlier generations keep the old files until `gradix gc` removes them, so compaction needs disk space
/// for what it copies. A curvature forgets rows that are dropped: run `gradix fit` before.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix compact my.gradix --dry-run
    gradix compact my.gradix --dead-fraction 0.05
    gradix compact my.gradix --all && gradix gc my.gradix")]
pub struct Compact {
    /// The index
    index: PathBuf,
    /// Every segment
    #[arg(long, conflicts_with_all = ["dead_fraction", "small_fraction"])]
    all: bool,
    /// Segments with at least this fraction of dead rows [default: 0.2]
    #[arg(long, value_name = "FRACTION")]
    dead_fraction: Option<f64>,
    /// Segments smaller than this fraction of 1 GiB, if there are two or more [default: 0.5]
    #[arg(long, value_name = "FRACTION")]
    small_fraction: Option<f64>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    dry_run: bool,
    generation: u64,
    #[serde(flatten)]
    done: Compaction,
}

impl Compact {
    pub fn run(&self, output: &Output) -> Result {
        if self.dry_run {
            let snapshot = open(&self.index)?.snapshot()?;
            let done = snapshot.plan_compaction(&self.options());
            return print(&Printed { dry_run: true, generation: snapshot.generation(), done }, output);
        }
        let cancel = interrupt::token()?;
        let index = open_to_write(&self.index)?;
        let planned = index.snapshot()?.plan_compaction(&self.options());
        let mut writer = index.writer()?;
        let before = writer.generation();
        let mut progress = output.progress("compact", "rows", Some(planned.rows_copied));
        let options = self.options().cancel(&cancel).progress(|at| progress.set(at.rows_copied, None));
        match writer.compact(options) {
            Ok(done) => {
                drop(progress);
                print(&Printed { dry_run: false, generation: writer.generation(), done }, output)
            }
            Err(MaintenanceError::Cancelled) => Err(Failure::Interrupted(match writer.generation() {
                now if now == before => "interrupted; the index is as it was".into(),
                now => format!(
                    "interrupted; what was compacted by then is committed, as generation {now}; the rest is as it was"
                ),
            })),
            Err(error) => Err(error.into()),
        }
    }

    fn options<'a>(&self) -> CompactOptions<'a> {
        let mut options = if self.all { CompactOptions::all() } else { CompactOptions::default() };
        if let Some(fraction) = self.dead_fraction {
            options = options.dead_fraction(fraction);
        }
        if let Some(fraction) = self.small_fraction {
            options = options.small_fraction(fraction);
        }
        options
    }
}

fn print(printed: &Printed, output: &Output) -> Result {
    output.result(printed, || {
        let Printed { dry_run, generation, done } = *printed;
        if done.segments_removed == 0 {
            return format!("nothing to compact in generation {generation}");
        }
        let (would, now) = match dry_run {
            true => ("would compact", String::new()),
            false => ("compacted", format!("; generation {generation}")),
        };
        format!(
            "{would} {} into {}: {} copied, {} dropped{now}",
            of(done.segments_removed, "segment"),
            count(done.segments_added),
            of(done.rows_copied, "row"),
            count(done.rows_dropped),
        )
    })
}
