//! Recovery: builds a lost manifest anew from the segments.
//!
//! The new manifest is built in the folder `manifest.recovering` and renamed when it is complete, so that a
//! crash leaves either no manifest or a whole one.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;
use uuid::Uuid;

use super::attachment::{describe_note, read_note};
use super::error::{RecoverError, WriterError};
use super::index_file::CONTAINER_VERSION;
use super::verify::{self, Finding, Report};
use super::writer::Lock;
use super::{ARTIFACTS, MANIFEST, SEGMENTS, artifacts_of, committed, index_file, now_ms};
use crate::artifact::ArtifactReader;
use crate::files::{create_folders, sync_folder};
use crate::manifest::{
    Batch, CommitRecord, ExampleHistory, ExampleVersion, IndexRecord, Location, Manifest, ManifestError,
    SegmentRecord, StateRecord,
};
use crate::segment::storage::{FileStorage, Storage};
use crate::segment::{Identity, Origin, SegmentError, SegmentReader, file_name};

/// The folder in which a manifest is built: it holds the database, and the file that says whose it is.
const RECOVERING: &str = "manifest.recovering";
const MARK: &str = "RECOVERING";

/// The number of bytes at which a write batch is applied.
const BATCH_BYTES: usize = 4 << 20;

/// The result of [`Index::recover`](crate::Index::recover). `Serialize` with the feature `serde`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[must_use = "it says what could not be recovered"]
pub struct Recovery {
    /// The index's only generation now: the last acknowledged one, or, where that is not known, the last
    /// one for which a segment was written.
    pub generation: u64,
    /// The last acknowledged generation, as the file `COMMITTED` has it. `None` if there was no such file:
    /// then segments of a commit that was never acknowledged cannot be told from the others, and are used.
    pub committed: Option<u64>,
    /// The files of the segments that were used, the earliest first.
    pub segments: Vec<String>,
    /// The files of segments that were not used, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// Examples of the index.
    pub examples: u64,
    /// Their rows.
    pub rows: u64,
    /// Examples in the segments that a later one of the same id replaces. Their rows are dead.
    pub superseded: u64,
    /// How many of these are in a segment of which it is not known that it was written before that of the
    /// later one. 0, unless segments were attached, and the files are gone that say for which commit.
    pub ambiguous: u64,
}

/// A file in the folder of segments that recovery did not use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeftOut {
    /// The file.
    pub file: String,
    /// Why it was not used.
    pub reason: LeftOutReason,
}

/// Why recovery did not use a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LeftOutReason {
    /// It is not named as a segment is: by a UUID in lower case.
    OtherName,
    /// It cannot be opened as a segment of this index: it is damaged, belongs to another index or schema,
    /// or was written by a later version. Or the file beside it is damaged that says for which commit it was attached:
    /// without that file it is used, as one of the first commit.
    Unusable {
        /// The error.
        error: String,
    },
    /// Verification has found faults in it.
    Damaged {
        /// All faults.
        findings: Vec<Finding>,
    },
    /// It was written for a commit that was never acknowledged.
    NotCommitted {
        /// The generation of that commit.
        generation: u64,
    },
}

/// A segment that can be opened.
struct Found {
    origin: Origin,
    segment: Uuid,
}

/// Builds the manifest of the index in `path`, which must have none.
pub(super) fn run(
    path: &Path,
    storage: Option<Arc<dyn Storage>>,
    artifacts: Option<Arc<dyn Storage>>,
) -> Result<Recovery, RecoverError> {
    let (identity, features) = index_file::read(path)?;
    if features.write != 0 {
        return Err(WriterError::UnknownFeature { path: path.to_owned(), bits: features.write }.into());
    }
    let _lock = Lock::take(path)?;
    let io = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| RecoverError::Io { path, operation, source }
    };
    refuse_existing(&path.join(MANIFEST))?;
    let folder = path.join(RECOVERING);
    let mark = format!("a manifest of index {} is being built here\n", identity.index);
    remove_interrupted(&folder, &mark)?;

    let storage = storage.unwrap_or_else(|| Arc::new(FileStorage::new(path.join(SEGMENTS))));
    let artifacts = match artifacts {
        Some(artifacts) => artifacts,
        None => {
            let folder = path.join(ARTIFACTS);
            create_folders(&folder).map_err(io(&folder, "create"))?;
            artifacts_of(path)
        }
    };
    let identity = Arc::new(identity);
    let mut recovery = Recovery::default();
    let has_committed = fs::symlink_metadata(path.join(committed::NAME));
    recovery.committed = match has_committed {
        Ok(_) => Some(committed::read(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(io(&path.join(committed::NAME), "look at")(source)),
    };
    let found = find(path, storage.as_ref(), &identity, &mut recovery)?;
    // A segment that does not state its generation was committed by the first generation at the earliest.
    let last = found.iter().map(|found| found.origin.generation.max(1)).max().unwrap_or(0);
    recovery.generation = recovery.committed.unwrap_or(0).max(last);

    fs::create_dir(&folder).map_err(io(&folder, "create"))?;
    let mark_path = folder.join(MARK);
    let marked = File::create_new(&mark_path).and_then(|mut file| {
        io::Write::write_all(&mut file, mark.as_bytes())?;
        file.sync_all()
    });
    marked.map_err(io(&mark_path, "write"))?;
    sync_folder(&folder).map_err(io(&folder, "sync"))?;
    let built = folder.join(MANIFEST);
    Manifest::create(&built, &index_record(&identity))?;
    {
        let manifest = Manifest::open_primary(&built)?;
        let builder = Builder { manifest: &manifest, storage: storage.as_ref(), identity: &identity };
        builder.build(found, &mut recovery)?;
        // Which rows they cover is lost with the manifest: the next writer removes them.
        forget_artifacts(&manifest, artifacts.as_ref(), &identity)?;
    }
    sync_files(&built).map_err(io(&built, "sync"))?;
    if recovery.committed.is_none() {
        // Without it the index looks as if nothing had been acknowledged. A crash from here on repeats the
        // recovery with the same segments.
        committed::write(path, recovery.generation)?;
    }
    let target = path.join(MANIFEST);
    refuse_existing(&target)?;
    fs::rename(&built, &target).map_err(io(&target, "put into place"))?;
    sync_folder(path).map_err(io(path, "sync"))?;
    if let Err(error) = remove(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove what the recovery has left");
    }
    Ok(recovery)
}

/// Notes an intent for each artifact of this index.
fn forget_artifacts(
    manifest: &Manifest,
    artifacts: &dyn Storage,
    identity: &Identity,
) -> Result<(), RecoverError> {
    let listed = artifacts.list().map_err(|source| RecoverError::Io {
        path: artifacts.describe("").into(),
        operation: "list the artifacts in",
        source,
    })?;
    let mut batch = manifest.batch();
    for name in listed {
        let artifact = name.strip_suffix(".art").and_then(|stem| Uuid::try_parse(stem).ok());
        if let Some(artifact) = artifact
            && crate::artifact::file_name(artifact) == name
            && ArtifactReader::open(artifacts, identity, artifact).is_ok()
        {
            batch.put_intent(artifact, now_ms())?;
        }
    }
    Ok(batch.apply()?)
}

/// Nothing may be in the manifest's place: recovery overwrites nothing.
fn refuse_existing(manifest: &Path) -> Result<(), RecoverError> {
    match fs::symlink_metadata(manifest) {
        Ok(_) => Err(RecoverError::ManifestExists { path: manifest.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RecoverError::Io { path: manifest.to_owned(), operation: "look at", source }),
    }
}

/// Removes what an interrupted recovery of this index has left, and nothing else: an empty folder, or one
/// with its mark.
fn remove_interrupted(folder: &Path, mark: &str) -> Result<(), RecoverError> {
    let io = |operation| move |source| RecoverError::Io { path: folder.to_owned(), operation, source };
    let occupied = || RecoverError::Occupied { path: folder.to_owned() };
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(occupied()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io("look at")(source)),
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list"))? {
        entries.push(entry.map_err(io("list"))?);
    }
    let is_mark = |entry: &fs::DirEntry| {
        entry.file_name() == MARK && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    let is_ours = entries.iter().all(|entry| is_mark(entry) || entry.file_name() == MANIFEST);
    let marked = match entries.iter().find(|entry| is_mark(entry)) {
        Some(entry) => {
            let length = entry.metadata().map_err(io("look at"))?.len();
            // A crash may have left the beginning of the mark, and then nothing else.
            let is_whole = length == mark.len() as u64;
            let is_begun = length < mark.len() as u64 && entries.len() == 1;
            let text =
                if is_whole || is_begun { fs::read(entry.path()).map_err(io("read"))? } else { Vec::new() };
            (is_whole || is_begun) && mark.as_bytes().starts_with(&text)
        }
        None => entries.is_empty(),
    };
    if !marked || !is_ours {
        return Err(occupied());
    }
    tracing::info!(folder = %folder.display(), "removing what an interrupted recovery has left");
    remove(folder).map_err(io("remove"))
}

/// Removes the folder of a recovery, its mark last, so that a crash leaves it marked.
fn remove(folder: &Path) -> io::Result<()> {
    let unless_gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    unless_gone(fs::remove_dir_all(folder.join(MANIFEST)))?;
    sync_folder(folder)?;
    unless_gone(fs::remove_file(folder.join(MARK)))?;
    fs::remove_dir(folder)
}

fn index_record(identity: &Identity) -> IndexRecord {
    IndexRecord {
        index: identity.index.into_bytes(),
        schema_digest: identity.schema_digest,
        container_version: CONTAINER_VERSION,
        features_read: 0,
        features_write: 0,
        features_info: 0,
    }
}

/// Makes a folder and all its files durable.
fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// The segments that can be opened and that were committed, in the order in which they were written.
fn find(
    path: &Path,
    storage: &dyn Storage,
    identity: &Arc<Identity>,
    recovery: &mut Recovery,
) -> Result<Vec<Found>, RecoverError> {
    let listed = storage.list().map_err(|source| RecoverError::Io {
        path: path.join(SEGMENTS),
        operation: "list the segments in",
        source,
    })?;
    let mut names: Vec<String> = listed.into_iter().filter(|name| name.ends_with(".seg")).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let mut leave_out =
            |reason| recovery.left_out.push(LeftOut { file: storage.describe(&name), reason });
        let segment = name.strip_suffix(".seg").and_then(|stem| Uuid::try_parse(stem).ok());
        let Some(segment) = segment.filter(|&segment| file_name(segment) == name) else {
            leave_out(LeftOutReason::OtherName);
            continue;
        };
        let stated = match SegmentReader::open(storage, identity, segment) {
            Ok(reader) => reader.origin(),
            Err(error) if is_passing(&error) => return Err(error.into()),
            Err(error) => {
                leave_out(LeftOutReason::Unusable { error: Finding::from_error("", &error).message });
                continue;
            }
        };
        let noted = match stated.generation {
            0 => read_note(storage, identity.index, segment)?.unwrap_or(Ok(stated)),
            _ => Ok(stated),
        };
        let origin = match noted {
            Ok(origin) => origin,
            Err(reason) => {
                let error = format!("{}: {reason}", describe_note(storage, segment));
                leave_out(LeftOutReason::Unusable { error });
                continue;
            }
        };
        if recovery.committed.is_some_and(|committed| origin.generation > committed) {
            leave_out(LeftOutReason::NotCommitted { generation: origin.generation });
            continue;
        }
        found.push(Found { origin, segment });
    }
    found.sort_unstable_by_key(|found| (found.origin, found.segment));
    Ok(found)
}

/// Whether the storage failed, rather than the file: then the recovery fails, as it may succeed later.
fn is_passing(error: &SegmentError) -> bool {
    // Not a regular file.
    matches!(error, SegmentError::Io { source, .. } if source.kind() != io::ErrorKind::InvalidInput)
}

struct Builder<'a> {
    manifest: &'a Manifest,
    storage: &'a dyn Storage,
    identity: &'a Arc<Identity>,
}

/// The batch that is being filled.
struct Open<'a> {
    batch: Batch<'a>,
    /// The examples in it, which the manifest does not have yet, and their segments.
    examples: HashMap<Vec<u8>, Uuid>,
}

impl Builder<'_> {
    /// Writes all records of one generation. The database is not visible yet, so that batches may be
    /// applied one after the other.
    fn build(&self, found: Vec<Found>, recovery: &mut Recovery) -> Result<(), RecoverError> {
        let mut open = Open { batch: self.manifest.batch(), examples: HashMap::new() };
        // From the last row of the latest segment to the first of the earliest: of several examples with
        // one id the first to be met is the one that counts, and memory holds the dead rows of one segment
        // at a time.
        let mut same: (Origin, HashSet<Uuid>) = Default::default();
        for Found { origin, segment } in found.into_iter().rev() {
            let reader = SegmentReader::open(self.storage, self.identity, segment)?;
            let mut report = Report::default();
            verify::verify_segment(&reader, &self.identity.schema, None, &mut report);
            if !report.findings.is_empty() {
                let reason = LeftOutReason::Damaged { findings: report.findings };
                recovery.left_out.push(LeftOut { file: reader.file().to_owned(), reason });
                continue;
            }
            if same.0 != origin {
                same = (origin, HashSet::new());
            }
            self.add(&reader, origin, &same.1, &mut open, recovery)?;
            same.1.insert(segment);
            recovery.segments.push(reader.file().to_owned());
        }
        recovery.segments.reverse();
        recovery.left_out.sort_by(|a, b| a.file.cmp(&b.file));

        let generation = recovery.generation;
        let mut batch = open.batch;
        if generation > 0 {
            let record = CommitRecord {
                time_ms: now_ms(),
                payload: Vec::new(),
                appended: recovery.rows,
                deleted: 0,
                segments_added: u32::try_from(recovery.segments.len()).unwrap_or(u32::MAX),
                segments_removed: 0,
            };
            batch.put_commit(generation, &record)?;
        }
        batch.put_state(&StateRecord { generation, oldest: generation })?;
        batch.apply()?;
        Ok(self.manifest.flush()?)
    }

    /// Adds the records of a segment and of the examples that no later segment has. `same` are those that
    /// count as later, but have the same origin.
    fn add<'m>(
        &'m self,
        reader: &SegmentReader,
        origin: Origin,
        same: &HashSet<Uuid>,
        open: &mut Open<'m>,
        recovery: &mut Recovery,
    ) -> Result<(), RecoverError> {
        let (segment, generation) = (reader.segment(), origin.generation.max(1));
        let mut dead = RoaringBitmap::new();
        let mut examples = 0;
        for (ordinal, group) in reader.groups().iter().enumerate().rev() {
            let ids = reader.ids(ordinal)?;
            let mut end = group.rows;
            while end > 0 {
                let id = ids.get(end as usize - 1);
                // Each run of an id in a row group is one example.
                let rows = (0..end).rev().take_while(|&row| ids.get(row as usize) == id).count();
                let rows = u32::try_from(rows).unwrap_or(end);
                end -= rows;
                examples += 1;
                let first = group.first_row + end;
                if let Some(later) = self.later(id, open)? {
                    dead.insert_range(first..first + rows);
                    recovery.superseded += 1;
                    recovery.ambiguous += u64::from(same.contains(&later));
                    continue;
                }
                let location = Some(Location::new(segment, first, rows));
                let history = ExampleHistory(vec![ExampleVersion { generation, location }]);
                open.batch.put_example(id, &history)?;
                open.examples.insert(id.to_owned(), segment);
                recovery.examples += 1;
                recovery.rows += u64::from(rows);
                if open.batch.byte_len() > BATCH_BYTES {
                    self.apply(open)?;
                }
            }
        }
        let record = SegmentRecord {
            rows: u64::from(reader.rows()),
            examples,
            bytes: reader.bytes(),
            sha256: reader.sha256()?,
            added: generation,
            ordinal: origin.ordinal,
            removed: None,
            removed_ms: None,
        };
        open.batch.put_segment(segment, &record)?;
        if !dead.is_empty() {
            open.batch.put_deletes(segment, recovery.generation, &dead)?;
        }
        Ok(())
    }

    /// The segment of the example that counts, if one has been met.
    fn later(&self, id: &[u8], open: &Open<'_>) -> Result<Option<Uuid>, ManifestError> {
        if let Some(&segment) = open.examples.get(id) {
            return Ok(Some(segment));
        }
        let location = self.manifest.example(id)?.and_then(|history| history.at(u64::MAX));
        Ok(location.map(|location| location.segment()))
    }

    fn apply<'m>(&'m self, open: &mut Open<'m>) -> Result<(), ManifestError> {
        open.examples.clear();
        std::mem::replace(&mut open.batch, self.manifest.batch()).apply()
    }
}
