//! `gradix select`

mod by_source;
mod coreset;
mod duplicates;
mod self_influence;
mod tasks;

use clap::{Args, Subcommand};
use gradix::{CancelToken, Scan, ScanError, Snapshot};

use super::At;
use crate::failure::Result;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::queries::{Queries, QueryArgs};
use crate::scoring::{Filters, Scoring};

/// Choose examples: for training, for review, or to leave out
#[derive(Debug, Args)]
pub struct Select {
    #[command(subcommand)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum How {
    BySource(by_source::BySource),
    Coreset(coreset::Coreset),
    Duplicates(duplicates::Duplicates),
    In2core(tasks::In2core),
    Less(tasks::Less),
    SelfInfluence(self_influence::SelfInfluence),
}

impl Select {
    pub fn run(&self, output: &Output) -> Result {
        match &self.how {
            How::BySource(how) => how.run(output),
            How::Coreset(how) => how.run(output),
            How::Duplicates(how) => how.run(output),
            How::In2core(how) => how.run(output),
            How::Less(how) => how.run(output),
            How::SelfInfluence(how) => how.run(output),
        }
    }
}

/// What is scanned, for which queries.
#[derive(Debug, Args)]
struct ScanArgs {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    queries: QueryArgs,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    filters: Filters,
}

/// A snapshot, and what it is asked.
struct Asked<'a> {
    args: &'a ScanArgs,
    snapshot: Snapshot,
    queries: Queries,
    cancel: CancelToken,
}

impl ScanArgs {
    fn asked(&self) -> Result<Asked<'_>> {
        let cancel = interrupt::token()?;
        let snapshot = self.at.snapshot()?;
        let queries = self.queries.all(&snapshot, &cancel)?;
        Ok(Asked { args: self, snapshot, queries, cancel })
    }
}

impl Asked<'_> {
    /// The scan of a command that makes one, with its progress.
    fn scan<'s>(&'s self, progress: &'s mut Progress) -> Result<Scan<'s>> {
        let scan = self.args.filters.read()?.configure(self.bare()?);
        Ok(scan.progress(|at| progress.set(at.rows_done, Some(at.rows_total))))
    }

    /// A scan of all rows.
    fn bare(&self) -> Result<Scan<'_>, ScanError> {
        Ok(self.args.scoring.configure(self.snapshot.scan(&self.queries.sketches)?.cancel(&self.cancel)))
    }
}
