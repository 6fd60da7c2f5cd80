//! Attaching: takes segments that a detached writer has built into the next commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::artifacts::{block_sums, check_regions};
use super::attachment::{LinkedFile, Move, Stamp, write_note};
use super::error::{AttachError, FitError, PartError, hex};
use super::now_ms;
use super::observed::Observed;
use super::part::{self, Part, PartSegment, PartSums, Stage};
use super::writer::Writer;
use crate::artifact::{ArtifactError, ArtifactReader};
use crate::curvature::Estimate;
use crate::files;
use crate::manifest::{Coverage, Location, ManifestError, SUMS_OF_OBSERVED, SUMS_OF_ROWS};
use crate::segment::storage::FileStorage;
use crate::segment::{Origin, Place, Sealed, SegmentError, SegmentReader, file_name};

/// The bytes that are read at once.
const READ_BYTES: usize = 4 << 20;

/// How [`Writer::attach`] takes the files of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attach {
    /// Links them: the part stays, and each file has two names and its bytes once. The part must be on the file
    /// system of the index.
    Link,
    /// Links them, and takes away the part's own names when the commit is durable. Of the part the file `PART` stays,
    /// in a folder whose name ends with `.moved`, so that its writer finds its payload and goes on with the next
    /// number. A move that is interrupted leaves the part as it is, or a second name for files of the index.
    Move,
    /// Copies their bytes.
    Copy,
}

/// What was attached: part of the next commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The parts, in their order, with their payloads.
    pub parts: Vec<Part>,
}

impl Attached {
    /// The rows of all parts.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(Part::rows).sum()
    }

    /// The examples of all parts.
    #[must_use]
    pub fn examples(&self) -> u64 {
        self.parts.iter().map(Part::examples).sum()
    }
}

/// What has been done of an attach that is not complete.
#[derive(Default)]
struct Started {
    /// Segments whose intents were written.
    intended: Vec<Uuid>,
    /// Of these, one whose file was made by somebody else meanwhile.
    taken: Option<Uuid>,
    sealed: Vec<Sealed>,
    files: Vec<LinkedFile>,
    examples: HashMap<Box<[u8]>, Location>,
}

impl Writer {
    /// Takes the segments of one finished part, or of all that a folder holds, into the next commit, together with
    /// what is appended and deleted. Unfinished and moved parts in the folder are passed over. All or nothing is
    /// attached. What [`Attach::Link`] and [`Attach::Move`] cannot do is an error: bytes are copied only if that is
    /// asked for.
    ///
    /// It checks that the parts were built for this index and schema; that each file has the length and SHA-256 of
    /// the time when it was built, for which it reads all bytes; and that no example is in the index, in pending
    /// changes or twice in what is attached. [`Index::verify`](crate::Index::verify) checks the rows themselves.
    ///
    /// Sums that a part [brings along](crate::DetachedWriter::fit_curvature) are added to those that the index has under their name
    /// and become the index's if it has none; the part's rows are then covered. Until the commit all of them are in memory.
    ///
    /// A link shares its bytes with the builder's file: **nobody may write to that any more**. A write that changes
    /// its length or time before the commit is an error of the commit. Where a part may still be written to, copy it.
    ///
    /// Memory: the ids of a row group, and about 100 bytes plus the id for each example, as for appended ones.
    ///
    /// # Errors
    /// There is no finished part; it was built for another index or under another schema; a file is missing, damaged,
    /// attached already, or cannot be linked; an example is there already; sums do not fit those of the index; or the storage or the manifest fails,
    /// which poisons the writer. The part's files are untouched in any case.
    ///
    /// ```
    /// # use gradix::{Attach, Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let built = folder.path().join("gpu-1");
    /// # let mut detached = index.detached(&built)?;
    /// # detached.append("a", &Sketch::dense(spec, vec![3.0, 4.0])?)?;
    /// # detached.finish("")?;
    /// let mut writer = index.writer()?;
    /// let attached = writer.attach(&built, Attach::Move)?;
    /// let commit = writer.commit()?;
    /// assert_eq!((commit.appended, attached.parts.len()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attach(&mut self, folder: impl AsRef<Path>, how: Attach) -> Result<Attached, AttachError> {
        self.check_usable().map_err(AttachError::unusable)?;
        let parts = find_parts(folder.as_ref())?;
        self.check_parts(&parts)?;
        let sums = self.read_sums(&parts)?;
        // Rows that are appended from now on are of a later segment.
        self.seal()?;
        let mut started = Started::default();
        if let Err(error) = self.attach_parts(&parts, how, &mut started) {
            if !self.poisoned {
                let mut made = started.intended;
                made.retain(|segment| started.taken != Some(*segment));
                let undone = self.remove_unpublished(&made);
                let undone = undone.and_then(|()| Ok(self.forget_intent(started.taken)?));
                self.poisoned |= undone.is_err();
            }
            return Err(error);
        }
        self.sealed.append(&mut started.sealed);
        self.pending.attach(started.examples);
        for (name, sums) in sums {
            match self.observations.0.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(sums);
                }
                Entry::Occupied(mut entry) => entry.get_mut().merge(sums),
            }
        }
        let mut files = started.files.into_iter();
        match how {
            Attach::Copy => {}
            Attach::Link => self.attachments.linked.extend(files),
            Attach::Move => {
                for part in &parts {
                    let mut files: Vec<_> = files.by_ref().take(part.segments.len()).collect();
                    for path in part.sums.iter().map(|sums| part.sums_file(sums)) {
                        // One that is gone already need not be removed.
                        if let Ok(stamp) = Stamp::of(&path) {
                            files.push(LinkedFile { path, stamp });
                        }
                    }
                    self.attachments.moves.push(Move { folder: part.path.clone(), files });
                }
            }
        }
        Ok(Attached { parts })
    }

    /// Checks all that can be checked before a file is touched.
    fn check_parts(&self, parts: &[Part]) -> Result<(), AttachError> {
        let identity = &self.shared.identity;
        let mut known: HashSet<Uuid> = self.sealed.iter().map(|sealed| sealed.segment).collect();
        known.extend(self.open.as_ref().map(crate::segment::SegmentWriter::segment));
        let mut examples = self.pending.examples() as u64;
        for part in parts {
            let path = || part.path.clone();
            if part.index != identity.index {
                let (found, expected) = (part.index, identity.index);
                return Err(AttachError::Foreign { path: path(), found, expected });
            }
            if part.schema_digest != identity.schema_digest {
                let (found, expected) = (hex(&part.schema_digest), hex(&identity.schema_digest));
                return Err(AttachError::OtherSchema { path: path(), found, expected });
            }
            for segment in &part.segments {
                // Of a segment of the index an intent would say that it is to be removed.
                if !known.insert(segment.segment) || self.manifest.has_segment(segment.segment)? {
                    let (path, segment) = (part.file(segment), segment.segment);
                    return Err(AttachError::AttachedAlready { path, segment });
                }
                // So would one of a file that somebody has put there.
                let name = file_name(segment.segment);
                match self.shared.storage.open(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Ok(_) => {
                        return Err(AttachError::Occupied { file: self.shared.storage.describe(&name) });
                    }
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        return Err(AttachError::Occupied { file: self.shared.storage.describe(&name) });
                    }
                    Err(source) => return Err(self.storage_error(&name, "open", source).into()),
                }
            }
            examples = examples.saturating_add(part.examples());
        }
        let limit = self.shared.commit_examples;
        if examples > limit as u64 {
            return Err(AttachError::CommitFull { examples, limit });
        }
        Ok(())
    }

    /// The sums that parts bring along, by name, checked against each other and against those that are there.
    fn read_sums(&self, parts: &[Part]) -> Result<BTreeMap<String, Observed>, AttachError> {
        let mut all = BTreeMap::new();
        for (part, sums) in parts.iter().flat_map(|part| part.sums.iter().map(move |sums| (part, sums))) {
            let other = || AttachError::OtherSums { path: part.sums_file(sums), name: sums.name.clone() };
            let read = self.read_part_sums(part, sums)?;
            let is_like = match self.observations.0.get(&sums.name) {
                Some(pending) => pending.is_like(&read),
                None => match self.sums_before(&sums.name, read.kind) {
                    Ok(Some((reader, _))) => {
                        let widths = reader.regions().map(|region| Estimate::of_width(region.width));
                        widths.eq(read.estimates())
                    }
                    Ok(None) => true,
                    Err(FitError::Artifact(error)) => return Err(error.into()),
                    Err(FitError::Manifest(error)) => return Err(error.into()),
                    Err(_) => false,
                },
            };
            if !is_like {
                return Err(other());
            }
            match all.entry(sums.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(read);
                }
                Entry::Occupied(mut entry) if entry.get().is_like(&read) => entry.get_mut().merge(read),
                Entry::Occupied(_) => return Err(other()),
            }
        }
        Ok(all)
    }

    fn read_part_sums(&self, part: &Part, sums: &PartSums) -> Result<Observed, AttachError> {
        let (path, identity) = (part.sums_file(sums), &self.shared.identity);
        let storage = FileStorage::new(part.path.clone());
        let reader = match ArtifactReader::open(&storage, identity, sums.artifact) {
            Err(ArtifactError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(PartError::Missing { path }.into());
            }
            other => other?,
        };
        sums.compare(&path, reader.bytes(), &reader.sha256()?)?;
        check_regions(&reader, &identity.schema)?;
        let kind = if sums.observed { SUMS_OF_OBSERVED } else { SUMS_OF_ROWS };
        if kind == SUMS_OF_ROWS && reader.regions().any(|region| region.rows != part.rows()) {
            return Err(reader.damaged(0, format!("not the sums of {} rows", part.rows())).into());
        }
        let blocks = (0..reader.regions().len()).map(|block| block_sums(&reader, block));
        let mut covered = Coverage::new();
        for segment in &part.segments {
            let rows = 0..u32::try_from(segment.rows).unwrap_or(u32::MAX);
            covered.entry(segment.segment).or_default().insert_range(rows);
        }
        Ok(Observed::of_sums(kind, blocks.collect::<Result<_, _>>()?, covered))
    }

    fn attach_parts(
        &mut self,
        parts: &[Part],
        how: Attach,
        started: &mut Started,
    ) -> Result<(), AttachError> {
        let segments =
            || parts.iter().flat_map(|part| part.segments.iter().map(move |segment| (part, segment)));
        if segments().next().is_none() {
            return Ok(());
        }
        self.check_in_place()?;
        let intended = self.intend_all(segments().map(|(_, segment)| segment.segment));
        self.poisoned |= intended.is_err();
        started.intended = intended?;
        for (part, segment) in segments() {
            self.attach_segment(part, segment, how, started)?;
        }
        self.shared.storage.sync().map_err(|source| {
            self.poisoned = true;
            self.storage_error("", "sync", source)
        })?;
        Ok(())
    }

    /// Records durably that these files are about to be made.
    fn intend_all(&self, segments: impl Iterator<Item = Uuid>) -> Result<Vec<Uuid>, ManifestError> {
        let (mut batch, mut all) = (self.manifest.batch(), Vec::new());
        for segment in segments {
            batch.put_intent(segment, now_ms())?;
            all.push(segment);
        }
        batch.apply()?;
        Ok(all)
    }

    fn forget_intent(&self, segment: Option<Uuid>) -> Result<(), ManifestError> {
        let Some(segment) = segment else { return Ok(()) };
        let mut batch = self.manifest.batch();
        batch.remove_intent(segment)?;
        batch.apply()
    }

    fn attach_segment(
        &mut self,
        part: &Part,
        segment: &PartSegment,
        how: Attach,
        started: &mut Started,
    ) -> Result<(), AttachError> {
        let path = part.file(segment);
        let stamp = Stamp::of(&path).map_err(|source| unreadable(&path, source))?;
        let ordinal = u32::try_from(self.sealed.len() + started.sealed.len()).unwrap_or(u32::MAX);
        let origin = Origin { generation: self.state.generation + 1, ordinal };
        let identity = std::sync::Arc::clone(&self.shared.identity);
        let noted = write_note(self.shared.storage.as_ref(), identity.index, segment.segment, origin);
        self.poisoned |= noted.is_err();
        noted?;
        match how {
            Attach::Link | Attach::Move => {
                self.link(&path, segment.segment, started)?;
                self.compare_linked(&path, segment)?;
            }
            Attach::Copy => self.copy_file(&path, segment, started)?,
        }
        // Read by the index's own name, and named in messages as the builder's.
        let (storage, described) = (self.shared.storage.as_ref(), path.display().to_string());
        let reader = SegmentReader::open_as(storage, &identity, segment.segment, described)?;
        if reader.origin() != Origin::default() {
            let reason =
                "the header states a generation, but the segment was built apart from the index".into();
            let file = path.display().to_string();
            return Err(SegmentError::Damaged { file, place: Place::Header, offset: 104, reason }.into());
        }
        self.take_examples(&path, segment, &reader, started)?;
        if how != Attach::Copy {
            if Stamp::of(&path).is_ok_and(|now| now != stamp) {
                return Err(AttachError::Changed { path });
            }
            started.files.push(LinkedFile { path, stamp });
        }
        started.sealed.push(Sealed {
            segment: segment.segment,
            rows: reader.rows(),
            examples: segment.examples,
            bytes: segment.bytes,
            sha256: segment.sha256,
        });
        Ok(())
    }

    fn link(&mut self, path: &Path, segment: Uuid, started: &mut Started) -> Result<(), AttachError> {
        let name = file_name(segment);
        let Err(source) = self.shared.storage.link(path, &name) else { return Ok(()) };
        let to = self.shared.storage.describe(&name);
        let path = path.to_owned();
        Err(match source.kind() {
            io::ErrorKind::CrossesDevices => AttachError::OtherFileSystem { path, to },
            io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks => {
                AttachError::CannotLink { path, to, source }
            }
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => unreadable(&path, source),
            io::ErrorKind::AlreadyExists => {
                started.taken = Some(segment);
                AttachError::Occupied { file: to }
            }
            _ => {
                self.poisoned = true;
                self.storage_error(&name, "link", source).into()
            }
        })
    }

    /// Compares what was linked with what it was when it was built. A file that is longer is not read.
    fn compare_linked(&self, path: &Path, segment: &PartSegment) -> Result<(), AttachError> {
        let name = file_name(segment.segment);
        let file = self.shared.storage.open(&name).map_err(|source| unreadable(path, source))?;
        let (length, mut digest) = (file.len(), Sha256::new());
        segment.compare(path, length, &segment.sha256)?;
        let mut buffer = vec![0; READ_BYTES];
        for start in (0..length).step_by(READ_BYTES) {
            let part = usize::try_from(length - start).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let buffer = &mut buffer[..part];
            match file.read_at(start, buffer) {
                Ok(()) => digest.update(buffer),
                // It was cut off meanwhile.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(AttachError::Changed { path: path.to_owned() });
                }
                Err(source) => return Err(unreadable(path, source)),
            }
        }
        Ok(segment.compare(path, length, &digest.finalize().into())?)
    }

    /// Copies a file, and compares what was copied with what it was when it was built.
    fn copy_file(
        &mut self,
        path: &Path,
        segment: &PartSegment,
        started: &mut Started,
    ) -> Result<(), AttachError> {
        let mut source = files::open_regular(path).map_err(|source| unreadable(path, source))?;
        let metadata = source.metadata().map_err(|source| unreadable(path, source))?;
        segment.compare(path, metadata.len(), &segment.sha256)?;
        let name = file_name(segment.segment);
        let mut file = match self.shared.storage.create(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                started.taken = Some(segment.segment);
                return Err(AttachError::Occupied { file: self.shared.storage.describe(&name) });
            }
            Err(error) => {
                self.poisoned = true;
                return Err(self.storage_error(&name, "create", error).into());
            }
        };
        let (mut digest, mut length, mut buffer) = (Sha256::new(), 0u64, vec![0; READ_BYTES]);
        loop {
            let read = match source.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(unreadable(path, source)),
            };
            length += read as u64;
            // Of a file that grows no more is copied than it should have.
            if read == 0 || length > segment.bytes {
                break;
            }
            digest.update(&buffer[..read]);
            file.write(&buffer[..read]).map_err(|error| {
                self.poisoned = true;
                self.storage_error(&name, "write", error)
            })?;
        }
        segment.compare(path, length, &digest.finalize().into())?;
        file.sync().map_err(|error| {
            self.poisoned = true;
            self.storage_error(&name, "sync", error)
        })?;
        Ok(())
    }

    /// Adds the examples of a segment to those of this attach, none of which may be there already.
    fn take_examples(
        &self,
        path: &Path,
        segment: &PartSegment,
        reader: &SegmentReader,
        started: &mut Started,
    ) -> Result<(), AttachError> {
        let counts = |found_examples| PartError::Counts {
            path: path.to_owned(),
            rows: segment.rows,
            examples: segment.examples,
            found_rows: u64::from(reader.rows()),
            found_examples,
        };
        let mut examples = 0;
        for (ordinal, group) in reader.groups().iter().enumerate() {
            let ids = reader.ids(ordinal)?;
            let mut next = 0;
            while next < group.rows {
                let (first, id) = (next, ids.get(next as usize));
                // Each run of an id in a row group is one example.
                while next < group.rows && ids.get(next as usize) == id {
                    next += 1;
                }
                examples += 1;
                if examples > segment.examples {
                    return Err(counts(examples).into());
                }
                let place = match started.examples.get(id) {
                    Some(place) => Some(*place),
                    None => self.find(id)?,
                };
                if let Some(place) = place {
                    let holder = self.shared.storage.describe(&file_name(place.segment()));
                    let (id, path) = (id.to_owned(), path.to_owned());
                    return Err(AttachError::DuplicateId { id, path, holder });
                }
                let place = Location::new(segment.segment, group.first_row + first, next - first);
                started.examples.insert(id.into(), place);
            }
        }
        if examples != segment.examples || u64::from(reader.rows()) != segment.rows {
            return Err(counts(examples).into());
        }
        Ok(())
    }

    fn storage_error(&self, name: &str, operation: &'static str, source: io::Error) -> SegmentError {
        SegmentError::Io { file: self.shared.storage.describe(name), operation, source }
    }
}

/// The part in a folder, or the finished parts that the folder holds.
fn find_parts(folder: &Path) -> Result<Vec<Part>, AttachError> {
    let io = |source| AttachError::Io { path: folder.to_owned(), operation: "list the parts in", source };
    let folder = std::path::absolute(folder).map_err(io)?;
    // A part that is whole but for its name: its writer has not finished it.
    if folder.extension().is_some_and(|end| end == Stage::Unfinished.extension()) {
        return Err(PartError::Unfinished { path: folder }.into());
    }
    match Part::read(&folder) {
        Ok(part) => return Ok(vec![part]),
        Err(PartError::Unfinished { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let listed = part::list(&folder).map_err(io)?;
    let finished = listed.into_iter().filter(|(_, stage, _)| *stage == Stage::Finished);
    let parts: Vec<Part> = finished.map(|(_, _, path)| Part::read(path)).collect::<Result<_, _>>()?;
    if parts.is_empty() {
        return Err(if holds_segments(&folder).map_err(io)? {
            PartError::Unfinished { path: folder }.into()
        } else {
            AttachError::NoParts { path: folder }
        });
    }
    Ok(parts)
}

/// Whether there are segment files without a description.
fn holds_segments(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if Path::new(&entry?.file_name()).extension().is_some_and(|end| end == "seg") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file of a part that cannot be read.
fn unreadable(path: &Path, source: io::Error) -> AttachError {
    let path: PathBuf = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => PartError::Missing { path }.into(),
        _ => AttachError::Io { path, operation: "read", source },
    }
}
