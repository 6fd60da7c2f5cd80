//! `gradix ls`

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;

use clap::Args;
use gradix::{CancelToken, Snapshot};
use serde_json::json;

use super::At;
use crate::failure::{Failure, Result};
use crate::id::{self, Id};
use crate::interrupt;
use crate::output::Output;
use crate::table::{Column, Table};
use crate::units::count;

/// List the ids of the examples
///
/// Prints the ids in byte order, one on a line. A byte that is not text is shown as \xNN, a backslash as two; ids on a
/// command line are written in the same way. With --json, each line is an object.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix ls my.gradix | wc -l
    gradix ls my.gradix --prefix wiki/ --long
    gradix ls my.gradix --from 2026-01 --to 2026-02 --json
    gradix ls my.gradix --sources")]
pub struct Ls {
    #[command(flatten)]
    at: At,
    /// Only ids that begin with this
    #[arg(long, value_name = "ID")]
    prefix: Option<Id>,
    /// Only ids from this one on
    #[arg(long, value_name = "ID", conflicts_with = "prefix")]
    from: Option<Id>,
    /// Only ids below this one
    #[arg(long, value_name = "ID", conflicts_with = "prefix")]
    to: Option<Id>,
    /// Say how many rows each example has, and their sources; examples are in row order then
    #[arg(long, short)]
    long: bool,
    /// Count the rows and examples of each source instead
    #[arg(long, conflicts_with_all = ["prefix", "from", "to", "long"])]
    sources: bool,
}

impl Ls {
    pub fn run(&self, output: &Output) -> Result {
        let snapshot = self.at.snapshot()?;
        if self.sources {
            return sources(&snapshot, output);
        }
        let cancel = interrupt::token()?;
        output.stream(|out| match self.long {
            true => self.long(&snapshot, &cancel, output, out),
            false => self.ids(&snapshot, &cancel, output, out),
        })
    }

    fn ids(
        &self,
        snapshot: &Snapshot,
        cancel: &CancelToken,
        output: &Output,
        out: &mut dyn io::Write,
    ) -> Result {
        let start = self.from.as_ref().map_or(Bound::Unbounded, |id| Bound::Included(&id.0));
        let end = self.to.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.0));
        let ids = match &self.prefix {
            Some(prefix) => snapshot.ids_with_prefix(&prefix.0),
            None => snapshot.ids_in::<Vec<u8>>((start, end)),
        };
        for id in ids {
            interrupt::check(cancel)?;
            let id = id?;
            match output.is_json() {
                true => output.line(out, &json!({"id": id::json(&id)}))?,
                false => writeln!(out, "{}", id::shown(&id)).map_err(Failure::stdout)?,
            }
        }
        Ok(())
    }

    fn lists(&self, id: &[u8]) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| id.starts_with(&prefix.0))
            && self.from.as_ref().is_none_or(|from| id >= &from.0[..])
            && self.to.as_ref().is_none_or(|to| id < &to.0[..])
    }

    /// Rows are read in their order, in which those of an example are adjacent.
    fn long(
        &self,
        snapshot: &Snapshot,
        cancel: &CancelToken,
        output: &Output,
        out: &mut dyn io::Write,
    ) -> Result {
        let mut table = Table::new([Column::number("rows"), Column::text("sources"), Column::text("id")]);
        let mut print = |listed: Listed, out: &mut dyn io::Write| match output.is_json() {
            true => {
                let Listed { id, rows, sources } = listed;
                output.line(out, &json!({"id": id::json(&id), "rows": rows, "sources": sources}))
            }
            false => table.row(out, listed.cells()).map_err(Failure::stdout),
        };
        let mut open: Option<Listed> = None;
        for row in snapshot {
            interrupt::check(cancel)?;
            let row = row?;
            if open.as_ref().is_none_or(|open| open.id != row.id)
                && let Some(done) = open.replace(Listed { id: row.id, rows: 0, sources: BTreeSet::new() })
                && self.lists(&done.id)
            {
                print(done, out)?;
            }
            if let Some(open) = &mut open {
                open.rows += 1;
                open.sources.extend(row.source);
            }
        }
        if let Some(done) = open.filter(|done| self.lists(&done.id)) {
            print(done, out)?;
        }
        if output.is_json() { Ok(()) } else { table.flush(out).map_err(Failure::stdout) }
    }
}

/// An example as `--long` shows it.
struct Listed {
    id: Vec<u8>,
    rows: u64,
    sources: BTreeSet<String>,
}

impl Listed {
    fn cells(&self) -> Vec<String> {
        let sources: Vec<String> = self.sources.iter().map(|source| id::shown(source.as_bytes())).collect();
        vec![self.rows.to_string(), sources.join(","), id::shown(&self.id)]
    }
}

fn sources(snapshot: &Snapshot, output: &Output) -> Result {
    let sources = snapshot.sources()?;
    output.stream(|out| {
        if output.is_json() {
            return sources.iter().try_for_each(|source| output.line(out, source));
        }
        let mut table =
            Table::new([Column::number("rows"), Column::number("examples"), Column::text("source")]);
        for found in &sources {
            let source =
                found.source.as_deref().map_or("(none)".into(), |source| id::shown(source.as_bytes()));
            table
                .row(out, vec![count(found.rows), count(found.examples), source])
                .map_err(Failure::stdout)?;
        }
        table.flush(out).map_err(Failure::stdout)
    })
}
