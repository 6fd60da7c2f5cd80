//! `gradix backup`

use std::path::PathBuf;

use clap::Args;
use gradix::BackupOptions;

use super::open;
use crate::failure::Result;
use crate::interrupt;
use crate::output::Output;
use crate::units::{bytes, of};

/// Copy an index while others write to it
///
/// Makes one generation an index of its own, in a folder that does not exist or is empty: all its rows, artifacts and payloads. Writers go
/// on meanwhile. Each file that is copied is compared with its digest; `gradix verify` reads a backup in full. A backup that is
/// interrupted is no index: remove its folder.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n    gradix backup my.gradix /backup/monday.gradix\n    gradix backup my.gradix before-cleaning.gradix --link"
)]
pub struct Backup {
    /// The index
    index: PathBuf,
    /// The folder of the backup
    to: PathBuf,
    /// Link files in place of copying them: at once and without room, but on the same disk
    #[arg(long)]
    link: bool,
    /// An earlier generation, from `gradix log`; the newest if not given
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
}

impl Backup {
    pub fn run(&self, output: &Output) -> Result {
        let index = open(&self.index)?;
        let snapshot = match self.generation {
            Some(generation) => index.snapshot_at(generation)?,
            None => index.snapshot()?,
        };
        let mut progress = output.progress("backup", "bytes", None);
        let backup = {
            let options = BackupOptions::default().link(self.link).cancel(&interrupt::token()?);
            let options = options.progress(|at| progress.set(at.bytes_done, Some(at.bytes_total)));
            snapshot.backup(&self.to, options)?
        };
        drop(progress);
        output.result(&backup, || {
            format!(
                "{}: generation {}, {}, {}, {}, {}",
                self.to.display(),
                backup.generation,
                of(backup.segments, "segment"),
                of(backup.artifacts, "artifact"),
                of(backup.examples, "example"),
                bytes(backup.bytes)
            )
        })
    }
}
