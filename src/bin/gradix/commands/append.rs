//! `gradix append`

use std::path::PathBuf;

use clap::Args;
use gradix::formats::RowSource;

use crate::failure::{Failure, Result};
use crate::ingest::Opener;
use crate::inputs::{ReadArgs, check_blocks, expand, is_stream};
use crate::intake::{Intake, IntakeArgs};
use crate::output::Output;
use crate::schema::SchemaArgs;

/// Append vectors from files
///
/// Reads safetensors, npy, npz, Arrow IPC and Parquet, and appends a row for each vector. Neighbouring rows of an input with
/// one id are one example's rows. Rows become durable commit by commit: what was committed stays, whatever happens later. An
/// error says which input and row is wrong, and what is committed. Ctrl-C commits what was read until then.
///
/// An append that was killed goes on behind its last commit when it is given again with --resume, which does no harm where
/// there is nothing to go on with, or where all was appended. Inputs and flags must be the same, but that more inputs may
/// stand behind them; an input that has another length, or other bytes at its ends, is an error. Where all
/// was appended and later commits deleted rows, nothing is appended again, unless --skip-existing or --replace is given too.
/// A finished append of a stream is never taken for that of the next one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix append my.gradix gradients.npy --ids '{stem}/{row}'
    gradix append my.gradix 'shards/*.safetensors' --resume
    gradix append my.gradix rows.parquet --id-column uid --source-column corpus --metadata url,license
    gradix append new.gradix a.npz --create --encoding i8 --tier sign
    make-vectors | gradix append my.gradix - --format npy --ids 'night/{row}'
    gradix append my.gradix nightly.arrow --skip-existing --payload 'night of the 3rd'
    gradix append my.gradix/INDEX shard-7.npy --ids '{stem}/{row}' --detached /out/7")]
pub struct Append {
    /// The index; for --detached a copy of its file INDEX will do
    index: PathBuf,
    /// Files of vectors, or patterns of their names (in quotes); - is stdin
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    intake: IntakeArgs,
    /// Create the index if it is not there; the first input says what flags do not
    #[arg(long, help_heading = "The new index", conflicts_with = "detached")]
    create: bool,
    #[command(flatten)]
    new: SchemaArgs,
}

impl Append {
    pub fn run(self, output: &Output) -> Result {
        let paths = expand(&self.inputs)?;
        self.read.check(paths.len())?;
        let Some(first) = paths.first() else { return Err(Failure::Usage("no inputs".into())) };
        if self.new.is_given() && !self.create {
            return Err(Failure::Usage("flags for a new index are for --create only".into()));
        }
        let mut opened = None;
        let (schema, target) = self.intake.open(&self.index, output, |found| {
            if !self.create || (found.is_some() && !self.new.is_given()) {
                return Ok(None);
            }
            let input: &dyn RowSource = &**opened.insert(self.read.open_shape(first)?);
            let new = self.new.schema(Some(input))?;
            match found {
                Some(found) if *found != new => Err(Failure::Usage(format!(
                    "{} is there already, with another schema: {}; leave out the flags for a new index",
                    self.index.display(),
                    found.spec()
                ))),
                _ => Ok(Some(new)),
            }
        })?;
        // A stream cannot be opened twice.
        let mut opened = opened.filter(|_| is_stream(first));
        let spec = schema.spec().clone();
        let (own, read) = (paths.clone(), self.read.clone());
        let open: Opener = Box::new(move |input| match opened.take() {
            Some(source) => check_blocks(&own[input], source, &spec),
            None => read.open_for(&own[input], &spec),
        });
        let intake = Intake {
            index: &self.index,
            paths: &paths,
            schema: &schema,
            target,
            source: self.read.source.as_deref(),
            settings: self.read.settings().map(|(flag, value)| (flag.to_owned(), value)).collect(),
        };
        self.intake.run(intake, open, output)
    }
}
