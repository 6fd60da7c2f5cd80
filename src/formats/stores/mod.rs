//! The stores that other packages keep their gradients in: bergson, LogIX, RapidIn and LESS.
//!
//! [`open_store`] reads one as a [`RowSource`]. Nothing of it is executed: `.pt` files are read without unpickling.
//! Each package projects with a generator of its own, so the spec of a store is dense: its name is the package's, and
//! its digest says in words what the store says of its projection and of what was done to the rows. Sketches that
//! gradix makes never meet them; queries must come from the same package with the same settings.
//!
//! ```no_run
//! use gradix::formats::stores::{Store, StoreIds, StoreOptions, open_store};
//! use gradix::formats::{Batch, RowSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = StoreOptions::default().ids(StoreIds::Column("doc".into()));
//! let mut rows = open_store(Store::Bergson, "runs/train", &options)?;
//! println!("{:?} rows: {}", rows.rows(), rows.spec());
//! let mut batch = Batch::default();
//! rows.read(64, &mut batch)?; // the first 64 rows, each with its id
//! # Ok(())
//! # }
//! ```

mod bergson;
mod dataset;
mod files;
mod ids;
mod less;
mod logix;
mod numbers;
mod rapidin;
mod settings;
mod torch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{FormatError, RowSource};

/// The packages whose stores can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Store {
    /// A folder with `gradients.bin` and `info.json`.
    Bergson,
    /// A folder with `log_rank_*_chunk_*.mmap` and `log_rank_*_chunk_*_metadata.json`.
    Logix,
    /// A folder with `train_grad_K*_*.pt` (or `train_grad_*.pt`, gradients that are not folded), one for each example.
    RapidIn,
    /// A folder with `all_orig.pt` or `all_unormalized.pt`, or such a file.
    Less,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bergson, Self::Logix, Self::RapidIn, Self::Less];

    /// Its name: `bergson`, `logix`, `rapidin` or `less`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bergson => "bergson",
            Self::Logix => "logix",
            Self::RapidIn => "rapidin",
            Self::Less => "less",
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Store {
    type Err = UnknownStore;

    /// Of its name, in small letters.
    fn from_str(name: &str) -> Result<Self, UnknownStore> {
        let known = Self::ALL.into_iter().find(|store| store.name() == name);
        known.ok_or_else(|| UnknownStore { name: name.into() })
    }
}

/// A name that no [`Store`] has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a store; there are {}", Store::ALL.map(Store::name).join(", "))]
pub struct UnknownStore {
    /// The name.
    pub name: String,
}

/// Where the ids of a store's examples come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreIds {
    /// What the store itself calls them: LogIX's data ids; RapidIn's numbers in the names of its files, without zeros
    /// in front; otherwise the number of the example in the store, from 0.
    #[default]
    Own,
    /// A text that has the store's own id in the place of each `{id}`.
    Pattern(String),
    /// A column of texts, bytes or integers of the dataset that bergson keeps beside its gradients.
    Column(String),
    /// A text file with a line for each example, in the store's order; for RapidIn, the line of the number in the
    /// file's name, from 0.
    File(PathBuf),
}

/// What of a store is read, and how its examples are called.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct StoreOptions {
    ids: StoreIds,
    part: Option<String>,
}

impl StoreOptions {
    /// Where the ids come from: [`StoreIds::Own`] unless it is said.
    pub fn ids(mut self, ids: StoreIds) -> Self {
        self.ids = ids;
        self
    }

    /// Which of several parts is read, where a path leads to more than one: a folder below it (bergson, LESS), the
    /// name of a file without `.pt` (LESS), both with a `/` between them, or the dims (RapidIn).
    pub fn part(mut self, part: impl Into<String>) -> Self {
        self.part = Some(part.into());
        self
    }
}

/// Opens a store at a folder (or file, with LESS).
///
/// # Errors
/// The store is not there, is not finished, is damaged or cut off, or holds what cannot become rows.
pub fn open_store(
    store: Store,
    path: impl AsRef<Path>,
    options: &StoreOptions,
) -> Result<Box<dyn RowSource>, FormatError> {
    let path = path.as_ref();
    match store {
        Store::Bergson => Ok(Box::new(bergson::Bergson::open(path, options)?)),
        Store::Logix => Ok(Box::new(logix::Logix::open(path, options)?)),
        Store::RapidIn => Ok(Box::new(rapidin::RapidIn::open(path, options)?)),
        Store::Less => Ok(Box::new(less::Less::open(path, options)?)),
    }
}
