//! A read view of one generation.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use roaring::RoaringBitmap;
use uuid::Uuid;

use super::Shared;
use super::coverage::covered;
use super::error::{GetError, SnapshotError, hex};
use super::readable::Pin;
use crate::curvature::{Conditioner, Covered, Curvature};
use crate::lock::lock;
use crate::manifest::{
    ArtifactRecord, Location, Manifest, ManifestError, SUMS_OF_OBSERVED, SUMS_OF_ROWS, SegmentRecord,
};
use crate::scan::{CancelToken, ExampleRows, Lookup, RowLengths, Scan, ScanError};
use crate::schema::Schema;
use crate::segment::{Kind, LiveSegment, RowGroup, SegmentError, SegmentReader, Span};
use crate::sketch::{Sketch, SketchSpec};

/// A read view of one generation of an index. Cheap to clone; `Send` and `Sync`.
///
/// In this process, a snapshot pins its generation: its files stay readable whatever is appended, deleted,
/// compacted or collected meanwhile. For other processes see [`GcOptions::grace`](crate::GcOptions::grace).
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    generation: u64,
    segments: Vec<LiveSegment>,
    records: Vec<SegmentRecord>,
    ordinals: HashMap<Uuid, usize>,
    /// Which rows each artifact covers, once somebody has asked.
    covered: Mutex<HashMap<String, Covered>>,
    /// The manifest view that the snapshot was taken from. `None` if that is the writer's manifest, which
    /// moves on: there the pin keeps the generation from being collected.
    view: Option<Arc<Manifest>>,
    _pin: Pin,
}

/// A commit that made a generation. `Serialize` with the feature `serde`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LoggedCommit {
    /// The generation.
    pub generation: u64,
    /// When: milliseconds since 1970, by the clock of the writer's machine.
    pub time_ms: u64,
    /// Rows appended.
    pub appended: u64,
    /// Rows deleted, including those of replaced examples.
    pub deleted: u64,
    /// Segments that came.
    pub segments_added: u32,
    /// Segments that a compaction replaced.
    pub segments_removed: u32,
    /// Bytes of the payload.
    pub payload_bytes: u64,
}

/// An example with all its rows, read back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Example {
    /// The id.
    pub id: Vec<u8>,
    /// Its rows, in the order in which they were appended.
    pub rows: Vec<ExampleRow>,
}

/// One row of an example.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExampleRow {
    /// The part of the example that it stands for.
    pub span: Span,
    /// The source label, if the row has one.
    pub source: Option<String>,
    /// The caller's metadata.
    pub metadata: Vec<u8>,
    /// The decoded values. Unless the encoding is `f32`, they are rounded.
    pub sketch: Sketch,
    /// The L2 norm of each block's stored values, in the spec's order.
    pub norms: Vec<f32>,
}

impl ExampleRow {
    /// Whether all values are zero. The cosine of such a row with any query is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.norms.iter().all(|&norm| norm == 0.0)
    }
}

/// The maximum number of attempts to load a snapshot. A writer in another process may collect a segment
/// file between the read of the manifest and the open of the file; then the manifest has changed, and the
/// reader loads it again. This happens more than once only if the writer collects without a grace time.
const ATTEMPTS: usize = 1000;

impl Snapshot {
    pub(super) fn take(shared: &Arc<Shared>, asked: Option<u64>) -> Result<Self, SnapshotError> {
        let mut attempt = 1;
        loop {
            match Self::load(shared, asked) {
                Err(SnapshotError::Segment(SegmentError::Io { source, .. }))
                    if source.kind() == std::io::ErrorKind::NotFound
                        && attempt < ATTEMPTS
                        && !shared.is_current()? =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn load(shared: &Arc<Shared>, asked: Option<u64>) -> Result<Self, SnapshotError> {
        let view = shared.current_view()?;
        let pin = Pin::new(shared, &view, asked)?;
        let (manifest, generation) = (&view.manifest, pin.generation);
        let mut visible: Vec<_> = manifest.segments()?;
        visible.retain(|(_, record)| record.is_visible(generation));
        // In the order of appending, so that scans and listings are stable.
        visible.sort_by_key(|(segment, record)| (record.added, record.ordinal, *segment));
        let mut segments = Vec::with_capacity(visible.len());
        let mut ordinals = HashMap::with_capacity(visible.len());
        for (ordinal, (segment, record)) in visible.iter().enumerate() {
            let reader = shared.reader(*segment)?;
            if u64::from(reader.rows()) != record.rows || reader.bytes() != record.bytes {
                return Err(SnapshotError::OtherSegment {
                    file: reader.file().to_owned(),
                    rows: u64::from(reader.rows()),
                    bytes: reader.bytes(),
                    expected_rows: record.rows,
                    expected_bytes: record.bytes,
                });
            }
            let dead = Arc::new(manifest.dead(*segment, generation)?);
            if dead.max().is_some_and(|row| row >= reader.rows()) {
                return Err(SnapshotError::DeadRows { segment: *segment, rows: reader.rows() });
            }
            ordinals.insert(*segment, ordinal);
            segments.push(LiveSegment { reader, dead });
        }
        let records = visible.into_iter().map(|(_, record)| record).collect();
        let shared = Arc::clone(shared);
        let view = view.is_fixed().then_some(view.manifest);
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                generation,
                segments,
                records,
                ordinals,
                covered: Mutex::default(),
                view,
                _pin: pin,
            }),
        })
    }

    /// The generation of this view.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// The schema: the sketch spec, the encodings and the tiers.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.inner.shared.identity.schema
    }

    /// The number of live rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inner.segments.iter().map(|segment| u64::from(segment.reader.rows()) - segment.dead.len()).sum()
    }

    /// The payload of the commit that made this generation; empty for generation 0.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn payload(&self) -> Result<Vec<u8>, ManifestError> {
        let commit = self.manifest()?.commit(self.inner.generation)?;
        Ok(commit.map(|commit| commit.payload).unwrap_or_default())
    }

    /// The payload of an earlier commit, or of this one; `None` if the generation does not exist, or has been collected.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn payload_of(&self, generation: u64) -> Result<Option<Vec<u8>>, ManifestError> {
        if generation > self.inner.generation {
            return Ok(None);
        }
        Ok(self.manifest()?.commit(generation)?.map(|commit| commit.payload))
    }

    /// Whether there is an example with this id. Reads the manifest only.
    ///
    /// # Errors
    /// The manifest cannot be read, or another process has collected this generation.
    pub fn contains(&self, id: impl AsRef<[u8]>) -> Result<bool, GetError> {
        Ok(self.find(id.as_ref())?.is_some())
    }

    /// The commits up to this generation, the oldest first, as far as they have not been collected. Their payloads are
    /// read with [`Snapshot::payload_of`].
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn commits(&self) -> Result<Vec<LoggedCommit>, ManifestError> {
        let mut all = Vec::new();
        self.manifest()?.for_each_commit(|generation, commit| {
            let is_seen = generation <= self.inner.generation;
            if is_seen {
                all.push(LoggedCommit {
                    generation,
                    time_ms: commit.time_ms,
                    appended: commit.appended,
                    deleted: commit.deleted,
                    segments_added: commit.segments_added,
                    segments_removed: commit.segments_removed,
                    payload_bytes: commit.payload.len() as u64,
                });
            }
            Ok(is_seen)
        })?;
        Ok(all)
    }

    /// Reads the example with this id; `None` if there is none.
    ///
    /// # Errors
    /// The manifest or a segment cannot be read or is damaged, or another process has collected
    /// this generation.
    pub fn get(&self, id: impl AsRef<[u8]>) -> Result<Option<Example>, GetError> {
        let id = id.as_ref();
        let Some((segment, location)) = self.find(id)? else { return Ok(None) };
        let reader = &self.inner.segments[segment].reader;
        let misplaced = |row| GetError::Misplaced { id: id.to_owned(), segment: reader.segment(), row };
        let first = location.first_row;
        let (group, start) = reader.locate(first).ok_or_else(|| misplaced(first))?;
        let rows = start..start + location.rows as usize;
        let mut group_rows = RowGroup::with_rows(reader, group, rows.clone())?;
        if rows.end > group_rows.len() || rows.clone().any(|row| group_rows.id(row) != id) {
            return Err(misplaced(first));
        }
        let spec = Arc::new(self.schema().spec().clone());
        let read = |row| read_row(reader, &spec, group, &mut group_rows, row);
        let rows = rows.map(read).collect::<Result<_, _>>()?;
        Ok(Some(Example { id: id.to_owned(), rows }))
    }

    /// Ranks the rows of this generation for a batch of queries, in one pass. Returns a builder; nothing is
    /// read before [`Scan::run`].
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::options().create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # writer.append("far", &Sketch::dense(spec.clone(), vec![0.0, 1.0])?)?;
    /// # writer.append("near", &Sketch::dense(spec.clone(), vec![3.0, 4.0])?)?;
    /// # writer.commit()?;
    /// let query = Sketch::dense(spec, vec![1.0, 0.5])?;
    /// let ranking = index.snapshot()?.scan(&[query])?.top_k(1).run()?;
    /// assert_eq!((&ranking.proponents(0)[0].id[..], ranking.proponents(0)[0].score), (&b"near"[..], 5.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no query, or the index does not take queries of a query's spec
    /// ([`SketchSpec::takes_queries_of`](crate::sketch::SketchSpec::takes_queries_of)), or its norm is too large.
    pub fn scan<'a>(&'a self, queries: &'a [Sketch]) -> Result<Scan<'a>, ScanError> {
        Scan::new(self.segments(), self.schema(), &self.inner.shared.feedback, self, queries)
    }

    /// Where an example is: the ordinal of its segment, and its rows there.
    pub(crate) fn find(&self, id: &[u8]) -> Result<Option<(usize, Location)>, GetError> {
        let Inner { generation, ordinals, segments, .. } = &*self.inner;
        let manifest = self.manifest()?;
        let history = manifest.example(id)?;
        let oldest = manifest.state()?.oldest;
        if oldest > *generation {
            return Err(GetError::Expired { generation: *generation, oldest });
        }
        let Some(location) = history.and_then(|history| history.at(*generation)) else { return Ok(None) };
        let is_within = |&&ordinal: &&usize| location.end() <= u64::from(segments[ordinal].reader.rows());
        match ordinals.get(&location.segment()).filter(is_within) {
            Some(&ordinal) => Ok(Some((ordinal, location))),
            None => {
                let (segment, row) = (location.segment(), location.first_row);
                Err(GetError::Misplaced { id: id.to_owned(), segment, row })
            }
        }
    }

    /// A manifest that contains this generation.
    pub(super) fn manifest(&self) -> Result<Arc<Manifest>, ManifestError> {
        match &self.inner.view {
            Some(view) => Ok(Arc::clone(view)),
            None => self.inner.shared.manifest(),
        }
    }

    /// The artifacts of this generation, by name.
    pub(super) fn artifacts(&self) -> Result<Vec<(String, ArtifactRecord)>, ManifestError> {
        self.manifest()?.artifacts_at(self.inner.generation)
    }

    /// Which rows of this generation an artifact covers; `record` is the one of the generation.
    pub(super) fn covered(&self, name: &str, record: &ArtifactRecord) -> Result<Covered, ManifestError> {
        if let Some(covered) = lock(&self.inner.covered).get(name) {
            return Ok(*covered);
        }
        let coverage = self.manifest()?.coverage(name, record)?;
        let covered = covered(&coverage, self.segments(), record.gone);
        lock(&self.inner.covered).insert(name.to_owned(), covered);
        Ok(covered)
    }

    /// The segment of this UUID, if the generation has it.
    pub(super) fn segment(&self, segment: Uuid) -> Option<&LiveSegment> {
        self.inner.segments.get(*self.inner.ordinals.get(&segment)?)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    pub(crate) fn segments(&self) -> &[LiveSegment] {
        &self.inner.segments
    }

    pub(crate) fn records(&self) -> &[SegmentRecord] {
        &self.inner.records
    }

    /// The snapshot's segments and artifacts as JSON, in the format of `format-spec/manifest.md`: a reader without RocksDB
    /// finds files, digests, and dead and covered rows in it.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn listing(&self) -> Result<String, ManifestError> {
        let segments: Vec<_> = self.inner.segments.iter().zip(&self.inner.records).map(listed).collect();
        let manifest = self.manifest()?;
        let mut artifacts = Vec::new();
        for (name, record) in self.artifacts()? {
            let Some(file) = record.file else { continue };
            let covered = manifest.coverage(&name, &record)?;
            let covered: Vec<_> = covered
                .iter()
                .map(|(segment, rows)| serde_json::json!({"file": segment_file(*segment), "rows": ranges(rows)}))
                .collect();
            artifacts.push(serde_json::json!({
                "name": name,
                "file": format!("artifacts/{}", crate::artifact::file_name(file.artifact())),
                "bytes": file.bytes,
                "sha256": hex(&file.sha256),
                "kind": match record.kind {
                    SUMS_OF_ROWS => "rows",
                    SUMS_OF_OBSERVED => "observed",
                    _ => "self_influence",
                },
                "gone": record.gone,
                "covered": covered,
            }));
        }
        let listing = serde_json::json!({
            "format": "gradix-listing-1",
            "index": self.inner.shared.identity.index.to_string(),
            "generation": self.inner.generation,
            "schema_digest": hex(&self.inner.shared.identity.schema_digest),
            "segments": segments,
            "artifacts": artifacts,
        });
        Ok(listing.to_string())
    }
}

impl Lookup for Snapshot {
    fn find(&self, id: &[u8]) -> Result<Option<ExampleRows>, ScanError> {
        let found = Self::find(self, id).map_err(|source| ScanError::Lookup { source: Box::new(source) })?;
        Ok(found.map(|(segment, location)| ExampleRows {
            segment,
            rows: location.first_row..location.first_row + location.rows,
        }))
    }

    fn conditioner(
        &self,
        curvature: &Curvature,
        blocks: &[usize],
        cancel: &CancelToken,
    ) -> Result<Conditioner, ScanError> {
        match Self::conditioner(self, curvature, blocks, &|| cancel.is_cancelled()) {
            Err(_) if cancel.is_cancelled() => Err(ScanError::Cancelled),
            other => Ok(other?),
        }
    }

    fn self_influence(&self, curvature: &Curvature, sums: Uuid) -> Result<Arc<dyn RowLengths>, ScanError> {
        Ok(Arc::new(self.row_lengths(curvature, sums)?))
    }
}

/// Rows as half-open ranges.
fn ranges(rows: &RoaringBitmap) -> Vec<(u32, u64)> {
    let mut ranges: Vec<(u32, u64)> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some((_, end)) if *end == u64::from(row) => *end += 1,
            _ => ranges.push((row, u64::from(row) + 1)),
        }
    }
    ranges
}

fn segment_file(segment: Uuid) -> String {
    format!("segments/{}", crate::segment::file_name(segment))
}

fn listed((segment, record): (&LiveSegment, &SegmentRecord)) -> serde_json::Value {
    serde_json::json!({
        "file": segment_file(segment.reader.segment()),
        "rows": record.rows,
        "bytes": record.bytes,
        "sha256": hex(&record.sha256),
        "dead": ranges(&segment.dead),
    })
}

fn read_row(
    reader: &SegmentReader,
    spec: &Arc<SketchSpec>,
    group: usize,
    rows: &mut RowGroup<'_>,
    row: usize,
) -> Result<ExampleRow, SegmentError> {
    let sketch = read_sketch(reader, spec, group, rows, row)?;
    let tags = rows.tags(row);
    Ok(ExampleRow {
        span: tags.span,
        source: tags.source.map(str::to_owned),
        metadata: tags.metadata.to_vec(),
        sketch,
        norms: rows.norms(row)?,
    })
}

/// Decodes a row of a row group.
pub(super) fn read_sketch(
    reader: &SegmentReader,
    spec: &Arc<SketchSpec>,
    group: usize,
    rows: &mut RowGroup<'_>,
    row: usize,
) -> Result<Sketch, SegmentError> {
    let mut values = vec![0f32; spec.dims()];
    rows.row(row)?.decode(&mut values);
    Sketch::dense(Arc::clone(spec), values)
        .map_err(|error| reader.fault(Kind::Codes, group, 0, format!("row {row}: {error}")))
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.inner.generation)
            .field("segments", &self.inner.segments.len())
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}
