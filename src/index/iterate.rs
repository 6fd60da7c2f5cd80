//! Iterates over the rows of a snapshot in row order, without ranking them.

use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;

use super::curvature::SelfInfluence;
use super::error::GetError;
use super::snapshot::{Snapshot, read_sketch};
use crate::curvature::{Curvature, CurvatureError};
use crate::segment::{LiveSegment, RowGroup, Span};
use crate::sketch::{Sketch, SketchSpec};

/// One row of an index. An item of [`Rows`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredRow {
    /// The example's id.
    pub id: Vec<u8>,
    /// The part of the example that the row stands for.
    pub span: Span,
    /// The source label, if the row has one.
    pub source: Option<String>,
    /// The caller's metadata.
    pub metadata: Vec<u8>,
    /// The L2 norm of each block's stored values, in the spec's order.
    pub norms: Vec<f32>,
    /// The decoded values, if [`Rows::with_sketches`] was called.
    pub sketch: Option<Sketch>,
    /// The self-influence, the sum over all blocks, if [`Rows::with_self_influence`] was called.
    pub self_influence: Option<f64>,
}

impl StoredRow {
    /// Whether all values are zero. The cosine of such a row with any query is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.norms.iter().all(|&norm| norm == 0.0)
    }
}

/// Iterator over the live rows of a snapshot. Made by [`Snapshot::iter`].
///
/// Row order is the order of appending and attaching: commit after commit, and within a commit row after row. Rows
/// that were compacted stand where the compaction's own commit does. The rows of an example are adjacent.
///
/// An item is an error if a segment cannot be read or is damaged. Iteration ends after an error.
///
/// Memory: the ids, spans, sources, metadata, scales and norms of one row group, and the returned row;
/// independent of the size of the index.
#[derive(Debug)]
#[must_use = "iterators do nothing until they are consumed"]
pub struct Rows<'a> {
    snapshot: &'a Snapshot,
    spec: Arc<SketchSpec>,
    with_sketches: bool,
    only: Option<Only<'a>>,
    self_influence: Option<SelfInfluence>,
    /// Position of the next row: the ordinals of its segment, of its row group in that, and of the row in
    /// that.
    segment: usize,
    group: usize,
    row: usize,
    /// That row group, once one of its rows has been read.
    open: Option<RowGroup<'a>>,
    /// The self-influence of that group's rows.
    of_group: Vec<f64>,
    remaining: u64,
}

/// Which rows are wanted, by id, span and source.
struct Only<'a>(Wanted<'a>);

type Wanted<'a> = Box<dyn FnMut(&[u8], Span, Option<&str>) -> bool + Send + 'a>;

impl std::fmt::Debug for Only<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Only")
    }
}

impl<'a> Rows<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let (spec, remaining) = (Arc::new(snapshot.schema().spec().clone()), snapshot.rows());
        Self {
            snapshot,
            spec,
            with_sketches: false,
            only: None,
            self_influence: None,
            segment: 0,
            group: 0,
            row: 0,
            open: None,
            of_group: Vec::new(),
            remaining,
        }
    }

    /// Reads the sketches too. By default no codes are read; codes are nearly all of an index's bytes.
    pub fn with_sketches(mut self) -> Self {
        self.with_sketches = true;
        self
    }

    /// Only rows of which `wanted` says so, by id, span and source. Codes and norms of others are not read.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # for id in ["news/1", "wiki/1"] {
    /// #     writer.append(id, &Sketch::dense(spec.clone(), vec![1.0])?)?;
    /// # }
    /// # writer.commit()?;
    /// let snapshot = index.snapshot()?;
    /// let wiki = snapshot.iter().with_sketches().only(|id, _span, _source| id.starts_with(b"wiki/"));
    /// assert_eq!(wiki.count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn only(mut self, wanted: impl FnMut(&[u8], Span, Option<&str>) -> bool + Send + 'a) -> Self {
        self.only = Some(Only(Box::new(wanted)));
        self
    }

    /// Reads the self-influence of the rows too, as [`Writer::fit_self_influence`](crate::Writer::fit_self_influence) has
    /// computed it with this curvature, κ and rank. Where a row has none, because it was appended or moved since, the
    /// iteration ends with an error.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// use gradix::{Curvature, FitOptions, SelfInfluenceOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// for (id, values) in [("a", [3.0, 0.0]), ("b", [3.1, 0.1]), ("odd", [0.0, 3.0]), ("c", [2.9, 0.0])] {
    ///     writer.append(id, &Sketch::dense(spec.clone(), values.to_vec())?)?;
    /// }
    /// writer.commit()?;
    /// writer.fit_curvature(FitOptions::default())?;
    /// writer.fit_self_influence(SelfInfluenceOptions::default())?;
    /// let snapshot = index.snapshot()?;
    /// let rows = snapshot.iter().with_self_influence(&Curvature::default())?.collect::<Result<Vec<_>, _>>()?;
    /// let highest = rows.iter().max_by(|a, b| a.self_influence.partial_cmp(&b.self_influence).unwrap());
    /// assert_eq!(highest.map(|row| &row.id[..]), Some(&b"odd"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Nothing was computed with this curvature, κ and rank, or it cannot be read.
    pub fn with_self_influence(mut self, curvature: &Curvature) -> Result<Self, CurvatureError> {
        self.self_influence = Some(self.snapshot.self_influence(curvature)?);
        Ok(self)
    }

    /// The self-influence of the rows of a group: the sum over the blocks.
    fn read_self_influence(&self, segment: &LiveSegment, rows: Range<u32>) -> Result<Vec<f64>, GetError> {
        let mut sums = vec![0f64; if self.self_influence.is_some() { rows.len() } else { 0 }];
        let Some(source) = &self.self_influence else { return Ok(sums) };
        for block in 0..self.spec.blocks().len() {
            let roots = source.roots(segment.reader.segment(), block, rows.clone());
            let roots = roots.map_err(|source| GetError::SelfInfluence { source: Box::new(source) })?;
            for (sum, root) in sums.iter_mut().zip(roots) {
                *sum += f64::from(root) * f64::from(root);
            }
        }
        Ok(sums)
    }

    fn read_next(&mut self) -> Result<Option<StoredRow>, GetError> {
        while let Some(segment) = self.snapshot.segments().get(self.segment) {
            let Some(group) = segment.reader.groups().get(self.group) else {
                (self.segment, self.group) = (self.segment + 1, 0);
                continue;
            };
            let alive = |row: &u32| !segment.dead.contains(group.first_row + row);
            let first = u32::try_from(self.row).unwrap_or(u32::MAX);
            let Some(row) = (first..group.rows).find(alive) else {
                (self.group, self.row, self.open) = (self.group + 1, 0, None);
                continue;
            };
            let row = row as usize;
            if self.open.is_none() {
                self.of_group = self.read_self_influence(segment, group.range())?;
            }
            let rows = match &mut self.open {
                Some(rows) => rows,
                none => none.insert(RowGroup::open(&segment.reader, self.group)?),
            };
            self.row = row + 1;
            if let Some(Only(wanted)) = &mut self.only {
                let tags = rows.tags(row);
                if !wanted(rows.id(row), tags.span, tags.source) {
                    self.remaining = self.remaining.saturating_sub(1);
                    continue;
                }
            }
            let sketch = match self.with_sketches {
                true => Some(read_sketch(&segment.reader, &self.spec, self.group, rows, row)?),
                false => None,
            };
            let tags = rows.tags(row);
            return Ok(Some(StoredRow {
                id: rows.id(row).to_vec(),
                span: tags.span,
                source: tags.source.map(str::to_owned),
                metadata: tags.metadata.to_vec(),
                norms: rows.norms(row)?,
                sketch,
                self_influence: self.of_group.get(row).copied(),
            }));
        }
        Ok(None)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<StoredRow, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read_next() {
            Ok(row) => {
                self.remaining = self.remaining.saturating_sub(1);
                row.map(Ok)
            }
            Err(error) => {
                (self.segment, self.open, self.remaining) = (usize::MAX, None, 0);
                Some(Err(error))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the iteration early.
        let least = if self.only.is_some() { 0 } else { self.remaining.min(1) as usize };
        (least, usize::try_from(self.remaining).ok())
    }
}

impl FusedIterator for Rows<'_> {}

impl Snapshot {
    /// Iterates over the live rows in row order, without ranking them and without loading the index. Each
    /// item has id, span, source, metadata and norms; [`Rows::with_sketches`] adds the sketch.
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
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Rows<'_> {
        Rows::new(self)
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = Result<StoredRow, GetError>;
    type IntoIter = Rows<'a>;

    fn into_iter(self) -> Rows<'a> {
        self.iter()
    }
}
