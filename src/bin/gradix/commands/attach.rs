//! `gradix attach`

use std::path::PathBuf;

use clap::Args;
use gradix::{Attach as How, Index};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::units::of;

/// Attach parts that were built apart
///
/// Takes what `gradix append --detached` or a detached writer has finished into the index, in one commit: all folders, or
/// none. Checks that the parts were built for this index, that their files are what their builder wrote, and that no
/// example is there already.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix attach my.gradix /out/7 --dry-run
    gradix attach my.gradix /out/* --move
    gradix attach my.gradix /mnt/gpu-1/parts --copy")]
pub struct Attach {
    /// The index
    index: PathBuf,
    /// Folders with parts, or folders of single parts
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Link the files: the parts stay, and nobody may write to them any more (default)
    #[arg(long, conflicts_with_all = ["move_files", "copy"])]
    link: bool,
    /// Link the files, and remove the parts when the commit is durable
    #[arg(long = "move", conflicts_with = "copy")]
    move_files: bool,
    /// Copy the files, as from another file system
    #[arg(long)]
    copy: bool,
    /// Check everything, and attach nothing
    #[arg(long)]
    dry_run: bool,
    /// A text to store with the commit; `gradix log` shows it
    #[arg(long, value_name = "TEXT", default_value = "")]
    payload: String,
}

impl Attach {
    pub fn run(self, output: &Output) -> Result {
        let index =
            Index::open(&self.index).map_err(|error| Failure::from(error).hint_if_missing(&self.index))?;
        let how = match (self.move_files, self.copy) {
            // A move that is not committed is a link.
            (true, _) => How::Move,
            (_, true) => How::Copy,
            _ => How::Link,
        };
        let mut writer = index.writer()?;
        let mut parts = Vec::new();
        for folder in &self.folders {
            let what = || format!("attach {}", folder.display());
            std::fs::metadata(folder).map_err(|source| Failure::Io { what: what(), source })?;
            let attached = writer.attach(folder, how).map_err(|error| {
                let is_link = how != How::Copy;
                let failure = Failure::from(error).at(folder.display().to_string());
                let advice = "nothing was attached";
                let copy =
                    if is_link { "; --copy does without links, as from another file system" } else { "" };
                failure.and(format!("{advice}{copy}"))
            })?;
            parts.extend(attached.parts);
        }
        let rows: u64 = parts.iter().map(gradix::Part::rows).sum();
        let examples: u64 = parts.iter().map(gradix::Part::examples).sum();
        let generation = match self.dry_run {
            true => {
                writer.abort()?;
                writer.generation()
            }
            false => writer.prepare_commit()?.payload(self.payload).commit()?.generation,
        };
        let folders: Vec<_> = parts.iter().map(|part| &part.path).collect();
        let told = json!({
            "index": self.index, "parts": folders, "rows": rows, "examples": examples, "generation": generation,
            "dry_run": self.dry_run,
        });
        output.result(&told, || {
            let verb = if self.dry_run { "would attach" } else { "attached" };
            let text = format!(
                "{verb} {} of {} in {}",
                of(rows, "row"),
                of(examples, "example"),
                of(parts.len() as u64, "part")
            );
            if self.dry_run { text } else { format!("{text}; generation {generation}") }
        })
    }
}
