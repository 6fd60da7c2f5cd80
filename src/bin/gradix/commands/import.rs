//! `gradix import`

use std::path::PathBuf;

use clap::Args;
use gradix::formats::stores::{Store, StoreIds, StoreOptions, open_store};

use crate::failure::{Failure, Result};
use crate::ingest::Opener;
use crate::intake::{Intake, IntakeArgs};
use crate::output::Output;
use crate::schema::StorageArgs;

/// Import the gradients of another package's store
///
/// Appends all rows of a store. The index is created, with the store's own description of its projection as its spec, unless
/// it is there; then its spec must be that of the store. Nothing of a store is executed. What `gradix append --help` says of
/// commits, --resume and Ctrl-C holds here too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix import bergson runs/train my.gradix --encoding i8 --tier sign
    gradix import logix logix-run my.gradix --resume
    gradix import rapidin caches/rapidgrad my.gradix --ids train-ids.txt
    gradix import less grads/ckpt105 my.gradix --part dim8192 --ids 'ckpt105/{id}'")]
pub struct Import {
    /// The package: bergson, logix, rapidin or less
    store: Store,
    /// The store, a folder or a file
    path: PathBuf,
    /// The index
    index: PathBuf,
    /// Ids in place of the store's own: a pattern with {id} for these, or a text file with one a line
    #[arg(long, value_name = "FILE|PATTERN", conflicts_with = "id_column")]
    ids: Option<String>,
    /// The column of bergson's dataset that has ids
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// Which of several parts is read, where a store has more than one
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// A source label for all rows
    #[arg(long, value_name = "LABEL")]
    source: Option<String>,
    #[command(flatten)]
    intake: IntakeArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

impl Import {
    pub fn run(self, output: &Output) -> Result {
        let mut options = StoreOptions::default();
        match (&self.ids, &self.id_column) {
            (Some(ids), _) if ids.contains('{') => options = options.ids(StoreIds::Pattern(ids.clone())),
            (Some(ids), _) => options = options.ids(StoreIds::File(ids.into())),
            (None, Some(column)) => options = options.ids(StoreIds::Column(column.clone())),
            (None, None) => {}
        }
        if let Some(part) = &self.part {
            options = options.part(part);
        }
        let source = open_store(self.store, &self.path, &options)?;
        let (schema, target) = self.intake.open(&self.index, output, |found| {
            let new = self.storage.schema(source.spec().clone())?;
            match found {
                Some(found) if found.spec() != new.spec() => Err(Failure::Wrong(format!(
                    "{} has other rows than {}: {}; the store has {}",
                    self.index.display(),
                    self.path.display(),
                    found.spec(),
                    new.spec()
                ))),
                Some(found) if self.storage.is_given() && *found != new => Err(Failure::Usage(format!(
                    "{} is there already, with other encodings or tiers; leave these flags out",
                    self.index.display()
                ))),
                _ => Ok(Some(new)),
            }
        })?;
        let settings =
            [("store", Some(self.store.to_string())), ("ids", self.ids), ("id-column", self.id_column)];
        let more = [("part", self.part), ("source", self.source.clone())];
        let settings = settings.into_iter().chain(more);
        let mut source = Some(source);
        let open: Opener =
            Box::new(move |_| source.take().ok_or_else(|| Failure::Usage("a store is read once".into())));
        let intake = Intake {
            index: &self.index,
            paths: std::slice::from_ref(&self.path),
            schema: &schema,
            target,
            source: self.source.as_deref(),
            settings: settings.filter_map(|(flag, value)| Some((flag.to_owned(), value?))).collect(),
        };
        self.intake.run(intake, open, output)
    }
}
