//! Which generations can be read: the manifest as it was opened, what of it was acknowledged, and which
//! generations snapshots of this process pin.
//!
//! A generation that is in the manifest's log but was not acknowledged may be taken back by a power cut, and
//! another one then takes its number. So readers show at most the generation that `COMMITTED` names; the next
//! writer settles what becomes of a later one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use uuid::Uuid;

use super::error::SnapshotError;
use super::{MANIFEST, Shared, committed};
use crate::lock::lock;
use crate::manifest::{Manifest, ManifestError, StateRecord};
use crate::segment::Identity;

/// An open manifest, and what of it can be read.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub manifest: Arc<Manifest>,
    /// What `COMMITTED` said just after the manifest was opened. `None` if it is the manifest of this process's
    /// writer, whose state is in [`Horizon::written`].
    acknowledged: Option<u64>,
}

impl View {
    /// Opens the manifest for reading.
    pub fn open(folder: &Path, identity: &Identity) -> Result<Self, ManifestError> {
        // Before and after: a writer may commit in between.
        let before = committed::read(folder)?;
        let manifest = Manifest::open_reader(&folder.join(MANIFEST))?;
        check_identity(&manifest, folder, identity)?;
        manifest.holds(before)?;
        let acknowledged = committed::read(folder)?;
        committed::check(folder, acknowledged, &manifest.state()?)?;
        Ok(Self { manifest: Arc::new(manifest), acknowledged: Some(acknowledged) })
    }

    /// The view of the writer whose manifest this is.
    pub fn of_writer(manifest: &Arc<Manifest>) -> Self {
        Self { manifest: Arc::clone(manifest), acknowledged: None }
    }

    /// Whether it shows what is in the folder now.
    pub fn is_current(&self, folder: &Path) -> bool {
        match self.acknowledged {
            None => true,
            Some(seen) => self.manifest.is_current() && committed::read(folder).is_ok_and(|now| now == seen),
        }
    }

    /// Whether its state never changes.
    pub fn is_fixed(&self) -> bool {
        self.acknowledged.is_some()
    }
}

/// Checks that a manifest is that of an index. Whenever it is opened: a folder can be replaced meanwhile.
pub(super) fn check_identity(
    manifest: &Manifest,
    folder: &Path,
    identity: &Identity,
) -> Result<(), ManifestError> {
    let (record, path) = (manifest.index()?, || folder.join(MANIFEST));
    if record.index != identity.index.into_bytes() {
        let (found, expected) = (Uuid::from_bytes(record.index), identity.index);
        return Err(ManifestError::Foreign { path: path(), found, expected });
    }
    if record.schema_digest != identity.schema_digest {
        return Err(ManifestError::OtherSchema { path: path() });
    }
    Ok(())
}

/// What the writer of this process has made readable, and what its snapshots hold on to. Both change under one
/// lock: so a generation is pinned before it is collected, or not readable any more when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    /// The newest acknowledged and the oldest kept generation of the open writer.
    pub written: Option<StateRecord>,
    /// The number of snapshots that pin each generation.
    pins: BTreeMap<u64, usize>,
}

impl Horizon {
    /// The oldest generation that a snapshot pins.
    pub fn pinned(&self) -> Option<u64> {
        self.pins.keys().next().copied()
    }
}

/// Keeps a generation from being collected by this process.
pub(super) struct Pin {
    shared: Arc<Shared>,
    pub generation: u64,
}

impl Pin {
    /// Pins the newest generation of a view, or the one that was asked for.
    pub fn new(shared: &Arc<Shared>, view: &View, asked: Option<u64>) -> Result<Self, SnapshotError> {
        let state = view.manifest.state()?;
        let mut horizon = lock(&shared.horizon);
        let state = match view.acknowledged {
            None => horizon.written.unwrap_or(state),
            Some(acknowledged) => StateRecord { generation: state.generation.min(acknowledged), ..state },
        };
        let generation = asked.unwrap_or(state.generation);
        if generation > state.generation || generation < state.oldest {
            let (oldest, newest) = (state.oldest, state.generation);
            return Err(SnapshotError::NoSuchGeneration { asked: generation, oldest, newest });
        }
        *horizon.pins.entry(generation).or_insert(0) += 1;
        drop(horizon);
        Ok(Self { shared: Arc::clone(shared), generation })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut horizon = lock(&self.shared.horizon);
        if let Some(count) = horizon.pins.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                horizon.pins.remove(&self.generation);
            }
        }
    }
}

impl Shared {
    fn view(&self) -> Result<View, ManifestError> {
        if let Some(view) = &*self.view.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(view.clone());
        }
        let opened = View::open(&self.path, &self.identity)?;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        Ok(view.get_or_insert(opened).clone())
    }

    /// The manifest as it was opened last.
    pub(super) fn manifest(&self) -> Result<Arc<Manifest>, ManifestError> {
        Ok(self.view()?.manifest)
    }

    /// Whether the view that is open shows what is in the folder now.
    pub(super) fn is_current(&self) -> Result<bool, ManifestError> {
        Ok(self.view()?.is_current(&self.path))
    }

    pub(super) fn set_view(&self, view: Option<View>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// The view of the writer of this process if there is one, else a reader's, which is opened again if a
    /// writer of another process has committed since.
    pub(super) fn current_view(&self) -> Result<View, ManifestError> {
        let seen = self.view()?;
        if seen.is_current(&self.path) {
            return Ok(seen);
        }
        let newer = View::open(&self.path, &self.identity)?;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        // A writer of this process may have set its own view meanwhile; that one is newer.
        match &*view {
            Some(other) if !Arc::ptr_eq(&other.manifest, &seen.manifest) => Ok(other.clone()),
            _ => Ok(view.insert(newer).clone()),
        }
    }
}
