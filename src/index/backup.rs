//! Backups: one generation as an index of its own.
//!
//! Segments and artifacts never change, so they are copied or linked as they are. The manifest is written anew, with the
//! records of this generation only: so a backup needs neither a moment at which no writer commits, nor the files of RocksDB, of
//! which no order of plain copying would make a whole. `INDEX` comes last: what an interrupted backup leaves is no index.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::attachment::write_note;
use super::error::{BackupError, hex};
use super::snapshot::Snapshot;
use super::{ARTIFACTS, LOCK, MANIFEST, SEGMENTS, committed, index_file};
use crate::files;
use crate::manifest::{Batch, ExampleHistory, Manifest, ManifestError, SegmentRecord, StateRecord};
use crate::scan::CancelToken;
use crate::segment::storage::{FileStorage, Storage};
use crate::segment::{Origin, file_name};

/// The number of bytes at which a write batch of records is applied.
const BATCH_BYTES: usize = 8 << 20;
const READ_BYTES: usize = 1 << 20;

/// Options of [`Snapshot::backup`].
#[derive(Default)]
#[must_use]
pub struct BackupOptions<'a> {
    link: bool,
    progress: Option<Box<dyn FnMut(BackupProgress) + 'a>>,
    cancel: CancelToken,
}

impl fmt::Debug for BackupOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupOptions").field("link", &self.link).finish_non_exhaustive()
    }
}

impl<'a> BackupOptions<'a> {
    /// Gives the files of segments and artifacts a second name (a hard link) in place of copying them. It takes no time and no room,
    /// and survives compaction, collection and the removal of the index; but not a disk that fails, as the bytes are there
    /// once. Needs the same file system, and an index whose segments lie in its folder. Default: `false`.
    pub fn link(mut self, link: bool) -> Self {
        self.link = link;
        self
    }

    /// Calls a function before the first file, and after each MiB that is copied and each file. Default: none.
    pub fn progress(mut self, progress: impl FnMut(BackupProgress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Lets [`CancelToken::cancel`] stop the backup.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Says what is done, and whether to go on.
    fn report(&mut self, bytes_done: u64, bytes_total: u64) -> Result<(), BackupError> {
        if let Some(progress) = &mut self.progress {
            progress(BackupProgress { bytes_done, bytes_total });
        }
        if self.cancel.is_cancelled() { Err(BackupError::Cancelled) } else { Ok(()) }
    }
}

/// How far a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes of segments and artifacts that are done.
    pub bytes_done: u64,
    /// Bytes of all of them.
    pub bytes_total: u64,
}

/// What a backup holds. `Serialize` with the feature `serde`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Backup {
    /// The generation.
    pub generation: u64,
    /// Segment files.
    pub segments: u64,
    /// Artifact files.
    pub artifacts: u64,
    /// Examples.
    pub examples: u64,
    /// The bytes of segments and artifacts.
    pub bytes: u64,
}

/// A file to copy or link.
struct Wanted {
    name: String,
    bytes: u64,
    sha256: [u8; 32],
}

impl Snapshot {
    /// Writes this generation as an index of its own, into a folder that does not exist yet or is empty. A writer, of this process or
    /// another, may append, commit, compact and collect meanwhile.
    ///
    /// The backup has the UUID of the index, its rows, artifacts and the commits up to this generation, which is the only one that can be
    /// read there. Every file that is copied is compared with the digest of the time when it was committed; a linked one by its length only
    /// ([`Index::verify`](crate::Index::verify) reads the backup in full). It is durable when this returns. `INDEX` is written last: an
    /// interrupted backup leaves a folder that is not an index; remove it before trying again.
    ///
    /// The original and its backup go separate ways from then on. Parts that were built for one can be attached to either.
    ///
    /// ```
    /// # use gradix::{BackupOptions, Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, copy) = (folder.path().join("my.gradix"), folder.path().join("monday.gradix"));
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// let mut writer = index.writer()?;
    /// writer.append("a", &Sketch::dense(spec, vec![3.0, 4.0])?)?;
    /// writer.commit()?;
    /// let backup = index.snapshot()?.backup(&copy, BackupOptions::default())?;
    /// assert_eq!((backup.generation, backup.examples), (1, 1));
    /// let copy = Index::open(&copy)?;
    /// assert!(copy.verify()?.is_sound() && copy.snapshot()?.get("a")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The folder is not empty; a file cannot be read, copied or linked, or is not the one that was committed; the manifest cannot be read or
    /// written; it was cancelled; or a writer of another process has collected this generation, which shows as a file that is not there.
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        mut options: BackupOptions<'_>,
    ) -> Result<Backup, BackupError> {
        let to = &std::path::absolute(to.as_ref())
            .map_err(io_error(to.as_ref().display(), "find the absolute path of"))?;
        prepare(to)?;
        let shared = self.shared();
        let artifacts = self.artifact_files()?;
        let mut backup = Backup {
            generation: self.generation(),
            segments: self.segments().len() as u64,
            artifacts: artifacts.len() as u64,
            ..Backup::default()
        };
        let segment_bytes = self.records().iter().map(|record| record.bytes);
        let total = segment_bytes.chain(artifacts.iter().map(|file| file.bytes)).sum();
        options.report(0, total)?;

        let target = FileStorage::new(to.join(SEGMENTS));
        let mut taker = Taker { from: shared.storage.as_ref(), to: &target, total, options };
        for (segment, record) in self.segments().iter().zip(self.records()) {
            let uuid = segment.reader.segment();
            let file = Wanted { name: file_name(uuid), bytes: record.bytes, sha256: record.sha256 };
            taker.take(&shared.path.join(SEGMENTS), &file, &mut backup.bytes)?;
            if segment.reader.origin().generation == 0 {
                // It was attached: its header does not say for which commit.
                let origin = Origin { generation: record.added, ordinal: record.ordinal };
                write_note(&target, shared.identity.index, uuid, origin)?;
            }
        }
        sync(&target)?;
        let target = FileStorage::new(to.join(ARTIFACTS));
        taker = Taker { from: shared.artifacts.as_ref(), to: &target, ..taker };
        for file in &artifacts {
            taker.take(&shared.path.join(ARTIFACTS), file, &mut backup.bytes)?;
        }
        sync(&target)?;

        backup.examples = self.write_manifest(&to.join(MANIFEST), &taker.options.cancel)?;
        committed::write(to, backup.generation)?;
        index_file::copy(&shared.path, to).map_err(io_error(to.display(), "copy INDEX to"))?;
        Ok(backup)
    }

    /// The files of the artifacts of this generation. Two names may share one.
    fn artifact_files(&self) -> Result<Vec<Wanted>, BackupError> {
        let files = self.artifacts()?.into_iter().filter_map(|(_, record)| record.file);
        let mut wanted: Vec<Wanted> = files
            .map(|file| Wanted {
                name: crate::artifact::file_name(file.artifact()),
                bytes: file.bytes,
                sha256: file.sha256,
            })
            .collect();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.dedup_by(|a, b| a.name == b.name);
        Ok(wanted)
    }

    /// Writes the records of this generation into a new database. Returns the number of examples.
    fn write_manifest(&self, path: &Path, cancel: &CancelToken) -> Result<u64, BackupError> {
        let (manifest, generation) = (self.manifest()?, self.generation());
        Manifest::create(path, &manifest.index()?)?;
        let copy = Manifest::open_primary(path)?;
        let mut batch = copy.batch();
        for (segment, record) in self.segments().iter().zip(self.records()) {
            let uuid = segment.reader.segment();
            // A later generation may have removed it.
            batch.put_segment(uuid, &SegmentRecord { removed: None, removed_ms: None, ..record.clone() })?;
            if !segment.dead.is_empty() {
                batch.put_deletes(uuid, generation, &segment.dead)?;
            }
        }
        for (name, record) in self.artifacts()? {
            batch.put_artifact(&name, generation, &record)?;
        }
        manifest.for_each_commit(|of, record| {
            if of <= generation {
                batch.put_commit(of, &record)?;
                apply_if_full(&copy, &mut batch)?;
            }
            Ok(of <= generation && !cancel.is_cancelled())
        })?;
        let mut examples = 0;
        manifest.for_each_example_from(&[], |id, history| {
            let version = history.0.into_iter().rev().find(|version| version.generation <= generation);
            if let Some(version) = version.filter(|version| version.location.is_some()) {
                batch.put_example(id, &ExampleHistory(vec![version]))?;
                apply_if_full(&copy, &mut batch)?;
                examples += 1;
            }
            Ok(!cancel.is_cancelled())
        })?;
        if cancel.is_cancelled() {
            return Err(BackupError::Cancelled);
        }
        batch.put_state(&StateRecord { generation, oldest: generation })?;
        batch.apply()?;
        copy.settle()?;
        Ok(examples)
    }
}

/// Makes the folders of an index, and its lock, in a folder that does not exist or is empty.
fn prepare(to: &Path) -> Result<(), BackupError> {
    files::create_folders(to).map_err(io_error(to.display(), "create"))?;
    if fs::read_dir(to).map_err(io_error(to.display(), "list"))?.next().is_some() {
        return Err(BackupError::NotEmpty { path: to.to_owned() });
    }
    for folder in [SEGMENTS, ARTIFACTS] {
        let folder = to.join(folder);
        fs::create_dir(&folder).map_err(io_error(folder.display(), "create"))?;
    }
    let lock = to.join(LOCK);
    File::create_new(&lock).map_err(io_error(lock.display(), "create"))?;
    Ok(())
}

fn apply_if_full<'m>(manifest: &'m Manifest, batch: &mut Batch<'m>) -> Result<(), ManifestError> {
    if batch.byte_len() > BATCH_BYTES {
        std::mem::replace(batch, manifest.batch()).apply()?;
    }
    Ok(())
}

fn sync(storage: &FileStorage) -> Result<(), BackupError> {
    storage.sync().map_err(io_error(storage.describe(""), "sync"))
}

fn io_error(file: impl ToString, operation: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io { file: file.to_string(), operation, source }
}

/// Takes files from one storage to another.
struct Taker<'a, 'o> {
    from: &'a dyn Storage,
    to: &'a FileStorage,
    total: u64,
    options: BackupOptions<'o>,
}

impl Taker<'_, '_> {
    /// Copies or links a file, which lies in `folder` if it lies in one, and adds its bytes to those that are `done`.
    fn take(&mut self, folder: &Path, file: &Wanted, done: &mut u64) -> Result<(), BackupError> {
        if self.options.link {
            self.link(&folder.join(&file.name), file)?;
            *done += file.bytes;
            return self.options.report(*done, self.total);
        }
        self.copy(file, done)
    }

    fn link(&self, path: &Path, file: &Wanted) -> Result<(), BackupError> {
        self.to.link(path, &file.name).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => io_error(path.display(), "link")(source),
            _ => BackupError::CannotLink { path: path.to_owned(), to: self.to.describe(&file.name), source },
        })?;
        let linked = self.to.open(&file.name).map_err(io_error(path.display(), "open"))?;
        if linked.len() == file.bytes { Ok(()) } else { Err(file.changed(&path.display().to_string())) }
    }

    fn copy(&mut self, file: &Wanted, done: &mut u64) -> Result<(), BackupError> {
        let (from, to) = (self.from.describe(&file.name), self.to.describe(&file.name));
        let source = self.from.open(&file.name).map_err(io_error(&from, "open"))?;
        if source.len() != file.bytes {
            return Err(file.changed(&from));
        }
        let mut target = self.to.create(&file.name).map_err(io_error(&to, "create"))?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
        for start in (0..file.bytes).step_by(READ_BYTES) {
            let part = usize::try_from(file.bytes - start).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let buffer = &mut buffer[..part];
            source.read_at(start, buffer).map_err(io_error(&from, "read"))?;
            digest.update(&*buffer);
            target.write(buffer).map_err(io_error(&to, "write"))?;
            *done += part as u64;
            self.options.report(*done, self.total)?;
        }
        if digest.finalize()[..] != file.sha256 {
            return Err(file.changed(&from));
        }
        target.sync().map_err(io_error(&to, "sync"))
    }
}

impl Wanted {
    /// The error of a file that is not this one.
    fn changed(&self, file: &str) -> BackupError {
        BackupError::Changed { file: file.to_string(), bytes: self.bytes, sha256: hex(&self.sha256) }
    }
}
