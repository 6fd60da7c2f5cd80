//! What a writer has done since its last commit.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::manifest::{Batch, ExampleVersion, Location, Manifest, ManifestError};

/// Changes that a commit will publish. Memory grows with the examples since the last commit
/// (an id and about 100 bytes each), not with the index.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Where each changed example will be; `None` if it will be deleted.
    examples: HashMap<Box<[u8]>, Option<Location>>,
    /// Rows that will be dead, by segment; committed and uncommitted segments alike.
    dead: HashMap<Uuid, RoaringBitmap>,
    pub appended_rows: u64,
    pub deleted_rows: u64,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty() && self.dead.is_empty()
    }

    /// Where an example is, uncommitted changes included.
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

    /// The example's rows at `location` will be dead.
    pub fn delete(&mut self, id: &[u8], location: Location) {
        let rows = location.first_row..location.first_row + location.rows;
        self.dead.entry(location.segment()).or_default().insert_range(rows);
        self.deleted_rows += u64::from(location.rows);
        self.examples.insert(id.into(), None);
    }

    /// The same example, copied by compaction.
    pub fn relocate(&mut self, id: &[u8], location: Location) {
        self.examples.insert(id.into(), Some(location));
    }

    /// Adds everything to the batch that makes `generation`.
    pub fn write(
        &self,
        batch: &mut Batch<'_>,
        manifest: &Manifest,
        generation: u64,
        oldest: u64,
    ) -> Result<(), ManifestError> {
        for (id, &location) in &self.examples {
            let mut history = manifest.example(id)?.unwrap_or_default();
            // Appended and deleted since the last commit: no generation ever saw it.
            if location.is_none() && history.at(generation - 1).is_none() {
                continue;
            }
            history.push(ExampleVersion { generation, location }, oldest);
            batch.put_example(id, &history)?;
        }
        for (&segment, dead) in &self.dead {
            let all = manifest.dead(segment, generation - 1)? | dead;
            batch.put_deletes(segment, generation, &all)?;
        }
        Ok(())
    }
}
