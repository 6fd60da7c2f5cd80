//! The one writer of an index, and its commit.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use uuid::Uuid;

use super::error::{AppendError, CommitError, WriterError};
use super::pending::Pending;
use super::rows::{self, Row};
use super::{LOCK, MANIFEST, Shared, committed, now_ms, open_reader};
use crate::lock::lock;
use crate::manifest::{CommitRecord, Location, Manifest, ManifestError, SegmentRecord, StateRecord};
use crate::segment::{EncodedRow, RowEncoder, RowTags, Sealed, SegmentError, SegmentWriter, file_name};
use crate::sketch::Sketch;

/// A commit's payload has at most this many bytes.
const MAX_PAYLOAD: usize = 1 << 20;

/// The right to change an index. There is one at a time, over all processes.
///
/// Appends go to a segment file that nobody sees until [`Writer::commit`]; dropping the writer
/// without a commit leaves the index as it was. A write or sync that fails **poisons** the writer:
/// it is never tried again, every later call says [`AppendError::Poisoned`], and a new writer starts
/// from what was committed.
///
/// Memory: one row group (about 32 MiB, and its tiers), and about 100 bytes and the id for each example that is
/// not committed yet.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) state: StateRecord,
    pub(super) pending: Pending,
    encoder: RowEncoder,
    open: Option<SegmentWriter>,
    pub(super) sealed: Vec<Sealed>,
    pub(super) poisoned: bool,
    /// Released after everything else.
    _lock: Lock,
}

/// The exclusive lock of an open `LOCK`.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a process that was forked meanwhile, until it starts its
        // program: the lock is of the open file, which that process has too.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock is released when its file is closed");
        }
    }
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Commit {
    /// The generation that it made.
    pub generation: u64,
    /// Rows that it added.
    pub appended: u64,
    /// Rows that it deleted, those of replaced examples included.
    pub deleted: u64,
}

/// The file whose creation takes a synced note in the manifest first, so that a crash leaves no
/// file that nobody knows of.
fn intend(manifest: &Manifest, segment: Uuid) -> Result<(), ManifestError> {
    let mut batch = manifest.batch();
    batch.put_intent(segment, now_ms())?;
    batch.apply()
}

impl Writer {
    pub(super) fn open(shared: &Arc<Shared>) -> Result<Self, WriterError> {
        let path = || shared.path.clone();
        if shared.read_only {
            return Err(WriterError::ReadOnly { path: path() });
        }
        if shared.features_write != 0 {
            return Err(WriterError::UnknownFeature { path: path(), bits: shared.features_write });
        }
        let lock_path = shared.path.join(LOCK);
        let io = |operation| {
            let path = lock_path.clone();
            move |source| WriterError::Io { path, operation, source }
        };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let file = file.map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriterError::Busy { path: path() }),
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        let lock = Lock(file);
        let manifest = Arc::new(Manifest::open_primary(&shared.path.join(MANIFEST))?);
        // Before anything is taken for an orphan.
        manifest.holds(committed::read(&shared.path)?)?;
        let state = manifest.state()?;
        let writer = Self {
            shared: Arc::clone(shared),
            manifest,
            state,
            pending: Pending::default(),
            encoder: RowEncoder::new(&shared.identity.schema),
            open: None,
            sealed: Vec::new(),
            poisoned: false,
            _lock: lock,
        };
        writer.remove_orphans()?;
        writer.shared.set_manifest(Some(Arc::clone(&writer.manifest)));
        Ok(writer)
    }

    /// Removes the files that an earlier writer was about to create or to remove, and no others.
    fn remove_orphans(&self) -> Result<(), WriterError> {
        let intents = self.manifest.intents()?;
        if intents.is_empty() {
            return Ok(());
        }
        let storage = &self.shared.storage;
        let io = |name: &str, operation| {
            let path = storage.describe(name).into();
            move |source| WriterError::Io { path, operation, source }
        };
        for &segment in &intents {
            tracing::info!(%segment, "removing a segment that an earlier writer left unfinished");
            let name = file_name(segment);
            storage.remove(&name).map_err(io(&name, "remove"))?;
        }
        storage.sync().map_err(io("", "sync"))?;
        let mut batch = self.manifest.batch();
        for segment in intents {
            batch.remove_intent(segment)?;
        }
        Ok(batch.apply()?)
    }

    /// The generation of the last commit.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// Appends an example with one row for the whole of it.
    ///
    /// # Errors
    /// The id is there already, the sketch is under another spec or cannot be encoded, or the
    /// storage fails.
    pub fn append(&mut self, id: impl AsRef<[u8]>, sketch: &Sketch) -> Result<(), AppendError> {
        self.append_rows(id, &[Row::new(sketch)])
    }

    /// Appends an example with one or more rows, usually one for each span.
    ///
    /// # Errors
    /// As [`Writer::append`]; and no rows, or a span, source or metadata beyond the limits.
    pub fn append_rows(&mut self, id: impl AsRef<[u8]>, rows: &[Row<'_>]) -> Result<(), AppendError> {
        let id = id.as_ref();
        self.check_poison()?;
        let encoded = rows::encode(&self.shared.identity.schema, &self.encoder, id, rows)?;
        if self.find(id)?.is_some() {
            return Err(AppendError::DuplicateId { id: id.to_owned() });
        }
        self.push(id, rows, &encoded)
    }

    /// Appends many examples of one row each, encoding them on all threads: all of them, or, if one
    /// cannot be appended, none. An empty batch does nothing.
    ///
    /// # Errors
    /// As [`Writer::append_rows`], naming the first example that cannot be appended.
    pub fn append_batch<I: AsRef<[u8]> + Sync>(&mut self, batch: &[(I, Row<'_>)]) -> Result<(), AppendError> {
        self.check_poison()?;
        let (schema, encoder) = (&self.shared.identity.schema, &self.encoder);
        let encoded: Vec<Result<_, AppendError>> =
            batch.par_iter().map(|(id, row)| rows::encode(schema, encoder, id.as_ref(), &[*row])).collect();
        let encoded: Vec<Vec<EncodedRow>> = encoded.into_iter().collect::<Result<_, _>>()?;
        let mut ids = HashSet::with_capacity(batch.len());
        for (id, _) in batch {
            let id = id.as_ref();
            if !ids.insert(id) || self.find(id)?.is_some() {
                return Err(AppendError::DuplicateId { id: id.to_owned() });
            }
        }
        for ((id, row), encoded) in batch.iter().zip(&encoded) {
            self.push(id.as_ref(), &[*row], encoded)?;
        }
        Ok(())
    }

    /// Replaces an example: the old rows die and the new ones appear in the same commit.
    ///
    /// # Errors
    /// As [`Writer::append_rows`], but [`AppendError::NotFound`] if there is no such example.
    pub fn replace(&mut self, id: impl AsRef<[u8]>, rows: &[Row<'_>]) -> Result<(), AppendError> {
        let id = id.as_ref();
        self.check_poison()?;
        let encoded = rows::encode(&self.shared.identity.schema, &self.encoder, id, rows)?;
        let Some(location) = self.find(id)? else { return Err(AppendError::NotFound { id: id.to_owned() }) };
        self.pending.delete(id, location);
        self.push(id, rows, &encoded)
    }

    /// Deletes an example; `false` if there is none with this id.
    ///
    /// # Errors
    /// The id is not 1 to 4096 bytes long, or the manifest cannot be read.
    pub fn delete(&mut self, id: impl AsRef<[u8]>) -> Result<bool, AppendError> {
        let id = id.as_ref();
        self.check_poison()?;
        rows::check_id(id)?;
        let Some(location) = self.find(id)? else { return Ok(false) };
        self.pending.delete(id, location);
        Ok(true)
    }

    /// Whether an example is there, uncommitted changes included.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn contains(&self, id: impl AsRef<[u8]>) -> Result<bool, AppendError> {
        Ok(self.find(id.as_ref())?.is_some())
    }

    /// Makes everything since the last commit durable and visible, in one step, as a new
    /// generation (also if nothing changed).
    ///
    /// # Errors
    /// The storage or the manifest fails. Then the commit is there whole or not at all; the writer
    /// is poisoned.
    pub fn commit(&mut self) -> Result<Commit, CommitError> {
        self.prepare_commit()?.commit()
    }

    /// Writes out and syncs everything, so that only the last step of the commit remains; that can
    /// still be given up.
    ///
    /// # Errors
    /// The storage fails; the writer is then poisoned.
    pub fn prepare_commit(&mut self) -> Result<PreparedCommit<'_>, CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        self.seal()?;
        Ok(PreparedCommit { writer: self, payload: Vec::new() })
    }

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// The files cannot be removed; the writer is then poisoned, and the next one removes them.
    pub fn abort(&mut self) -> Result<(), CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        let done = self.discard();
        self.poisoned |= done.is_err();
        done
    }

    fn check_poison(&self) -> Result<(), AppendError> {
        if self.poisoned { Err(AppendError::Poisoned) } else { Ok(()) }
    }

    pub(super) fn find(&self, id: &[u8]) -> Result<Option<Location>, ManifestError> {
        self.pending.find(&self.manifest, self.state.generation, id)
    }

    fn push(&mut self, id: &[u8], rows: &[Row<'_>], encoded: &[EncodedRow]) -> Result<(), AppendError> {
        let rows = encoded.iter().zip(rows.iter().map(Row::tags));
        let location = self.write(id, rows)?;
        self.pending.append(id, location);
        Ok(())
    }

    /// Writes an example's rows to the open segment. Whatever fails poisons the writer.
    pub(super) fn write<'a>(
        &mut self,
        id: &[u8],
        rows: impl ExactSizeIterator<Item = (&'a EncodedRow, RowTags<'a>)>,
    ) -> Result<Location, CommitError> {
        let written = self.write_or_fail(id, rows);
        self.poisoned |= written.is_err();
        written
    }

    fn write_or_fail<'a>(
        &mut self,
        id: &[u8],
        rows: impl ExactSizeIterator<Item = (&'a EncodedRow, RowTags<'a>)>,
    ) -> Result<Location, CommitError> {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let full = self.open.as_ref().is_some_and(|open| {
            open.bytes() >= self.shared.segment_bytes || open.rows().checked_add(count).is_none()
        });
        if full {
            self.seal()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let segment = Uuid::new_v4();
                intend(&self.manifest, segment)?;
                let (storage, identity) =
                    (Arc::clone(&self.shared.storage), Arc::clone(&self.shared.identity));
                self.open.insert(SegmentWriter::create(storage, identity, segment)?)
            }
        };
        let first_row = open.push(id, rows)?;
        Ok(Location::new(open.segment(), first_row, count))
    }

    /// Closes the open segment and makes its file durable.
    pub(super) fn seal(&mut self) -> Result<(), SegmentError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        match open.seal() {
            Ok(sealed) => {
                self.sealed.push(sealed);
                Ok(())
            }
            Err(error) => {
                self.poisoned = true;
                Err(error)
            }
        }
    }

    /// Publishes sealed segments and pending changes in one batch; `removed` are segments whose
    /// rows have been copied elsewhere.
    pub(super) fn publish(&mut self, payload: Vec<u8>, removed: &[Uuid]) -> Result<Commit, CommitError> {
        let published = self.try_publish(payload, removed);
        self.poisoned |= published.is_err();
        published
    }

    fn try_publish(&mut self, payload: Vec<u8>, removed: &[Uuid]) -> Result<Commit, CommitError> {
        // A reader of this process sees the old state or the new one.
        let _loading = lock(&self.shared.loading);
        let state = StateRecord { generation: self.state.generation + 1, ..self.state };
        let mut batch = self.manifest.batch();
        for sealed in &self.sealed {
            let record = SegmentRecord {
                rows: u64::from(sealed.rows),
                examples: sealed.examples,
                bytes: sealed.bytes,
                sha256: sealed.sha256,
                added: state.generation,
                removed: None,
                removed_ms: None,
            };
            batch.put_segment(sealed.segment, &record)?;
            batch.remove_intent(sealed.segment)?;
        }
        if !removed.is_empty() {
            for (segment, mut record) in self.manifest.segments()? {
                if removed.contains(&segment) {
                    record.removed = Some(state.generation);
                    record.removed_ms = Some(now_ms());
                    batch.put_segment(segment, &record)?;
                }
            }
        }
        self.pending.write(&mut batch, &self.manifest, state.generation, state.oldest)?;
        let record = CommitRecord {
            time_ms: now_ms(),
            payload,
            appended: self.pending.appended_rows,
            deleted: self.pending.deleted_rows,
            segments_added: u32::try_from(self.sealed.len()).unwrap_or(u32::MAX),
            segments_removed: u32::try_from(removed.len()).unwrap_or(u32::MAX),
        };
        batch.put_commit(state.generation, &record)?;
        batch.put_state(&state)?;
        batch.apply()?;
        // It is durable; this guards it against damage to the log.
        committed::write(&self.shared.path, state.generation)?;
        self.state = state;
        self.sealed.clear();
        self.pending = Pending::default();
        Ok(Commit { generation: state.generation, appended: record.appended, deleted: record.deleted })
    }

    /// Removes the files of everything that is not committed.
    fn discard(&mut self) -> Result<(), CommitError> {
        let open = self.open.take().map(|open| open.segment());
        let unpublished: Vec<Uuid> = self.sealed.drain(..).map(|sealed| sealed.segment).chain(open).collect();
        self.pending = Pending::default();
        if unpublished.is_empty() {
            return Ok(());
        }
        let storage = &self.shared.storage;
        let mut batch = self.manifest.batch();
        for segment in unpublished {
            let name = file_name(segment);
            storage.remove(&name).map_err(|source| SegmentError::Io {
                file: storage.describe(&name),
                operation: "remove",
                source,
            })?;
            batch.remove_intent(segment)?;
        }
        storage.sync().map_err(|source| SegmentError::Io {
            file: storage.describe(""),
            operation: "sync",
            source,
        })?;
        Ok(batch.apply()?)
    }
}

impl From<CommitError> for AppendError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Segment(error) => Self::Segment(error),
            CommitError::Manifest(error) => Self::Manifest(error),
            CommitError::Poisoned | CommitError::PayloadLength { .. } => Self::Poisoned,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What cannot be cleared away here is cleared away by the next writer.
        if !self.poisoned
            && let Err(error) = self.discard()
        {
            tracing::warn!(%error, "uncommitted segments are left for the next writer to remove");
        }
        if !self.poisoned
            && let Err(error) = self.manifest.flush()
        {
            tracing::warn!(%error, "the manifest's log stays as it is");
        }
        // Readers of this process follow from now on; the database closes with its last user.
        let reader = open_reader(&self.shared.path);
        if let Err(error) = &reader {
            tracing::warn!(%error, "the manifest is opened when it is asked for");
        }
        self.shared.set_manifest(reader.ok().map(Arc::new));
        // RocksDB is closed before the lock is given up, or the next writer would find it in use.
        // Only calls that are under way still hold it, and none of them waits for a writer.
        while Arc::strong_count(&self.manifest) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A commit of which only the last step remains. Dropping it changes nothing: the writer goes on with
/// the same uncommitted rows.
#[derive(Debug)]
#[must_use = "a prepared commit is not there until `commit` is called"]
pub struct PreparedCommit<'a> {
    writer: &'a mut Writer,
    payload: Vec<u8>,
}

impl PreparedCommit<'_> {
    /// Bytes of the caller's own to keep with the commit, at most 1 MiB.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Makes it durable and visible, in one step.
    ///
    /// # Errors
    /// The payload is too long (nothing has happened then), or as [`Writer::commit`].
    pub fn commit(self) -> Result<Commit, CommitError> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(CommitError::PayloadLength { length: self.payload.len() });
        }
        self.writer.publish(self.payload, &[])
    }

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// As [`Writer::abort`].
    pub fn abort(self) -> Result<(), CommitError> {
        self.writer.abort()
    }
}
