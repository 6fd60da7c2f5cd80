//! What `append` and `import` have in common: the flags, where rows go, and what is said at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use gradix::{Existing, Index, Schema};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::ingest::{Ingest, MOST_EXAMPLES, Opener, commit_examples};
use crate::output::Output;
use crate::record::{Found, Record, find};
use crate::target::Target;
use crate::units::of;

/// How rows are appended.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How rows are appended")]
pub struct IntakeArgs {
    /// Go on behind the last commit of an append of the same inputs, or of the first of them
    #[arg(long)]
    resume: bool,
    /// Put rows in the place of those of an example that is there already; not if the same commit has appended it
    #[arg(long, conflicts_with_all = ["skip_existing", "detached"])]
    replace: bool,
    /// Leave examples that are there already as they are; an id that a commit appends twice is an error
    #[arg(long, conflicts_with = "detached")]
    skip_existing: bool,
    /// Commit whenever so many examples are read. Default: 250,000, or fewer if these have more than 4 GiB of codes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    commit_every: Option<u32>,
    /// A text to store with each commit; `gradix log` shows it
    #[arg(long, value_name = "TEXT")]
    payload: Option<String>,
    /// Read and check everything, and append nothing
    #[arg(long)]
    dry_run: bool,
    /// Build parts in this folder, for `gradix attach`, without touching the index
    #[arg(long, value_name = "FOLDER", conflicts_with = "dry_run")]
    detached: Option<PathBuf>,
}

/// Whether a commit after a generation has deleted rows.
fn has_deleted(index: &Path, generation: u64) -> Result<bool> {
    let commits = Index::options().read_only(true).open(index)?.snapshot()?.commits()?;
    Ok(commits.iter().any(|commit| commit.generation > generation && commit.deleted > 0))
}

/// What is appended where.
pub struct Intake<'a> {
    pub index: &'a Path,
    pub paths: &'a [PathBuf],
    pub schema: &'a Schema,
    pub target: Target,
    pub source: Option<&'a str>,
    /// The flags of the command that decide what rows are.
    pub settings: BTreeMap<String, String>,
}

impl IntakeArgs {
    /// The schema of the index, and where rows go to. `new` is given the index, or nothing if there is none: then it may say
    /// what to create.
    pub fn open(
        &self,
        path: &Path,
        output: &Output,
        new: impl FnOnce(Option<&Schema>) -> Result<Option<Schema>>,
    ) -> Result<(Schema, Target)> {
        if let Some(folder) = &self.detached {
            let every = self.commit_every.map_or(MOST_EXAMPLES, |every| every as usize);
            let writer = Target::detached(path, folder, every)?;
            let schema = writer.schema().clone();
            new(Some(&schema))?;
            return Ok((schema, Target::Detached(Box::new(writer))));
        }
        let (schema, snapshot) = match Index::options().read_only(true).open(path) {
            Ok(index) => {
                new(Some(index.schema()))?;
                (index.schema().clone(), Some(index.snapshot()?))
            }
            Err(error) => {
                let is_missing = matches!(error, gradix::OpenError::NotAnIndex { .. });
                let schema = if is_missing { new(None)? } else { None };
                let schema = schema.ok_or_else(|| Failure::from(error).hint_if_missing(path))?;
                if !self.dry_run {
                    Index::create(path, &schema)?;
                    output.note(&format!("created {}: {}", path.display(), schema.spec()));
                }
                (schema, None)
            }
        };
        let every = self.commit_every(&schema);
        let target = match self.dry_run {
            true => Target::dry(snapshot, &schema, every)?,
            false => Target::index(path, every)?,
        };
        Ok((schema, target))
    }

    /// Says that an append was finished by the commit of a number.
    fn tell_finished(
        &self,
        index: &Path,
        found: &Record,
        number: u64,
        is_deleted: bool,
        output: &Output,
    ) -> Result {
        let what = if self.detached.is_some() { "part" } else { "generation" };
        let rows = of(found.rows_in_all, "row");
        let told = json!({
            "index": index, "rows": 0, "rows_in_all": found.rows_in_all, what: number, "deleted_since": is_deleted, "done": true,
        });
        output.result(&told, || match is_deleted {
            false => format!("nothing to do: {rows} appended by {what} {number}"),
            true => format!(
                "nothing is appended again: {rows} appended by {what} {number}, but later commits deleted or replaced some, of \
                 these or of others; with --resume, --skip-existing appends what is gone, and --replace all"
            ),
        })
    }

    fn commit_every(&self, schema: &Schema) -> usize {
        self.commit_every.map_or_else(|| commit_examples(schema), |every| every as usize)
    }

    /// Appends.
    pub fn run(self, intake: Intake<'_>, open: Opener, output: &Output) -> Result {
        let commit_every = self.commit_every(intake.schema);
        let target = intake.target;
        let existing = match (self.replace, self.skip_existing) {
            (true, _) => Existing::Replace,
            (_, true) => Existing::Skip,
            _ => Existing::Refuse,
        };
        let mut record = Record::new(intake.paths, intake.settings, self.payload.clone())?;
        match (find(&target, &record, intake.paths), self.resume) {
            (Ok(Found::Nothing), _) | (Err(_) | Ok(Found::Finished(..)), false) => {}
            (Ok(Found::Unfinished(found)), true) => {
                output.note(&format!("going on behind {} rows, at row {} of {}", found.rows_in_all, found.at.row, found.path));
                record.go_on(*found);
            }
            // It was finished, and there are more inputs now.
            (Ok(Found::Unfinished(found)), false) if found.done => {}
            (Ok(Found::Unfinished(found)), false) => output.note(&format!(
                "note: an append of these inputs was not finished: it reached row {} of {}; --resume goes on there",
                found.at.row, found.path
            )),
            (Ok(Found::Finished(found, number)), true) => {
                let is_deleted = self.detached.is_none() && has_deleted(intake.index, number)?;
                if is_deleted && existing != Existing::Refuse {
                    output.note(&format!(
                        "all rows were appended by generation {number}, and rows were deleted since: reading from the beginning"
                    ));
                } else {
                    return self.tell_finished(intake.index, &found, number, is_deleted, output);
                }
            }
            (Err(failure), true) => return Err(failure),
        }
        let ingest = Ingest {
            paths: intake.paths,
            schema: intake.schema,
            source: intake.source,
            existing,
            commit_every,
            target,
            record,
            uncommitted: 0,
            fresh: std::collections::HashSet::new(),
            pending: crate::ingest::Done::default(),
            done: crate::ingest::Done::default(),
        };
        let done = ingest.run(open, output)?;
        let (is_dry, is_detached) = (self.dry_run, self.detached.is_some());
        let what = if is_detached { "part" } else { "generation" };
        let told = json!({
            "index": intake.index,
            "rows": done.rows,
            "examples": done.examples,
            "replaced": done.replaced,
            "skipped": done.skipped,
            "commits": if is_dry { 0 } else { done.commits },
            what: done.last,
            "inputs": intake.paths.len(),
            "dry_run": is_dry,
            "done": true,
        });
        output.result(&told, || {
            let verb = if is_dry { "would append" } else { "appended" };
            let mut text = format!("{verb} {} of {}", of(done.rows, "row"), of(done.examples, "example"));
            for (number, what) in [(done.replaced, "replaced"), (done.skipped, "skipped")] {
                if number > 0 {
                    text.push_str(&format!(", {} {what}", crate::units::count(number)));
                }
            }
            if !is_dry {
                text.push_str(&format!("; {what} {}", done.last));
            }
            text
        })
    }
}
