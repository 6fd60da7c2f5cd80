//! The index: create, open, write, take snapshots, maintain.
//!
//! - What is in the folder and who may touch it? `mod` (open), `index_file`, `committed`, `writer` (the
//!   lock).
//! - Which generations can be read? `readable`.
//! - How do rows get in? `rows` checks and encodes them, `pending` holds uncommitted changes,
//!   `writer` commits.
//! - How do rows get in that were built elsewhere? `detached` writes them, `part` describes them, `attach` takes
//!   them, `attachment` is what the index keeps of it.
//! - How does an index get a curvature? `fit` sums stored rows up, `observe` (with `observed`, the uncommitted part) sketches
//!   that are not stored, `self_influence` what follows from the sums; `artifacts` has what these share, `curvature` uses
//!   the sums, `coverage` says which rows they are of.
//! - How are rows read? `snapshot` (by id, and ranked by a scan), `iterate` (in row order),
//!   `ids`, `sources`.
//! - How is the index maintained? `compact`, `gc`, `verify`, `stats`; `backup`; `recover`, if its manifest is lost.
//!
//! This is the only folder that uses both segments and manifest. It depends on all others except the burn
//! adapter.

mod artifacts;
mod attach;
mod attachment;
mod backup;
mod committed;
mod compact;
mod coverage;
mod curvature;
mod detached;
pub(crate) mod error;
mod fit;
mod gc;
mod ids;
mod index_file;
mod iterate;
mod observe;
mod observed;
mod part;
mod pending;
mod readable;
mod recover;
mod rows;
mod self_influence;
mod snapshot;
mod sources;
mod stats;
mod verify;
mod writer;

pub use attach::{Attach, Attached};
pub use backup::{Backup, BackupOptions, BackupProgress};
pub use compact::{CompactOptions, Compaction};
pub use detached::DetachedWriter;
pub use error::{
    AppendError, AttachError, BackupError, CommitError, CreateError, DetachedError, FitError, GetError,
    MaintenanceError, OpenError, PartError, RecoverError, SnapshotError, WriterError,
};
pub use fit::{Fit, FitOptions, FitProgress};
pub use gc::{Collection, GcOptions};
pub use ids::Ids;
pub use iterate::{Rows, StoredRow};
pub use part::{Part, PartSegment, PartSums};
pub use recover::{LeftOut, LeftOutReason, Recovery};
pub use rows::{Appended, Existing, Row};
pub use self_influence::SelfInfluenceOptions;
pub use snapshot::{Example, ExampleRow, LoggedCommit, Snapshot};
pub use sources::SourceCount;
pub use stats::{ArtifactStats, ColumnStats, SegmentStats, Stats};
pub use verify::{Finding, Report, VerifyOptions, VerifyProgress};
pub use writer::{Commit, PreparedCommit, Writer};

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::files;
use crate::lock::lock;
use crate::manifest::{IndexRecord, Manifest};
use crate::scan::Feedback;
use crate::schema::{self, Schema};
use crate::segment::storage::{FileStorage, Storage};
use crate::segment::{Identity, SegmentError, SegmentReader};
use crate::sketch::SketchError;
use attachment::remove_segment;
use curvature::Cached;
use detached::Limits;
use index_file::CONTAINER_VERSION;
use readable::{Horizon, View};

const MANIFEST: &str = "manifest";
const SEGMENTS: &str = "segments";
const ARTIFACTS: &str = "artifacts";
const LOCK: &str = "LOCK";
const DEFAULT_SEGMENT_BYTES: u64 = 1 << 30;
const DEFAULT_COMMIT_EXAMPLES: usize = 2_000_000;

/// A gradient index in a folder. Cheap to clone; clones share all state.
///
/// Other programs must not change files in the folder: segments are mapped into memory.
///
/// ```
/// use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my.gradix");
/// let spec = SketchSpec::dense("mine", "v1", [("all", 3)]);
/// let index = Index::options().create(&path, &Schema::new(spec.clone(), Encoding::F32)?)?;
/// let mut writer = index.writer()?;
/// writer.append("example-1", &Sketch::dense(spec, vec![1.0, 2.0, 3.0])?)?;
/// writer.commit()?;
/// let example = index.snapshot()?.get("example-1")?.expect("it was committed");
/// assert_eq!(example.rows[0].sketch.values(), [1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Index {
    shared: Arc<Shared>,
}

/// What the handles, writers and snapshots of an index share.
#[derive(Debug)]
pub(crate) struct Shared {
    path: PathBuf,
    identity: Arc<Identity>,
    features_write: u64,
    storage: Arc<dyn Storage>,
    artifacts: Arc<dyn Storage>,
    read_only: bool,
    segment_bytes: u64,
    commit_examples: usize,
    /// The writer's view while this process has a writer, otherwise a reader's, which snapshots refresh.
    /// `None` if opening it failed: the next use retries.
    view: RwLock<Option<View>>,
    horizon: Mutex<Horizon>,
    /// Open segments.
    readers: Mutex<HashMap<Uuid, Weak<SegmentReader>>>,
    /// The measured cost of past scans, from which the planner corrects its estimates.
    feedback: Feedback,
    /// The curvature that was used last.
    preconditioner: Mutex<Option<Cached>>,
}

/// The storage of the artifacts in an index's folder. They are read, never mapped.
fn artifacts_of(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::unmapped(path.join(ARTIFACTS)))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Options to create or open an index. Made by [`Index::options`].
///
/// ```no_run
/// use gradix::Index;
/// let index = Index::options().read_only(true).open("my.gradix")?;
/// # Ok::<(), gradix::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `create` or `open` is called"]
pub struct IndexOptions {
    read_only: bool,
    segment_bytes: u64,
    commit_examples: usize,
    map_files: bool,
    storage: Option<Arc<dyn Storage>>,
    artifact_storage: Option<Arc<dyn Storage>>,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            commit_examples: DEFAULT_COMMIT_EXAMPLES,
            map_files: true,
            storage: None,
            artifact_storage: None,
        }
    }
}

impl IndexOptions {
    /// Opens the index for reading only: [`Index::writer`] returns [`WriterError::ReadOnly`]. Works on a
    /// read-only file system. Default: `false`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The target size of a segment file in bytes: the writer starts a new segment when the open one has
    /// reached it. Default: 1 GiB. Minimum: 1 MiB; a smaller value is raised to it.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.max(1 << 20);
        self
    }

    /// The maximum number of examples that one commit may change, which bounds its memory: at its peak a commit
    /// takes about 400 bytes and three times the id for each of them (`benches/scale.rs`), and so does a compaction
    /// for those that it moves. [`Writer::append`] and the others return [`AppendError::CommitFull`] when it is
    /// reached: commit, and go on. Compaction commits in between; only a single segment that has more examples is
    /// still moved in one commit. Default: 2 million. Minimum: 1.
    pub fn commit_examples(mut self, examples: usize) -> Self {
        self.commit_examples = examples.max(1);
        self
    }

    /// Whether scans map segment files into memory. Everything else reads them. With `false`, scans read them too,
    /// from the page cache or past it: slower, but a bad sector, or another program that cuts a file off, is an
    /// error then and not a SIGBUS ([`FileStorage::unmapped`]). Has no effect on a [`IndexOptions::storage`] of your
    /// own. Default: `true`.
    pub fn map_files(mut self, map_files: bool) -> Self {
        self.map_files = map_files;
        self
    }

    /// Stores segment files in `storage`. Default: a [`FileStorage`] over the folder `segments`.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Stores artifact files (the sums of a curvature, the self-influence of rows) in `storage`, which no other index
    /// uses. Default: a [`FileStorage`] over the folder `artifacts`.
    pub fn artifact_storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.artifact_storage = Some(storage);
        self
    }

    /// Creates an index in a folder that does not exist yet or is empty, and opens it.
    ///
    /// `INDEX` is written last: an interrupted creation leaves a folder that is not an index. Remove the
    /// folder before trying again.
    ///
    /// # Errors
    /// The folder is an index or holds other files, the schema is invalid, or the file system fails.
    pub fn create(self, path: impl AsRef<Path>, schema: &Schema) -> Result<Index, CreateError> {
        let path = &std::path::absolute(path.as_ref()).map_err(|source| CreateError::Io {
            path: path.as_ref().to_owned(),
            operation: "find the absolute path of",
            source,
        })?;
        schema.check()?;
        let body = schema.to_json().map_err(|source| CreateError::Io {
            path: path.to_owned(),
            operation: "encode the schema for",
            source: source.into(),
        })?;
        if body.len() > index_file::MAX_BODY {
            let reason = format!("its JSON has {} bytes; the maximum is 16 MiB", body.len());
            return Err(SketchError::InvalidSpec { reason }.into());
        }
        let io = |path: &Path, operation| {
            let path = path.to_owned();
            move |source| CreateError::Io { path, operation, source }
        };
        files::create_folders(path).map_err(io(path, "create"))?;
        if index_file::exists(path) {
            return Err(CreateError::Exists { path: path.to_owned() });
        }
        if fs::read_dir(path).map_err(io(path, "list"))?.next().is_some() {
            return Err(CreateError::NotEmpty { path: path.to_owned() });
        }
        let index = Uuid::new_v4();
        let schema_digest = schema::digest(&body);
        let record = IndexRecord {
            index: index.into_bytes(),
            schema_digest,
            container_version: CONTAINER_VERSION,
            features_read: 0,
            features_write: 0,
            features_info: 0,
        };
        fs::create_dir(path.join(SEGMENTS)).map_err(io(path, "create the segments folder of"))?;
        fs::create_dir(path.join(ARTIFACTS)).map_err(io(path, "create the artifacts folder of"))?;
        fs::File::create_new(path.join(LOCK)).map_err(io(path, "create the lock of"))?;
        Manifest::create(&path.join(MANIFEST), &record)?;
        committed::write(path, 0)?;
        index_file::write(path, index, &body)?;
        Ok(self.open(path)?)
    }

    /// Opens an existing index. Call [`Index::writer`] to write to it.
    ///
    /// # Errors
    /// The folder is not an index, is damaged, or was written by a later version; or the file system fails.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Index, OpenError> {
        // A relative path would be another one after a change of the working directory.
        let path = &std::path::absolute(path.as_ref()).map_err(|source| OpenError::Io {
            path: path.as_ref().to_owned(),
            operation: "find the absolute path of",
            source,
        })?;
        let (identity, features) = index_file::read(path)?;
        for name in [SEGMENTS, ARTIFACTS, MANIFEST] {
            let folder = path.join(name);
            files::check_folder(&folder).map_err(|source| OpenError::Io {
                path: folder,
                operation: "open the folder",
                source,
            })?;
        }
        let view = View::open(path, &identity)?;
        let record = view.manifest.index()?;
        if record.container_version > CONTAINER_VERSION {
            let (path, found) = (path.join(MANIFEST), record.container_version);
            return Err(OpenError::Newer { path, found, supported: CONTAINER_VERSION });
        }
        if record.features_read != 0 {
            return Err(OpenError::UnknownFeature { path: path.join(MANIFEST), bits: record.features_read });
        }
        let storage = self.storage.unwrap_or_else(|| {
            let folder = path.join(SEGMENTS);
            Arc::new(if self.map_files { FileStorage::new(folder) } else { FileStorage::unmapped(folder) })
        });
        let artifacts = self.artifact_storage.unwrap_or_else(|| artifacts_of(path));
        Ok(Index {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                identity: Arc::new(identity),
                features_write: features.write | record.features_write,
                storage,
                artifacts,
                read_only: self.read_only,
                segment_bytes: self.segment_bytes,
                commit_examples: self.commit_examples,
                view: RwLock::new(Some(view)),
                horizon: Mutex::default(),
                readers: Mutex::default(),
                feedback: Feedback::default(),
                preconditioner: Mutex::default(),
            }),
        })
    }
}

impl IndexOptions {
    /// Opens a writer that builds segments apart from the index, of which it needs a copy of the file `INDEX` only,
    /// in a folder that is created if need be. Its segments have the [size](IndexOptions::segment_bytes), its parts
    /// the [maximum of examples](IndexOptions::commit_examples) of these options; the others do not matter.
    ///
    /// # Errors
    /// The file is not an `INDEX`, or the index needs a feature that this version cannot write; another detached
    /// writer is open in the folder, or it holds parts of another index; or the file system fails.
    pub fn detached(
        self,
        index_file: impl AsRef<Path>,
        folder: impl AsRef<Path>,
    ) -> Result<DetachedWriter, DetachedError> {
        let file = index_file.as_ref();
        let (identity, features) = index_file::read_file(file, file.to_owned())?;
        if features.write != 0 {
            return Err(WriterError::UnknownFeature { path: file.to_owned(), bits: features.write }.into());
        }
        let limits = Limits { segment_bytes: self.segment_bytes, commit_examples: self.commit_examples };
        DetachedWriter::open(Arc::new(identity), folder.as_ref(), limits)
    }

    /// As [`Index::recover`], with the segments in the [storage](IndexOptions::storage) of these options.
    ///
    /// # Errors
    /// As [`Index::recover`]; or the options are for reading only.
    pub fn recover(self, path: impl AsRef<Path>) -> Result<Recovery, RecoverError> {
        let path = path.as_ref();
        if self.read_only {
            return Err(WriterError::ReadOnly { path: path.to_owned() }.into());
        }
        let path = std::path::absolute(path).map_err(|source| RecoverError::Io {
            path: path.to_owned(),
            operation: "find the absolute path of",
            source,
        })?;
        recover::run(&path, self.storage, self.artifact_storage)
    }
}

impl Index {
    /// Options to create or open an index.
    pub fn options() -> IndexOptions {
        IndexOptions::default()
    }

    /// Creates an index with the default options, in a folder that does not exist yet or is empty, and
    /// opens it.
    ///
    /// # Errors
    /// As [`IndexOptions::create`].
    pub fn create(path: impl AsRef<Path>, schema: &Schema) -> Result<Self, CreateError> {
        Self::options().create(path, schema)
    }

    /// Opens an index with the default options.
    ///
    /// # Errors
    /// As [`IndexOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(path)
    }

    /// Builds the manifest of an index anew from `INDEX` and its segment files, where the manifest is lost or
    /// damaged. gradix never does this by itself.
    ///
    /// Move what is left of the folder `manifest` away first: recovery overwrites nothing, and refuses
    /// while there is one, or while a writer is open. Every segment is [verified](Index::verify) in full;
    /// damaged ones and those of commits that were never acknowledged are left out, and
    /// [`Recovery::left_out`] names them. Move these away too before writing to the index: a later recovery
    /// could not tell the latter from committed ones. The new manifest is visible only when it is complete.
    /// A recovery that fails or is interrupted can be repeated.
    ///
    /// Segments do not hold everything that a manifest does. These are lost:
    /// - **Deletions**: a deleted example is there again, even one that was deleted in the commit that
    ///   appended it, unless compaction has dropped its rows and garbage collection has removed the file. A
    ///   replaced example has its last rows, unless their segment is left out: then it has earlier ones, if
    ///   there are any.
    /// - Earlier generations: the index has one, the last that was acknowledged.
    /// - Payloads and times of commits.
    /// - Artifacts: what was fitted can be fitted again, but what was [observed](Writer::observe) is nowhere else. The
    ///   next writer removes the files in `artifacts`.
    ///
    /// Memory: a row group for each thread, and 4 MiB of records with their ids.
    ///
    /// # Errors
    /// There is a manifest, or no readable `INDEX`; `COMMITTED` is damaged; another writer is open; a folder
    /// `manifest.recovering` is there that no recovery of this index has left; or the storage, the database
    /// or the file system fails.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("i");
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # writer.append("a", &Sketch::dense(spec, vec![3.0, 4.0])?)?;
    /// # writer.commit()?;
    /// # drop((writer, index));
    /// std::fs::rename(path.join("manifest"), path.join("manifest.lost"))?;
    /// let recovery = Index::recover(&path)?;
    /// assert_eq!((recovery.generation, recovery.examples), (1, 1));
    /// assert!(recovery.left_out.is_empty(), "{:?}", recovery.left_out);
    /// let index = Index::open(&path)?;
    /// # assert!(index.snapshot()?.get("a")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recover(path: impl AsRef<Path>) -> Result<Recovery, RecoverError> {
        Self::options().recover(path)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The schema: the sketch spec, the encodings and the tiers.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.shared.identity.schema
    }

    /// The index's UUID, which is generated when it is created.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.shared.identity.index
    }

    /// Opens the writer. An index has at most one writer at a time, over all processes. Opening it removes
    /// the uncommitted segments that an interrupted writer left.
    ///
    /// # Errors
    /// Another writer is open, the index is read-only, or the manifest or the file system fails.
    pub fn writer(&self) -> Result<Writer, WriterError> {
        Writer::open(&self.shared)
    }

    /// Opens a writer that builds segments of this index apart from it, in a folder that is created if need be.
    /// There may be any number of them, each in a folder of its own, beside [the writer](Index::writer), which
    /// [attaches](Writer::attach) what they have finished. [`IndexOptions::detached`] does without the index.
    ///
    /// # Errors
    /// The index needs a feature that this version cannot write; another detached writer is open in the folder, or
    /// it holds parts of another index; or the file system fails.
    pub fn detached(&self, folder: impl AsRef<Path>) -> Result<DetachedWriter, DetachedError> {
        let Shared { path, identity, features_write, segment_bytes, commit_examples, .. } = &*self.shared;
        if *features_write != 0 {
            return Err(WriterError::UnknownFeature { path: path.clone(), bits: *features_write }.into());
        }
        let limits = Limits { segment_bytes: *segment_bytes, commit_examples: *commit_examples };
        DetachedWriter::open(Arc::clone(identity), folder.as_ref(), limits)
    }

    /// A view of the newest generation.
    ///
    /// # Errors
    /// A segment or the manifest cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        Snapshot::take(&self.shared, None)
    }

    /// A view of an earlier generation that has not been collected (see [`Writer::gc`]).
    ///
    /// # Errors
    /// The generation has been collected or does not exist yet; or as [`Index::snapshot`].
    pub fn snapshot_at(&self, generation: u64) -> Result<Snapshot, SnapshotError> {
        Snapshot::take(&self.shared, Some(generation))
    }

    /// Checks every checksum, every stored row, and every reference between manifest and segments. Reads the
    /// whole index; repairs nothing.
    ///
    /// # Errors
    /// The newest generation cannot be read from the manifest. All other damage is a finding of the report.
    pub fn verify(&self) -> Result<Report, SnapshotError> {
        self.verify_with(VerifyOptions::default())
    }

    /// The same, with progress and cancellation.
    ///
    /// ```no_run
    /// use gradix::{Index, VerifyOptions};
    /// let index = Index::open("my.gradix")?;
    /// let progress = |at: gradix::VerifyProgress| eprintln!("{} of {} bytes", at.bytes_done, at.bytes_total);
    /// let report = index.verify_with(VerifyOptions::default().progress(progress))?;
    /// assert!(report.is_sound(), "{:?}", report.findings);
    /// # Ok::<(), gradix::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Index::verify`]; or it was cancelled.
    pub fn verify_with(&self, options: VerifyOptions<'_>) -> Result<Report, SnapshotError> {
        verify::run(&self.shared, options)
    }

    /// Counts of rows and dead rows, and sizes in bytes: in total, and for each column and segment.
    ///
    /// # Errors
    /// As [`Index::snapshot`].
    pub fn stats(&self) -> Result<Stats, SnapshotError> {
        self.snapshot()?.stats()
    }
}

impl Shared {
    /// Removes what these UUIDs name, segments and artifacts, durably.
    fn remove_files(&self, files: &[Uuid]) -> Result<(), SegmentError> {
        for &file in files {
            remove_segment(self.storage.as_ref(), file)?;
            let name = crate::artifact::file_name(file);
            self.artifacts.remove(&name).map_err(|source| SegmentError::Io {
                file: self.artifacts.describe(&name),
                operation: "remove",
                source,
            })?;
        }
        for storage in [&self.storage, &self.artifacts] {
            storage.sync().map_err(|source| {
                let file = storage.describe("");
                SegmentError::Io { file, operation: "sync", source }
            })?;
        }
        Ok(())
    }

    /// Opens a segment, or shares it if it is open already.
    fn reader(&self, segment: Uuid) -> Result<Arc<SegmentReader>, SegmentError> {
        if let Some(reader) = lock(&self.readers).get(&segment).and_then(Weak::upgrade) {
            return Ok(reader);
        }
        let reader = Arc::new(SegmentReader::open(self.storage.as_ref(), &self.identity, segment)?);
        let mut readers = lock(&self.readers);
        readers.retain(|_, reader| reader.strong_count() > 0);
        readers.insert(segment, Arc::downgrade(&reader));
        Ok(reader)
    }
}
