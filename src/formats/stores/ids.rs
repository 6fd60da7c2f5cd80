//! The ids of a store's examples, one after the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::super::FormatError;
use super::super::input::unsupported;
use super::dataset::Column;
use super::{StoreIds, files};
use crate::segment::MAX_ID;

/// The longest line of a file of ids: one of the longest id, and its end.
const LONGEST_LINE: u64 = MAX_ID as u64 + 2;

/// Gives ids to examples in rising order of their numbers.
pub(super) struct Names {
    given: Given,
    /// The number of the example whose id is `id`, plus one.
    read: u64,
    id: Vec<u8>,
}

enum Given {
    Own,
    Pattern(String),
    Column(Box<Column>),
    Lines(PathBuf, BufReader<File>),
}

impl Names {
    /// `dataset` is the folder of a Hugging Face dataset, if the store has one.
    pub fn open(ids: &StoreIds, store: &Path, dataset: Option<&Path>) -> Result<Self, FormatError> {
        let given = match ids {
            StoreIds::Own => Given::Own,
            StoreIds::Pattern(pattern) if pattern.contains("{id}") => Given::Pattern(pattern.clone()),
            StoreIds::Pattern(pattern) => {
                let what = format!("the pattern {pattern:?} of the ids has no {{id}}: all would be the same");
                return Err(unsupported(store, what));
            }
            StoreIds::Column(name) => {
                let none = || unsupported(store, "a store of this kind has no dataset with columns");
                Given::Column(Box::new(Column::open(dataset.ok_or_else(none)?, name)?))
            }
            StoreIds::File(path) => Given::Lines(path.clone(), files::open_buffered(path)?),
        };
        Ok(Self { given, read: 0, id: Vec::new() })
    }

    /// The id of an example, whose number is that of the call before or higher.
    pub fn of(&mut self, number: u64, own: &[u8]) -> Result<&[u8], FormatError> {
        match &mut self.given {
            Given::Own => {
                self.id.clear();
                self.id.extend_from_slice(own);
            }
            Given::Pattern(pattern) => {
                self.id = pattern.replace("{id}", &String::from_utf8_lossy(own)).into_bytes();
            }
            Given::Column(_) | Given::Lines(..) => {
                while self.read <= number {
                    self.next()?;
                }
            }
        }
        Ok(&self.id)
    }

    fn next(&mut self) -> Result<(), FormatError> {
        if !self.try_next()? {
            let what = format!("there are {} ids, and more examples", self.read);
            return Err(unsupported(self.path(), what));
        }
        Ok(())
    }

    fn try_next(&mut self) -> Result<bool, FormatError> {
        let is_there = match &mut self.given {
            Given::Own | Given::Pattern(_) => true,
            Given::Column(column) => column.next(&mut self.id)?,
            Given::Lines(path, lines) => {
                self.id.clear();
                let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut self.id);
                let length = read.map_err(|source| files::io_error(path, "read", source))?;
                if self.id.last() == Some(&b'\n') {
                    self.id.pop();
                    self.id.pop_if(|last| *last == b'\r');
                } else if length as u64 == LONGEST_LINE {
                    let what = format!("line {} is too long for an id", self.read + 1);
                    return Err(unsupported(path, what));
                }
                length > 0
            }
        };
        self.read += u64::from(is_there);
        Ok(is_there)
    }

    /// Checks after the last of `examples` that no id is left: the ids would be those of something else.
    pub fn finish(&mut self, examples: u64) -> Result<(), FormatError> {
        if matches!(self.given, Given::Own | Given::Pattern(_)) {
            return Ok(());
        }
        while self.read < examples {
            self.next()?;
        }
        if self.try_next()? {
            let what = format!("there are more ids than the {examples} examples of the store");
            return Err(unsupported(self.path(), what));
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        match &self.given {
            Given::Own | Given::Pattern(_) => Path::new(""),
            Given::Column(column) => column.path(),
            Given::Lines(path, _) => path,
        }
    }
}
