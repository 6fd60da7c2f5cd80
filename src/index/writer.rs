//! The writer of an index, and its commit.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::attachment::Attachments;
use super::error::{AppendError, CommitError, WriterError};
use super::observed::Observations;
use super::part::MAX_PAYLOAD;
use super::pending::Pending;
use super::readable::{View, check_identity};
use super::rows::{self, Appended, Existing, Row};
use super::{LOCK, MANIFEST, Shared, committed, now_ms};
use crate::files;
use crate::lock::lock;
use crate::manifest::{
    ArtifactRecord, CommitRecord, Location, Manifest, ManifestError, SegmentRecord, StateRecord,
};
use crate::schema::Schema;
use crate::segment::{EncodedRow, Origin, RowEncoder, RowTags, Sealed, SegmentError, SegmentWriter};
use crate::sketch::Sketch;

/// The bytes of a commit's batch from which on the log is moved to tables at once: each reader of another
/// process would otherwise replay it.
const LARGE_BATCH: usize = 4 << 20;

/// Changes an index. An index has at most one writer at a time, over all processes. Made by
/// [`Index::writer`](crate::Index::writer).
///
/// Appends go to a segment file that is invisible until [`Writer::commit`]. Dropping the writer without a
/// commit leaves the index unchanged. A failed write or sync **poisons** the writer: it is never retried,
/// and every later call returns a `Poisoned` error. Drop the writer and open another; that one starts from
/// the last commit.
///
/// A process that was forked from the writer's cannot use it: all calls return a `Forked` error there, and dropping
/// it changes nothing.
///
/// Memory: one row group (about 32 MiB, its tiers, and 16 MiB of ids and metadata up to three times), and about 100 bytes
/// plus the id for each uncommitted example, of which there are at most
/// [`IndexOptions::commit_examples`](crate::IndexOptions::commit_examples).
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) state: StateRecord,
    pub(super) pending: Pending,
    encoder: RowEncoder,
    pub(super) open: Option<SegmentWriter>,
    pub(super) sealed: Vec<Sealed>,
    pub(super) attachments: Attachments,
    pub(super) observations: Observations,
    /// What artifacts become with the next commit, by name.
    pub(super) artifacts: Vec<(String, ArtifactRecord)>,
    pub(super) poisoned: bool,
    /// When this writer made each generation that is still kept: by a clock that is never set.
    pub(super) made: BTreeMap<u64, Instant>,
    /// Released after everything else.
    lock: Lock,
}

/// The exclusive lock of an open `LOCK`.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// The process that took it.
    process: u32,
}

impl Lock {
    /// Takes the lock of the index in `folder`.
    pub fn take(folder: &Path) -> Result<Self, WriterError> {
        let path = folder.join(LOCK);
        let failed = |operation| {
            let path = path.clone();
            move |source| WriterError::Io { path, operation, source }
        };
        let mut options = OpenOptions::new();
        let file = files::open_regular_with(options.read(true).write(true).create(true), &path);
        let file = file.map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path, process: std::process::id() }),
            Err(TryLockError::WouldBlock) => Err(WriterError::Busy { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock")(source)),
        }
    }

    /// Whether this is the process that took it, and not one that was forked from it.
    pub fn is_own(&self) -> bool {
        self.process == std::process::id()
    }

    /// Checks that the writer that has the lock can be used.
    pub fn check_usable(&self, poisoned: bool) -> Result<(), CommitError> {
        if !self.is_own() {
            Err(CommitError::Forked)
        } else if poisoned {
            Err(CommitError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Whether the locked file is still the one in the index's folder.
    #[cfg(unix)]
    pub fn is_in_place(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(own), Ok(found)) => identity(own) == identity(found),
            _ => false,
        }
    }

    /// Windows does not let an open file be replaced.
    #[cfg(not(unix))]
    pub fn is_in_place(&self) -> bool {
        self.path.exists()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that was forked shares the lock with its parent, and must not release it.
        if !self.is_own() {
            return;
        }
        // Closing the file is not enough: the lock belongs to the open file description, and a process that
        // was forked meanwhile shares that until it calls `exec`.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot unlock LOCK; closing the file releases it");
        }
    }
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Commit {
    /// The new generation.
    pub generation: u64,
    /// Rows appended.
    pub appended: u64,
    /// Rows deleted, including those of replaced examples.
    pub deleted: u64,
}

/// Records durably in the manifest that a file is about to be created, so that a crash leaves none that the manifest
/// does not list.
pub(super) fn intend(manifest: &Manifest, file: Uuid) -> Result<(), ManifestError> {
    let mut batch = manifest.batch();
    batch.put_intent(file, now_ms())?;
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
        let lock = Lock::take(&shared.path)?;
        let manifest = Arc::new(Manifest::open_primary(&shared.path.join(MANIFEST))?);
        check_identity(&manifest, &shared.path, &shared.identity)?;
        // Before any segment is treated as an orphan.
        let acknowledged = committed::read(&shared.path)?;
        manifest.holds(acknowledged)?;
        let state = manifest.state()?;
        committed::check(&shared.path, acknowledged, &state)?;
        // If the last commit was interrupted behind its commit point, opening the database has made it durable, and
        // from now on readers see it. If it was interrupted when `COMMITTED` was there but could not be synced, that
        // may be on no disk: it is written again, because a sync that has failed cannot be repeated.
        committed::write(&shared.path, state.generation)?;
        let writer = Self {
            shared: Arc::clone(shared),
            manifest,
            state,
            pending: Pending::default(),
            encoder: RowEncoder::new(&shared.identity.schema),
            open: None,
            sealed: Vec::new(),
            attachments: Attachments::default(),
            observations: Observations::default(),
            artifacts: Vec::new(),
            poisoned: false,
            made: BTreeMap::new(),
            lock,
        };
        writer.remove_orphans()?;
        self::lock(&shared.horizon).written = Some(state);
        shared.set_view(Some(View::of_writer(&writer.manifest)));
        Ok(writer)
    }

    /// Removes the files that the manifest lists as intents of an earlier writer, and no others.
    fn remove_orphans(&self) -> Result<(), WriterError> {
        let intents = self.manifest.intents()?;
        if intents.is_empty() {
            return Ok(());
        }
        for file in &intents {
            tracing::info!(%file, "removing what an earlier writer has left unfinished");
        }
        self.shared.remove_files(&intents)?;
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

    /// The index's schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.shared.identity.schema
    }

    /// The payload of a commit; `None` if the generation does not exist, or has been collected.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn payload(&self, generation: u64) -> Result<Option<Vec<u8>>, ManifestError> {
        Ok(self.manifest.commit(generation)?.map(|commit| commit.payload))
    }

    /// Appends an example with one row for the whole example.
    ///
    /// # Errors
    /// The id exists already, the sketch has another spec or cannot be encoded, or the storage fails. Only
    /// the last of these poisons the writer.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// let mut writer = index.writer()?;
    /// writer.append("a", &Sketch::dense(spec, vec![3.0, 4.0])?)?;
    /// let commit = writer.commit()?;
    /// assert_eq!((commit.generation, commit.appended), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&mut self, id: impl AsRef<[u8]>, sketch: &Sketch) -> Result<(), AppendError> {
        self.append_rows(id, &[Row::new(sketch)])
    }

    /// Appends an example with one or more rows, usually one for each span.
    ///
    /// # Errors
    /// As [`Writer::append`]; or there are no rows, or a span, source or metadata is out of its limits.
    pub fn append_rows(&mut self, id: impl AsRef<[u8]>, rows: &[Row<'_>]) -> Result<(), AppendError> {
        let id = id.as_ref();
        self.check_room(1)?;
        let encoded = rows::encode(&self.shared.identity.schema, &self.encoder, id, rows)?;
        if self.find(id)?.is_some() {
            return Err(AppendError::DuplicateId { id: id.to_owned() });
        }
        self.push(id, rows, &encoded)
    }

    /// Appends a batch of examples of one row each, encoded on rayon's global thread pool. If one of them
    /// cannot be appended, none is. An empty batch does nothing.
    ///
    /// # Errors
    /// As [`Writer::append_rows`], for the first example that cannot be appended.
    pub fn append_batch<I: AsRef<[u8]> + Sync>(&mut self, batch: &[(I, Row<'_>)]) -> Result<(), AppendError> {
        self.append_examples(&rows::of_one_row(batch), Existing::Refuse)?;
        Ok(())
    }

    /// Appends a batch of examples with all their rows, encoded on rayon's global thread pool, and says what is done
    /// with those that are in the index already. If one of them cannot be appended, none is. An empty batch does
    /// nothing.
    ///
    /// ```
    /// # use gradix::{Encoding, Existing, Index, Row, Schema, Span, sketch::SketchSpec};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec, Encoding::F32)?)?;
    /// let mut writer = index.writer()?;
    /// let whole = [Row::of_values(&[1.0, 2.0])];
    /// writer.append_examples(&[("a", &whole[..])], Existing::Refuse)?;
    /// let halves = [whole[0].span(Span::tokens(0, 4)), whole[0].span(Span::tokens(4, 9))];
    /// let batch = [("a", &whole[..]), ("b", &halves[..])];
    /// assert_eq!(writer.append_examples(&batch, Existing::Skip)?.skipped, 1);
    /// assert_eq!(writer.append_examples(&batch, Existing::Replace)?.replaced, 2);
    /// let commit = writer.commit()?;
    /// assert_eq!((commit.appended, commit.deleted, index.snapshot()?.rows()), (6, 3, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Writer::append_rows`], for the first example that cannot be appended.
    pub fn append_examples<I: AsRef<[u8]> + Sync>(
        &mut self,
        batch: &[(I, &[Row<'_>])],
        existing: Existing,
    ) -> Result<Appended, AppendError> {
        self.check_room(batch.len())?;
        let mut batch: Vec<_> = batch.iter().map(|(id, rows)| (id.as_ref(), *rows)).collect();
        let mut done = Appended::default();
        if existing == Existing::Skip {
            let (mut ids, mut new) = (HashSet::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
            for (id, rows) in batch {
                match ids.insert(id) && self.find(id)?.is_none() {
                    true => new.push((id, rows)),
                    false => done.skipped += 1,
                }
            }
            batch = new;
        }
        let encoded = rows::encode_examples(&self.shared.identity.schema, &self.encoder, &batch)?;
        if existing == Existing::Refuse {
            rows::check_new(&batch, |id| Ok(self.find(id)?.is_some()))?;
        }
        let mut encoded = &encoded[..];
        for (id, rows) in batch {
            if existing == Existing::Replace
                && let Some(location) = self.find(id)?
            {
                self.pending.delete(id, location);
                done.replaced += 1;
            }
            let own;
            (own, encoded) = encoded.split_at(rows.len());
            self.push(id, rows, own)?;
            done.rows += rows.len() as u64;
            done.examples += 1;
        }
        Ok(done)
    }

    /// Replaces an example: deletes its rows and appends new ones in the same commit.
    ///
    /// # Errors
    /// As [`Writer::append_rows`], except that the id must exist: otherwise [`AppendError::NotFound`].
    pub fn replace(&mut self, id: impl AsRef<[u8]>, rows: &[Row<'_>]) -> Result<(), AppendError> {
        let id = id.as_ref();
        self.check_room(1)?;
        let encoded = rows::encode(&self.shared.identity.schema, &self.encoder, id, rows)?;
        let Some(location) = self.find(id)? else { return Err(AppendError::NotFound { id: id.to_owned() }) };
        self.pending.delete(id, location);
        self.push(id, rows, &encoded)
    }

    /// Deletes an example. Returns whether it existed.
    ///
    /// # Errors
    /// The id is not 1 to 4096 bytes long, the manifest cannot be read, or the writer is poisoned.
    pub fn delete(&mut self, id: impl AsRef<[u8]>) -> Result<bool, AppendError> {
        let id = id.as_ref();
        self.check_room(1)?;
        rows::check_id(id)?;
        let Some(location) = self.find(id)? else { return Ok(false) };
        self.pending.delete(id, location);
        Ok(true)
    }

    /// Whether an example exists, including uncommitted changes.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn contains(&self, id: impl AsRef<[u8]>) -> Result<bool, AppendError> {
        Ok(self.find(id.as_ref())?.is_some())
    }

    /// Makes all changes since the last commit durable and visible atomically, as a new generation. It makes
    /// a generation even if there are no changes.
    ///
    /// # Errors
    /// The storage or the manifest fails, which poisons the writer. The commit has then taken effect
    /// completely or not at all; open the index again to find out which.
    pub fn commit(&mut self) -> Result<Commit, CommitError> {
        self.prepare_commit()?.commit()
    }

    /// The first phase of a commit: writes and syncs all segments. [`PreparedCommit::commit`] publishes them;
    /// [`PreparedCommit::abort`] discards them.
    ///
    /// # Errors
    /// The storage fails, which poisons the writer.
    pub fn prepare_commit(&mut self) -> Result<PreparedCommit<'_>, CommitError> {
        self.check_usable()?;
        self.seal()?;
        Ok(PreparedCommit { writer: self, payload: Vec::new() })
    }

    /// Discards all changes since the last commit.
    ///
    /// # Errors
    /// A file cannot be removed, which poisons the writer; the next writer removes it.
    pub fn abort(&mut self) -> Result<(), CommitError> {
        self.check_usable()?;
        let done = self.discard();
        self.poisoned |= done.is_err();
        done
    }

    /// Whether there are changes since the last commit.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// let mut writer = index.writer()?;
    /// assert!(!writer.has_changes());
    /// writer.append("a", &Sketch::dense(spec, vec![1.0])?)?;
    /// assert!(writer.has_changes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.pending.is_empty() || !self.attachments.is_empty() || !self.observations.is_empty()
    }

    pub(super) fn check_usable(&self) -> Result<(), CommitError> {
        self.lock.check_usable(self.poisoned)
    }

    /// Checks that this many more examples may change in this commit.
    fn check_room(&self, examples: usize) -> Result<(), AppendError> {
        self.check_usable()?;
        let limit = self.shared.commit_examples;
        if self.pending.examples().saturating_add(examples) > limit {
            return Err(AppendError::CommitFull { limit });
        }
        Ok(())
    }

    /// Checks, before something is written, that the folder is still the one that the writer has locked.
    pub(super) fn check_in_place(&self) -> Result<(), ManifestError> {
        if self.lock.is_in_place() {
            return Ok(());
        }
        Err(ManifestError::Replaced { path: self.shared.path.clone() })
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

    /// Writes an example's rows to the open segment. Any failure poisons the writer.
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
                let origin = Origin {
                    generation: self.state.generation + 1,
                    ordinal: u32::try_from(self.sealed.len()).unwrap_or(u32::MAX),
                };
                let segment = Uuid::new_v4();
                self.check_in_place()?;
                intend(&self.manifest, segment)?;
                let (storage, identity) =
                    (Arc::clone(&self.shared.storage), Arc::clone(&self.shared.identity));
                self.open.insert(SegmentWriter::create(storage, identity, segment, origin)?)
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

    /// Publishes the sealed segments and pending changes in one write batch. `removed` are segments that
    /// compaction has copied.
    pub(super) fn publish(&mut self, payload: Vec<u8>, removed: &[Uuid]) -> Result<Commit, CommitError> {
        let published = self.try_publish(payload, removed);
        self.poisoned |= published.is_err();
        published
    }

    fn try_publish(&mut self, payload: Vec<u8>, removed: &[Uuid]) -> Result<Commit, CommitError> {
        self.check_in_place()?;
        self.write_observations()?;
        let state = StateRecord { generation: self.state.generation + 1, ..self.state };
        let mut batch = self.manifest.batch();
        for (ordinal, sealed) in (0..).zip(&self.sealed) {
            let record = SegmentRecord {
                rows: u64::from(sealed.rows),
                examples: sealed.examples,
                bytes: sealed.bytes,
                sha256: sealed.sha256,
                added: state.generation,
                ordinal,
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
        for (name, record) in &self.artifacts {
            batch.put_artifact(name, state.generation, record)?;
            if let Some(file) = record.file {
                batch.remove_intent(file.artifact())?;
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
        let bytes = batch.byte_len();
        batch.apply()?;
        // The commit is durable. Now it may be shown; and COMMITTED detects later damage to RocksDB's log.
        committed::write(&self.shared.path, state.generation)?;
        self.state = state;
        lock(&self.shared.horizon).written = Some(state);
        self.made.insert(state.generation, Instant::now());
        self.sealed.clear();
        self.artifacts.clear();
        self.pending = Pending::default();
        for part in std::mem::take(&mut self.attachments).moves {
            if let Err(error) = part.complete() {
                let folder = part.folder.display();
                tracing::warn!(%error, %folder, "the part is in the index, but its folder still has files");
            }
        }
        if bytes >= LARGE_BATCH
            && let Err(error) = self.manifest.settle()
        {
            tracing::error!(%error, "the commit is durable, but the manifest cannot be written any more");
            self.poisoned = true;
        }
        Ok(Commit { generation: state.generation, appended: record.appended, deleted: record.deleted })
    }

    /// Removes the files of uncommitted segments.
    fn discard(&mut self) -> Result<(), CommitError> {
        let open = self.open.take().map(|open| open.segment());
        let unpublished: Vec<Uuid> = self.sealed.drain(..).map(|sealed| sealed.segment).chain(open).collect();
        self.pending = Pending::default();
        self.attachments = Attachments::default();
        self.observations = Observations::default();
        self.artifacts.clear();
        self.remove_unpublished(&unpublished)
    }

    /// Removes files that have intents, and then these.
    pub(super) fn remove_unpublished(&self, unpublished: &[Uuid]) -> Result<(), CommitError> {
        if unpublished.is_empty() {
            return Ok(());
        }
        self.shared.remove_files(unpublished)?;
        let mut batch = self.manifest.batch();
        for &file in unpublished {
            batch.remove_intent(file)?;
        }
        Ok(batch.apply()?)
    }
}

impl From<CommitError> for AppendError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Segment(error) => Self::Segment(error),
            CommitError::Manifest(error) => Self::Manifest(error),
            CommitError::Artifact(_)
            | CommitError::Poisoned
            | CommitError::PayloadLength { .. }
            | CommitError::NotObserved { .. }
            | CommitError::AttachedFileChanged { .. } => Self::Poisoned,
            CommitError::Forked => Self::Forked,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The parent of a forked process still has the writer.
        if !self.lock.is_own() {
            return;
        }
        if !self.lock.is_in_place() {
            // In another index that has taken the folder's place nothing may be written.
            self.manifest.abandon();
        } else if !self.poisoned {
            // The next writer removes what cannot be removed here.
            if let Err(error) = self.discard() {
                tracing::warn!(%error, "cannot remove uncommitted segments; the next writer will");
            } else if let Err(error) = self.manifest.settle() {
                tracing::warn!(%error, "cannot flush the manifest; its log stays");
            }
        }
        // Snapshots of this process use a reader from now on; the database closes with its last user.
        let reader = View::open(&self.shared.path, &self.shared.identity);
        if let Err(error) = &reader {
            tracing::warn!(%error, "cannot open the manifest for reading; the next use retries");
        }
        self.shared.set_view(reader.ok());
        // RocksDB must be closed before the lock is released, or the next writer finds it in use. Only calls
        // in progress still hold it, and none of them waits for a writer.
        while Arc::strong_count(&self.manifest) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        lock(&self.shared.horizon).written = None;
    }
}

/// A prepared commit: all its segments are written and synced, but not yet published. (What was
/// [observed](Writer::observe) is summed up and written when it is published.) Made by
/// [`Writer::prepare_commit`]. Dropping it keeps the changes uncommitted in the writer.
#[derive(Debug)]
#[must_use = "a prepared commit does nothing until `commit` is called"]
pub struct PreparedCommit<'a> {
    writer: &'a mut Writer,
    payload: Vec<u8>,
}

impl PreparedCommit<'_> {
    /// Arbitrary bytes to store with the commit, at most 1 MiB.
    /// [`Snapshot::payload`](crate::Snapshot::payload) reads them. Default: empty.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Publishes the commit: makes it durable and visible atomically.
    ///
    /// # Errors
    /// The payload is too long, or a file was written after it was attached, in which cases nothing has changed; or as [`Writer::commit`].
    pub fn commit(self) -> Result<Commit, CommitError> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(CommitError::PayloadLength { length: self.payload.len() });
        }
        if let Some(file) = self.writer.attachments.changed() {
            return Err(CommitError::AttachedFileChanged { path: file.to_owned() });
        }
        self.writer.publish(self.payload, &[])
    }

    /// Discards all changes since the last commit.
    ///
    /// # Errors
    /// As [`Writer::abort`].
    pub fn abort(self) -> Result<(), CommitError> {
        self.writer.abort()
    }
}
