//! Where appended rows go: an index, parts for a later attach, or nowhere, to find out what is wrong with them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use gradix::segment::storage::{Storage, StorageBytes, StorageFile};
use gradix::{AppendError, Appended, DetachedWriter, Existing, Index, Row, Schema, Snapshot, Writer};

use crate::failure::{Failure, Result};
use crate::record::Payloads;

/// Takes rows, and commits them.
pub enum Target {
    Index(Box<Writer>),
    Detached(Box<DetachedWriter>),
    Dry(Box<Dry>),
}

/// Checks all that an append would check, and keeps nothing.
pub struct Dry {
    /// The index, if it is there already.
    snapshot: Option<Snapshot>,
    /// Of an index that knows the ids of earlier batches, and whose segments are thrown away.
    writer: Writer,
    _folder: tempfile::TempDir,
}

impl Target {
    /// Of the index, whose commits have at most so many examples.
    pub fn index(path: &Path, commit_examples: usize) -> Result<Self> {
        let index = Index::options().commit_examples(commit_examples).open(path);
        let index = index.map_err(|error| Failure::from(error).hint_if_missing(path))?;
        Ok(Self::Index(Box::new(index.writer()?)))
    }

    /// Of parts in a folder.
    pub fn detached(path: &Path, folder: &Path, commit_examples: usize) -> Result<DetachedWriter> {
        // A copy of the file `INDEX` is enough.
        let file = if path.is_file() { path.to_owned() } else { path.join("INDEX") };
        let writer = Index::options().commit_examples(commit_examples).detached(&file, folder);
        writer.map_err(|error| Failure::from(error).hint_if_missing(path))
    }

    /// Of nothing.
    pub fn dry(snapshot: Option<Snapshot>, schema: &Schema, commit_examples: usize) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Failure::io("make a temporary folder"))?;
        let options = Index::options().commit_examples(commit_examples).storage(Arc::new(Nowhere));
        let writer = options.create(folder.path().join("dry"), schema)?.writer()?;
        Ok(Self::Dry(Box::new(Dry { snapshot, writer, _folder: folder })))
    }

    pub fn append(&mut self, batch: &[(&[u8], &[Row<'_>])], existing: Existing) -> Result<Appended> {
        match self {
            Self::Index(writer) => Ok(writer.append_examples(batch, existing)?),
            Self::Detached(writer) => Ok(writer.append_examples(batch)?),
            Self::Dry(dry) => dry.append(batch, existing),
        }
    }

    /// Whether an example is there, or was appended.
    pub fn contains(&self, id: &[u8]) -> Result<bool> {
        // Of an id that cannot be one, the writer says so when it is appended.
        if id.is_empty() {
            return Ok(false);
        }
        match self {
            Self::Index(writer) => Ok(writer.contains(id)?),
            Self::Detached(_) => Ok(false),
            Self::Dry(dry) => Ok(dry.writer.contains(id)? || dry.is_there(id)?),
        }
    }

    /// Makes what was appended durable, and returns the number of the generation or part.
    pub fn commit(&mut self, payload: Vec<u8>) -> Result<u64> {
        match self {
            Self::Index(writer) => Ok(writer.prepare_commit()?.payload(payload).commit()?.generation),
            Self::Detached(writer) => Ok(writer.finish(payload)?.number),
            Self::Dry(dry) => {
                dry.writer.commit()?;
                Ok(dry.last())
            }
        }
    }
}

impl Payloads for Target {
    fn last(&self) -> u64 {
        match self {
            Self::Index(writer) => writer.generation(),
            Self::Detached(writer) => writer.finished(),
            Self::Dry(dry) => dry.last(),
        }
    }

    fn payload(&self, number: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Index(writer) => Ok(writer.payload(number)?),
            Self::Detached(writer) => Ok(writer.payload(number)?),
            Self::Dry(dry) => match &dry.snapshot {
                Some(snapshot) => Ok(snapshot.payload_of(number)?),
                None => Ok(None),
            },
        }
    }
}

impl Dry {
    fn last(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, Snapshot::generation)
    }

    /// Whether the index has an example.
    fn is_there(&self, id: &[u8]) -> Result<bool> {
        match &self.snapshot {
            // Of an id that cannot be one, the writer says so.
            Some(snapshot) if !id.is_empty() => Ok(snapshot.contains(id)?),
            _ => Ok(false),
        }
    }

    fn append(&mut self, batch: &[(&[u8], &[Row<'_>])], existing: Existing) -> Result<Appended> {
        let mut new = Vec::with_capacity(batch.len());
        let (mut skipped, mut replaced) = (0, 0);
        for &(id, rows) in batch {
            let is_there = self.is_there(id)?;
            match existing {
                Existing::Refuse if is_there => {
                    return Err(AppendError::DuplicateId { id: id.to_owned() }.into());
                }
                Existing::Skip if is_there => skipped += 1,
                Existing::Replace if is_there && !self.writer.contains(id)? => {
                    replaced += 1;
                    new.push((id, rows));
                }
                _ => new.push((id, rows)),
            }
        }
        let mut done = self.writer.append_examples(&new, existing)?;
        done.skipped += skipped;
        done.replaced += replaced;
        Ok(done)
    }
}

/// Takes bytes, and has none.
#[derive(Debug)]
struct Nowhere;

impl Storage for Nowhere {
    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(Self))
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn StorageBytes>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl StorageFile for Nowhere {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
