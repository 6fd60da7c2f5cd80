//! Reads the rows of a snapshot one after the other, without ranking them.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::error::GetError;
use super::snapshot::Snapshot;
use crate::schema::Schema;
use crate::segment::{ByteStrings, Kind, NO_SOURCE, SegmentError, SegmentReader, Span};
use crate::sketch::{Sketch, SketchSpec};

/// One row of an index, as [`Snapshot::iter`] reads it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredRow {
    /// The example's id.
    pub id: Vec<u8>,
    /// The part of the example that the row stands for.
    pub span: Span,
    /// The label of where the example came from.
    pub source: Option<String>,
    /// The caller's metadata.
    pub metadata: Vec<u8>,
    /// The L2 norm of each block.
    pub norms: Vec<f32>,
    /// The numbers as stored, if they were asked for with [`Rows::with_sketches`].
    pub sketch: Option<Sketch>,
}

impl StoredRow {
    /// Whether all its numbers are zero: its cosine with anything is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.norms.iter().all(|&norm| norm == 0.0)
    }
}

/// The rows of a snapshot that are not deleted, in row order: segments in the order in which they were
/// committed, and the rows of each as they were appended. Made by [`Snapshot::iter`].
///
/// An item is an error where a segment cannot be read or is damaged; no other item follows it.
///
/// Memory: the ids, spans, sources, metadata, scales and norms of one row group (its codes have about
/// 32 MiB, and are not loaded), and the row that is returned; it does not depend on the size of the index.
#[derive(Debug, Clone)]
#[must_use = "iterators do nothing until they are consumed"]
pub struct Rows {
    snapshot: Snapshot,
    spec: Arc<SketchSpec>,
    with_sketches: bool,
    /// Where the next row is looked for: the ordinal of the segment, of its row group, of the row there.
    segment: usize,
    group: usize,
    row: usize,
    /// The columns of that row group, once one of its rows was read.
    columns: Option<Arc<GroupColumns>>,
    remaining: u64,
}

impl Rows {
    fn new(snapshot: Snapshot) -> Self {
        let (spec, remaining) = (Arc::new(snapshot.schema().spec().clone()), snapshot.rows());
        Self { snapshot, spec, with_sketches: false, segment: 0, group: 0, row: 0, columns: None, remaining }
    }

    /// Reads the sketches too. Without them no codes are read, which are nearly all of an index's bytes.
    pub fn with_sketches(mut self) -> Self {
        self.with_sketches = true;
        self
    }

    fn read_next(&mut self) -> Result<Option<StoredRow>, SegmentError> {
        while let Some(segment) = self.snapshot.segments().get(self.segment) {
            let Some(group) = segment.reader.groups().get(self.group) else {
                (self.segment, self.group) = (self.segment + 1, 0);
                continue;
            };
            let alive = |row: &u32| !segment.dead.contains(group.first_row + row);
            let first = u32::try_from(self.row).unwrap_or(u32::MAX);
            let Some(row) = (first..group.rows).find(alive) else {
                (self.group, self.row, self.columns) = (self.group + 1, 0, None);
                continue;
            };
            let row = row as usize;
            let schema = self.snapshot.schema();
            let columns = match &mut self.columns {
                Some(columns) => columns,
                none => none.insert(Arc::new(GroupColumns::read(&segment.reader, schema, self.group)?)),
            };
            self.row = row + 1;
            let mut read = columns.row(row);
            if self.with_sketches {
                read.sketch = Some(columns.sketch(schema, &self.spec, row)?);
            }
            return Ok(Some(read));
        }
        Ok(None)
    }
}

impl Iterator for Rows {
    type Item = Result<StoredRow, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read_next() {
            Ok(row) => {
                self.remaining = self.remaining.saturating_sub(1);
                row.map(Ok)
            }
            Err(error) => {
                (self.segment, self.columns, self.remaining) = (usize::MAX, None, 0);
                Some(Err(error.into()))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends it before all rows were read.
        (self.remaining.min(1) as usize, usize::try_from(self.remaining).ok())
    }
}

impl FusedIterator for Rows {}

/// The small columns of one row group, and the way to its codes.
struct GroupColumns {
    reader: Arc<SegmentReader>,
    group: usize,
    ids: ByteStrings,
    spans: Vec<Span>,
    sources: Vec<u32>,
    metadata: ByteStrings,
    /// For each block: of each row; no scales where the encoding has none.
    scales: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
}

impl GroupColumns {
    fn read(reader: &Arc<SegmentReader>, schema: &Schema, group: usize) -> Result<Self, SegmentError> {
        let blocks = 0..schema.encodings().len();
        Ok(Self {
            ids: reader.ids(group)?,
            spans: reader.spans(group)?,
            sources: reader.sources(group)?,
            metadata: reader.metadata(group)?,
            scales: blocks.clone().map(|block| reader.scales(group, block)).collect::<Result<_, _>>()?,
            norms: blocks.map(|block| reader.norms(group, block)).collect::<Result<_, _>>()?,
            reader: Arc::clone(reader),
            group,
        })
    }

    /// A row without its sketch.
    fn row(&self, row: usize) -> StoredRow {
        let source = match self.sources[row] {
            NO_SOURCE => None,
            source => self.reader.source_names().get(source as usize).cloned(),
        };
        StoredRow {
            id: self.ids.get(row).to_vec(),
            span: self.spans[row],
            source,
            metadata: self.metadata.get(row).to_vec(),
            norms: self.norms.iter().map(|norms| norms[row]).collect(),
            sketch: None,
        }
    }

    fn sketch(&self, schema: &Schema, spec: &Arc<SketchSpec>, row: usize) -> Result<Sketch, SegmentError> {
        let mut values = vec![0f32; spec.dims()];
        for ((block, range), &encoding) in spec.ranges().enumerate().zip(schema.encodings()) {
            let codes = self.reader.codes_of(self.group, block, row..row + 1)?;
            let scale = self.scales[block].get(row).copied().unwrap_or(1.0);
            encoding.decode(codes.row(0), scale, &mut values[range]);
        }
        Sketch::dense(Arc::clone(spec), values)
            .map_err(|error| self.reader.fault(Kind::Codes, self.group, 0, format!("row {row}: {error}")))
    }
}

impl fmt::Debug for GroupColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupColumns").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Reads the rows one after the other, in row order, without ranking them and without loading the
    /// index: ids, spans, sources, metadata and norms, and with [`Rows::with_sketches`] the sketches.
    ///
    /// The iterator holds the snapshot, and can be moved to another thread.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Row, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # let sketch = Sketch::dense(spec, vec![3.0, 4.0])?;
    /// # writer.append_rows("a", &[Row::new(&sketch).source("wiki")])?;
    /// # writer.append("b", &sketch)?;
    /// # writer.commit()?;
    /// let snapshot = index.snapshot()?;
    /// for row in &snapshot {
    ///     let row = row?;
    ///     println!("{:?} {} {:?} {:?}", row.id, row.span, row.source, row.norms);
    /// }
    /// let wiki = snapshot.iter().with_sketches().filter(|row| {
    ///     row.as_ref().map_or(true, |row| row.source.as_deref() == Some("wiki"))
    /// });
    /// let rows = wiki.collect::<gradix::Result<Vec<_>, _>>()?;
    /// assert_eq!((rows.len(), &rows[0].id[..]), (1, &b"a"[..]));
    /// assert_eq!(rows[0].sketch.as_ref().map(Sketch::values), Some(&[3.0, 4.0][..]));
    /// # Ok::<(), gradix::Error>(())
    /// ```
    pub fn iter(&self) -> Rows {
        Rows::new(self.clone())
    }
}

impl IntoIterator for &Snapshot {
    type Item = Result<StoredRow, GetError>;
    type IntoIter = Rows;

    fn into_iter(self) -> Rows {
        self.iter()
    }
}
