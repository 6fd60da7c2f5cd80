//! `gradix delete`

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use gradix::{Index, Snapshot};
use serde_json::json;

use super::{check, open};
use crate::failure::{Failure, Result};
use crate::id::{self, Id};
use crate::interrupt;
use crate::output::Output;
use crate::scoring;
use crate::units::of;

/// Delete examples
///
/// Deletes examples with all their rows, in one commit: all that were named, or none. Rows take their place on disk until
/// `gradix compact` and `gradix gc`; earlier generations still show them.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
#[command(after_help = "Examples:
    gradix delete my.gradix wiki/17 wiki/18
    gradix delete my.gradix --ids-from takedown.txt --missing-ok
    gradix delete my.gradix --prefix wiki/ --dry-run
    gradix ls my.gradix --prefix tmp/ | gradix delete my.gradix --ids-from -")]
pub struct Delete {
    /// The index
    index: PathBuf,
    /// Ids, as `gradix ls` prints them
    #[arg(group = "what")]
    ids: Vec<Id>,
    /// A file with an id on each line, as `gradix ls` prints them; - is stdin
    #[arg(long, value_name = "FILE", group = "what")]
    ids_from: Option<PathBuf>,
    /// All examples whose ids begin with this
    #[arg(long, value_name = "ID", group = "what")]
    prefix: Option<Id>,
    /// All examples that have a row with this source label
    #[arg(long, value_name = "LABEL", group = "what")]
    source: Option<String>,
    /// Pass over ids that are not there
    #[arg(long)]
    missing_ok: bool,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

impl Delete {
    pub fn run(self, output: &Output) -> Result {
        let token = interrupt::token()?;
        if self.prefix.as_ref().is_some_and(|prefix| prefix.0.is_empty()) {
            return Err(Failure::Usage("an empty --prefix is that of all examples".into()));
        }
        let index = if self.dry_run {
            open(&self.index)?
        } else {
            Index::open(&self.index).map_err(|error| Failure::from(error).hint_if_missing(&self.index))?
        };
        // Before the snapshot, so that nothing is appended in between.
        let mut writer = if self.dry_run { None } else { Some(index.writer()?) };
        let snapshot = index.snapshot()?;
        let named = self.named()?;
        let mut missing = BTreeSet::new();
        for id in &named {
            if !snapshot.contains(id)? {
                missing.insert(id.clone());
            }
        }
        if let (Some(first), false) = (missing.first(), self.missing_ok) {
            let error = gradix::AppendError::NotFound { id: first.clone() };
            let others = if missing.len() > 1 {
                format!(" ({} ids are not there)", missing.len())
            } else {
                String::new()
            };
            return Err(
                Failure::from(error).and(format!("--missing-ok passes over it{others}; nothing was deleted"))
            );
        }
        let mut ids: BTreeSet<Vec<u8>> = named.difference(&missing).cloned().collect();
        self.found(&snapshot, &mut ids)?;
        check(&token)?;
        let (mut rows, mut generation) = (0, snapshot.generation());
        match &mut writer {
            Some(writer) if !ids.is_empty() => {
                for id in &ids {
                    check(&token)?;
                    writer.delete(id)?;
                }
                let commit = writer.commit()?;
                (rows, generation) = (commit.deleted, commit.generation);
            }
            Some(_) => {}
            None => {
                for row in &snapshot {
                    check(&token)?;
                    rows += u64::from(ids.contains(&row?.id));
                }
            }
        }
        let missing: Vec<_> = missing.iter().map(|id| id::json(id)).collect();
        let told = json!({
            "index": self.index, "examples": ids.len(), "rows": rows, "missing": missing, "generation": generation, "dry_run": self.dry_run,
        });
        output.result(&told, || {
            let verb = if self.dry_run { "would delete" } else { "deleted" };
            let mut text = format!("{verb} {} of {}", of(rows, "row"), of(ids.len() as u64, "example"));
            if !missing.is_empty() {
                text.push_str(&format!("; {} not there", of(missing.len() as u64, "id")));
            }
            if !self.dry_run {
                text.push_str(&format!("; generation {generation}"));
            }
            text
        })
    }

    /// The ids that were named one by one.
    fn named(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut named: BTreeSet<_> = self.ids.iter().map(|id| id.0.clone()).collect();
        if let Some(path) = &self.ids_from {
            named.extend(scoring::ids(path)?);
        }
        Ok(named)
    }

    /// Adds the examples of a prefix and of a source.
    fn found(&self, snapshot: &Snapshot, ids: &mut BTreeSet<Vec<u8>>) -> Result {
        if let Some(prefix) = &self.prefix {
            for id in snapshot.ids_with_prefix(&prefix.0) {
                ids.insert(id?);
            }
        }
        if let Some(source) = &self.source {
            for row in snapshot {
                let row = row?;
                if row.source.as_ref() == Some(source) {
                    ids.insert(row.id);
                }
            }
        }
        Ok(())
    }
}
