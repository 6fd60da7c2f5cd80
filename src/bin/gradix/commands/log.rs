//! `gradix log`

use std::io;

use clap::Args;
use gradix::{LoggedCommit, Snapshot};
use serde::Serialize;
use serde_json::Value;

use super::At;
use crate::failure::{Failure, Result};
use crate::id;
use crate::output::Output;
use crate::table::{Column, Table};
use crate::units::{count, time};

/// The bytes of a payload that the table shows.
const SHOWN: usize = 400;

/// List the commits
///
/// Prints the commits that have not been collected, the newest first: when they were made (UTC), the rows that came and went,
/// the segments, and the payload that the writer left. Each generation in the list can be read with --generation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix log my.gradix
    gradix log my.gradix -n 5
    gradix log my.gradix --json | jq -r .payload")]
pub struct Log {
    #[command(flatten)]
    at: At,
    /// Only so many
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<usize>,
}

/// What `--json` prints of a commit.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    commit: LoggedCommit,
    payload: Value,
}

impl Log {
    pub fn run(&self, output: &Output) -> Result {
        let snapshot = self.at.snapshot()?;
        let mut commits = snapshot.commits()?;
        commits.reverse();
        commits.truncate(self.limit.unwrap_or(usize::MAX));
        output.stream(|out| match output.is_json() {
            true => commits.iter().try_for_each(|&commit| {
                let payload = id::json(&payload(&snapshot, &commit)?);
                output.line(out, &Printed { commit, payload })
            }),
            false => table(&snapshot, &commits, out),
        })
    }
}

fn payload(snapshot: &Snapshot, commit: &LoggedCommit) -> Result<Vec<u8>> {
    Ok(snapshot.payload_of(commit.generation)?.unwrap_or_default())
}

fn table(snapshot: &Snapshot, commits: &[LoggedCommit], out: &mut dyn io::Write) -> Result {
    let mut table = Table::new([
        Column::number("generation"),
        Column::text("time"),
        Column::number("appended"),
        Column::number("deleted"),
        Column::number("segments"),
        Column::text("payload"),
    ]);
    for commit in commits {
        let mut payload = payload(snapshot, commit)?;
        let is_cut = payload.len() > SHOWN;
        payload.truncate(SHOWN);
        let segments = match commit.segments_removed {
            0 => format!("+{}", commit.segments_added),
            removed => format!("+{} -{removed}", commit.segments_added),
        };
        let cells = vec![
            commit.generation.to_string(),
            time(commit.time_ms),
            count(commit.appended),
            count(commit.deleted),
            segments,
            id::shown(&payload) + if is_cut { "…" } else { "" },
        ];
        table.row(out, cells).map_err(Failure::stdout)?;
    }
    table.flush(out).map_err(Failure::stdout)
}
