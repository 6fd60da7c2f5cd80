//! The detached writer: builds segments of an index apart from it, in another process or on another machine.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::error::{AppendError, CommitError, DetachedError, FitError, PartError};
use super::fit::{FitOptions, Start, estimates, sum};
use super::index_file;
use super::observe::{check_specs, write_sums};
use super::observed::{Observations, Observed};
use super::part::{self, MAX_PAYLOAD, MAX_SEGMENTS, MAX_SUMS, Part, PartSegment, PartSums, Stage};
use super::rows::{self, Appended, Row};
use super::writer::Lock;
use crate::artifact::SealedArtifact;
use crate::curvature::{Estimate, check_name};
use crate::files;
use crate::schema::Schema;
use crate::segment::storage::{FileStorage, Storage};
use crate::segment::{
    EncodedRow, Identity, LiveSegment, Origin, RowEncoder, Sealed, SegmentError, SegmentReader,
    SegmentWriter, file_name,
};
use crate::sketch::Sketch;

/// Builds segments of an index without the index: in another process or on another machine, any number of them at a
/// time. Made by [`Index::detached`](crate::Index::detached), or from a copy of the file `INDEX` by
/// [`IndexOptions::detached`](crate::IndexOptions::detached). [`Writer::attach`](crate::Writer::attach) takes what it
/// has finished into the index.
///
/// It writes **parts** into a folder of the caller's. [`DetachedWriter::finish`] makes what was appended since the
/// last call a part, durably and with a payload, as a commit does in an index. A writer that is killed leaves its
/// finished parts and nothing else that could be attached; opened again in the same folder, it removes what was
/// unfinished, and goes on with the next number.
///
/// An id may occur once in a part. Whether it is in another part or in the index is known only when parts are
/// attached. A failed write or sync **poisons** the writer: every later call returns a `Poisoned` error. Drop it and
/// open another. A process that was forked from the writer's cannot use it.
///
/// Memory: one row group (about 32 MiB, its tiers, and 16 MiB of ids and metadata up to three times), and about 50
/// bytes plus the id for each example of the unfinished part, of which there are at most
/// [`IndexOptions::commit_examples`](crate::IndexOptions::commit_examples).
///
/// ```
/// # use gradix::{Attach, Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my.gradix");
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # Index::create(&path, &Schema::new(spec.clone(), Encoding::F32)?)?;
/// // In another process, perhaps on another machine: a copy of the file `INDEX` is all it needs.
/// let built = folder.path().join("gpu-1");
/// let mut detached = Index::options().detached(path.join("INDEX"), &built)?;
/// detached.append("a", &Sketch::dense(spec.clone(), vec![3.0, 4.0])?)?;
/// let part = detached.finish("examples 0 to 1 of the input")?;
/// assert_eq!((part.number, part.examples()), (1, 1));
///
/// // Where the index is:
/// let index = Index::open(&path)?;
/// let mut writer = index.writer()?;
/// writer.attach(&built, Attach::Link)?;
/// writer.commit()?;
/// assert!(index.snapshot()?.get("a")?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DetachedWriter {
    folder: PathBuf,
    identity: Arc<Identity>,
    encoder: RowEncoder,
    segment_bytes: u64,
    commit_examples: usize,
    /// The number of the last finished part.
    last: u64,
    /// The storage in the folder of the unfinished part, once it has been made.
    storage: Option<Arc<dyn Storage>>,
    ids: HashSet<Box<[u8]>>,
    /// The curvatures whose sums each part gets, with the estimate of each block.
    fits: BTreeMap<String, Vec<Estimate>>,
    observations: Observations,
    open: Option<SegmentWriter>,
    sealed: Vec<Sealed>,
    poisoned: bool,
    /// Released after everything else.
    lock: Lock,
}

/// How much a detached writer writes at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub segment_bytes: u64,
    pub commit_examples: usize,
}

impl DetachedWriter {
    pub(super) fn open(
        identity: Arc<Identity>,
        folder: &Path,
        limits: Limits,
    ) -> Result<Self, DetachedError> {
        let io = |path: &Path, operation| {
            let path = path.to_owned();
            move |source| DetachedError::Io { path, operation, source }
        };
        let folder = std::path::absolute(folder).map_err(io(folder, "find the absolute path of"))?;
        files::create_folders(&folder).map_err(io(&folder, "create"))?;
        if index_file::exists(&folder) {
            return Err(DetachedError::Occupied { path: folder });
        }
        let lock = Lock::take(&folder)?;
        let mut last = None;
        for (number, stage, path) in part::list(&folder).map_err(io(&folder, "list the parts in"))? {
            match stage {
                Stage::Unfinished => remove_unfinished(&path, true)?,
                // Those who moved it were interrupted.
                Stage::Moved => remove_unfinished(&path, false)?,
                Stage::Finished => {}
            }
            if stage != Stage::Unfinished {
                last = Some((number, path));
            }
        }
        files::sync_folder(&folder).map_err(io(&folder, "sync"))?;
        if let Some((_, path)) = &last {
            let part = Part::read(path)?;
            if part.index != identity.index || part.schema_digest != identity.schema_digest {
                return Err(DetachedError::Foreign {
                    path: folder,
                    found: part.index,
                    expected: identity.index,
                });
            }
        }
        Ok(Self {
            folder,
            encoder: RowEncoder::new(&identity.schema),
            identity,
            segment_bytes: limits.segment_bytes,
            commit_examples: limits.commit_examples,
            last: last.map_or(0, |(number, _)| number),
            storage: None,
            ids: HashSet::new(),
            fits: BTreeMap::new(),
            observations: Observations::default(),
            open: None,
            sealed: Vec::new(),
            poisoned: false,
            lock,
        })
    }

    /// The index's schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.identity.schema
    }

    /// The index's UUID.
    #[must_use]
    pub fn index(&self) -> Uuid {
        self.identity.index
    }

    /// The folder in which the parts are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the last finished part; 0 if there is none. As a writer's
    /// [generation](crate::Writer::generation), it grows by one with each.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.last
    }

    /// The payload of a finished part, by its number from 1 on; `None` if the part is not there any more. That of a
    /// part that was [moved](crate::Attach::Move) is still there.
    ///
    /// # Errors
    /// The part cannot be read.
    pub fn payload(&self, number: u64) -> Result<Option<Vec<u8>>, PartError> {
        for stage in [Stage::Finished, Stage::Moved] {
            match Part::read(self.folder.join(part::folder_name(number, stage))) {
                Ok(part) => return Ok(Some(part.payload)),
                Err(PartError::Unfinished { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Appends an example with one row for the whole example.
    ///
    /// # Errors
    /// The id was appended to this part already, the sketch has another spec or cannot be encoded, or the file system
    /// fails. Only the last of these poisons the writer.
    pub fn append(
        &mut self,
        id: impl AsRef<[u8]>,
        sketch: &crate::sketch::Sketch,
    ) -> Result<(), AppendError> {
        self.append_rows(id, &[Row::new(sketch)])
    }

    /// Appends an example with one or more rows, usually one for each span.
    ///
    /// # Errors
    /// As [`DetachedWriter::append`]; or there are no rows, or a span, source or metadata is out of its limits.
    pub fn append_rows(&mut self, id: impl AsRef<[u8]>, rows: &[Row<'_>]) -> Result<(), AppendError> {
        let id = id.as_ref();
        self.check_room(1)?;
        let encoded = rows::encode(&self.identity.schema, &self.encoder, id, rows)?;
        if self.ids.contains(id) {
            return Err(AppendError::DuplicateId { id: id.to_owned() });
        }
        self.push(id, rows, &encoded)
    }

    /// Appends a batch of examples of one row each, encoded on rayon's global thread pool. If one of them
    /// cannot be appended, none is. An empty batch does nothing.
    ///
    /// # Errors
    /// As [`DetachedWriter::append_rows`], for the first example that cannot be appended.
    pub fn append_batch<I: AsRef<[u8]> + Sync>(&mut self, batch: &[(I, Row<'_>)]) -> Result<(), AppendError> {
        self.append_examples(&rows::of_one_row(batch))?;
        Ok(())
    }

    /// Appends a batch of examples with all their rows, as [`DetachedWriter::append_batch`] does.
    ///
    /// # Errors
    /// As [`DetachedWriter::append_rows`], for the first example that cannot be appended.
    pub fn append_examples<I: AsRef<[u8]> + Sync>(
        &mut self,
        batch: &[(I, &[Row<'_>])],
    ) -> Result<Appended, AppendError> {
        self.check_room(batch.len())?;
        let encoded = rows::encode_examples(&self.identity.schema, &self.encoder, batch)?;
        rows::check_new(batch, |id| Ok(self.ids.contains(id)))?;
        let mut done = Appended::default();
        let mut encoded = &encoded[..];
        for (id, rows) in batch {
            let own;
            (own, encoded) = encoded.split_at(rows.len());
            self.push(id.as_ref(), rows, own)?;
            done.rows += rows.len() as u64;
            done.examples += 1;
        }
        Ok(done)
    }

    /// Gives each part from the unfinished one on the sums of its rows for a curvature, as
    /// [`Writer::fit_curvature`](crate::Writer::fit_curvature) has them: [`Writer::attach`](crate::Writer::attach) adds them to
    /// those of the index, which then need not be fitted to these rows. `estimates` are those of
    /// [`FitOptions::estimate`](crate::FitOptions::estimate), which must be the ones of the index's sums of this name. Another call
    /// with the name replaces them.
    ///
    /// [`DetachedWriter::finish`] computes the sums: it reads the part's rows once for each curvature and block, in the memory and
    /// time that [`Writer::fit_curvature`](crate::Writer::fit_curvature) needs.
    ///
    /// ```
    /// # use gradix::{Attach, Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// use gradix::{Curvature, FitOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let built = folder.path().join("gpu-1");
    /// let mut detached = index.detached(&built)?;
    /// detached.fit_curvature("curvature", &[])?;
    /// detached.append("a", &Sketch::dense(spec, vec![3.0, 4.0])?)?;
    /// detached.finish("")?;
    /// let mut writer = index.writer()?;
    /// writer.attach(&built, Attach::Move)?;
    /// writer.commit()?;
    /// assert_eq!(index.snapshot()?.curvature(&Curvature::default())?.covered.rows, 1);
    /// assert_eq!(writer.fit_curvature(FitOptions::default())?.added, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The name, a block or an estimate is invalid; sketches were observed under the name; or there are 64 names already.
    pub fn fit_curvature(&mut self, name: &str, estimates: &[(&str, Estimate)]) -> Result<(), FitError> {
        self.check_usable().map_err(FitError::unusable)?;
        self.check_sums_name(name)?;
        if self.observations.0.contains_key(name) {
            return Err(FitError::NotOfRows { name: name.to_owned() });
        }
        let asked: Vec<_> =
            estimates.iter().map(|(block, estimate)| ((*block).to_owned(), *estimate)).collect();
        let estimates = self::estimates(self.identity.schema.spec(), None, &asked)?;
        self.fits.insert(name.to_owned(), estimates);
        Ok(())
    }

    /// Adds sketches to the sums of a curvature without storing them, as [`Writer::observe`](crate::Writer::observe) does. Under a
    /// name, either all examples of a part are observed, some perhaps with no sketches, or none. Blocks have the estimate
    /// [`Estimate::auto`].
    ///
    /// Memory, until the part is finished: as for [`Writer::observe`](crate::Writer::observe), and the id of each example.
    ///
    /// # Errors
    /// There is no such example in the unfinished part; the name is invalid, or that of sums of stored rows; a sketch has another
    /// spec than the index; or there are 64 names already.
    pub fn observe(&mut self, name: &str, id: impl AsRef<[u8]>, sketches: &[Sketch]) -> Result<(), FitError> {
        self.check_usable().map_err(FitError::unusable)?;
        self.check_sums_name(name)?;
        let (id, spec) = (id.as_ref(), self.identity.schema.spec());
        if self.fits.contains_key(name) {
            return Err(FitError::NotObserved { name: name.to_owned() });
        }
        check_specs(sketches, spec)?;
        if !self.ids.contains(id) {
            return Err(FitError::NotFound { id: id.to_owned() });
        }
        let estimates = estimates(spec, None, &[])?;
        let new = || Observed::new(spec, &estimates);
        let observed = self.observations.0.entry(name.to_owned()).or_insert_with(new);
        sketches.iter().for_each(|sketch| observed.add(sketch));
        observed.examples.insert(id.into(), None);
        Ok(())
    }

    fn check_sums_name(&self, name: &str) -> Result<(), FitError> {
        check_name(name).map_err(|name| FitError::InvalidName { name })?;
        let is_known = self.fits.contains_key(name) || self.observations.0.contains_key(name);
        if !is_known && self.fits.len() + self.observations.0.len() >= MAX_SUMS {
            return Err(FitError::TooManySums { limit: MAX_SUMS });
        }
        Ok(())
    }

    /// Whether an example was appended to the unfinished part.
    #[must_use]
    pub fn contains(&self, id: impl AsRef<[u8]>) -> bool {
        self.ids.contains(id.as_ref())
    }

    /// Makes all examples since the last call a part, with a payload of at most 1 MiB. It is durable when this
    /// returns, and can be attached from then on. It makes a part even if there are no examples.
    ///
    /// # Errors
    /// The payload is too long, or only some of the examples were [observed](Self::observe) under a name, in which cases nothing
    /// has changed; or the file system fails, which poisons the
    /// writer. The part is then there as a whole or not at all; open the writer again to find out which.
    pub fn finish(&mut self, payload: impl Into<Vec<u8>>) -> Result<Part, CommitError> {
        let payload = payload.into();
        self.check_usable()?;
        if payload.len() > MAX_PAYLOAD {
            return Err(CommitError::PayloadLength { length: payload.len() });
        }
        for (name, observed) in &self.observations.0 {
            let examples = (self.ids.len() - observed.examples.len()) as u64;
            if examples > 0 {
                return Err(CommitError::NotObserved { name: name.clone(), examples });
            }
        }
        let finished = self.finish_or_fail(payload);
        self.poisoned |= finished.is_err();
        finished
    }

    /// Discards all examples since the last part.
    ///
    /// # Errors
    /// A file cannot be removed, which poisons the writer; the next one removes it.
    pub fn abort(&mut self) -> Result<(), CommitError> {
        self.check_usable()?;
        let done = self.discard();
        self.poisoned |= done.is_err();
        done
    }

    fn check_usable(&self) -> Result<(), CommitError> {
        self.lock.check_usable(self.poisoned)
    }

    fn check_room(&self, examples: usize) -> Result<(), AppendError> {
        self.check_usable()?;
        let limit = self.commit_examples;
        if self.ids.len().saturating_add(examples) > limit {
            return Err(AppendError::CommitFull { limit });
        }
        Ok(())
    }

    fn push(&mut self, id: &[u8], rows: &[Row<'_>], encoded: &[EncodedRow]) -> Result<(), AppendError> {
        let written = self.write(id, rows, encoded);
        self.poisoned |= written.is_err();
        written?;
        self.ids.insert(id.into());
        Ok(())
    }

    fn write(&mut self, id: &[u8], rows: &[Row<'_>], encoded: &[EncodedRow]) -> Result<(), CommitError> {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let full = self.open.as_ref().is_some_and(|open| {
            // Of the last segment that a part may have, the size has no limit.
            let may_seal = self.sealed.len() + 1 < MAX_SEGMENTS;
            open.bytes() >= self.segment_bytes && may_seal || open.rows().checked_add(count).is_none()
        });
        if full {
            self.seal()?;
        }
        let storage = self.storage()?;
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let identity = Arc::clone(&self.identity);
                // The generation is that of the commit to which it will be attached.
                let origin = Origin::default();
                self.open.insert(SegmentWriter::create(storage, identity, Uuid::new_v4(), origin)?)
            }
        };
        open.push(id, encoded.iter().zip(rows.iter().map(Row::tags)))?;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), SegmentError> {
        if self.sealed.len() >= MAX_SEGMENTS {
            let source =
                io::Error::other(format!("a part has at most {MAX_SEGMENTS} segments; finish it earlier"));
            return Err(io_error(&self.folder, "begin another segment in")(source));
        }
        if let Some(open) = self.open.take() {
            self.sealed.push(open.seal()?);
        }
        Ok(())
    }

    fn unfinished(&self) -> PathBuf {
        self.folder.join(part::folder_name(self.last + 1, Stage::Unfinished))
    }

    /// The storage of the unfinished part, whose folder is made first if there is none yet.
    fn storage(&mut self) -> Result<Arc<dyn Storage>, SegmentError> {
        if let Some(storage) = &self.storage {
            return Ok(Arc::clone(storage));
        }
        self.check_in_place()?;
        let path = self.unfinished();
        fs::create_dir(&path).map_err(io_error(&path, "create"))?;
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(path));
        self.storage = Some(Arc::clone(&storage));
        Ok(storage)
    }

    /// Checks that the folder is still the one that the writer has locked.
    fn check_in_place(&self) -> Result<(), SegmentError> {
        if self.lock.is_in_place() {
            return Ok(());
        }
        let source = io::Error::other("another folder has taken its place");
        Err(io_error(&self.folder, "write to")(source))
    }

    fn finish_or_fail(&mut self, payload: Vec<u8>) -> Result<Part, CommitError> {
        let storage = self.storage()?;
        self.seal()?;
        let sums = self.write_sums(storage.as_ref())?;
        let (unfinished, number) = (self.unfinished(), self.last + 1);
        let segments = self.sealed.iter().map(|sealed| PartSegment {
            segment: sealed.segment,
            rows: u64::from(sealed.rows),
            examples: sealed.examples,
            bytes: sealed.bytes,
            sha256: sealed.sha256,
        });
        let part = Part {
            path: self.folder.join(part::folder_name(number, Stage::Finished)),
            number,
            index: self.identity.index,
            schema_digest: self.identity.schema_digest,
            segments: segments.collect(),
            sums,
            payload,
        };
        let description = unfinished.join(part::NAME);
        let write = || {
            let mut file = File::create_new(&description)?;
            file.write_all(&part.to_bytes())?;
            file.sync_all()
        };
        write().map_err(io_error(&description, "write"))?;
        files::sync_folder(&unfinished).map_err(io_error(&unfinished, "sync"))?;
        self.check_in_place()?;
        // The whole part appears at once.
        fs::rename(&unfinished, &part.path).map_err(io_error(&part.path, "put into place"))?;
        files::sync_folder(&self.folder).map_err(io_error(&self.folder, "sync"))?;
        self.last = number;
        self.storage = None;
        self.sealed.clear();
        self.ids = HashSet::new();
        Ok(part)
    }

    /// Writes the sums of all names, each into a file of the unfinished part.
    fn write_sums(&mut self, storage: &dyn Storage) -> Result<Vec<PartSums>, CommitError> {
        let mut all = BTreeMap::new();
        let mut take = |name: &str, observed, sealed: SealedArtifact| {
            let SealedArtifact { artifact, bytes, sha256 } = sealed;
            let name = name.to_owned();
            all.insert(name.clone(), PartSums { artifact, name, observed, bytes, sha256 });
        };
        let mut segments = Vec::new();
        if !self.fits.is_empty() {
            for sealed in &self.sealed {
                let reader = Arc::new(SegmentReader::open(storage, &self.identity, sealed.segment)?);
                segments.push(LiveSegment { reader, dead: Arc::default() });
            }
        }
        for (name, estimates) in &self.fits {
            let (start, artifact) = (Start::anew(&segments), Uuid::new_v4());
            let mut options = FitOptions::default();
            take(name, false, sum(storage, &self.identity, artifact, &start, estimates, &mut options)?);
        }
        for (name, mut observed) in std::mem::take(&mut self.observations.0) {
            observed.flush();
            let sealed = write_sums(storage, &self.identity, Uuid::new_v4(), &observed, None);
            take(&name, true, sealed?);
        }
        Ok(all.into_values().collect())
    }

    fn discard(&mut self) -> Result<(), CommitError> {
        let open = self.open.take().map(|open| open.segment());
        let unfinished: Vec<Uuid> = self.sealed.drain(..).map(|sealed| sealed.segment).chain(open).collect();
        self.ids = HashSet::new();
        self.observations = Observations::default();
        if self.storage.take().is_none() {
            return Ok(());
        }
        self.check_in_place()?;
        let path = self.unfinished();
        for segment in unfinished {
            let file = path.join(file_name(segment));
            fs::remove_file(&file).map_err(io_error(&file, "remove"))?;
        }
        fs::remove_dir(&path).map_err(io_error(&path, "remove"))?;
        Ok(())
    }
}

impl Drop for DetachedWriter {
    fn drop(&mut self) {
        // A process that was forked leaves everything to its parent; after a failure the next writer cleans up.
        if !self.lock.is_own() || self.poisoned {
            return;
        }
        if let Err(error) = self.discard() {
            tracing::warn!(%error, "cannot remove an unfinished part; the next writer will");
        }
    }
}

fn io_error(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> SegmentError {
    let file = path.display().to_string();
    move |source| SegmentError::Io { file, operation, source }
}

/// Whether a detached writer gives segments or sums such a name.
fn is_ours(name: &str) -> bool {
    let uuid = name.rsplit_once('.').and_then(|(stem, _)| Uuid::try_parse(stem).ok());
    uuid.is_some_and(|uuid| file_name(uuid) == name || crate::artifact::file_name(uuid) == name)
}

/// Removes what an interrupted writer has left of a part: `whole`, or all but `PART`, where it was moved. A
/// file that no detached writer makes is an error.
fn remove_unfinished(folder: &Path, whole: bool) -> Result<(), DetachedError> {
    let io = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| DetachedError::Io { path, operation, source }
    };
    let mut left = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder, "list"))? {
        let entry = entry.map_err(io(folder, "list"))?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_file = entry.file_type().map_err(io(&path, "look at"))?.is_file();
        match name.to_str() {
            Some(part::NAME) if is_file && !whole => {}
            Some(name) if is_file && (name == part::NAME || is_ours(name)) => left.push(path),
            _ => return Err(DetachedError::Occupied { path }),
        }
    }
    let removed = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for path in left {
        tracing::info!(file = %path.display(), "removing a file of an unfinished part");
        removed(fs::remove_file(&path)).map_err(io(&path, "remove"))?;
    }
    if whole {
        removed(fs::remove_dir(folder)).map_err(io(folder, "remove"))?;
    }
    Ok(())
}
