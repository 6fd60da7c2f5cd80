//! Opens the database, reads from it, and applies batches.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use roaring::RoaringBitmap;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBRawIterator, DBRecoveryMode, FlushOptions, LogLevel, Options, ReadOptions,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::error::ManifestError;
use super::guard;
use super::records::{
    ArtifactFile, ArtifactRecord, CommitRecord, Coverage, DeletesRecord, ExampleHistory, IndexRecord,
    IntentRecord, Location, RECORD_VERSION, SELF_INFLUENCE, SUMS_OF_OBSERVED, SUMS_OF_ROWS, SegmentRecord,
    StateRecord, SupersededRecord, Undecoded, artifact_key, decode, deletes_key, encode, parse_artifact_key,
    parse_deletes_key, parse_superseded_key, superseded_key,
};

const META: &str = "meta";
const SEGMENTS: &str = "segments";
const EXAMPLES: &str = "examples";
const DELETES: &str = "deletes";
const COMMITS: &str = "commits";
const INTENTS: &str = "intents";
const SUPERSEDED: &str = "superseded";
const ARTIFACTS: &str = "artifacts";
const FAMILIES: [&str; 8] = [META, SEGMENTS, EXAMPLES, DELETES, COMMITS, INTENTS, SUPERSEDED, ARTIFACTS];

const INDEX_KEY: &[u8] = b"index";
const STATE_KEY: &[u8] = b"state";

/// An open manifest. A reader sees the state as of its opening; a primary sees the state after the last
/// batch.
pub(crate) struct Manifest {
    db: Arc<DB>,
    path: PathBuf,
    mode: Mode,
    /// The process that opened it.
    process: u32,
}

impl Drop for Manifest {
    fn drop(&mut self) {
        // A process that was forked has the database's memory, but neither its threads nor the right to write
        // what is in it: there it is never closed.
        if self.process != std::process::id() {
            std::mem::forget(Arc::clone(&self.db));
        }
    }
}

enum Mode {
    /// Opened for writing.
    Primary,
    /// Opened for reading, with the folder's files at that time.
    Reader(Files),
}

/// The database's files and their lengths: every write changes one of them.
type Files = BTreeMap<OsString, u64>;

/// A column family has no more tables than this, unless they are large on average: then a merge would cost more
/// than many tables do.
const FEW_TABLES: usize = 5;
const SMALL_TABLE: usize = 8 << 20;

/// The maximum number of attempts to open a reader during a writer's flushes and compactions. The pauses in
/// between grow, to about a second in total.
const ATTEMPTS: u32 = 40;

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest").field("path", &self.path).finish_non_exhaustive()
    }
}

fn options() -> Options {
    let mut options = Options::default();
    // What a power cut may leave of a batch that was not yet synced: its pages in any order, so that its
    // checksum does not match. It is dropped, with all behind it. (With `TolerateCorruptedTailRecords` the
    // database could not be opened any more.) That acknowledged batches are dropped in this way too, if the log is
    // damaged, is noticed by `Manifest::holds`.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Zstd);
    // Commits are few and small. Opening must be fast, since a reader in another process reopens the
    // database after each commit and replays the log.
    options.set_max_background_jobs(2);
    // Starting threads takes longer than opening a few tables.
    options.set_max_file_opening_threads(1);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options.set_max_total_wal_size(16 << 20);
    options
}

fn descriptors() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    FAMILIES.into_iter().map(|name| {
        let mut options = options();
        if name == EXAMPLES {
            // Most appends look up an id that does not exist.
            let mut table = BlockBasedOptions::default();
            table.set_bloom_filter(10.0, false);
            options.set_block_based_table_factory(&table);
        }
        ColumnFamilyDescriptor::new(name, options)
    })
}

/// Checks, before a database is written, that this process was not forked from one that has done so. RocksDB's threads
/// belong to the process as a whole, and are not there any more after a fork.
fn check_process(path: &Path) -> Result<(), ManifestError> {
    static WRITES: OnceLock<u32> = OnceLock::new();
    let own = std::process::id();
    if *WRITES.get_or_init(|| own) == own {
        Ok(())
    } else {
        Err(ManifestError::Forked { path: path.to_owned() })
    }
}

impl Manifest {
    /// Creates a database with its first two records.
    pub fn create(path: &Path, index: &IndexRecord) -> Result<(), ManifestError> {
        check_process(path)?;
        let mut options = options();
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf_descriptors(&options, path, descriptors())
            .map_err(|source| database(path, "create the database", source))?;
        let manifest = Self::new(db, path, Mode::Primary);
        let mut batch = manifest.batch();
        batch.put(META, INDEX_KEY, index)?;
        batch.put_state(&StateRecord::default())?;
        batch.apply()?;
        manifest.flush()
    }

    fn new(db: DB, path: &Path, mode: Mode) -> Self {
        let path = path.to_owned();
        Self { db: Arc::new(db), path, mode, process: std::process::id() }
    }

    /// Flushes the log to tables, so that readers have no log to replay and all damage is detected. In a log,
    /// a damaged last record can look like one that a crash tore before it was acknowledged, which is
    /// dropped.
    pub fn flush(&self) -> Result<(), ManifestError> {
        let families: Vec<_> = FAMILIES.iter().map(|name| self.family(name)).collect::<Result<_, _>>()?;
        let flushed = self.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|source| database(&self.path, "flush the database", source))
    }

    /// Flushes the log, and merges small tables.
    pub fn settle(&self) -> Result<(), ManifestError> {
        self.flush()?;
        self.merge_small_tables()
    }

    /// Merges small tables, of which writers that live for one commit each, or are killed, would otherwise leave
    /// more than readers can have open: tables whose keys do not overlap RocksDB only moves to the last level.
    fn merge_small_tables(&self) -> Result<(), ManifestError> {
        let failed = |source| database(&self.path, "merge the tables of the database", source);
        let mut tables: HashMap<String, (usize, usize)> = HashMap::new();
        for table in self.db.live_files().map_err(failed)? {
            let (count, bytes) = tables.entry(table.column_family_name).or_default();
            (*count, *bytes) = (*count + 1, *bytes + table.size);
        }
        for name in FAMILIES {
            let (count, bytes) = tables.get(name).copied().unwrap_or_default();
            if count > FEW_TABLES && bytes < count * SMALL_TABLE {
                let mut options = CompactOptions::default();
                options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
                self.db.compact_range_cf_opt(self.family(name)?, None::<&[u8]>, None::<&[u8]>, &options);
            }
        }
        // Errors of the merges above are here too.
        self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(failed)
    }

    /// Never closes the database: when it is closed, RocksDB compares its files with those that it finds by their
    /// names, and writes what it misses into a folder that may be that of another index by now.
    pub fn abandon(&self) {
        std::mem::forget(Arc::clone(&self.db));
    }

    /// Opens for writing; the caller holds the index's lock.
    pub fn open_primary(path: &Path) -> Result<Self, ManifestError> {
        check_process(path)?;
        guard::check(path)?;
        guard::remove_leftovers(path)?;
        let db = DB::open_cf_descriptors(&options(), path, descriptors())
            .map_err(|source| database(path, "open the database for writing", source))?;
        let manifest = Self::new(db, path, Mode::Primary);
        manifest.merge_small_tables()?;
        Ok(manifest)
    }

    /// Opens for reading, also while a writer is open. Never blocks the writer, and changes nothing in the
    /// folder.
    ///
    /// RocksDB's read-only open reads the list of tables first and the log afterwards. If a writer flushes
    /// the log to a table in between, the flushed records are in neither; so the folder's files are compared
    /// before and after, and all tables are kept open. (RocksDB's secondary instance does not need this, but
    /// treats a damaged or missing table as one that does not exist yet, and then silently shows less than
    /// was committed.)
    pub fn open_reader(path: &Path) -> Result<Self, ManifestError> {
        let mut options = options();
        options.set_max_open_files(-1);
        let mut attempt = 1;
        loop {
            let before = database_files(path);
            let opened = guard::check(path).and_then(|()| {
                DB::open_cf_descriptors_read_only(&options, path, descriptors(), false)
                    .map_err(|source| database(path, "open the database for reading", source))
            });
            let files = match (before, database_files(path)) {
                (Ok(before), Ok(after)) if is_one_state(&before, &after) => Some(before),
                _ => None,
            };
            match (opened, files) {
                (Ok(db), Some(files)) => {
                    return Ok(Self::new(db, path, Mode::Reader(files)));
                }
                // No writer interfered, or the attempts are used up: report the error.
                (Err(error), files) if files.is_some() || attempt == ATTEMPTS => return Err(error),
                (Ok(_), None) if attempt == ATTEMPTS => {
                    let source = io::ErrorKind::ResourceBusy.into();
                    return Err(failed(path, "find the database at rest", source));
                }
                _ => std::thread::sleep(Duration::from_millis(u64::from(attempt))),
            }
            attempt += 1;
        }
    }

    /// Checks that the database contains all commits up to this generation.
    pub fn holds(&self, generation: u64) -> Result<(), ManifestError> {
        let found = self.state()?.generation;
        if found >= generation {
            return Ok(());
        }
        let reason = format!("generation {found}, where {generation} was committed: the log is damaged");
        Err(self.damaged(META, STATE_KEY, &reason))
    }

    /// The location of a committed example, checked against its segment's number of rows.
    pub fn place(&self, id: &[u8], generation: u64) -> Result<Option<Location>, ManifestError> {
        let Some(place) = self.example(id)?.and_then(|history| history.at(generation)) else {
            return Ok(None);
        };
        let segment: Option<SegmentRecord> = self.get(SEGMENTS, place.segment().as_bytes())?;
        match segment {
            Some(segment) if place.end() <= segment.rows => Ok(Some(place)),
            _ => Err(self.damaged(EXAMPLES, id, &format!("{place:?} is not in its segment"))),
        }
    }

    /// Whether its state is that of the database now.
    pub fn is_current(&self) -> bool {
        match &self.mode {
            Mode::Primary => true,
            Mode::Reader(files) => database_files(&self.path).is_ok_and(|now| now == *files),
        }
    }

    pub fn index(&self) -> Result<IndexRecord, ManifestError> {
        self.required(META, INDEX_KEY)
    }

    pub fn state(&self) -> Result<StateRecord, ManifestError> {
        let state: StateRecord = self.required(META, STATE_KEY)?;
        // No index has 2^63 commits; below that no sum of generations overflows.
        if state.oldest > state.generation || state.generation >= 1 << 63 {
            return Err(self.damaged(META, STATE_KEY, &format!("generations {state:?}")));
        }
        Ok(state)
    }

    pub fn example(&self, id: &[u8]) -> Result<Option<ExampleHistory>, ManifestError> {
        let history: Option<ExampleHistory> = self.get(EXAMPLES, id)?;
        history.map(|history| self.check_places(id, history)).transpose()
    }

    /// Checks that locations end below 2^32, as a segment's rows do.
    fn check_places(&self, id: &[u8], history: ExampleHistory) -> Result<ExampleHistory, ManifestError> {
        let is_possible =
            |place: Location| place.rows > 0 && place.first_row.checked_add(place.rows).is_some();
        match history.0.iter().filter_map(|version| version.location).find(|&place| !is_possible(place)) {
            None => Ok(history),
            Some(place) => Err(self.damaged(EXAMPLES, id, &format!("{place:?}"))),
        }
    }

    pub fn commit(&self, generation: u64) -> Result<Option<CommitRecord>, ManifestError> {
        self.get(COMMITS, &generation.to_be_bytes())
    }

    /// The generation of the last recorded commit.
    pub fn last_commit(&self) -> Result<Option<u64>, ManifestError> {
        let mut records = self.records(COMMITS)?;
        records.seek_to_last();
        let last = records.key().map(|key| self.generation(COMMITS, key)).transpose()?;
        self.check_status(&records)?;
        Ok(last)
    }

    /// Calls `each` for the recorded commits, the oldest first, until it says `false`.
    pub fn for_each_commit(
        &self,
        mut each: impl FnMut(u64, CommitRecord) -> Result<bool, ManifestError>,
    ) -> Result<(), ManifestError> {
        self.for_each(COMMITS, &[], |key, value| {
            let generation = self.generation(COMMITS, key)?;
            each(generation, self.parse(COMMITS, key, value)?)
        })
    }

    /// The generations below `oldest` of recorded commits.
    pub fn commits_before(&self, oldest: u64) -> Result<Vec<u64>, ManifestError> {
        let mut all = Vec::new();
        self.for_each(COMMITS, &[], |key, _| {
            let generation = self.generation(COMMITS, key)?;
            all.extend((generation < oldest).then_some(generation));
            Ok(generation < oldest)
        })?;
        Ok(all)
    }

    /// Calls `each` for the examples whose earlier versions no generation from `oldest` on needs, with the
    /// generation that superseded them.
    pub fn for_each_superseded(
        &self,
        oldest: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        self.for_each(SUPERSEDED, &[], |key, value| {
            let parsed = parse_superseded_key(key);
            let (generation, id) =
                parsed.ok_or_else(|| self.damaged(SUPERSEDED, key, "not a key of 8 bytes and more"))?;
            let SupersededRecord = self.parse(SUPERSEDED, key, value)?;
            if generation <= oldest {
                each(generation, id)?;
            }
            Ok(generation <= oldest)
        })
    }

    /// Whether a collection will find the version of an example that `generation` superseded.
    pub fn lists_superseded(&self, generation: u64, id: &[u8]) -> Result<bool, ManifestError> {
        let record: Option<SupersededRecord> = self.get(SUPERSEDED, &superseded_key(generation, id))?;
        Ok(record.is_some())
    }

    /// All segments of all readable generations, by UUID.
    pub fn segments(&self) -> Result<Vec<(Uuid, SegmentRecord)>, ManifestError> {
        let mut all = Vec::new();
        self.for_each(SEGMENTS, &[], |key, value| {
            all.push((self.uuid(SEGMENTS, key)?, self.parse(SEGMENTS, key, value)?));
            Ok(true)
        })?;
        Ok(all)
    }

    /// Whether the index has a segment in any readable generation.
    pub fn has_segment(&self, segment: Uuid) -> Result<bool, ManifestError> {
        let record: Option<SegmentRecord> = self.get(SEGMENTS, segment.as_bytes())?;
        Ok(record.is_some())
    }

    pub fn intents(&self) -> Result<Vec<Uuid>, ManifestError> {
        let mut all = Vec::new();
        self.for_each(INTENTS, &[], |key, value| {
            let IntentRecord { .. } = self.parse(INTENTS, key, value)?;
            all.push(self.uuid(INTENTS, key)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// The dead rows of a segment at a generation.
    pub fn dead(&self, segment: Uuid, generation: u64) -> Result<RoaringBitmap, ManifestError> {
        let mut records = self.records(DELETES)?;
        records.seek_for_prev(deletes_key(segment, generation));
        let latest = match records.item() {
            Some((key, value)) if self.segment_and_generation(key)?.0 == segment => {
                let DeletesRecord(bytes) = self.parse(DELETES, key, value)?;
                let bitmap = RoaringBitmap::deserialize_from(&bytes[..]);
                bitmap.map_err(|error| self.damaged(DELETES, key, &error.to_string()))?
            }
            _ => RoaringBitmap::new(),
        };
        self.check_status(&records)?;
        Ok(latest)
    }

    /// The segments and generations of all bitmaps of dead rows, by segment, oldest first.
    pub fn deletes(&self) -> Result<Vec<(Uuid, u64)>, ManifestError> {
        let mut all = Vec::new();
        self.for_each(DELETES, &[], |key, _| {
            all.push(self.segment_and_generation(key)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// What an artifact is at a generation; `None` if there is none of this name.
    pub fn artifact(&self, name: &str, generation: u64) -> Result<Option<ArtifactRecord>, ManifestError> {
        let mut records = self.records(ARTIFACTS)?;
        records.seek_for_prev(artifact_key(name, generation));
        let latest = match records.item() {
            Some((key, value)) if self.artifact_and_generation(key)?.0 == name => {
                Some(self.artifact_record(key, value)?)
            }
            _ => None,
        };
        self.check_status(&records)?;
        Ok(latest.filter(|record| record.file.is_some()))
    }

    /// The rows that an artifact covers.
    pub fn coverage(&self, name: &str, record: &ArtifactRecord) -> Result<Coverage, ManifestError> {
        record.coverage().map_err(|reason| self.damaged(ARTIFACTS, name.as_bytes(), &reason))
    }

    /// The error of a record that could not be encoded.
    pub fn unencodable(&self, source: io::Error) -> ManifestError {
        failed(&self.path, "encode a record", source)
    }

    /// The files of all artifacts of all readable generations, by name, oldest first; none where one was dropped.
    pub fn artifact_files(&self) -> Result<Vec<(String, u64, Option<ArtifactFile>)>, ManifestError> {
        let mut all = Vec::new();
        self.for_each(ARTIFACTS, &[], |key, value| {
            let (name, generation) = self.artifact_and_generation(key)?;
            all.push((name.to_owned(), generation, self.artifact_record(key, value)?.file));
            Ok(true)
        })?;
        Ok(all)
    }

    /// The artifacts that there are at a generation, by name.
    pub fn artifacts_at(&self, generation: u64) -> Result<Vec<(String, ArtifactRecord)>, ManifestError> {
        let mut names: Vec<String> = Vec::new();
        self.for_each(ARTIFACTS, &[], |key, _| {
            let (name, _) = self.artifact_and_generation(key)?;
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
            Ok(true)
        })?;
        let mut all = Vec::new();
        for name in names {
            if let Some(record) = self.artifact(&name, generation)? {
                all.push((name, record));
            }
        }
        Ok(all)
    }

    fn artifact_record(&self, key: &[u8], value: &[u8]) -> Result<ArtifactRecord, ManifestError> {
        let record: ArtifactRecord = self.parse(ARTIFACTS, key, value)?;
        match record.kind {
            // Below that no sum of rows overflows.
            SUMS_OF_ROWS | SUMS_OF_OBSERVED | SELF_INFLUENCE if record.gone < 1 << 62 => Ok(record),
            SUMS_OF_ROWS | SUMS_OF_OBSERVED | SELF_INFLUENCE => {
                Err(self.damaged(ARTIFACTS, key, &format!("{} rows that are gone", record.gone)))
            }
            kind => Err(self.damaged(ARTIFACTS, key, &format!("an artifact of kind {kind}"))),
        }
    }

    fn artifact_and_generation<'k>(&self, key: &'k [u8]) -> Result<(&'k str, u64), ManifestError> {
        parse_artifact_key(key).ok_or_else(|| self.damaged(ARTIFACTS, key, "not a name and 8 bytes"))
    }

    fn segment_and_generation(&self, key: &[u8]) -> Result<(Uuid, u64), ManifestError> {
        parse_deletes_key(key).ok_or_else(|| self.damaged(DELETES, key, "not a key of 24 bytes"))
    }

    fn generation(&self, family: &'static str, key: &[u8]) -> Result<u64, ManifestError> {
        let generation = key.try_into().map(u64::from_be_bytes);
        generation.map_err(|_| self.damaged(family, key, "not a key of 8 bytes"))
    }

    /// Calls `each` for every example, in the order of ids. Memory does not depend on their number.
    pub fn for_each_example(
        &self,
        mut each: impl FnMut(&[u8], ExampleHistory) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        self.for_each_example_from(&[], |id, history| {
            each(id, history)?;
            Ok(true)
        })
    }

    /// Calls `each` for every example from the id `start`, in the order of ids, until it returns `false`.
    pub fn for_each_example_from(
        &self,
        start: &[u8],
        mut each: impl FnMut(&[u8], ExampleHistory) -> Result<bool, ManifestError>,
    ) -> Result<(), ManifestError> {
        self.for_each(EXAMPLES, start, |id, value| {
            each(id, self.check_places(id, self.parse(EXAMPLES, id, value)?)?)
        })
    }

    /// Reads every block of every table, so that RocksDB checks their checksums.
    pub fn verify_checksums(&self) -> Result<(), ManifestError> {
        for family in FAMILIES {
            self.for_each(family, &[], |_, _| Ok(true))?;
        }
        Ok(())
    }

    pub fn batch(&self) -> Batch<'_> {
        Batch { manifest: self, batch: WriteBatch::default() }
    }

    fn family(&self, name: &'static str) -> Result<&rocksdb::ColumnFamily, ManifestError> {
        self.db.cf_handle(name).ok_or_else(|| self.damaged(name, b"", "the column family is missing"))
    }

    fn get<T: DeserializeOwned>(&self, family: &'static str, key: &[u8]) -> Result<Option<T>, ManifestError> {
        let handle = self.family(family)?;
        let value = self
            .db
            .get_pinned_cf(handle, key)
            .map_err(|source| database(&self.path, "read a record", source))?;
        value.map(|value| self.parse(family, key, &value)).transpose()
    }

    fn required<T: DeserializeOwned>(&self, family: &'static str, key: &[u8]) -> Result<T, ManifestError> {
        self.get(family, key)?.ok_or_else(|| self.damaged(family, key, "missing"))
    }

    /// Calls `each` for every record from `start` until it returns `false`.
    fn for_each(
        &self,
        family: &'static str,
        start: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, ManifestError>,
    ) -> Result<(), ManifestError> {
        let mut records = self.records(family)?;
        records.seek(start);
        while let Some((key, value)) = records.item() {
            if !each(key, value)? {
                return Ok(());
            }
            records.next();
        }
        self.check_status(&records)
    }

    fn records(&self, family: &'static str) -> Result<DBRawIterator<'_>, ManifestError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        Ok(self.db.raw_iterator_cf_opt(self.family(family)?, options))
    }

    /// A failed iterator looks like one at its end.
    fn check_status(&self, records: &DBRawIterator<'_>) -> Result<(), ManifestError> {
        records.status().map_err(|source| database(&self.path, "read records", source))
    }

    fn parse<T: DeserializeOwned>(
        &self,
        family: &'static str,
        key: &[u8],
        value: &[u8],
    ) -> Result<T, ManifestError> {
        decode(value).map_err(|undecoded| match undecoded {
            Undecoded::Damaged(reason) => self.damaged(family, key, &reason),
            Undecoded::Newer(found) => ManifestError::Newer {
                path: self.path.clone(),
                family,
                key: show(key),
                found,
                supported: RECORD_VERSION,
            },
        })
    }

    fn uuid(&self, family: &'static str, key: &[u8]) -> Result<Uuid, ManifestError> {
        Uuid::from_slice(key).map_err(|_| self.damaged(family, key, "not a key of 16 bytes"))
    }

    fn damaged(&self, family: &'static str, key: &[u8], reason: &str) -> ManifestError {
        let (path, key, reason) = (self.path.clone(), show(key), reason.to_owned());
        ManifestError::Damaged { path, family, key, reason }
    }
}

/// Changes that are applied atomically.
pub(crate) struct Batch<'a> {
    manifest: &'a Manifest,
    batch: WriteBatch,
}

impl Batch<'_> {
    pub fn put_state(&mut self, state: &StateRecord) -> Result<(), ManifestError> {
        self.put(META, STATE_KEY, state)
    }

    pub fn put_segment(&mut self, segment: Uuid, record: &SegmentRecord) -> Result<(), ManifestError> {
        self.put(SEGMENTS, segment.as_bytes(), record)
    }

    pub fn remove_segment(&mut self, segment: Uuid) -> Result<(), ManifestError> {
        self.remove(SEGMENTS, segment.as_bytes())
    }

    pub fn put_example(&mut self, id: &[u8], history: &ExampleHistory) -> Result<(), ManifestError> {
        if history.0.is_empty() { self.remove(EXAMPLES, id) } else { self.put(EXAMPLES, id, history) }
    }

    pub fn put_deletes(
        &mut self,
        segment: Uuid,
        generation: u64,
        dead: &RoaringBitmap,
    ) -> Result<(), ManifestError> {
        let mut bytes = Vec::with_capacity(dead.serialized_size());
        dead.serialize_into(&mut bytes)
            .map_err(|source| failed(&self.manifest.path, "encode a record", source))?;
        self.put(DELETES, &deletes_key(segment, generation), &DeletesRecord(bytes))
    }

    pub fn remove_deletes(&mut self, segment: Uuid, generation: u64) -> Result<(), ManifestError> {
        self.remove(DELETES, &deletes_key(segment, generation))
    }

    pub fn put_commit(&mut self, generation: u64, commit: &CommitRecord) -> Result<(), ManifestError> {
        self.put(COMMITS, &generation.to_be_bytes(), commit)
    }

    pub fn remove_commit(&mut self, generation: u64) -> Result<(), ManifestError> {
        self.remove(COMMITS, &generation.to_be_bytes())
    }

    /// Notes that `generation` has superseded the example's earlier versions.
    pub fn put_superseded(&mut self, generation: u64, id: &[u8]) -> Result<(), ManifestError> {
        self.put(SUPERSEDED, &superseded_key(generation, id), &SupersededRecord)
    }

    pub fn remove_superseded(&mut self, generation: u64, id: &[u8]) -> Result<(), ManifestError> {
        self.remove(SUPERSEDED, &superseded_key(generation, id))
    }

    pub fn put_artifact(
        &mut self,
        name: &str,
        generation: u64,
        record: &ArtifactRecord,
    ) -> Result<(), ManifestError> {
        self.put(ARTIFACTS, &artifact_key(name, generation), record)
    }

    pub fn remove_artifact(&mut self, name: &str, generation: u64) -> Result<(), ManifestError> {
        self.remove(ARTIFACTS, &artifact_key(name, generation))
    }

    pub fn put_intent(&mut self, segment: Uuid, time_ms: u64) -> Result<(), ManifestError> {
        self.put(INTENTS, segment.as_bytes(), &IntentRecord { time_ms })
    }

    pub fn remove_intent(&mut self, segment: Uuid) -> Result<(), ManifestError> {
        self.remove(INTENTS, segment.as_bytes())
    }

    /// Bytes of the batch so far.
    pub fn byte_len(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// Applies the batch durably. After an error it is unknown whether it was applied: the caller must reopen
    /// the manifest before writing again.
    pub fn apply(self) -> Result<(), ManifestError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        let path = &self.manifest.path;
        self.manifest.db.write_opt(self.batch, &options).map_err(|source| database(path, "commit", source))
    }

    fn put(
        &mut self,
        family: &'static str,
        key: &[u8],
        record: &impl Serialize,
    ) -> Result<(), ManifestError> {
        let value = encode(record)
            .map_err(|error| failed(&self.manifest.path, "encode a record", io::Error::other(error)))?;
        self.batch.put_cf(self.manifest.family(family)?, key, value);
        Ok(())
    }

    fn remove(&mut self, family: &'static str, key: &[u8]) -> Result<(), ManifestError> {
        self.batch.delete_cf(self.manifest.family(family)?, key);
        Ok(())
    }
}

fn database(path: &Path, operation: &'static str, source: rocksdb::Error) -> ManifestError {
    failed(path, operation, to_io(source))
}

fn failed(path: &Path, operation: &'static str, source: io::Error) -> ManifestError {
    ManifestError::Database { path: path.to_owned(), operation, source }
}

/// Converts RocksDB's error to one of the standard library, so that its type is not in the public API.
fn to_io(error: rocksdb::Error) -> io::Error {
    use rocksdb::ErrorKind;
    let kind = match error.kind() {
        ErrorKind::Corruption => io::ErrorKind::InvalidData,
        ErrorKind::Busy | ErrorKind::TryAgain => io::ErrorKind::ResourceBusy,
        ErrorKind::TimedOut => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.into_string())
}

/// The tables, the logs, and the files that list them.
fn database_files(folder: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if is_log(&name) || text.ends_with(".sst") || text.starts_with("MANIFEST-") || text == "CURRENT" {
            files.insert(name, entry.metadata()?.len());
        }
    }
    Ok(files)
}

fn is_log(name: &OsString) -> bool {
    name.to_string_lossy().ends_with(".log")
}

/// Whether only logs have grown between the two listings: then what was read in between is a consistent
/// state.
fn is_one_state(before: &Files, after: &Files) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((name, length), (other, later))| {
            name == other && (length == later || is_log(name) && length < later)
        })
}

/// A key for messages: as text if it is printable UTF-8, otherwise in hexadecimal.
fn show(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
