//! A writer's uncommitted changes.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::manifest::{Batch, ExampleVersion, Location, Manifest, ManifestError};

/// Changes that the next commit will publish. Memory grows with the examples changed since the last commit
/// (an id and about 100 bytes each), not with the index; [`IndexOptions::commit_examples`](super::IndexOptions)
/// bounds their number.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The new location of each changed example; `None` if it is deleted.
    examples: HashMap<Box<[u8]>, Option<Location>>,
    /// Newly dead rows, by segment, in committed and uncommitted segments.
    dead: HashMap<Uuid, RoaringBitmap>,
    pub appended_rows: u64,
    pub deleted_rows: u64,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty() && self.dead.is_empty()
    }

    /// The number of changed examples.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }

    /// The location of an example, including uncommitted changes.
    pub fn find(
        &self,
        manifest: &Manifest,
        generation: u64,
        id: &[u8],
    ) -> Result<Option<Location>, ManifestError> {
        match self.examples.get(id) {
            Some(location) => Ok(*location),
            None => manifest.place(id, generation),
        }
    }

    pub fn append(&mut self, id: &[u8], location: Location) {
        self.appended_rows += u64::from(location.rows);
        self.examples.insert(id.into(), Some(location));
    }

    /// Adds the examples of attached segments, none of which is there already.
    pub fn attach(&mut self, examples: HashMap<Box<[u8]>, Location>) {
        self.examples.reserve(examples.len());
        for (id, location) in examples {
            self.appended_rows += u64::from(location.rows);
            self.examples.insert(id, Some(location));
        }
    }

    /// Marks the example's rows at `location` as dead.
    pub fn delete(&mut self, id: &[u8], location: Location) {
        let rows = location.first_row..location.first_row + location.rows;
        self.dead.entry(location.segment()).or_default().insert_range(rows);
        self.deleted_rows += u64::from(location.rows);
        self.examples.insert(id.into(), None);
    }

    /// Records that compaction has copied the example to `location`.
    pub fn relocate(&mut self, id: &[u8], location: Location) {
        self.examples.insert(id.into(), Some(location));
    }

    /// Adds all changes to the write batch of `generation`.
    pub fn write(
        &self,
        batch: &mut Batch<'_>,
        manifest: &Manifest,
        generation: u64,
        oldest: u64,
    ) -> Result<(), ManifestError> {
        for (id, &location) in &self.examples {
            let mut history = manifest.example(id)?.unwrap_or_default();
            // Appended and deleted since the last commit: no generation contains it.
            if location.is_none() && history.at(generation - 1).is_none() {
                continue;
            }
            history.push(ExampleVersion { generation, location }, oldest);
            batch.put_example(id, &history)?;
            if history.0.len() > 1 {
                batch.put_superseded(generation, id)?;
            }
        }
        for (&segment, dead) in &self.dead {
            let all = manifest.dead(segment, generation - 1)? | dead;
            batch.put_deletes(segment, generation, &all)?;
        }
        Ok(())
    }
}
